"""Every image and box that goes into data_load is kept, or excluded for a reason: in all formats, whatever is wrong."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from written_formats import SAYS_CROWD, SAYS_EMPTY, WRITERS

from pipeline.data.annotation_matching import ABSENT, NOT_ANNOTATED, NOT_USABLE
from pipeline.data.checks.findings import read_loaded_findings
from pipeline.data.coco import Annotation, Category, CocoDataset, Image, read_coco
from pipeline.data.loading import LoadedAnnotations, load_annotations, load_source
from pipeline.data.parsed import NO_AREA, UNREADABLE
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


def _yolo(path: Path, _: str) -> None:
    path.write_text(f"{path.read_text()}0 0.5 0.5 0.2 x\n")


def _row(path: Path, _: str) -> None:
    """The first row again, with a word for a number."""
    content = path.read_text()
    titles, cells = (line.lower().split(",") for line in content.splitlines()[:2])
    cells[titles.index("xmin")] = "x"
    path.write_text(f"{content}{','.join(cells)}\n")


SPOILERS: dict[str, Any] = {
    "coco": ("*.json", (BAD,), _coco),
    "voc": ("*.xml", (BAD,), _voc),
    "yolo": ("*.txt", (BAD,), _yolo),
    "labelme": ("*.json", (BAD, FLAT), _labelme),
    "cvat": ("*.xml", (BAD, FLAT), _cvat),
    "open images": ("*bbox*.csv", (BAD,), _row),
    "pixel csv": ("*.csv", (BAD,), _row),
}


IN_FRACTIONS = {"yolo", "open images"}  # of the image's size, so that boxes of absent images cannot be read


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
        st.lists(st.tuples(st.integers(1, count), st.integers(1, 2), st.integers(0, 1)), min_size=1, max_size=16)
    )
    annotations = tuple(
        Annotation(i, image, label, (float(i), 5.0, 20.0, 10.0), 200.0, crowd)
        for i, (image, label, crowd) in enumerate(boxes, 1)
    )
    names = [image.file_name for image in images]
    absent = draw(st.sets(st.sampled_from(names), max_size=count - 1))
    others = draw(st.sets(st.sampled_from(["x.png", "y.png"])))
    added = draw(st.lists(st.sampled_from([BAD, FLAT]), max_size=3))
    return Given(CocoDataset(images, annotations, (Category(1, "cat"), Category(2, "dog"))), absent, others, added)


@dataclass
class Account:
    """What is to become of the images and boxes of a source."""

    images: Counter[str]  # by reason; those that are kept under ""
    boxes: Counter[str]
    unreadable: int
    is_refused: bool


def account(writer: str, source: Given, added: Counter[str], missing: str, unannotated: str) -> Account:
    names = {image.id: image.file_name for image in source.dataset.images}
    boxes = Counter(names[each.image_id] for each in source.dataset.annotations)
    named = set(names.values()) if writer in SAYS_EMPTY else set(boxes)
    files = set(names.values()) - source.absent | source.others
    absent = named - files
    spoilt = names[source.dataset.annotations[0].image_id] if writer == "open images" else "1.png"
    if not added:
        spoilt = ""
    images = Counter({ABSENT: len(absent)})
    for name in files:
        is_unusable = name == spoilt and name not in boxes
        is_unknown = name not in named and unannotated == "exclude"
        images[NOT_USABLE if is_unusable else NOT_ANNOTATED if is_unknown else ""] += 1
    kept = sum(boxes[name] for name in files)
    found = Counter({ABSENT: sum(boxes[name] for name in absent), "": kept})
    if spoilt in absent:
        found[ABSENT] += added.total()
    else:
        found.update({UNREADABLE: added[BAD], NO_AREA: added[FLAT]})
    readable = [
        each for each in source.dataset.annotations if writer not in IN_FRACTIONS or names[each.image_id] in files
    ]
    are_crowds = writer in SAYS_CROWD and all(each.iscrowd for each in readable)
    is_refused = added[BAD] * 4 > len(readable) + added[BAD] or bool(absent and missing == "refuse") or not kept
    return Account(+images, +found, added[BAD], is_refused or are_crowds)


@pytest.mark.parametrize("writer", WRITERS)
@settings(max_examples=25, deadline=None)
@given(
    source=sources(),
    missing=st.sampled_from(["drop", "drop", "refuse"]),
    unannotated=st.sampled_from(["exclude", "background"]),
)
def test_what_goes_in_is_kept_or_excluded(writer: str, source: Given, missing: str, unannotated: str) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        _write(writer, source, folder / "in")
        added = Counter(what for what in source.added if _spoil(writer, folder / "in", what))
        expected = account(writer, source, added, missing, unannotated)
        event("refused" if expected.is_refused else "accounted")
        if expected.is_refused:
            with pytest.raises(DataError):
                _load(folder, missing, unannotated)
            return
        loaded, dataset = _load(folder, missing, unannotated)
        exclusions = read_exclusions(folder / "out")
        for what, kept, counts in (
            ("images", len(dataset.images), expected.images),
            ("boxes", len(dataset.annotations), expected.boxes),
        ):
            assert {"": kept} | {each.reason: each.count for each in exclusions if each.what == what} == counts
            note = f"{what}: {counts.total()} loaded = {kept} kept + {counts.total() - kept} excluded"
            assert note in loaded.notes
        unreadable = [each.rule for each in read_loaded_findings(folder / "out")]
        assert unreadable == ["unreadable-annotation"] * expected.unreadable


def _write(writer: str, source: Given, folder: Path) -> None:
    """Write the annotations, and the images that are there."""
    folder.mkdir()
    WRITERS[writer][1](source.dataset, folder)
    names = {image.file_name for image in source.dataset.images}
    (folder / "images").mkdir(exist_ok=True)
    for name in names - source.absent | source.others:
        Picture.new("RGB", (60, 40), name[0].encode()[0] * 0x10305 % 0xFFFFFF).save(folder / "images" / name)


def _spoil(writer: str, folder: Path, what: str) -> bool:
    """Add a box or shape that is none to the first annotation file, if the format has such."""
    pattern, kinds, add = SPOILERS[writer]
    if what not in kinds:
        return False
    path = min(path for path in folder.rglob(pattern) if "classes" not in path.name and "descr" not in path.name)
    add(path, what)
    return True


def _load(folder: Path, missing: str, unannotated: str) -> tuple[LoadedAnnotations, CocoDataset]:
    images, markup, cache = (folder / name for name in ("images", "markup", "cache"))
    raw = load_source(str(folder / "in"), images, markup, cache=cache, unannotated=unannotated)
    options = {"images": images, "annotations": markup, "cache": cache, "missing_images": missing}
    loaded = load_annotations(raw, folder / "out", unannotated=unannotated, **options)
    return loaded, read_coco(folder / "out/annotations.json")
