"""Images with boxes, written in each format and read back: by this project, and by the tools' own packages."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
import yaml
from cases import cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.reading import read_annotations
from pipeline.data.sources.api_settings import ApiSettings
from pipeline.data.sources.label_studio import read_task
from pipeline.data.sources.source import ApiSource
from pipeline.data.writing import FORMATS
from pipeline.data.writing.formats import label_writer
from pipeline.data.writing.label_studio_file import setup_of
from pipeline.data.writing.labelled import LabelledBox, LabelledImage
from pipeline.errors import DataError, UsageError

CLASSES = ("cat", "tree & <house>", "hund ß", "no")
SIZES = {"a b.jpg": (160, 120), "c.jpg": (90, 210), "empty.jpg": (64, 64)}
OUTPUTS = {"coco": "coco.json", "cvat": "cvat.xml", "label-studio": "label_studio.json", "yolo": "yolo"}
SOURCE = ApiSource("label-studio", "https://x", "https://x", {}, ApiSettings(image="image"), "x")
Rows = dict[str, list[tuple[Any, ...]]]

FOUND = LabelledBox("cat", (10.25, 20.5, 30.125, 40.0), 0.875, {"kind": "wrong class", "suspicion": 0.5})
LABEL = LabelledBox("tree & <house>", (50.5, 30.0, 20.0, 70.0))
IMAGES = (
    LabelledImage("a b.jpg", 160, 120, (FOUND, LABEL)),
    LabelledImage("c.jpg", 90, 210, (LABEL,)),
    LabelledImage("empty.jpg", 64, 64),
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name, (width, height) in SIZES.items():
        cv2.imwrite(str(folder / name), np.zeros((height, width, 3), np.uint8))
    return folder


def write(kind: str, folder: Path, images: Sequence[LabelledImage], classes: Sequence[str] = CLASSES) -> Path:
    path = folder / OUTPUTS[kind]
    with label_writer(kind, path, classes) as writer:
        for image in images:
            writer.add(image)
    return path


def rows_of(images: Sequence[LabelledImage]) -> Rows:
    return {image.name: [(box.label, *box.bbox) for box in image.boxes] for image in images}


def read_back(kind: str, path: Path, pictures: Path) -> tuple[Rows, tuple[str, ...]]:
    """The boxes by image, and the classes, as this project's own readers see them."""
    if kind == "label-studio":
        return _accepted(json.loads(path.read_text("utf-8"))), ()
    folder = path if path.is_dir() else path.parent
    found = read_annotations(folder, ImageIndex(pictures, list(SIZES)))
    assert found.format == kind
    assert not found.unreadable
    names = {each.id: each.name for each in found.dataset.categories}
    groups = found.dataset.by_image()
    rows: Rows = {
        image.file_name: [(names[each.category_id], *each.bbox) for each in groups.get(image.id, [])]
        for image in found.dataset.images
    }
    return rows, found.dataset.classes


def _accepted(tasks: Any) -> Rows:
    """Label Studio's tasks after a person has accepted all predictions."""
    rows: Rows = {}
    for task in tasks:
        answered = {**task, "id": 1, "annotations": task["predictions"] or [{"result": []}]}
        record, *left_out = read_task(answered, SOURCE, "here")
        assert not left_out
        image = record.image  # type: ignore[union-attr]
        width, height = image.width or 1, image.height or 1
        rows[image.name] = [
            (each.label, *(value * side for value, side in zip(each.bbox, (width, height) * 2, strict=True)))
            for each in image.boxes
        ]
    return rows


def assert_same(there: Rows, expected: Rows, slack: float = 1e-4) -> None:
    assert sorted(there) == sorted(expected)
    for name, rows in expected.items():
        assert [row[0] for row in there[name]] == [row[0] for row in rows]
        for row, other in zip(there[name], rows, strict=True):
            assert row[1:5] == pytest.approx(other[1:5], abs=slack)


