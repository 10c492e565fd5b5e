"""COCO's file names, against the photographs of val2017 that are at hand and those that are not of it."""

import json
import zipfile
from pathlib import Path

import pytest

from pipeline.evaluation.coco_names import is_named_like_train2017, val2017_ids


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("000000000009.jpg", True, id="of train2017"),
        pytest.param("train2017/000000000009.jpg", True, id="in a folder"),
        pytest.param("COCO_train2014_000000000009.jpg", True, id="of train2014"),
        pytest.param("COCO_val2014_000000000042.jpg", True, id="of val2014, not of val2017"),
        pytest.param("000000000009.JPEG", True, id="another suffix"),
        pytest.param("000000000139.jpg", False, id="of val2017"),
        pytest.param("COCO_val2014_000000000139.jpg", False, id="of val2017, its old name"),
        pytest.param("COCO_test2014_000000000001.jpg", False, id="of test2014"),
        pytest.param("202401311530.jpg", False, id="a time of day"),
        pytest.param("000000000000.jpg", False, id="zero"),
        pytest.param("00000000009.jpg", False, id="eleven digits"),
        pytest.param("0000000000009.jpg", False, id="thirteen digits"),
        pytest.param("000000000009.png", False, id="no JPEG"),
        pytest.param("cat_000000000009.jpg", False, id="a prefix"),
        pytest.param("photo.jpg", False, id="any other"),
    ],
)
def test_names(name: str, expected: bool) -> None:
    assert is_named_like_train2017(name) is expected


def test_val2017_has_five_thousand_images() -> None:
    ids = val2017_ids()
    assert len(ids) == 5000
    assert (min(ids), max(ids)) == (139, 581781)


def test_the_photographs_at_hand_are_of_val2017_where_they_are_said_to_be(real_data: Path) -> None:
    official = set((real_data / "official_val2017_names.txt").read_text().split())
    with zipfile.ZipFile(real_data / "annotations_trainval2017.zip") as archive:
        document = json.loads(archive.read("annotations/instances_val2017.json"))
    names = {image["file_name"] for image in document["images"]}
    assert len(official) == 79
    assert {name for name in names if not is_named_like_train2017(name)} == official
