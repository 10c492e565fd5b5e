from __future__ import annotations

import json
from typing import Any

import pytest
from annotation_folder import AnnotationFolder, boxes_of, refusals, subsets_of
from cases import cases

from pipeline.data.parsed import NO_SIZE
from pipeline.errors import DataError

BOX = "0 0.5 0.5 0.2 0.4\n"  # of 100x50: (40, 15, 20, 20)
CAT = ("cat", 40, 15, 20, 20)

OTHER_TEXTS = {"README.roboflow.txt": "5 0 0 0 0", "notes.txt": "", "ids.txt": "000001 -1", "classes.txt": BOX}
OTHER_YAML = {"ci.yml": "include: !reference [x]\n", "b.yaml": "- names\n", "c.yaml": "my names: [1\n"}
DATA = {"data.yaml": {"nc": 1, "names": ["cat"]}}
KEY_POINTS = {"data.yaml": {"names": ["cat"], "kpt_shape": [2, 3]}, "a.txt": BOX[:-1] + " 0.1 0.1 2 0.2 0.2 2"}


@cases(
    "files, boxes",
    {
        "labels where the image is in images": ({"labels/train/a.txt": BOX}, {"images/train/a.jpg": [CAT]}),
        "within the split's folder": ({"train/labels/a.txt": BOX}, {"train/images/a.jpg": [CAT]}),
        "beside the image": ({"x/a.txt": BOX}, {"x/a.jpg": [CAT]}),
        "only the labels in a folder": ({"labels/a.txt": BOX}, {"a.jpg": [CAT]}),
        "the folder of images taken away": ({"labels/train/a.txt": BOX}, {"train/a.jpg": [CAT]}),
        "a dot in the name": ({"labels/a.v1.txt": BOX}, {"images/a.v1.jpg": [CAT]}),
        "images without labels": (
            {"labels/a.txt": BOX, "labels/b.txt": ""},
            {"a.jpg": [CAT], "b.jpg": [], "c.jpg": []},
        ),
        "labels without an image": ({"a.txt": BOX, "labels/gone.txt": BOX}, {"a.jpg": [CAT], "labels/gone": []}),
        "labels of another split": ({"labels/train/a.txt": BOX}, {"images/val/a.jpg": [], "labels/train/a": []}),
        "other texts": (DATA | {"a.txt": BOX} | OTHER_TEXTS, {"a.jpg": [CAT], "classes.jpg": [CAT]}),
        "other YAML": (DATA | {"a.txt": BOX} | OTHER_YAML, {"a.jpg": [CAT]}),
        "key points": (KEY_POINTS, {"a.jpg": [CAT]}),
    },
)
def test_objects(annotation_folder: AnnotationFolder, files: dict[str, Any], boxes: dict[str, Any]) -> None:
    images = [name for name in boxes if name.endswith(".jpg")]
    assert annotation_folder.boxes({"classes.txt": "cat"} | files, *images) == boxes


@cases(
    "name, content",
    {
        "list": ("data.yaml", {"names": ["cat", "dog"]}),
        "by index": ("any.yml", "names:\n  1: dog\n  0: cat\n"),
        "classes.txt, Windows": ("classes.txt", "\ufeffcat\r\ndog\r\n\r\n"),
        "obj.names": ("data/obj.names", "cat\ndog"),
        "_darknet.labels": ("train/_darknet.labels", "cat\ndog\n"),
    },
)
def test_class_names(annotation_folder: AnnotationFolder, name: str, content: dict[Any, Any] | str) -> None:
    dataset = annotation_folder.dataset({name: content, "labels/a.txt": "1 0.5 0.5 0.2 0.4"}, "a.jpg")
    assert [(each.id, each.name) for each in dataset.categories] == [(1, "cat"), (2, "dog")]
    assert boxes_of(dataset) == {"a.jpg": [("dog", 40, 15, 20, 20)]}