@st.composite
def _boxes(draw: st.DrawFn, width: int, height: int) -> LabelledBox:
    x, y = draw(st.floats(0, width - 2)), draw(st.floats(0, height - 2))
    across, down = draw(st.floats(1, width - x)), draw(st.floats(1, height - y))
    score = draw(st.none() | st.floats(0, 1))
    return LabelledBox(draw(st.sampled_from(CLASSES)), (x, y, across, down), score)


def _image(name: str, width: int, height: int) -> st.SearchStrategy[LabelledImage]:
    boxes = st.lists(_boxes(width, height), max_size=4).map(tuple)
    return boxes.map(lambda drawn: LabelledImage(name, width, height, drawn))


_SCENES = st.tuples(*(_image(name, *size) for name, size in SIZES.items()))


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=_SCENES)
def test_what_is_written_is_read_back(kind: str, pictures: Path, images: tuple[LabelledImage, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        there, classes = read_back(kind, write(kind, Path(folder), images), pictures)
    assert_same(there, rows_of(images))
    if kind != "label-studio":
        assert classes == CLASSES


@pytest.mark.parametrize("kind", FORMATS)
def test_a_class_that_nobody_named_follows_the_others(kind: str, pictures: Path, tmp_path: Path) -> None:
    path = write(kind, tmp_path, IMAGES, ("unused",))
    there, classes = read_back(kind, path, pictures)
    assert_same(there, rows_of(IMAGES))
    if kind == "label-studio":
        classes = tuple(each.get("value", "") for each in ET.parse(setup_of(path)).iter("Label"))
    assert classes == ("unused", "cat", "tree & <house>")


@pytest.mark.parametrize("kind", FORMATS)
def test_after_an_error_nothing_is_left(kind: str, tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        write(kind, tmp_path, [IMAGES[0], None])  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_no_images(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path, [])
    if kind == "cvat":
        assert ET.parse(path).getroot().findall("image") == []
    elif kind == "yolo":
        assert list((path / "labels/train").iterdir()) == []
    else:
        content = json.loads(path.read_text("utf-8"))
        assert (content if kind == "label-studio" else content["images"]) == []


def test_coco(tmp_path: Path) -> None:
    coco = COCO(str(write("coco", tmp_path, IMAGES)))
    assert coco.loadAnns([1, 2]) == [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10.25, 20.5, 30.125, 40.0], "area": 1205.0, "iscrowd": 0}
        | {"segmentation": [], "score": 0.875, "attributes": {"kind": "wrong class", "suspicion": 0.5}},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [50.5, 30.0, 20.0, 70.0], "area": 1400.0, "iscrowd": 0}
        | {"segmentation": []},
    ]


def test_cvat(tmp_path: Path) -> None:
    root = ET.parse(write("cvat", tmp_path, IMAGES)).getroot()
    found, label = root.findall("image")[0].findall("box")
    assert (found.get("source"), label.get("source")) == ("auto", "manual")
    assert [found.get(key) for key in ("label", "xtl", "ytl", "xbr", "ybr")] == [
        "cat",
        "10.25",
        "20.5",
        "40.375",
        "60.5",
    ]
    told = {each.get("name"): each.text for each in found.findall("attribute")}
    assert told == {"score": "0.875", "kind": "wrong class", "suspicion": "0.5"}
    declared = root.findall("meta/task/labels/label/attributes/attribute")
    kinds = {each.findtext("name"): each.findtext("input_type") for each in declared}
    assert kinds == {"score": "number", "kind": "text", "suspicion": "number"}
    assert len(declared) == 3 * len(CLASSES)


