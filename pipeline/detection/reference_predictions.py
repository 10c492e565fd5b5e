"""Detections of a checkpoint in PyTorch on a set of images, to compare the packed service with.

Decoding, letterboxing, the scaling of boxes back to the image, clipping and the limits are the service's own functions;
pixels equal mmdet's bit for bit. So these detections differ from the service's by what export and serving may lose: the
graph, its suppression, the library that runs it, its precision, and the rounding of answers to 1/1000 pixel and
1/1000000. mmdet's own validation, which training records, has other limits: YOLOX's clips no box to the image, and
limits the detections neither of a class nor of an image; RTMDet's keeps 300 an image.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.detection.checkpoints import GIVEN
from pipeline.detection.devices import cores
from pipeline.detection.export import MAX_PER_CLASS, load_detector
from pipeline.detection.mmcv_ops import nms
from pipeline.errors import DataError, MissingError
from pipeline.serving.decoding import decode
from pipeline.serving.model_metadata import METADATA_FILE, ModelMetadata
from pipeline.serving.predictor import Detections, restore
from pipeline.serving.preprocessing import Letterboxed, letterbox, stack
from pipeline.serving.tiled_detection import detect_in_image
from pipeline.serving.tiling import Tiling

BATCH = 8
"""Images in memory at once."""


def predict_given(
    files: Path,
    images: Sequence[tuple[int, Path]],
    categories: Mapping[str, int],
    *,
    score_threshold: float = 0.01,
    tiling: Tiling | None = None,
) -> list[dict[str, Any]] | None:
    """Detect objects with the weights that a training was given, before it changed them.

    They are the weights that training validated as epoch 0: rows of the head for classes that the given weights do not
    know are random. The arguments and errors are those of `predict_checkpoint`.

    Returns:
        The detections; None where training started from random weights, or an earlier version, which kept no
        `given.pth`, trained the model.
    """
    if not (files / GIVEN).is_file():
        return None
    return predict_checkpoint(files, GIVEN, images, categories, score_threshold=score_threshold, tiling=tiling)


def predict_checkpoint(
    files: Path,
    checkpoint: str,
    images: Sequence[tuple[int, Path]],
    categories: Mapping[str, int],
    *,
    score_threshold: float = 0.01,
    tiling: Tiling | None = None,
) -> list[dict[str, Any]]:
    """Detect objects with a checkpoint of a training, in float32, on a GPU where there is one.

    Args:
        files: The folder that training wrote, with `model.json` and the checkpoints.
        checkpoint: The file's name, such as `best.pth`.
        images: The id and the file of each image.
        categories: Category ids by class name. Detections of other classes are left out, as `predict_dataset` does it.
        score_threshold: The lowest score, or the model's own where that is higher, as the service does it.
        tiling: How large images are cut into tiles; None: as the training has it.

    Returns:
        The detections in COCO's results format, images in the order given, by descending score in each. Boxes are in
        pixels of the upright original image.

    Raises:
        MissingError: `model.json`, the checkpoint or an image is missing.
        DataError: An image or the checkpoint cannot be read.
        StepError: The checkpoint lacks a class of the model.
    """
    metadata = ModelMetadata.read(files / METADATA_FILE)
    if tiling:
        metadata = metadata.in_tiles(tiling.size, tiling.overlap)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = load_detector(metadata, files / checkpoint).to(device)
    detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's annotations omit it
    results: list[dict[str, Any]] = []

    def detect(batch: Sequence[Letterboxed]) -> list[Detections]:
        pixels = torch.from_numpy(stack(batch)).to(device, memory_format=torch.channels_last)
        found = zip(suppressed(detector, pixels, metadata), batch, strict=True)
        return [
            restore(boxes.numpy(), scores.numpy(), labels.numpy(), image) for (boxes, scores, labels), image in found
        ]

    with (
        torch.inference_mode(),
        # cuDNN would round the inputs of convolutions to TF32's 10 bits
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ThreadPoolExecutor(cores()) as pool,
        warnings.catch_warnings(action="ignore", category=FutureWarning),  # mmdet's backbone names torch.cuda.amp
        tqdm(total=len(images), desc=f"predict, {checkpoint}", unit="img", ascii=True) as bar,
    ):
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            if metadata.tile:  # one image after the other, for they are large
                found = [detect_in_image(_read(path), metadata, lambda view: detect([view])[0]) for _, path in part]
            else:
                size = metadata.image_size
                found = detect(list(pool.map(lambda path, to=size: letterbox(_read(path), to), [p for _, p in part])))
            for (image_id, _), each in zip(part, found, strict=True):
                kept = each.select(score_threshold)
                rows = zip(kept.boxes.tolist(), kept.scores.tolist(), kept.labels.tolist(), strict=True)
                results += [
                    {"image_id": image_id, "category_id": categories[metadata.classes[label]]}
                    | {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
                    for (x1, y1, x2, y2), score, label in rows
                    if metadata.classes[label] in categories
                ]
            bar.update(len(part))
    return results


def suppressed(detector: nn.Module, pixels: Tensor, metadata: ModelMetadata) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What the exported graph gives for a batch: above the model's score threshold, by exact suppression per class.

    Args:
        detector: That of `load_detector`.
        pixels: `(B, 3, S, S)` float32 on the detector's device.
        metadata: Of the model.

    Returns:
        For each image on the CPU: boxes `(M, 4)` x1, y1, x2, y2 in letterboxed pixels, scores `(M,)` and labels `(M,)`.
    """
    return [_suppressed(boxes, scores, metadata) for boxes, scores in zip(*detector(pixels), strict=True)]


def _suppressed(boxes: Tensor, scores: Tensor, metadata: ModelMetadata) -> tuple[Tensor, Tensor, Tensor]:
    """The detections among the boxes `(N, 4)` of an image, of which each may have several of the classes `(C, N)`."""
    labels, anchors = torch.nonzero(scores > metadata.score_threshold, as_tuple=True)
    boxes, scores, labels = boxes[anchors].cpu(), scores[labels, anchors].cpu(), labels.cpu()
    kept = [labels[:0]]
    for label in sorted(set(labels.tolist())):
        rows = torch.nonzero(labels == label)[:, 0]
        kept.append(rows[nms(boxes[rows], scores[rows], metadata.nms_iou_threshold)[:MAX_PER_CLASS]])
    chosen = torch.cat(kept)
    return boxes[chosen], scores[chosen], labels[chosen]


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        return decode(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingError("an image of the test set is missing", where=path) from error
    except DataError as error:
        raise DataError(f"the image cannot be read: {error.problem}", where=path) from error
