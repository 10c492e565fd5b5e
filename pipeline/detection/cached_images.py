"""Images as training reads them, over and over: fitted to the input once, then taken from memory.

A training set is read every epoch, four images for one with mosaic, and decoding and resizing are the greater part of
it. The transforms here take the place of mmdet's and put out the same bytes:

    LoadFitted          LoadImageFromFile, then Resize(scale, keep_ratio=True)
    FittedMosaic        Mosaic, for images that LoadFitted has fitted
    HSVByTable          YOLOXHSVRandomAug
    PackChannelsLast    PackDetInputs: the same tensor, in the memory layout the image had all along
    stack_channels_last pseudo_collate: one tensor in place of a list, in the memory layout the model asks for

Fitting comes first, before colour and flips, as in Megvii's YOLOX (`COCODataset.load_resized_img`); mmdet's configs
resize last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform, to_tensor
from mmengine.registry import FUNCTIONS
from numpy.typing import NDArray

from pipeline.detection import mmcv_ops
from pipeline.errors import DataError

mmcv_ops.install()  # importing mmdet needs it

from mmdet.datasets.transforms import Mosaic, PackDetInputs, YOLOXHSVRandomAug  # noqa: E402
from mmdet.registry import TRANSFORMS  # noqa: E402

Image = NDArray[np.uint8]
PLACES = ("top_left", "top_right", "bottom_left", "bottom_right")  # as mmdet's Mosaic fills them


@dataclass(frozen=True)
class Fitted:
    """An image that fits a scale with its ratio kept.

    Attributes:
        image: `(h, w, 3)`, BGR.
        shape: Height and width of the original in pixels.
    """

    image: Image
    shape: tuple[int, int]

    @property
    def scale_factor(self) -> tuple[float, float]:
        """What a width and a height of the original are to be multiplied by; sides are rounded apart."""
        return self.image.shape[1] / self.shape[1], self.image.shape[0] / self.shape[0]


def read_fitted(path: str, scale: tuple[int, int]) -> Fitted:
    """Decode an image and resize it, smaller or larger, to the largest that fits.

    Pixels are those of mmdet's `LoadImageFromFile` and `Resize`: EXIF orientation applied, bilinear. A line so thin
    that it would round to nothing, for which mmdet has no answer, keeps one pixel, as in the service.

    Args:
        path: Of an image file.
        scale: Width and height to fit, as mmdet takes them: the longer one bounds the image's longer side.

    Raises:
        DataError: The file cannot be read, or is no image.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError("an image cannot be read", where=path, expected="an image file") from error
    # of no bytes at all OpenCV would make an error of its own
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if image is None:
        raise DataError("an image cannot be decoded", where=path, expected="a whole image of a format OpenCV reads")
    height, width = image.shape[:2]
    across, down = mmcv.rescale_size((width, height), scale)
    fitted = mmcv.imresize(image, (max(1, across), max(1, down)), interpolation="bilinear", backend="cv2")
    return Fitted(fitted, (height, width))