def test_names_that_are_no_texts(annotation_folder: AnnotationFolder) -> None:
    files = {"data.yaml": "names: [007, no, 'yes']", "labels/a.txt": ""}
    assert annotation_folder.dataset(files, "a.jpg").classes == ("007", "no", "yes")


BBOX = (40, 15, 20, 20)


@cases(
    "line, bbox, segmentation",
    {
        "box": ("0 0.5 0.5 0.2 0.4", BBOX, None),
        "box with confidence": ("0.0 5e-1 .5 0.2 0.4 0.9", BBOX, None),
        "polygon": ("0 0.1 0.2 0.3 0.2 0.2 0.6", (10, 10, 20, 20), [10, 10, 30, 10, 20, 30]),
        "four corners": ("0 .1 .2 .3 .2 .3 .6 .1 .6", (10, 10, 20, 20), [10, 10, 30, 10, 30, 30, 10, 30]),
        "negative width: for validation": ("0 0.5 0.5 -0.2 0.4", (60, 15, -20, 20), None),
    },
)
def test_lines(
    annotation_folder: AnnotationFolder, line: str, bbox: tuple[float, ...], segmentation: list[int] | None
) -> None:
    dataset = annotation_folder.dataset({"classes.txt": "cat", "a.txt": f"\n{line}\n\n"}, "a.jpg", format="yolo")
    (annotation,) = dataset.annotations
    assert annotation.bbox == pytest.approx(bbox)
    assert annotation.segmentation == (segmentation and [pytest.approx(segmentation)])
    if segmentation:
        assert annotation.area == pytest.approx(200 if len(segmentation) == 6 else 400)


@cases(
    "data, subsets",
    {
        "Ultralytics": (
            {"path": "../datasets/x", "train": "images/train", "val": "images/val", "test": None},
            {"images/train/a.jpg": "train", "images/train/b.jpg": "train", "images/val/a.jpg": "eval"},
        ),
        "Roboflow": (
            {"train": "../train/images", "val": "../valid/images", "test": "../test/images"},
            {"test/images/a.jpg": "test", "train/images/a.jpg": "train", "valid/images/a.jpg": "eval"},
        ),
        "list of folders": (
            {"train": ["x", "/home/me/y/"], "val": "z"},
            {"x/a.jpg": "train", "y/b.jpg": "train", "z/c.jpg": "eval"},
        ),
        "lists of images": (
            {"train": "train.txt", "val": "lists/val.txt"},
            {"images/a.jpg": "train", "images/b.jpg": "eval"},
        ),
        "Darknet's lists": ({}, {"images/a.jpg": "train", "images/b.jpg": "eval"}),
        "the same for both is no split": (
            {"train": "images", "val": "images"},
            {"images/a.jpg": "", "images/b.jpg": ""},
        ),
        "not here: by the folders": (
            {"train": "nowhere/p", "val": "nowhere/q"},
            {"train/a.jpg": "train", "val/b.jpg": "eval"},
        ),
    },
)
def test_the_split(annotation_folder: AnnotationFolder, data: dict[str, Any], subsets: dict[str, str]) -> None:
    annotation_folder.image(*subsets, *([] if "nowhere" in str(data) else ["other.jpg"]))
    names = {"data.yaml": {"names": ["cat"]} | data} if data else {"obj.names": "cat", "images/a.txt": BOX}
    lists = {"train.txt": "./images/a.jpg\n", "lists/val.txt": "/data/x/images/b.jpg\n/data/x/images/gone.jpg\n"}
    lists |= {"valid.txt": "data/images/b.jpg\n"} if not data else {}
    annotation_folder.write(names | (lists if "train.txt" in str(data) or not data else {}))
    assert subsets_of(annotation_folder.read()) == subsets