def test_label_studio(tmp_path: Path) -> None:
    with label_writer("label-studio", tmp_path / "x.json", CLASSES, image_prefix="s3://bucket/in/") as writer:
        writer.add(LabelledImage("a b.jpg", 200, 100, (FOUND,), {"rank": 3}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.setup.xml"]
    [task] = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert task["data"] == {"image": "s3://bucket/in/a%20b.jpg", "rank": 3}
    [prediction] = task["predictions"]
    assert prediction["score"] == 0.875
    [region] = prediction["result"]
    assert region["value"].pop("rectanglelabels") == ["cat"]
    assert region["value"] == pytest.approx({"x": 5.125, "y": 20.5, "width": 15.0625, "height": 40.0, "rotation": 0})
    assert (region["original_width"], region["original_height"], region["score"]) == (200, 100, 0.875)
    assert region["meta"] == {"text": ["kind: wrong class", "suspicion: 0.5"]}


def test_yolo(tmp_path: Path) -> None:
    folder = write("yolo", tmp_path, [*IMAGES, LabelledImage("sub/deep/d.png", 100, 100, (FOUND,))])
    lines = (folder / "labels/train/sub/deep/d.txt").read_text("utf-8")
    assert lines == "0 0.253125000 0.405000000 0.301250000 0.400000000\n"
    assert (folder / "labels/train/empty.txt").read_bytes() == b""
    content = yaml.safe_load((folder / "data.yaml").read_text("utf-8"))
    assert content == {"path": ".", "train": "images/train", "names": dict(enumerate(CLASSES))}
    assert list((folder / "images/train").iterdir()) == []


def test_images_that_yolo_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    same = [IMAGES[0], LabelledImage("a b.png", 10, 10)]
    with pytest.raises(DataError, match=r"the same file of labels: a b\.jpg and a b\.png"):
        write("yolo", tmp_path, same)
    assert list(tmp_path.iterdir()) == []


@cases("name, message", {"a file": ("file", "is a file"), "a full folder": ("full", "is not empty")})
def test_yolo_replaces_nothing(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(UsageError, match=message), label_writer("yolo", tmp_path / name, CLASSES):
        pass
    (tmp_path / "empty").mkdir()
    with label_writer("yolo", tmp_path / "empty", CLASSES) as writer:
        writer.add(IMAGES[0])
    assert (tmp_path / "empty" / "data.yaml").is_file()


# --- the tools themselves --------------------------------------------------------------------------------------------

TOOLS = {
    "fiftyone": ("fiftyone>=1.22,<2", ("coco", "cvat", "yolo")),
    "datumaro": ("datumaro>=1.13,<2", ("coco", "cvat", "yolo")),
    "label-studio": ("label-studio-sdk>=2.1,<3", ("label-studio",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_the_packages_of_the_tools_load_it(tool: str, pictures: Path, tmp_path: Path) -> None:
    """Each in an environment of its own, since it brings hundreds of megabytes, and other versions than the project."""
    package, kinds = TOOLS[tool]
    for kind in FORMATS:
        write(kind, tmp_path, IMAGES)
    for folder in ("images/train", "yolo/images/train"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in SIZES:
            (tmp_path / folder / name).write_bytes((pictures / name).read_bytes())
    python = _environment(package, tmp_path / "environment")
    script = Path(__file__).parents[2] / "support" / "read_by_tools.py"
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HOME": str(tmp_path)}
    ran = subprocess.run([python, script, tool, tmp_path], env=clean, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    loaded = json.loads(ran.stdout.splitlines()[-1])
    assert set(loaded) == set(kinds)
    expected = {Path(name).stem: rows for name, rows in rows_of(IMAGES).items()}
    for kind, found in loaded.items():
        there: Rows = {name: [tuple(row) for row in sorted(rows)] for name, rows in found.items()}
        assert_same(there, expected, slack=1 if (tool, kind) == ("fiftyone", "cvat") else 0.006)  # they round
        _, *_, score, attributes = there["a b"][0]
        if kind in {"coco", "cvat"}:
            assert 0.875 in (score, attributes.get("score"))
            assert (attributes["kind"], attributes["suspicion"]) == ("wrong class", 0.5)


def _environment(package: str, folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "-q", package], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"{package} cannot be installed here: {installed.stderr.splitlines()[-1:]}")
    return python
