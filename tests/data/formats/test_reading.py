from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from annotation_folder import AnnotationFolder
from cases import cases
from written_formats import WRITERS

from pipeline.data.coco import Annotation, Category, CocoDataset, Image, write_coco
from pipeline.data.formats.reading import FORMATS, read_annotations
from pipeline.errors import DataError, UsageError


@pytest.fixture
def small(annotation_folder: AnnotationFolder) -> CocoDataset:
    """Four images in folders, with boxes of two classes."""
    names = ("train/b.jpg", "train/a.jpg", "val/a.jpg", "c.jpg")
    annotation_folder.image(*names)
    images = tuple(Image(i, name, 100, 50) for i, name in enumerate(names, 1))
    boxes = tuple(Annotation(i, i % 4 + 1, i % 2 + 3, (i, 2.0, 10.0, 20.0), 200.0) for i in range(1, 9))
    return CocoDataset(images, boxes, (Category(3, "zebra"), Category(4, "ant")))


@pytest.mark.parametrize("writer", WRITERS)
def test_every_format_is_detected_and_numbered_by_names(
    annotation_folder: AnnotationFolder, small: CocoDataset, writer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    WRITERS[writer][1](small, annotation_folder.folder)
    dataset = annotation_folder.read()
    assert f"annotations read as {WRITERS[writer][0]}: 4 images, 8 boxes" in caplog.text
    assert [each.id for each in dataset.annotations] == list(range(1, 9))
    if writer != "coco":
        names = ["c.jpg", "train/a.jpg", "train/b.jpg", "val/a.jpg"]
        assert [(each.id, each.file_name) for each in dataset.images] == list(enumerate(names, 1))
        classes = ("zebra", "ant") if writer in {"yolo", "cvat"} else ("ant", "zebra")
        assert [(each.id, each.name) for each in dataset.categories] == list(enumerate(classes, 1))


@pytest.mark.parametrize("writer", WRITERS)
def test_the_order_of_files_changes_nothing(
    annotation_folder: AnnotationFolder,
    small: CocoDataset,
    writer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os

    WRITERS[writer][1](small, annotation_folder.folder)
    write_coco(annotation_folder.read(), tmp_path / "one.json")
    walk, shuffle = os.walk, random.Random(7).shuffle

    def shuffled(folder: Any) -> Iterator[Any]:
        for root, folders, files in walk(folder):
            shuffle(folders), shuffle(files)
            yield root, folders, files

    monkeypatch.setattr(os, "walk", shuffled)
    shuffle(annotation_folder.names)
    write_coco(annotation_folder.read(), tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


PLACES = {
    "coco": "annotations/instances.json: annotations[2]",
    "voc": "Annotations/c.xml: object 1",
    "yolo": "labels/c.txt:1",
    "labelme": "c.json: shapes[0]",
    "cvat": "annotations.xml: image c.jpg",
    "open images": "annotations-bbox.csv:4",
    "pixel csv": "annotations.csv:8",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_box_has_its_place_in_the_files(
    annotation_folder: AnnotationFolder, small: CocoDataset, writer: str
) -> None:
    WRITERS[writer][1](small, annotation_folder.folder)
    dataset = annotation_folder.read()
    (image,) = (image.id for image in dataset.images if image.file_name == "c.jpg")
    assert dataset.by_image()[image][0].source == PLACES[writer]


def test_two_formats_are_not_guessed_between(annotation_folder: AnnotationFolder, small: CocoDataset) -> None:
    WRITERS["coco"][1](small, annotation_folder.folder)
    WRITERS["yolo"][1](small, annotation_folder.folder)
    with pytest.raises(
        DataError, match=r"(?s)2 formats: coco \(ann.*json\), yolo \(labels/.*annotations_format: coco, yolo"
    ):
        annotation_folder.read()
    assert annotation_folder.read("yolo").categories[0].id == 1
    assert annotation_folder.read("coco").categories[0].id == 3
    assert annotation_folder.read(member="instances.json").categories[0].id == 3


@cases(
    "name, said",
    {
        "near": ("yolov8", "no annotation format 'yolov8'.*did you mean 'yolo'"),
        "far": ("?", "coco, voc, yolo, labelme, cvat, csv.*leave it empty"),
    },
)
def test_an_unknown_format_is_refused(annotation_folder: AnnotationFolder, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){said}"):
        annotation_folder.read(name)


@cases(
    "files, said",
    {
        "nothing": ({}, "there are no files at all"),
        "hidden": ({".hidden.json": {}, "__MACOSX/a.xml": "<annotation/>"}, "no files at all"),
        "others": ({"a.md": "x", "b.md": "x", "c": "x"}, "there are 2 .md, 1 no suffix"),
        "XML": ({"a.xml": "<kml/>"}, "voc: a.xml has <kml> outermost.*cvat: a.xml has <kml>"),
        "no image path": ({"a.json": {"shapes": []}}, "labelme: a.json has shapes, but no 'imagePath'"),
        "KITTI": ({"a.txt": "Car 0.0 0 1.5"}, "yolo: a.txt does not begin with a line 'class x-centre"),
    },
)
def test_what_is_none_of_the_formats_is_said(
    annotation_folder: AnnotationFolder, files: dict[Any, Any], said: str
) -> None:
    annotation_folder.write(files)
    with pytest.raises(DataError, match=f"(?s)no annotation format is recognised.*{said}") as error:
        annotation_folder.read()
    assert all(name in str(error.value) for name in FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_named_format_that_is_not_there_is_said(annotation_folder: AnnotationFolder, name: Any) -> None:
    annotation_folder.write({"a.md": "x"})
    with pytest.raises(DataError, match=f"(?s)no annotations in the format {name}.*there are 1 .md"):
        annotation_folder.read(name)


def test_one_files_kind_does_not_hide_anothers(annotation_folder: AnnotationFolder, small: CocoDataset) -> None:
    """Files that come with a data set and are of no format do not disturb."""
    WRITERS["voc"][1](small, annotation_folder.folder)
    annotation_folder.write({"README.txt": "0 1 2 3 4", "meta.json": {"x": 1}, "label_map.csv": "id,name\n"})
    assert len(annotation_folder.read().annotations) == 8


NAN_XML = """<annotation><filename>a.jpg</filename><object><name>cat</name>
<bndbox><xmin>nan</xmin><ymin>1</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>"""
NAN_POLYGON = {"label": "cat", "shape_type": "polygon", "points": [[1, 2], [3, math.nan], [5, 6]]}


@cases(
    "files",
    {
        "csv": {"a.csv": "filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,nan,2,11,22\n"},
        "voc": {"a.xml": NAN_XML},
        "labelme": {"a.json": {"shapes": [NAN_POLYGON], "imagePath": "a.jpg"}},
        "yolo": {"classes.txt": "cat", "a.txt": "0 nan 0.5 0.1 0.1"},
    },
)
def test_nan_is_left_to_validation(annotation_folder: AnnotationFolder, files: dict[str, Any]) -> None:
    assert math.isnan(annotation_folder.dataset(files, "a.jpg").annotations[0].bbox[0])


@cases(
    "name, content, tool",
    {
        "Label Studio": ("a.json", [{"data": {}, "annotations": [{"type": "rectanglelabels"}]}], "Label Studio"),
        "its table": ("a.csv", 'image,label\nb,"[{""rectanglelabels"": [""cat""]}]"\n', "Label Studio"),
        "VoTT": ("a.json", {"assets": {"1": {"asset": {}, "regions": [{"boundingBox": {}}]}}}, "VoTT"),
        "Datumaro": ("a.json", {"categories": {}, "items": [{"annotations": []}]}, "Datumaro"),
        "CreateML": ("a.json", [{"image": "a", "annotations": [{"coordinates": {}}]}], "CreateML"),
    },
)
def test_a_tools_own_format_is_named_with_what_to_export(
    annotation_folder: AnnotationFolder, name: str, content: Any, tool: str
) -> None:
    annotation_folder.write({name: content})
    with pytest.raises(DataError, match=f"do: .*{name} is of {tool}, whose own format is not read: export it as C"):
        annotation_folder.read()


def test_a_remedy_that_was_tried_is_not_named(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.write({"a.json": {"x": 1}})
    with pytest.raises(DataError, match="leave annotations_format empty"):
        annotation_folder.read("coco")


WHOLE = {
    "xml": "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
    "</bndbox></object></annotation>",
    "json": '{"shapes": [{"label": "cat", "shape_type": "rectangle", "points": [[1, 2], [9, 9]]}], "imagePath": null}',
}


@cases(
    "content",
    {
        "empty": b"",
        "blank": b"\n",
        "cut off at once": b'{"shap',
        "zeros": bytes(64),
        "another encoding": "\ufeff".encode("utf-32") * 9,
    },
)
@pytest.mark.parametrize("suffix", WHOLE)
def test_a_broken_file_of_an_image_is_a_fault(annotation_folder: AnnotationFolder, suffix: str, content: bytes) -> None:
    annotation_folder.image("a.jpg", "b.jpg")
    annotation_folder.write({f"a.{suffix}": WHOLE[suffix], f"b.{suffix}": content})
    with pytest.raises(DataError, match=f"(?s)the file is not .*b.{suffix}"):
        annotation_folder.read()


@cases(
    "files, note",
    {
        "XML": (
            {"a.xml": WHOLE["xml"], "b.xml": "<html/>"},
            "left out: 1 XML files without <annotation> outermost, such as b.xml",
        ),
        "JSON": (
            {"a.json": WHOLE["json"], "b.json": "{}", "setup.json": "no JSON"},
            "left out: 1 JSON files of images without shapes, such as b.json",
        ),
    },
)
def test_other_files_are_left_out(annotation_folder: AnnotationFolder, files: dict[str, Any], note: str) -> None:
    annotation_folder.image("a.jpg", "b.jpg")
    annotation_folder.write(files)
    read = read_annotations(annotation_folder.folder, annotation_folder.index)
    assert read.notes == (note,)
    assert len(read.dataset.annotations) == 1
