"""An image with its detections drawn: the answer `output=image`."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.serving.api_types import DetectedObject

QUALITY = 90  # of the JPEG file
_GOLDEN = 0.618034  # turns of the colour wheel between neighbouring classes, so that they look different


def draw(image: NDArray[np.uint8], detections: list[DetectedObject]) -> bytes:
    """Draw boxes with class and score, the most certain on top, and return a JPEG file.

    OpenCV's letters are those of ASCII; a class whose name has others is drawn as its index, such as `#3`.

    Args:
        image: (H, W, 3) pixels, BGR, upright; they are drawn on.
        detections: The most certain first.

    Raises:
        DataError: It is longer than the 65,500 pixels that OpenCV writes.
    """
    side = max(image.shape[:2])
    thickness, scale = max(1, round(side / 400)), max(0.4, side / 1400)
    for each in reversed(detections):
        x1, y1, x2, y2 = (round(value) for value in each.box)
        hue = each.class_id * _GOLDEN % 1
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, 0.85))
        colour, white = (blue, green, red), (255, 255, 255)
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, thickness)
        name = each.label if each.label.isascii() else f"#{each.class_id}"
        text = f"{name} {each.score:.2f}"
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
        top = max(0, y1 - height - 2 * below)  # inside the box where there is no room above it
        left = max(0, min(x1, image.shape[1] - width))
        cv2.rectangle(image, (left, top), (left + width, top + height + 2 * below), colour, cv2.FILLED)
        cv2.putText(
            image, text, (left, top + height + below), cv2.FONT_HERSHEY_SIMPLEX, scale, white, thickness, cv2.LINE_AA
        )
    is_written, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not is_written:
        raise DataError(f"an image of {image.shape[1]} x {image.shape[0]} pixels cannot be a JPEG file")
    return bytes(data)