def test_a_broken_image_costs_its_own_boxes_only(
    annotation_folder: AnnotationFolder, caplog: pytest.LogCaptureFixture
) -> None:
    annotation_folder.image("a.jpg", "b.jpg")
    (annotation_folder.images / "b.jpg").write_bytes(b"\xff\xd8")
    annotation_folder.write({"classes.txt": "cat", "a.txt": BOX, "b.txt": BOX})
    dataset = annotation_folder.read()
    assert boxes_of(dataset) == {"a.jpg": [CAT], "b.jpg": []}
    assert "1 images have no readable header" in caplog.text
    assert "b.jpg" in caplog.text


DEEP = "names: " + "[" * 20_000
ALIASES = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nnames: [*c, *c]"


test_refused = refusals(
    {
        "class": ({"a.txt": BOX + "1 0.5 0.5 0.1 0.1"}, r"class 1, which has no name.*a.txt:2.*0 to 0"),
        "negative class": ({"a.txt": BOX + "-1 .5 .5 .1 .1"}, r"class -1, which has no name.*a.txt:2"),
        "class by name": ({"a.txt": BOX + "cat .5 .5 .1 .1"}, r"class is 'cat' where a number.*a.txt:2"),
        "half a point": ({"a.txt": BOX + "0 .5 .5 .1 .1 .1 .1 .1"}, r"8 values.*a.txt:2"),
        "no number": ({"a.txt": BOX + "0 .5 .5 .1 x"}, r"coordinate is 'x' where a number.*a.txt:2"),
        "DOTA": ({"a.txt": BOX + "1 1 9 1 9 5 1 5 cat 0"}, r"after four corners, as of DOTA.*a.txt:2.*YOLOv8 OBB"),
        "first line too short": ({"a.txt": "0 .5 .5"}, r"3 values.*a.txt:1"),
        "labels twice": ({"labels/a.txt": BOX, "a.txt": BOX}, r"two annotation files are for one image"),
        "no names": ({"classes.txt": "", "a.txt": BOX}, r"classes of the labels have no names"),
        "name empty": ({"classes.txt": "cat\n\ndog", "a.txt": BOX}, r"class has no name.*classes.txt:2"),
        "index left out": ({"data.yaml": "names: {0: a, 2: b}"}, r"indices of the 2 names.*data.yaml"),
        "names a text": ({"data.yaml": "names: cat"}, r"'names' is 'cat'.*data.yaml"),
        "aliases": ({"data.yaml": ALIASES}, r"class is a list.*data.yaml"),
        "deep": ({"data.yaml": DEEP}, r"not YAML.*data.yaml"),
        "code": ({"data.yaml": "names: !!python/name:os.system"}, r"'names' is ''.*data.yaml"),
        "key points": ({"data.yaml": "names: [a]\nkpt_shape: 5"}, r"'kpt_shape' is '5'.*data.yaml"),
    },
    {"classes.txt": "cat"},
    "yolo",
)


def test_the_description_named_is_taken(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image("a.jpg")
    names = {"one.yaml": json.dumps({"names": ["cat"]}), "two.yaml": json.dumps({"names": ["dog"]})}
    annotation_folder.write(names | {"a.txt": BOX})
    assert annotation_folder.read(member="two.yaml").classes == ("dog",)
    with pytest.raises(DataError, match=r"one.yaml, two.yaml"):
        annotation_folder.read()


@cases(
    "files",
    {
        "YOLO": {"classes.txt": "cat\n", "a.txt": BOX},
        "Open Images": {"a.csv": "ImageID,LabelName,XMin,XMax,YMin,YMax\na,cat,0.1,0.2,0.1,0.2\n"},
    },
)
def test_an_image_whose_boxes_are_parts_of_an_unknown_size_is_marked(
    annotation_folder: AnnotationFolder, files: dict[Any, Any]
) -> None:
    annotation_folder.image("a.jpg")
    (annotation_folder.images / "a.jpg").write_bytes(b"\xff\xd8")
    annotation_folder.write(files)
    dataset = annotation_folder.read()
    assert [image.extra for image in dataset.images] == [{"left_out": {NO_SIZE: 1}}]
    assert not dataset.annotations