@TRANSFORMS.register_module()
class LoadFitted(BaseTransform):  # type: ignore[misc]  # mmcv is untyped
    """Loads an image fitted to a scale, from memory when it has been loaded before.

    Images are kept until the memory is used up, and then no more are. To drop the least recently used instead would be
    of no use: every image is read once an epoch, in an order that has nothing to do with the last one's, so that in a
    set too large most images would be dropped before their turn came again.

    The memory is this transform's own, and goes with it: what another training reads, at the same path or not, is
    never mixed up with it. A copy, and with it every worker process that is spawned, starts with nothing kept.

    Boxes that are loaded already, so where `LoadAnnotations` comes before, are scaled and clipped as `Resize` would;
    those loaded later stay in pixels of the original, as evaluation wants them.

    Args:
        scale: Width and height to fit.
        memory: Bytes of fitted images to keep, in each process that loads.
    """

    def __init__(self, scale: tuple[int, int], memory: int = 0) -> None:
        self.scale = scale
        self.memory = memory
        self._kept: dict[str, Fitted] = {}
        self._free = memory

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Set `img`, `img_shape`, `ori_shape`, `scale`, `scale_factor`, `keep_ratio` and `homography_matrix`.

        Args:
            results: With `img_path`, and perhaps `gt_bboxes`.

        Raises:
            DataError: The file cannot be read, or is no image.
        """
        fitted = self._fitted(results["img_path"])
        shape, (across, down) = fitted.image.shape[:2], fitted.scale_factor
        results["img"] = fitted.image.copy()  # later transforms write into it
        results["img_shape"], results["ori_shape"] = shape, fitted.shape
        results["scale"], results["scale_factor"], results["keep_ratio"] = self.scale, (across, down), True
        results["homography_matrix"] = np.diag([across, down, 1]).astype(np.float32)
        if "gt_bboxes" in results:
            results["gt_bboxes"].rescale_((across, down))
            results["gt_bboxes"].clip_(shape)
        return results

    def _fitted(self, path: str) -> Fitted:
        fitted = self._kept.get(path)
        if fitted is None:
            fitted = read_fitted(path, self.scale)
            if fitted.image.nbytes <= self._free:
                self._kept[path] = fitted
                self._free -= fitted.image.nbytes
        return fitted

    def __getstate__(self) -> dict[str, Any]:
        """Without the images: a worker is sent no more than it needs to begin."""
        return {**vars(self), "_kept": {}, "_free": self.memory}


@TRANSFORMS.register_module()
class FittedMosaic(Mosaic):  # type: ignore[misc]  # mmdet is untyped
    """mmdet's mosaic, without copying each sample and resizing each image to the size it has.

    The samples must be its own, as `SeededDataset` loads them, and fitted to `img_scale`, which must be square. The
    hook that ends mosaic goes by names, and is to be told this one.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Put `results` and the three `mix_results` together, `img` being `(2 * side, 2 * side, 3)` afterwards."""
        if np.random.uniform(0, 1) > self.prob:
            return results
        shape = (2 * self.img_scale[1], 2 * self.img_scale[0])
        canvas = np.full((*shape, 3), self.pad_val, np.uint8)
        centre = tuple(int(np.random.uniform(*self.center_ratio_range) * side) for side in self.img_scale)
        parts = (results, *results["mix_results"])
        for place, part in zip(PLACES, parts, strict=True):
            image = part["img"]
            (x1, y1, x2, y2), (u1, v1, u2, v2) = self._mosaic_combine(place, centre, image.shape[1::-1])
            canvas[y1:y2, x1:x2] = image[v1:v2, u1:u2]
            part["gt_bboxes"].translate_([x1 - u1, y1 - v1])
        boxes = results["gt_bboxes"].cat([part["gt_bboxes"] for part in parts])
        if self.bbox_clip_border:
            boxes.clip_(shape)
        inside = boxes.is_inside(shape).numpy()
        results["img"], results["img_shape"], results["gt_bboxes"] = canvas, shape, boxes[inside]
        for key in ("gt_bboxes_labels", "gt_ignore_flags"):
            results[key] = np.concatenate([part[key] for part in parts])[inside]
        return results


@TRANSFORMS.register_module()
class HSVByTable(YOLOXHSVRandomAug):  # type: ignore[misc]
    """mmdet's random change of hue, saturation and value, looked up in a table of 256 entries a channel."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change `img`, `(h, w, 3)` BGR, in place."""
        hue, saturation, value = (int(gain) for gain in self._get_hsv_gains())
        levels = np.arange(256)
        table = np.stack(
            [(levels + hue) % 180, np.clip(levels + saturation, 0, 255), np.clip(levels + value, 0, 255)], axis=-1
        )
        image = results["img"]
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        cv2.LUT(hsv, table.astype(np.uint8)[None], dst=hsv)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR, dst=image)
        return results


@TRANSFORMS.register_module()
class PackChannelsLast(PackDetInputs):  # type: ignore[misc]
    """mmdet's packing, without its reordering of the image by channels.

    `inputs` is `(3, h, w)` as ever, and lies in memory as `(h, w, 3)`.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return `inputs` and `data_samples`."""
        image = np.ascontiguousarray(results.pop("img"))
        return {"inputs": to_tensor(image).permute(2, 0, 1), **super().transform(results)}


@FUNCTIONS.register_module()  # type: ignore[untyped-decorator]  # mmengine is untyped
def stack_channels_last(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make a batch of samples whose images have one size: for the loader's `collate_fn`.

    `torch.stack` itself would put the channels first again, and mmdet's preprocessor, given a list, would call it.

    Args:
        samples: As `PackChannelsLast` packs them, `B` of them.

    Returns:
        `inputs`, `(B, 3, h, w)` uint8 in torch's `channels_last` format, and the list `data_samples`.
    """
    inputs = torch.stack([sample["inputs"].permute(1, 2, 0) for sample in samples]).permute(0, 3, 1, 2)
    return {"inputs": inputs, "data_samples": [sample["data_samples"] for sample in samples]}
