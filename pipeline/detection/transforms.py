"""Fast replacements of mmdet's transforms: images are resized once, and then kept in memory.

Each epoch reads the whole training set, with mosaic four images per sample, and most of that time is decoding and
resizing. These transforms give the same bytes as mmdet's:

    LoadFitted          LoadImageFromFile, then Resize(scale, keep_ratio=True)
    FittedMosaic        Mosaic, for images that LoadFitted has fitted
    HSVByTable          YOLOXHSVRandomAug
    PackChannelsLast    PackDetInputs: the same tensor in the memory layout of the image
    stack_channels_last pseudo_collate: one tensor instead of a list, in the memory layout of the model

Images are resized before colour and flips, as in Megvii's YOLOX (`COCODataset.load_resized_img`). mmdet's configs
resize them last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from pipeline.serving.decoding import decode

mmcv_ops.install()  # importing mmdet needs it

from mmdet.datasets.transforms import Mosaic, PackDetInputs, Pad, Resize, YOLOXHSVRandomAug  # noqa: E402
from mmdet.registry import TRANSFORMS  # noqa: E402

PAD_VALUE = 114.0  # grey of the padding (Megvii-BaseDetection/YOLOX, `preproc`)
QUADRANTS = ("top_left", "top_right", "bottom_left", "bottom_right")  # as mmdet's Mosaic fills them
Fitted = tuple[NDArray[np.uint8], tuple[int, int]]  # (h, w, 3) BGR, and height and width of the original in pixels


def read_fitted(path: str, scale: tuple[int, int]) -> Fitted:
    """Decode an image and resize it to the largest size that fits, with its aspect ratio.

    Pixels equal those of mmdet's `LoadImageFromFile` and `Resize`: EXIF orientation applied, bilinear; for PNG files of
    16 bits see `decode`. A side that would round to 0 pixels, which mmdet cannot handle, keeps one pixel, as in the
    service. The longer number of the scale bounds the image's longer side, as in mmdet.

    Raises:
        DataError: The file cannot be read, or is not an image.
    """
    try:
        image = decode(Path(path).read_bytes())
    except (OSError, DataError) as error:
        expected = "a whole JPEG, PNG, WebP or BMP file"
        raise DataError("an image cannot be decoded", where=path, expected=expected) from error
    height, width = image.shape[:2]
    across, down = mmcv.rescale_size((width, height), scale)
    fitted = mmcv.imresize(image, (max(1, across), max(1, down)), interpolation="bilinear", backend="cv2")
    return fitted, (height, width)


@TRANSFORMS.register_module()
class LoadFitted(BaseTransform):  # type: ignore[misc]  # mmcv is untyped
    """Loads an image resized to fit a scale, from memory where it was loaded before.

    Images are kept until the memory is full. Dropping the least recently used one would not help: an epoch reads every
    image once in a new random order, so in a large set most images would be dropped before they are read again.

    Boxes that were loaded before, by `LoadAnnotations`, are scaled and clipped as by `Resize`. Boxes loaded later stay
    in pixels of the original, as evaluation needs them.
    """

    def __init__(self, scale: tuple[int, int], memory: int = 0) -> None:
        self.scale = scale
        self.memory = self._free = memory  # bytes of images to keep in each process that loads
        self._kept: dict[str, Fitted] = {}

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Set what mmdet's two transforms would of `img_path`, and scale and clip `gt_bboxes` where they are loaded."""
        path = results["img_path"]
        fitted = self._kept.get(path) or read_fitted(path, self.scale)
        image, (height, width) = fitted
        if path not in self._kept and image.nbytes <= self._free:
            self._kept[path] = fitted
            self._free -= image.nbytes
        shape = image.shape[:2]
        factor = shape[1] / width, shape[0] / height  # each side is rounded
        results["img"] = image.copy()  # later transforms write into it
        results["img_shape"], results["ori_shape"] = shape, (height, width)
        results["scale"], results["scale_factor"], results["keep_ratio"] = self.scale, factor, True
        results["homography_matrix"] = np.diag([*factor, 1]).astype(np.float32)
        if "gt_bboxes" in results:
            results["gt_bboxes"].rescale_(factor)
            results["gt_bboxes"].clip_(shape)
        return results

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the images, so that a copy, and every spawned worker process, starts empty and cheaply."""
        return {**vars(self), "_kept": {}, "_free": self.memory}


@TRANSFORMS.register_module()
class FittedMosaic(Mosaic):  # type: ignore[misc]  # mmdet is untyped
    """mmdet's mosaic, without a copy of each sample and a resize of each image to the size it has.

    It changes the samples, so they must not be shared; `SeededDataset` loads new ones. They must fit `img_scale`, which
    must be square.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Combine `results` and the three `mix_results` into an `img` of `(2 * side, 2 * side, 3)`."""
        if np.random.uniform(0, 1) > self.prob:
            return results
        shape = (2 * self.img_scale[1], 2 * self.img_scale[0])
        canvas = np.full((*shape, 3), self.pad_val, np.uint8)
        centre = tuple(int(np.random.uniform(*self.center_ratio_range) * side) for side in self.img_scale)
        parts = (results, *results["mix_results"])
        for quadrant, part in zip(QUADRANTS, parts, strict=True):
            image = part["img"]
            (x1, y1, x2, y2), (u1, v1, u2, v2) = self._mosaic_combine(quadrant, centre, image.shape[1::-1])
            canvas[y1:y2, x1:x2] = image[v1:v2, u1:u2]
            part["gt_bboxes"].translate_([x1 - u1, y1 - v1])
        boxes = results["gt_bboxes"].cat([part["gt_bboxes"] for part in parts])
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
        table = [(levels + hue) % 180, np.clip(levels + saturation, 0, 255), np.clip(levels + value, 0, 255)]
        hsv = cv2.cvtColor(results["img"], cv2.COLOR_BGR2HSV)
        cv2.LUT(hsv, np.stack(table, -1).astype(np.uint8)[None], dst=hsv)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR, dst=results["img"])
        return results


@TRANSFORMS.register_module()
class PackChannelsLast(PackDetInputs):  # type: ignore[misc]
    """mmdet's packing without a copy of the image: `inputs` is `(3, h, w)`, and stays `(h, w, 3)` in memory."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return `inputs` and `data_samples`."""
        image = np.ascontiguousarray(results.pop("img"))
        return {"inputs": to_tensor(image).permute(2, 0, 1), **super().transform(results)}


