"""Test images divided by what they show, by their shape and by the fields of their records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import cases

from pipeline.errors import DataError, MissingError
from pipeline.evaluation.image_properties import divide_by_field, divide_images
from pipeline.metrics.ground_truth import GroundTruth

DAY = ["night", "day", "day", None, "", "night"]
FLOATS = [0.5 * number for number in range(16)]


@cases(
    "name, values, expected",
    {
        "texts": ("light", DAY, {"day": [1, 2], "night": [0, 5]}),
        "few numbers are categories": ("camera_id", [7, 7, 12, 7, 12, 12], {"7": [0, 1, 3], "12": [2, 4, 5]}),
        "flags": ("blurred", [True, False, True, True], {"false": [1], "true": [0, 2, 3]}),
        "texts and numbers": ("take", ["a", 1, 1, "a"], {"1": [1, 2], "a": [0, 3]}),
        "one value for all": ("subset", ["test"] * 4, {"test": [0, 1, 2, 3]}),
        "no value": ("note", [None, "", None], {}),
        "many numbers are quartiles": (
            "height", FLOATS, {"0 to 1.5": range(4), "2 to 3.5": range(4, 8), "4 to 5.5": range(8, 12),
                               "6 to 7.5": range(12, 16)},
        ),
        "numbers of which many are equal": ("rain", [0.0] * 14 + [0.3 * n for n in range(1, 14)], None),
        "an image without a value": ("height", [None, *FLOATS], None),
        "names": ("url", [f"http://a/{n}.jpg" for n in range(20)], ...),
        "each text twice, but too many": ("clip", [str(n // 2) for n in range(40)], ...),
        "whole numbers that are all different": ("frame", list(range(5, 45)), ...),
        "numbers of something": ("sequence_id", [n // 2 for n in range(40)], ...),
        "also in capitals": ("videoId", [n // 2 for n in range(40)], ...),
        "a word that ends in id": ("humid", [n // 2 for n in range(40)], None),
        "lists": ("tags", [["a"], ["b"]], ...),
        "mappings": ("left_out", [{"line": 2}, None], ...),
    },
)  # fmt: skip
def test_a_field(name: str, values: list[Any], expected: dict[str, Any] | None) -> None:
    """`...`: there is no division by it; None: several ranges, in each of which is every image with a value once."""
    parts = divide_by_field(name, values)
    if expected is ...:
        assert parts is None
        return
    assert parts is not None
    if expected is None:
        assert 2 <= len(parts) <= 4
        assert np.sum(list(parts.values()), axis=0).tolist() == [value is not None for value in values]
        return
    assert {value: np.flatnonzero(images).tolist() for value, images in parts.items()} == {
        value: list(images) for value, images in expected.items()
    }


def divided(truth: GroundTruth) -> dict[str, dict[str, list[int]]]:
    return {
        each.name: {value: (np.flatnonzero(images) + 1).tolist() for value, images in each.parts.items()}
        for each in divide_images(truth).found
    }


def test_brightness_is_that_of_the_pixels(write_dataset: Callable) -> None:
    """Image 1 has no object, and image 2 a crowd region alone."""
    truth = write_dataset([240, 10, 60, 200, 250, 20, 110, 180], ("dark", "bright"), crowds=(2,))
    truth = replace(truth, annotations=truth.annotations[1:], images=truth.images[::-1])
    assert divided(truth) == {
        "brightness, 0 to 255": {"10 to 20": [2, 6], "60 to 110": [3, 7], "180 to 200": [4, 8], "240 to 250": [1, 5]},
        "objects per image": {"0": [1, 2], "1": [3, 4, 5, 6, 7, 8]},
    }


@cases(
    "counts, expected",
    {
        "few": ([0, 2, 1, 2], {"0": [1], "1": [3], "2": [2, 4]}),
        "many": (
            [0, 1, 2, 3, 4, 5, 6, 7, 12],
            {"0": [1], "1 to 2": [2, 3], "3 to 4": [4, 5], "5 to 6": [6, 7], "7 to 12": [8, 9]},
        ),
    },
)
def test_objects_are_counted(
    coco_file: Callable, counts: list[int], expected: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.evaluation.image_properties._brightness", lambda truth: np.ones(len(truth.images)))
    boxes = [(image, 1, [10, 10, 9, 9]) for image, count in enumerate(counts, 1) for _ in range(count)]
    assert divided(coco_file(boxes, images=len(counts)))["objects per image"] == expected


def test_shapes_and_fields(write_dataset: Callable) -> None:
    truth = write_dataset([90] * 5)
    sizes, lights = [(480, 640), (500, 500), (640, 480), (1920, 1080), (1280, 800)], ["day", "day", "night", "day", ""]
    images = [
        replace(image, width=width, height=height, extra={"light": light, "coco_url": image.file_name})
        for image, (width, height), light in zip(truth.images, sizes, lights, strict=True)
    ]
    truth = replace(truth, images=tuple(images))
    assert divided(truth) == {
        "shape": {"upright": [1], "about square": [2], "wide, up to 8:5": [3], "wider than 8:5": [4, 5]},
        "light": {"day": [1, 2, 4], "night": [3]},
    }
    assert divide_images(truth).left_out == ("coco_url",)


def test_an_image_that_is_missing_or_broken_is_named(write_dataset: Callable) -> None:
    truth = write_dataset([90, 100])
    truth.path_of("2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png"):
        divide_images(truth)
    truth.path_of("2.png").unlink()
    with pytest.raises(MissingError, match=r"2\.png"):
        divide_images(truth)
