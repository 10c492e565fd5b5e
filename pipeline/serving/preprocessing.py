"""From an image's pixels to the detector's input, bit for bit as mmdet's `Resize` and `Pad` make it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

PAD_VALUE = 114
"""Grey of the padding, YOLOX's own (Megvii-BaseDetection/YOLOX, `preproc`)."""


@dataclass(frozen=True)
class Letterboxed:
    """An image in the top left of the detector's input, with the scales of its boxes."""

    pixels: NDArray[np.uint8]  # (3, S_h, S_w), BGR 0..255
    scale_x: float  # letterboxed per original pixel
    scale_y: float
    width: int  # of the original, in pixels
    height: int


def letterbox(image: NDArray[np.uint8], size: tuple[int, int]) -> Letterboxed:
    """Scale an image into `size`, keeping its aspect ratio, and pad it at the right and at the bottom.

    Width and height are rounded separately, so boxes are scaled back with a scale per axis.

    `image` is (H, W, 3), BGR; `size` is (height, width) of the detector's input.
    """
    height, width = image.shape[:2]
    ratio = min(size[0] / height, size[1] / width)
    # a side that would round to 0 pixels, which mmdet cannot handle, keeps one pixel
    new_w, new_h = max(1, int(width * ratio + 0.5)), max(1, int(height * ratio + 0.5))
    resized = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    pixels = np.full((3, *size), PAD_VALUE, np.uint8)
    for plane, channel in zip(pixels, cv2.split(resized), strict=True):  # twice as fast as to transpose
        plane[:new_h, :new_w] = channel
    return Letterboxed(pixels, new_w / width, new_h / height, width, height)


def stack(images: Sequence[Letterboxed]) -> NDArray[np.float32]:
    """Make one batch (B, 3, S_h, S_w), BGR 0..255: the ONNX graph's input `images`."""
    if len(images) == 1:
        return images[0].pixels[None].astype(np.float32)
    return np.stack([image.pixels for image in images]).astype(np.float32)
