from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases

from pipeline.data.sample import CLASSES, SampleSpec, compose, make_sample, parse_sample_url
from pipeline.errors import UsageError


def digest(folder: Any) -> Any:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first = make_sample(tmp_path / "a", images=12, size=128, seed=3)
    assert make_sample(tmp_path / "b", images=12, size=128, seed=3) == first
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert make_sample(tmp_path / "c", images=12, size=128, seed=4) != first
    assert digest(tmp_path / "c") != digest(tmp_path / "a")


def test_a_larger_sample_begins_with_the_smaller(tmp_path: Path) -> None:
    make_sample(tmp_path / "a", images=3, size=64)
    dataset = make_sample(tmp_path / "b", images=5, size=64)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [image.file_name for image in dataset.images]
    for path in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()
        assert cv2.imread(str(path)).shape == (64, 64, 3)


def test_what_the_default_sample_holds(tmp_path: Path) -> None:
    dataset = make_sample(tmp_path)
    assert len(dataset.images) == 240
    assert dataset.classes == CLASSES
    per_class = Counter(each.category_id for each in dataset.annotations)
    assert min(per_class.values()) > 100
    empty = len(dataset.images) - len({each.image_id for each in dataset.annotations})
    assert 0 < empty < 24
    for each in dataset.annotations:
        x, y, width, height = each.bbox
        assert min(x, y) >= 0 <= 256 - max(x + width, y + height)
        assert min(width, height) >= 8
        assert each.area == width * height


@pytest.mark.parametrize("number", range(8))
def test_boxes_are_tight_and_shapes_visible(number: Any) -> None:
    """Against the masks: every side of a box touches the shape, and most of each shape can be seen."""
    for shape in compose(np.random.default_rng(number), 256):
        left, top, width, height = (int(value) for value in shape.box)
        inside = shape.visible[top : top + height, left : left + width]
        assert inside.sum() == shape.visible.sum() >= 0.85 * (shape.mask > 127).sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@pytest.mark.parametrize(
    ("url", "spec"),
    [
        ("sample://shapes", SampleSpec(240, 256, 7)),
        ("sample://shapes/?images=9", SampleSpec(9, 256, 7)),
        ("sample://shapes?images=9&size=64&seed=0", SampleSpec(9, 64, 0)),
    ],
)
def test_url(url: str, spec: Any) -> None:
    assert parse_sample_url(url) == spec


@cases(
    "url, problem",
    {
        "unknown sample": ("sample://faces", "no sample"),
        "no slashes": ("sample:shapes", "no sample"),
        "near miss": ("sample://shapes?image=9", "cannot be drawn(?s:.*)images of 1-100000"),
        "twice": ("sample://shapes?images=9&images=8", "cannot be drawn"),
        "empty": ("sample://shapes?images=", "cannot be drawn"),
        "negative": ("sample://shapes?images=-1", "cannot be drawn"),
        "none": ("sample://shapes?images=0", "cannot be drawn"),
        "too large": ("sample://shapes?size=9999", "cannot be drawn"),
    },
)
def test_url_refused(url: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_sample_url(url)
