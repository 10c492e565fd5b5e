"""Boxes and labels on pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import cases

from pipeline.client.drawing import draw_detections
from pipeline.client.http_client import ServedDetection, ServedImage


def drawn(side: int, label: str, box: list[float]) -> Any:
    found = [ServedDetection(box=box, score=0.5, label=label)]
    answer = ServedImage(width=side, height=side, detections=found)
    return draw_detections(np.full((side, side, 3), 128, np.uint8), answer, [label])


def test_edges_grow_with_the_picture() -> None:
    def edge(side: int) -> int:
        pixels = drawn(side, "x", [side * 0.25, side * 0.25, side * 0.75, side * 0.75])
        return int((pixels[side // 2, : side // 2] != 128).any(axis=1).sum())

    assert (edge(200), edge(3200)) == (3, 11)  # OpenCV draws 2 as 3


@cases(
    "label",
    {"Latin": "Ärger", "Chinese": "汽车", "Arabic": "سيارة", "Hindi": "कार", "no font": "\U0001f697", "empty": ""},
)
def test_a_label_in_any_script_is_drawn(label: str) -> None:
    pixels = drawn(300, label, [50, 100, 250, 250])
    above = pixels[80:98, 50:250]
    assert (above != 128).any()


def test_a_picture_without_objects_stays_as_it_is() -> None:
    pixels = np.full((10, 10, 3), 7, np.uint8)
    assert draw_detections(pixels, ServedImage(width=10, height=10, detections=[]), []) is pixels
