from __future__ import annotations

from typing import Any

import pytest
from annotation_folder import AnnotationFolder, boxes_of, refusals, subsets_of
from cases import cases


def xml(*objects: str, name: str = "a.jpg", size: str = "<width>100</width><height>50</height>", rest: str = "") -> str:
    inside = f"<size>{size}</size>" if size else ""
    return f"<annotation><folder>x</folder><filename>{name}</filename>{rest}{inside}{''.join(objects)}</annotation>"


def box(*corners: object, kind: str = "cat", rest: str = "") -> str:
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    return f"<object><name>{kind}</name>{rest}<bndbox>{sides}</bndbox></object>"


LABEL_STUDIO = "<source><database>MyDatabase</database></source><owner><name>Label Studio</name></owner>"
X_ANYLABELING = "<source><database>https://github.com/CVHub520/X-AnyLabeling</database></source>"
MAKESENSE = "<source><database>Unspecified</database></source>"
KIT = "<source><database>The VOC2012 Database</database><annotation>PASCAL VOC2012</annotation></source>"


@cases(
    "files, boxes",
    {
        "whole numbers: from 1, last included": ({"a.xml": xml(box(1, 1, 3, 4))}, [("cat", 0, 0, 3, 4)]),
        "a decimal point: edges from 0": ({"a.xml": xml(box("1.0", 1, 3, 4))}, [("cat", 1, 1, 2, 3)]),
        "an edge at 0: edges from 0": ({"a.xml": xml(box(0, 1, 3, 4))}, [("cat", 0, 1, 3, 3)]),
        "an edge at 0 in another file": (
            {"a.xml": xml(box(2, 1, 3, 4)), "b.xml": xml(box(5, 0, 6, 7), name="b.jpg")},
            [("cat", 2, 1, 1, 3)],
        ),
        "says it is VOC": ({"a.xml": xml(box("1.5", 1, 3, 4), rest=KIT)}, [("cat", 0.5, 0, 2.5, 4)]),
        "of Label Studio: edges from 0": ({"a.xml": xml(box(1, 1, 3, 4), rest=LABEL_STUDIO)}, [("cat", 1, 1, 2, 3)]),
        "of X-AnyLabeling": ({"a.xml": xml(box(1, 1, 3, 4), rest=X_ANYLABELING)}, [("cat", 1, 1, 2, 3)]),
        "of makesense": ({"a.xml": xml(box(1, 1, 3, 4), rest=MAKESENSE)}, [("cat", 1, 1, 2, 3)]),
        "corners swapped": ({"a.xml": xml(box(9, 9, 3, 4))}, [("cat", 2, 3, 7, 6)]),
        "parts of objects are none": (
            {"a.xml": xml(box(1, 1, 3, 4, rest="<part><name>head</name><bndbox/></part>"))},
            [("cat", 0, 0, 3, 4)],
        ),
    },
)
def test_coordinates(annotation_folder: AnnotationFolder, files: dict[Any, Any], boxes: list[Any]) -> None:
    annotation_folder.image("JPEGImages/a.jpg", "JPEGImages/b.jpg")
    annotation_folder.write({f"Annotations/{name}": content for name, content in files.items()})
    assert boxes_of(annotation_folder.read())["JPEGImages/a.jpg"] == boxes


TURNED = "<robndbox><cx>50</cx><cy>25</cy><w>30</w><h>20</h><angle>{}</angle></robndbox>"
NUMBERED = "<polygon><x1>1</x1><y1>2</y1><x2>11</x2><y2>2</y2><x3>11</x3><y3>22</y3></polygon>"
POINTS = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((1, 2), (11, 2), (11, 22)))


@cases(
    "drawn, bbox",
    {
        "turned box": (TURNED.format(0.0), (35, 15, 30, 20)),
        "turned by a quarter": (TURNED.format(1.5707963267948966), (40, 10, 20, 30)),
        "polygon": (NUMBERED, (1, 2, 10, 20)),
        "LabelMe 3.0's mask": (
            "<segm><box><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax></box><mask>a.png</mask></segm>",
            (1, 2, 10, 20),
        ),
        "LabelMe 3.0": (f"<deleted>0</deleted><polygon>{POINTS}</polygon>", (1, 2, 10, 20)),
    },
)
def test_other_shapes(annotation_folder: AnnotationFolder, drawn: str, bbox: tuple[float, ...]) -> None:
    deleted = f"<object><name>dog</name><deleted>1</deleted><polygon>{POINTS}</polygon></object>"
    files = {"a.xml": xml(f"<object><name>cat</name>{drawn}</object>", deleted)}
    (annotation,) = annotation_folder.dataset(files, "a.jpg").annotations
    assert annotation.bbox == pytest.approx(bbox)
    assert annotation.source == "a.xml: object 1"


