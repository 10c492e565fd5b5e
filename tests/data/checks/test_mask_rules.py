from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask
from pycocotools.coco import COCO

from pipeline.data.checks.mask_rules import _decoded, malformed_segmentations, segmentations_outside
from pipeline.data.coco import Annotation, Category, CocoDataset, Image, write_coco

SQUARE = [5.0, 5.0, 25.0, 5.0, 25.0, 25.0, 5.0, 25.0]
TEXT = mask.encode(np.asfortranarray(np.eye(40, 60, dtype=np.uint8)))["counts"].decode()


def dataset(segmentation: Any) -> CocoDataset:
    annotation = Annotation(1, 1, 1, (5.0, 5.0, 20.0, 20.0), 400.0, 0, segmentation)
    return CocoDataset((Image(1, "a.png", 60, 40),), (annotation,), (Category(1, "cat"),))


@pytest.mark.parametrize(
    "segmentation",
    [
        pytest.param(None, id="none"),
        pytest.param([], id="an empty list"),
        pytest.param([SQUARE], id="polygon"),
        pytest.param([SQUARE, [1, 1, 2, 2, 1, 2]], id="two, one of whole numbers"),
        pytest.param([[-0.5, 0.0, 60.5, 0.0, 60.5, 40.9]], id="a part of a pixel outside"),
        pytest.param({"size": [40, 60], "counts": [0, 2400]}, id="run lengths"),
        pytest.param({"size": [40, 60], "counts": TEXT}, id="run lengths as text"),
    ],
)
def test_sound(segmentation: Any, tmp_path: Path) -> None:
    given_ = dataset(segmentation)
    for rule in (malformed_segmentations, segmentations_outside):
        found, findings = rule(given_, {}, "repair")
        assert found is given_
        assert findings == []
    if segmentation:
        write_coco(given_, tmp_path / "a.json")
        coco = COCO(str(tmp_path / "a.json"))
        assert coco.annToMask(coco.anns[1]).shape == (40, 60)


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        pytest.param("text", "neither", id="text"),
        pytest.param(3, "neither", id="number"),
        pytest.param([1.0, 2.0, 3.0], "not a list of numbers", id="numbers without a list around"),
        pytest.param([[1.0, 1.0, 2.0, 2.0]], "4 numbers", id="two points"),
        pytest.param([SQUARE, []], "0 numbers", id="an empty outline"),
        pytest.param([SQUARE[:-1]], "7 numbers", id="an odd number"),
        pytest.param([[1, 1, 2, 2, 3, "3"]], "not a list of numbers", id="a text in it"),
        pytest.param([[1, 1, 2, 2, 3, True]], "not a list of numbers", id="a truth value in it"),
        pytest.param([[1, 1, 2, 2, 3, float("nan")]], "no coordinates", id="NaN"),
        pytest.param([[1, 1, 2, 2, 3, 10**400]], "no coordinates", id="beyond any float"),
        pytest.param([[1, 1, 2, 2, 3, 1e9]], "no coordinates", id="too far to walk"),
        pytest.param({}, "not of the image's size", id="an empty object"),
        pytest.param({"size": [60, 40], "counts": [0, 2400]}, "not of the image's size", id="size swapped"),
        pytest.param({"size": [40, 60]}, "cannot be read", id="no counts"),
        pytest.param({"size": [40, 60], "counts": [-1, 2401]}, "cannot be read", id="negative"),
        pytest.param({"size": [40, 60], "counts": [0, 2400.0]}, "cannot be read", id="not whole"),
        pytest.param({"size": [40, 60], "counts": [0, 9999]}, "cover 9999 of 2400", id="too many"),
        pytest.param({"size": [40, 60], "counts": TEXT[:-4]}, "cover", id="text cut"),
        pytest.param({"size": [40, 60], "counts": "o"}, "cannot be read", id="text that ends in a number"),
        pytest.param({"size": [40, 60], "counts": "é"}, "cannot be read", id="text of other characters"),
        pytest.param({"size": [40, 60], "counts": "o" * 99}, "cannot be read", id="a number without end"),
    ],
)
def test_malformed(segmentation: Any, problem: str) -> None:
    given_ = dataset(segmentation)
    found, (finding,) = malformed_segmentations(given_, {}, "repair")
    assert problem in finding.detail
    assert found == dataset(None)
    assert malformed_segmentations(given_, {}, "drop")[0].annotations == ()


@pytest.mark.parametrize("far", [[-2.0, 5.0], [62.0, 5.0], [5.0, -2.0], [5.0, 42.0]], ids=str)
def test_outside(far: list[float]) -> None:
    given_ = dataset([SQUARE, [*far, 5.0, 5.0, 9.0, 9.0]])
    assert malformed_segmentations(given_, {}, "repair") == (given_, [])
    assert segmentations_outside(given_, {}, "repair")[0] == dataset(None)
    reported, (finding,) = segmentations_outside(given_, {}, "report")
    assert reported is given_
    assert finding.detail == "the outline leaves the image of 60x40"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=12, max_size=12), st.integers(1, 200))
def test_text_is_read_as_pycocotools_writes_it(pixels: list[bool], times: int) -> None:
    area = np.asfortranarray(np.array(pixels, np.uint8).repeat(times).reshape(-1, 4))
    lengths = _decoded(mask.encode(area)["counts"].decode())
    flat = area.ravel(order="F")
    borders = np.flatnonzero(np.diff(flat)) + 1
    expected = np.diff(np.concatenate([[0], borders, [flat.size]])).tolist()
    assert lengths == ([0, *expected] if flat[0] else expected)
    assert json.dumps(lengths)
