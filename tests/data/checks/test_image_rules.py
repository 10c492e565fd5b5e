from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from one_rule import apply

from pipeline.data.checks import image_rules
from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.images import ImageFacts

A, B = Image(1, "a.png", 60, 40), Image(2, "b.png", 60, 40)
BOX = Annotation(1, 1, 1, (5.0, 6.0, 20.0, 10.0), 200.0, 0, [[5.0, 6.0, 25.0, 6.0, 25.0, 16.0]])


def dataset(*annotations: Annotation, images: tuple[Image, ...] = (A, B)) -> CocoDataset:
    return CocoDataset(images, annotations or (BOX,), (Category(1, "cat"),))


def facts(**fields: object) -> dict[str, ImageFacts]:
    return {"a.png": replace(ImageFacts(60, 40), **fields), "b.png": ImageFacts(60, 40)}


@pytest.mark.parametrize(("asked", "found"), [("missing", True), ("empty", False)])
def test_unreadable(asked: str, found: bool) -> None:
    given = dataset(BOX, replace(BOX, id=2))
    known = facts(problem="it is broken", kind="missing")
    left, findings = apply(partial(image_rules.unreadable_images, kind=asked), given, "drop", known)
    assert [(each.item, each.detail) for each in findings] == [
        ("image 1 (a.png)", "it is broken; 2 boxes went with it")
    ] * found
    assert left.images == ((B,) if found else (A, B))
    assert len(left.annotations) == (0 if found else 2)


def test_boxes_drawn_on_the_stored_picture_turn_with_it() -> None:
    known = facts(width=40, height=60, orientation=6)  # stored 60 x 40
    found, (finding,) = apply(image_rules.exif_orientation, dataset(), "repair", known)
    assert found.images == (replace(A, width=40, height=60), B)
    (box,) = found.annotations
    assert (box.bbox, box.segmentation) == ((24.0, 5.0, 10.0, 20.0), None)
    assert finding.detail == "orientation 6, boxes drawn on the stored image"


def test_boxes_drawn_on_the_upright_picture_stay() -> None:
    known = facts(width=40, height=60, orientation=6)
    given = dataset(images=(replace(A, width=40, height=60), B))
    found, (finding,) = apply(image_rules.exif_orientation, given, "repair", known)
    assert found is given
    assert finding.detail == "orientation 6, boxes drawn on the upright image"


def test_a_picture_to_be_turned_can_be_dropped() -> None:
    found, (finding,) = apply(image_rules.exif_orientation, dataset(), "drop", facts(orientation=3))
    assert (found.images, found.annotations) == ((B,), ())
    assert (finding.detail, finding.action) == (
        "orientation 3, boxes drawn on the upright image; 1 box went with it",
        "dropped",
    )


@pytest.mark.parametrize(
    ("declared", "bbox", "mask"),
    [
        pytest.param((30, 20), (10.0, 12.0, 40.0, 20.0), None, id="resized"),
        pytest.param((0, 0), (5.0, 6.0, 20.0, 10.0), BOX.segmentation, id="none"),
    ],
)
def test_another_size_than_declared(declared: tuple[int, int], bbox: tuple[float, ...], mask: object) -> None:
    given = dataset(images=(replace(A, width=declared[0], height=declared[1]), B))
    found, (finding,) = apply(image_rules.resized_images, given, "repair", facts())
    assert found.images == (A, B)
    assert found.annotations[0].bbox == bbox
    assert found.annotations[0].segmentation == mask
    assert finding.detail == f"declared {declared[0]}x{declared[1]}, the file has 60x40"
    assert apply(image_rules.unrelated_sizes, found, "drop", facts()) == (found, [])
    dropped, (finding,) = apply(image_rules.resized_images, given, "drop", facts())
    assert (dropped.images, dropped.annotations, finding.action) == ((B,), (), "dropped")


@pytest.mark.parametrize(
    ("declared", "real", "related"),
    [
        pytest.param((640, 480), (640, 481), True, id="a pixel off"),
        pytest.param((375, 250), (6000, 4003), True, id="a small copy, in whole pixels"),
        pytest.param((6000, 4003), (375, 250), True, id="of a small copy"),
        pytest.param((480, 640), (640, 480), False, id="sides swapped"),
        pytest.param((640, 480), (640, 470), False, id="cropped"),
        pytest.param((1, 1), (640, 480), False, id="of no shape"),
    ],
)
def test_what_is_a_scaling(declared: tuple[int, int], real: tuple[int, int], related: bool) -> None:
    given = dataset(images=(replace(A, width=declared[0], height=declared[1]), B))
    known = facts(width=real[0], height=real[1])
    assert len(apply(image_rules.resized_images, given, "repair", known)[1]) == related
    assert len(apply(image_rules.unrelated_sizes, given, "drop", known)[1]) == (not related)


def test_boxes_on_a_picture_of_unrelated_size_are_not_guessed_at() -> None:
    given = dataset(images=(replace(A, width=40, height=60), B))
    assert apply(image_rules.resized_images, given, "repair", facts()) == (given, [])
    dropped, (finding,) = apply(image_rules.unrelated_sizes, given, "drop", facts())
    assert (dropped.images, dropped.annotations, finding.action) == ((B,), (), "dropped")
    assert finding.detail == "declared 40x60, the file has 60x40, which is no scaling of it; 1 box went with it"


@pytest.mark.parametrize(
    ("bbox", "fits"),
    [
        pytest.param((30.0, 20.0, 30.5, 20.0), True, id="within, to a pixel"),
        pytest.param((60.0, 40.0, -20.0, -10.0), True, id="corners swapped"),
        pytest.param((5.0, 41.0, 20.0, 10.0), False, id="below"),
        pytest.param((-5.0, 6.0, 20.0, 10.0), False, id="over the left edge"),
        pytest.param((5.0, float("nan"), 20.0, 10.0), False, id="nowhere"),
    ],
)
def test_on_the_users_word_boxes_stay_that_fit(bbox: tuple[float, ...], fits: bool) -> None:
    elsewhere = replace(BOX, id=3, image_id=2, bbox=(-9.0, 0.0, 20.0, 10.0))  # its picture is as declared
    given = dataset(BOX, replace(BOX, id=2, bbox=bbox), elsewhere, images=(replace(A, width=40, height=60), B))
    found, (finding,) = apply(image_rules.unrelated_sizes, given, "repair", facts())
    assert found.images == ((A, B) if fits else (B,))
    assert found.annotations == (given.annotations if fits else (elsewhere,))
    assert finding.action == ("repaired" if fits else "dropped")
    assert ("a box does not fit in it; 2 boxes went" in finding.detail) != fits
    assert apply(image_rules.unrelated_sizes, found, "repair", facts()) == (found, [])
