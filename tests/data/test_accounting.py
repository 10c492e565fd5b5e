"""Every image and box that goes into data_load is kept, or excluded for a reason: in all formats, whatever is wrong."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from written_formats import SAYS_EMPTY, WRITERS

from pipeline.data.coco import Annotation, Category, CocoDataset, Image, read_coco
from pipeline.data.loading import load_annotations, load_source
from pipeline.data.tables import read_exclusions
from pipeline.errors import DataError

BAD, FLAT = "bad", "flat"  # a box that cannot be read; a shape without an area


def _coco(path: Path, _: str) -> None:
    raw = json.loads(path.read_text())
    raw["annotations"].append({"id": 1000 + len(raw["annotations"]), "image_id": 1, "bbox": [1, 1, 5, 5]})
    path.write_text(json.dumps(raw))


def _labelme(path: Path, what: str) -> None:
    raw = json.loads(path.read_text())
    kind = "point" if what == FLAT else "rectangle"
    raw["shapes"].append({"label": None if what == BAD else "cat", "points": [[1, 1]], "shape_type": kind})
    path.write_text(json.dumps(raw))


def _voc(path: Path, _: str) -> None:
    content = path.read_text().removesuffix("</annotation>")
    path.write_text(f"{content}<object><name>cat</name></object></annotation>")


def _cvat(path: Path, what: str) -> None:
    shape = '<box label="cat" xtl="x"/>' if what == BAD else '<points label="cat" points="1,2"/>'
    content = re.sub(r"<image([^>]*)/>", r"<image\1></image>", path.read_text())
    path.write_text(content.replace("</image>", f"{shape}</image>", 1))


def _line(path: Path, text: str) -> None:
    content = path.read_text()
    path.write_text(content + text)


SPOILERS: dict[str, Any] = {
    "coco": ("*.json", (BAD,), _coco),
    "voc": ("*.xml", (BAD,), _voc),
    "yolo": ("*.txt", (BAD,), lambda path, _: _line(path, "0 0.5 0.5 0.2 x\n")),
    "labelme": ("*.json", (BAD, FLAT), _labelme),
    "cvat": ("*.xml", (BAD, FLAT), _cvat),
    "open images": ("*bbox*.csv", (BAD,), None),
    "pixel csv": ("*.csv", (BAD,), None),
}


@dataclass
class Given:
    """A data set, its images that are absent, others beside, and what is added to its files."""

    dataset: CocoDataset
    absent: set[str]
    others: set[str]
    added: list[str]


@st.composite
def sources(draw: st.DrawFn) -> Given:
    count = draw(st.integers(2, 5))
    images = tuple(Image(i, f"{i}.png", 60, 40) for i in range(1, count + 1))
    boxes = draw(
        st.lists(st.tuples(st.integers(1, count), st.integers(1, 2), st.integers(0, 1)), min_size=4, max_size=16)
    )
    annotations = tuple(
        Annotation(i, image, label, (float(i), 5.0, 20.0, 10.0), 200.0, int(crowd and i > 2))
        for i, (image, label, crowd) in enumerate(boxes, 1)
    )
    names = [image.file_name for image in images]
    absent = draw(st.sets(st.sampled_from(names), max_size=count - 1))
    others = draw(st.sets(st.sampled_from(["x.png", "y.png"])))
    added = draw(st.lists(st.sampled_from([BAD, FLAT]), max_size=3))
    return Given(CocoDataset(images, annotations, (Category(1, "cat"), Category(2, "dog"))), absent, others, added)


@pytest.mark.parametrize("writer", WRITERS)
@settings(max_examples=25, deadline=None)
@given(source=sources(), unannotated=st.sampled_from(["exclude", "background"]))
def test_what_goes_in_is_kept_or_excluded(writer: str, source: Given, unannotated: str) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        named = _write(writer, source, folder / "in")
        spoilt = sum(_spoil(writer, folder / "in", what) for what in source.added)
        files = {path.name for path in (folder / "in/images").iterdir()}
        try:
            loaded, dataset = _load(folder, unannotated)
        except DataError:
            return  # too many faults, nothing but crowds, or no box on an image that is there
        event("accounted")
        exclusions = read_exclusions(folder / "out")
        images, boxes = (sum(each.count for each in exclusions if each.what == what) for what in ("images", "boxes"))
        assert len(dataset.images) + images == len(files | named)
        assert len(dataset.annotations) + boxes == len(source.dataset.annotations) + spoilt
        assert (
            loaded.notes[0] == f"images: {len(files | named)} loaded = {len(dataset.images)} kept + {images} excluded"
        )
        assert {image.file_name.rpartition("/")[2] for image in dataset.images} <= files


def _write(writer: str, source: Given, folder: Path) -> set[str]:
    """Write the annotations and the images that are there, and give the images that the annotations name."""
    folder.mkdir()
    WRITERS[writer][1](source.dataset, folder)
    names = {image.file_name for image in source.dataset.images}
    for name in names - source.absent | source.others:
        (folder / "images").mkdir(exist_ok=True)
        Picture.new("RGB", (60, 40), name[0].encode()[0] * 0x10305 % 0xFFFFFF).save(folder / "images" / name)
    with_box = {each.image_id for each in source.dataset.annotations}
    return {image.file_name for image in source.dataset.images if writer in SAYS_EMPTY or image.id in with_box}


def _spoil(writer: str, folder: Path, what: str) -> int:
    """Add a box or shape that is none to the first annotation file; how many there are now."""
    pattern, kinds, add = SPOILERS[writer]
    path = min(path for path in folder.rglob(pattern) if "classes" not in path.name and "descr" not in path.name)
    if what not in kinds:
        return 0
    if add is None:
        rows = path.read_text().splitlines()
        if len(rows) < 2:
            return 0
        place = rows[0].lower().split(",").index("xmin")
        cells = rows[1].split(",")
        cells[place] = "x"
        _line(path, ",".join(cells) + "\n")
    else:
        add(path, what)
    return 1


def _load(folder: Path, unannotated: str) -> tuple[Any, CocoDataset]:
    images, markup, cache = (folder / name for name in ("images", "markup", "cache"))
    raw = load_source(str(folder / "in"), images, markup, cache=cache, unannotated=unannotated)
    options = {"images": images, "annotations": markup, "cache": cache, "missing_images": "drop"}
    loaded = load_annotations(raw, folder / "out", unannotated=unannotated, **options)
    return loaded, read_coco(folder / "out/annotations.json")