@FUNCTIONS.register_module()  # type: ignore[untyped-decorator]  # mmengine is untyped
def stack_channels_last(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make a batch of `PackChannelsLast`'s samples, whose images have one size: the loader's `collate_fn`.

    `torch.stack`, which mmdet's preprocessor calls for a list, would copy the images to channels-first order.

    Returns:
        `inputs`, `(B, 3, h, w)` uint8 in torch's `channels_last` format, and the list `data_samples`.
    """
    inputs = torch.stack([sample["inputs"].permute(1, 2, 0) for sample in samples]).permute(0, 3, 1, 2)
    return {"inputs": inputs, "data_samples": [sample["data_samples"] for sample in samples]}


def letterbox(images: Sequence[Path], image_size: tuple[int, int]) -> NDArray[np.float32]:
    """Letterbox image files into a batch `(B, 3, S, S)` float32, BGR 0..255, by mmdet's validation transforms.

    Raises:
        DataError: OpenCV cannot decode a file.
    """
    size = image_size[::-1]
    resize, pad = Resize(scale=size, keep_ratio=True), Pad(size=size, pad_val={"img": (PAD_VALUE,) * 3})
    batch = []
    for path in images:
        try:
            image = decode(path.read_bytes())
        except DataError as error:
            raise DataError(f"the image cannot be read: {error.problem}", where=path) from error
        results = pad(resize({"img": image, "img_shape": image.shape[:2]}))
        batch.append(results["img"].transpose(2, 0, 1).astype(np.float32))
    return np.stack(batch)
