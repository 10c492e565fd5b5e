from __future__ import annotations

import gc
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.coco import Category, CocoDataset, Image, read_coco, unsafe_name, write_coco
from pipeline.errors import DataError, MissingError

GOOD = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40, "license": 3}],
    "annotations": [{"id": 5, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3.5, 4], "iscrowd": 1, "area": 9}],
    "categories": [{"id": 2, "name": "cat", "supercategory": "animal"}],
}


def written(folder: Any, content: Any) -> Any:
    path = folder / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def changed(section: Any, **fields: Any) -> Any:
    record = {key: value for key, value in (GOOD[section][0] | fields).items() if value is not ...}
    return GOOD | {section: [GOOD[section][0], record]}


def test_reads_what_there_is(tmp_path: Path) -> None:
    dataset = read_coco(written(tmp_path, GOOD))
    (annotation,) = dataset.annotations
    assert (annotation.bbox, annotation.iscrowd, annotation.area) == ((1, 2, 3.5, 4), 1, 9)
    assert dataset.images[0].extra == {"license": 3}
    assert dataset.classes == ("cat",)
    assert read_coco(written(tmp_path, changed("annotations", area=...))).annotations[1].area == 14, "the box's"


@cases(
    "content, problem",
    {
        "cut": ("{", "not JSON"),
        "deep": ("[" * 100_000, "not JSON"),
        "no object": ([], "no list 'images'"),
        "no annotations": ({"images": []}, "no list 'annotations'"),
        "no width": (changed("images", width=...), r"images\[1\] has no 'width'"),
        "id a text": (changed("images", id="1"), r"images\[1\].id is not a whole number: .1."),
        "id a truth value": (changed("images", id=True), r"images\[1\].id is not a whole number: true"),
        "name up": (changed("images", file_name="../a.jpg"), r"images\[1\].file_name leads out"),
        "no name": (changed("images", file_name=""), r"images\[1\].file_name is not a text"),
        "no box": (changed("annotations", bbox=...), r"annotations\[1\] has no 'bbox'"),
        "three": (changed("annotations", bbox=[1, 2, 3]), r"annotations\[1\].bbox is not four"),
        "box text": (changed("annotations", bbox=[1, 2, 3, "4"]), r"annotations\[1\].bbox is not four"),
        "box truth": (changed("annotations", bbox=[1, 2, 3, True]), r"annotations\[1\].bbox is not four"),
        "area a text": (changed("annotations", area="big"), r"annotations\[1\].area is not a number"),
        "half an id": (changed("annotations", image_id=1.5), r"annotations\[1\].image_id is not a whole"),
        "no class": (changed("annotations", category_id=...), r"annotations\[1\] has no 'category_id'"),
        "no record": (GOOD | {"annotations": [7]}, r"annotations\[0\] is not an object"),
        "no class name": (changed("categories", name=None), r"categories\[1\].name is not a text: null"),
    },
)
def test_refused(tmp_path: Path, content: Any, problem: str) -> None:
    with pytest.raises(MissingError):
        read_coco(tmp_path / "a.json")
    with pytest.raises(DataError, match=problem):
        read_coco(written(tmp_path, content))


@cases(
    "text",
    {
        "nothing": "",
        "a comma too many": '{"images": [1,]}',
        "a comma after all": '{"images": [], }',
        "no comma": '{"images": [{} {}]}',
        "no colon": '{"images" []}',
        "a key that is no text": "{1: []}",
        "no end": '{"images": []',
        "a list without end": '{"images": [{}',
        "more after the end": '{"images": []} {}',
        "a broken letter": b'{"\xff": 1}',
    },
)
def test_what_is_not_json_is_refused_as_such(tmp_path: Path, text: Any) -> None:
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError):  # noqa: PT011  by Python, too
        json.loads(text)
    with pytest.raises(DataError, match=r"not JSON|images\[0\]"):
        read_coco(tmp_path / "a.json")


@given(st.integers(0, 3), st.booleans(), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]), st.randoms())
def test_read_however_it_is_written(indent: int, is_ascii: bool, encoding: str, random: Any) -> None:
    """With other keys before, between and after the lists, and one list twice: the later one counts, as in Python."""
    content = GOOD | {"info": {"images": [1]}, "more": [[{}], "]},"], "ünï": '\\"]'}
    keys = random.sample(list(content), len(content))
    text = json.dumps({key: content[key] for key in keys}, indent=indent or None, ensure_ascii=is_ascii)
    text = text.replace("{", '{"annotations": [],', 1)
    with TemporaryDirectory() as folder:
        (Path(folder) / "a.json").write_bytes(text.encode(encoding))
        found = read_coco(Path(folder) / "a.json")
        assert found == read_coco(written(Path(folder), GOOD | {"info": {"images": [1]}}))
    assert gc.isenabled()


def test_written_the_same_whatever_the_order(tmp_path: Path, tiny: tuple[CocoDataset, Path]) -> None:
    dataset, _ = tiny
    turned = replace(dataset, images=dataset.images[::-1], annotations=dataset.annotations[::-1])
    write_coco(dataset, tmp_path / "a.json")
    write_coco(turned, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_coco(tmp_path / "a.json") == dataset
    write_coco(CocoDataset((), (), ()), tmp_path / "a.json")
    assert read_coco(tmp_path / "a.json") == CocoDataset((), (), ())


def test_real_annotations_round_trip(tmp_path: Path, real_data: Path) -> None:
    with zipfile.ZipFile(real_data / "annotations_trainval2017.zip") as archive:
        raw = json.loads(archive.read("annotations/instances_val2017.json"))
    write_coco(read_coco(written(tmp_path, raw)), tmp_path / "b.json")
    again = json.loads((tmp_path / "b.json").read_text())
    for section in ("images", "annotations", "categories"):
        assert again[section] == sorted(raw[section], key=lambda record: record["id"])
    assert (again["info"], again["licenses"]) == (raw["info"], raw["licenses"])


@pytest.mark.parametrize(
    ("name", "unsafe"),
    [("a/b.jpg", False), ("a..b/c.jpg", False), ("a/../b.jpg", True), ("/a.jpg", True), ("C:a.jpg", True), ("", True),
     ("a\\b.jpg", True), (".", True), ("a\0.jpg", True)],
)  # fmt: skip
def test_unsafe_name(name: str, unsafe: bool) -> None:
    assert unsafe_name(name) is unsafe


@pytest.mark.parametrize("name", ["naïve.jpg", "猫.jpg", "half \ud83d.jpg", "whole \U0001f408.jpg"])
def test_any_name_is_written_and_read_back(tmp_path: Path, name: str) -> None:
    """Half a letter too, as a truncated name may end in: JSON can say it, and UTF-8 cannot."""
    dataset = CocoDataset((Image(1, name, 2, 3, {"note": name}),), (), (Category(1, name),))
    write_coco(dataset, tmp_path / "a.json")
    assert read_coco(tmp_path / "a.json") == dataset
    (tmp_path / "a.json").read_bytes().decode()