def test_difficult_objects_are_not_judged(annotation_folder: AnnotationFolder) -> None:
    marks = ("<difficult>1</difficult>", "<difficult>0</difficult>", "", "<difficult>Unspecified</difficult>")
    dataset = annotation_folder.dataset({"a.xml": xml(*(box(1, 1, 3, 4, rest=each) for each in marks))}, "a.jpg")
    assert [each.iscrowd for each in dataset.annotations] == [1, 0, 0, 0]


def test_image_sets_are_the_split(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image(*(f"JPEGImages/{name}.jpg" for name in "abcd"))
    annotation_folder.write({f"Annotations/{name}.xml": xml(name=f"{name}.jpg") for name in "abcd"})
    sets = {"train": "a\n", "val": "b\n", "test": "c\n", "trainval": "a\nb\n", "cat_train": "a -1\nb 1\n"}
    annotation_folder.write({f"ImageSets/Main/{name}.txt": content for name, content in sets.items()})
    assert list(subsets_of(annotation_folder.read()).values()) == ["train", "eval", "test", ""]


def test_lists_of_a_class_are_the_split(annotation_folder: AnnotationFolder) -> None:
    """VoTT writes such lists alone, with suffixes; CVAT the folders of images in folders."""
    annotation_folder.image("JPEGImages/a 1.jpg", "JPEGImages/b.jpg", "JPEGImages/x/c.jpg", "JPEGImages/y/c.jpg")
    names = ("a 1", "b", "x/c", "y/c")
    annotation_folder.write({f"Annotations/{name}.xml": xml(name=f"{name}.jpg") for name in names})
    sets = {"cat_train": "a 1.jpg 1\nx/c -1\n", "cat_val": "b.jpg -1\ny/c 1\n"}
    annotation_folder.write({f"ImageSets/Main/{name}.txt": content for name, content in sets.items()})
    assert list(subsets_of(annotation_folder.read()).values()) == ["train", "eval", "train", "eval"]


@cases(
    "named, size",
    {
        "declared": ("a.jpg", "<width>7</width><height>9</height>"),
        "declared with a point": ("a.jpg", "<width>7.0</width><height>9</height>"),
        "0": ("a.jpg", "<width>0</width><height>0</height>"),
        "none": ("a.jpg", ""),
        "another suffix, so by the annotation's own name": ("a.png", ""),
        "no name": ("", ""),
    },
)
def test_image_and_size(annotation_folder: AnnotationFolder, named: str, size: str) -> None:
    (image,) = annotation_folder.dataset({"a.xml": xml(name=named, size=size)}, "images/a.jpg").images
    assert (image.file_name, image.width, image.height) == ("images/a.jpg", *((7, 9) if "7" in size else (100, 50)))


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


test_refused = refusals(
    {
        "no number": ({"labels/a.xml": xml(box(1, 1, 3, "x"))}, "<ymax> is 'x' where a number.*a.xml: object 1"),
        "no class": ({"labels/a.xml": xml(box(1, 1, 3, 4, kind=" "))}, "class is ' ' where a name.*a.xml: object 1"),
        "no box": ({"labels/a.xml": xml("<object><name>x</name></object>")}, "no <bndbox>.*a.xml: object 1"),
        "negative size": ({"labels/a.xml": xml(size="<width>-5</width><height>1</height>")}, "size is -5x1"),
        "cut": ({"labels/a.xml": xml()[:-5]}, "not XML: .*line 1, column.*a.xml"),
        "bomb": ({"labels/a.xml": BOMB + xml(name="&b;")}, "declares entities.*a.xml"),
        "two files": ({"new/a.xml": xml(), "old/a.xml": xml()}, "two annotation files.*a.jpg: new/a.xml and old/a.xml"),
    }
)
