from __future__ import annotations

import json
import math
from typing import Any

import pytest
from annotation_folder import AnnotationFolder, boxes_of, refusals, subsets_of
from cases import cases

from pipeline.data.parsed import NO_AREA


def shape(kind: object, *points: object, label: object = "cat", **fields: object) -> dict[str, object]:
    return {"label": label, "shape_type": kind, "points": [list(each) for each in points], **fields}


def record(*shapes: object, path: object = "a.jpg", **fields: object) -> dict[str, object]:
    return {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": path, "imageData": None} | fields


SIZE = {"imageWidth": 100, "imageHeight": 50}


@cases(
    "drawn, bbox",
    {
        "rectangle": (shape("rectangle", (1, 2), (11, 22)), (1, 2, 10, 20)),
        "rectangle from below": (shape("rectangle", (11, 22), (1, 2)), (1, 2, 10, 20)),
        "by four corners": (shape("rectangle", (1, 2), (11, 2), (11, 22), (1, 22)), (1, 2, 10, 20)),
        "turned": (shape("rotation", (5, 0), (10, 5), (5, 10), (0, 5)), (0, 0, 10, 10)),
        "polygon": (shape("polygon", (1, 2), (11, 2), (5, 22)), (1, 2, 10, 20)),
        "oriented rectangle": (shape("oriented_rectangle", (1, 6), (6, 2), (11, 17), (6, 22)), (1, 2, 10, 20)),
        "a kind to come": (shape("trapezoid", (1, 6), (6, 2), (11, 17), (6, 22)), (1, 2, 10, 20)),
        "no kind: polygon": (shape(None, (1, 2), (11, 2), (5, 22)), (1, 2, 10, 20)),
        "circle": (shape("circle", (10, 10), (13, 14)), (5, 5, 10, 10)),
        "mask: last pixels included": (shape("mask", (1, 2), (10, 21), mask="iVBOR"), (1, 2, 10, 20)),
    },
)
def test_shapes(annotation_folder: AnnotationFolder, drawn: Any, bbox: tuple[Any, ...]) -> None:
    (annotation,) = annotation_folder.dataset({"a.json": record(drawn, **SIZE)}, "a.jpg").annotations
    assert annotation.bbox == pytest.approx(bbox)


def test_outlines_and_areas_are_kept(annotation_folder: AnnotationFolder) -> None:
    shapes = [
        shape("polygon", (0, 0), (10, 0), (0, 10), group_id=1),  # a group may mean anything, and stays apart
        shape("circle", (10, 10), (13, 14), group_id=1),
    ]
    triangle, circle = annotation_folder.dataset({"a.json": record(*shapes)}, "a.jpg").annotations
    assert (triangle.segmentation, triangle.area) == ([[0, 0, 10, 0, 0, 10]], 50)
    assert (circle.segmentation, circle.area) == (None, pytest.approx(25 * math.pi))


def test_what_has_no_area_is_left_out_and_counted(annotation_folder: AnnotationFolder) -> None:
    shapes = [shape("point", (1, 2)), shape("line", (1, 2), (3, 4)), shape("line", (1, 2), (3, 4)), shape("linestrip")]
    dataset = annotation_folder.dataset({"a.json": record(*shapes, shape("rectangle", (1, 2), (11, 22)))}, "a.jpg")
    assert boxes_of(dataset) == {"a.jpg": [("cat", 1, 2, 10, 20)]}
    assert dataset.images[0].extra["left_out"] == {NO_AREA: 4}


def test_regions_not_judged(annotation_folder: AnnotationFolder) -> None:
    """X-AnyLabeling calls them difficult."""
    marks = {"flags": {"crowd": True}}, {"difficult": True}, {"flags": {"crowd": False}, "difficult": False}
    shapes = (shape("rectangle", (1, 2), (11, 22), **fields) for fields in marks)
    dataset = annotation_folder.dataset({"a.json": record(*shapes)}, "a.jpg")
    assert [each.iscrowd for each in dataset.annotations] == [1, 1, 0]


@cases(
    "file, path, found",
    {
        "relative, backslashes": ("labels/a.json", "..\\images\\a.jpg", "images/a.jpg"),
        "beside, where others are called so": ("train/b.json", "b.jpg", "train/b.jpg"),
        "renamed: by its own name": ("labels/a.json", "D:\\old\\renamed.jpg", "images/a.jpg"),
        "no path": ("labels/a.json", None, "images/a.jpg"),
        "absent": ("labels/gone.json", "..\\images\\gone.jpg", "images/gone.jpg"),
    },
)
def test_the_image(annotation_folder: AnnotationFolder, file: str, path: str | None, found: str) -> None:
    dataset = annotation_folder.dataset({file: record(path=path)}, "images/a.jpg", "images/b.jpg", "train/b.jpg")
    (image,) = dataset.images
    assert (image.file_name, image.width) == (found, 0 if "gone" in found else 100)


def test_several_files(annotation_folder: AnnotationFolder, caplog: pytest.LogCaptureFixture) -> None:
    annotation_folder.image("train/a.jpg", "val/b.jpg")
    labelled = record(shape("rectangle", (1, 2), (11, 22), label="zebra"), path="b.jpg", imageWidth=7, imageHeight=9)
    annotation_folder.write({"val/b.json": labelled, "train/a.json": record(shape("circle", (1, 2), (3, 4)), **SIZE)})
    annotation_folder.write({"settings.json": {"shapes": 3, "imagePath": 4}, "other.json": {"x": 1}})
    dataset = annotation_folder.read()
    assert subsets_of(dataset) == {"train/a.jpg": "train", "val/b.jpg": "eval"}
    assert [(image.width, image.height) for image in dataset.images] == [(100, 50), (7, 9)]
    assert dataset.classes == ("cat", "zebra")


HUGE = json.dumps(record(shape("rectangle", (1, 2), (3, 4)))).replace("[3, 4]", f"[3, {'9' * 4000}]")


test_refused = refusals(
    {
        "few": (
            {"labels/a.json": record(shape("polygon", (1, 2), (3, 4)))},
            r"polygon has 2 points.*a.json: shapes\[0\]",
        ),
        "half a point": ({"labels/a.json": record(shape("rectangle", (1, 2), (3,)))}, r"'points' is a list"),
        "no number": (
            {"labels/a.json": record(shape("rectangle", (1, 2), (3, "x")))},
            r"point's y is 'x'.*shapes\[0\]",
        ),
        "no label": (
            {"labels/a.json": record(shape("rectangle", (1, 2), (3, 4), label=None))},
            r"class is absent.*shapes\[0\]",
        ),
        "no object": ({"labels/a.json": record(7)}, r"shape is 7 where an object"),
        "path a number": ({"labels/a.json": record(path=7)}, r"'imagePath' is 7"),
        "huge integer": ({"labels/a.json": HUGE}, r"point's y is a number of 13\d\d\d bits"),
        "endless integer": ({"labels/a.json": HUGE.replace("9" * 4000, "9" * 5000)}, r"not JSON"),
        "deep": ({"labels/a.json": '{"shapes": [], "imagePath": ' + "[" * 100_000}, r"not JSON"),
    }
)
