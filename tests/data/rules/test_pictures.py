from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.rules import pictures
from pipeline.data.rules.inspection import ImageFacts

A, B = Image(1, "a.png", 60, 40), Image(2, "b.png", 60, 40)
BOX = Annotation(1, 1, 1, (5.0, 6.0, 20.0, 10.0), 200.0, 0, [[5.0, 6.0, 25.0, 6.0, 25.0, 16.0]])


def dataset(*annotations: Annotation, images: tuple[Image, ...] = (A, B)) -> CocoDataset:
    return CocoDataset(images, annotations or (BOX,), (Category(1, "cat"),))


def facts(**fields: object) -> dict[str, ImageFacts]:
    return {"a.png": replace(ImageFacts(60, 40), **fields), "b.png": ImageFacts(60, 40)}


@pytest.mark.parametrize(
    ("kind", "asked", "found"),
    [
        pytest.param("missing", "missing", True, id="its kind"),
        pytest.param("missing", "empty", False, id="another"),
        pytest.param("", "undecodable", True, id="of no kind"),
        pytest.param("", "missing", False, id="of no kind, and another"),
    ],
)
def test_unreadable(kind: str, asked: str, found: bool) -> None:
    given = dataset(BOX, replace(BOX, id=2))
    known = facts(problem="it is broken", kind=kind)
    left, findings = pictures.unreadable_images(given, known, "drop", rule="broken", kind=asked)
    assert [(each.rule, each.item, each.detail) for each in findings] == [
        ("broken", "image 1 (a.png)", "it is broken; 2 boxes went with it")
    ] * found
    assert left.images == ((B,) if found else (A, B))
    assert len(left.annotations) == (0 if found else 2)


def test_boxes_drawn_on_the_stored_picture_turn_with_it() -> None:
    known = facts(width=40, height=60, orientation=6)  # stored 60 x 40
    found, (finding,) = pictures.exif_orientation(dataset(), known, "repair")
    assert found.images == (replace(A, width=40, height=60), B)
    (box,) = found.annotations
    assert (box.bbox, box.segmentation) == ((24.0, 5.0, 10.0, 20.0), None)
    assert finding.detail == "orientation 6: written upright, boxes turned with it, masks left out"


def test_boxes_drawn_on_the_upright_picture_stay() -> None:
    known = facts(width=40, height=60, orientation=6)
    given = dataset(images=(replace(A, width=40, height=60), B))
    found, (finding,) = pictures.exif_orientation(given, known, "repair")
    assert found is given
    assert finding.detail == "orientation 6: written upright, boxes left"


def test_a_picture_to_be_turned_can_be_dropped() -> None:
    found, (finding,) = pictures.exif_orientation(dataset(), facts(orientation=3), "drop")
    assert (found.images, found.annotations) == ((B,), ())
    assert (finding.detail, finding.action) == ("orientation 3; 1 box went with it", "dropped")


@pytest.mark.parametrize(
    ("declared", "bbox", "boxes"),
    [
        pytest.param((30, 20), (10.0, 12.0, 40.0, 20.0), "scaled, masks left out", id="resized"),
        pytest.param((40, 60), (5.0, 6.0, 20.0, 10.0), "left", id="of another shape"),
        pytest.param((0, 0), (5.0, 6.0, 20.0, 10.0), "left", id="none"),
    ],
)
def test_another_size_than_declared(declared: tuple[int, int], bbox: tuple[float, ...], boxes: str) -> None:
    given = dataset(images=(replace(A, width=declared[0], height=declared[1]), B))
    found, (finding,) = pictures.declared_size(given, facts(), "repair")
    assert found.images == (A, B)
    assert found.annotations[0].bbox == bbox
    assert found.annotations[0].segmentation == (None if "left out" in boxes else BOX.segmentation)
    assert finding.detail == f"declared {declared[0]}x{declared[1]}, the file has 60x40; boxes {boxes}"
    dropped, (finding,) = pictures.declared_size(given, facts(), "drop")
    assert (dropped.images, dropped.annotations, finding.action) == ((B,), (), "dropped")
