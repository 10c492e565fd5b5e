from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from one_rule import BOX, A, B, apply, dataset
from pictures import smooth

from pipeline.data.checks import image_rules
from pipeline.data.checks.findings import DID
from pipeline.data.checks.image_rules import duplicate_groups, exact_duplicates, near_duplicates
from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.images import ImageFacts
from pipeline.serving.image_fingerprint import fingerprint_of


def facts(**fields: object) -> dict[str, ImageFacts]:
    return {"a.png": replace(ImageFacts(60, 40), **fields), "b.png": ImageFacts(60, 40)}


@cases(
    "declared, bbox, mask",
    {"resized": ((30, 20), (10.0, 12.0, 40.0, 20.0), None), "none": ((0, 0), (5.0, 6.0, 20.0, 10.0), BOX.segmentation)},
)
def test_another_size_than_declared(declared: tuple[int, int], bbox: tuple[float, ...], mask: object) -> None:
    given = dataset(images=(replace(A, width=declared[0], height=declared[1]), B))
    found, (finding,) = apply(image_rules.resized_images, given, "repair", facts())
    assert found.images == (A, B)
    assert found.annotations[0].bbox == bbox
    assert found.annotations[0].segmentation == mask
    assert finding.detail == f"declared {declared[0]}x{declared[1]}, the file has 60x40"
    assert apply(image_rules.unrelated_sizes, found, "drop", facts()) == (found, [])


@cases(
    "declared, real, related",
    {
        "a pixel off": ((640, 480), (640, 481), True),
        "a small copy, in whole pixels": ((375, 250), (6000, 4003), True),
        "of a small copy": ((6000, 4003), (375, 250), True),
        "sides swapped": ((480, 640), (640, 480), False),
        "cropped": ((640, 480), (640, 470), False),
        "of no shape": ((1, 1), (640, 480), False),
    },
)
def test_what_is_a_scaling(declared: tuple[int, int], real: tuple[int, int], related: bool) -> None:
    given = dataset(images=(replace(A, width=declared[0], height=declared[1]), B))
    known = facts(width=real[0], height=real[1])
    assert len(apply(image_rules.resized_images, given, "repair", known)[1]) == related
    assert len(apply(image_rules.unrelated_sizes, given, "drop", known)[1]) == (not related)


@cases(
    "bbox, fits",
    {
        "within, to a pixel": ((30.0, 20.0, 30.5, 20.0), True),
        "corners swapped": ((60.0, 40.0, -20.0, -10.0), True),
        "below": ((5.0, 41.0, 20.0, 10.0), False),
        "over the left edge": ((-5.0, 6.0, 20.0, 10.0), False),
        "nowhere": ((5.0, float("nan"), 20.0, 10.0), False),
    },
)
def test_on_the_users_word_boxes_stay_that_fit(bbox: tuple[float, ...], fits: bool) -> None:
    elsewhere = replace(BOX, id=3, image_id=2, bbox=(-9.0, 0.0, 20.0, 10.0))  # its picture is as declared
    given = dataset(BOX, replace(BOX, id=2, bbox=bbox), elsewhere, images=(replace(A, width=40, height=60), B))
    found, (finding,) = apply(image_rules.unrelated_sizes, given, "repair", facts())
    assert found.images == ((A, B) if fits else (B,))
    assert found.annotations == (given.annotations if fits else (elsewhere,))
    assert finding.action == ("repaired" if fits else "dropped")
    lost = "; a box does not fit in it; 2 boxes went with it"
    assert finding.detail == "declared 40x60, the file has 60x40, which is no scaling of it" + lost * (not fits)
    assert apply(image_rules.unrelated_sizes, found, "repair", facts()) == (found, [])


CATEGORIES = (Category(1, "cat"), Category(2, "dog"))


def facts_of(**names: Any) -> Any:
    """Facts by name, from (digest, seed of the picture); no digest, no picture."""
    return {
        f"{name}.jpg": ImageFacts(120, 80, digest=digest, fingerprint=fingerprint_of(smooth(seed)))
        if digest
        else ImageFacts(kind="missing", problem="the file is missing")
        for name, (digest, seed) in names.items()
    }


def dataset_of(*names: Any, boxes: Any = ()) -> Any:
    """Images in this order with ids from 1, and boxes of (name, x)."""
    ids = {name: i for i, name in enumerate(names, 1)}
    images = tuple(Image(i, f"{name}.jpg", 120, 80) for name, i in ids.items())
    annotations = tuple(
        Annotation(i, ids[name], 1, (float(x), 1.0, 10.0, 10.0), 100.0) for i, (name, x) in enumerate(boxes, 1)
    )
    return CocoDataset(images, annotations, CATEGORIES)


def names_of(dataset: Any) -> Any:
    return [image.file_name for image in dataset.images]


@pytest.mark.parametrize(
    ("action", "names", "boxes"),
    [
        ("report", "a b c d e f gone", [(3, 1), (3, 5), (4, 1), (5, 2), (2, 2)]),
        ("drop", "b c f gone", [(3, 1), (3, 5), (2, 2)]),  # leaves the one with the most boxes
        ("repair", "b c f gone", [(3, 1), (3, 5), (3, 1), (2, 2), (2, 2)]),  # brings the boxes together
    ],
)
def test_exact(action: Any, names: str, boxes: list[Any]) -> None:
    facts = facts_of(a=("1", 1), b=("2", 2), c=("1", 1), d=("1", 1), e=("2", 2), f=("3", 3), gone=("", 0))
    dataset = dataset_of(
        *(name.removesuffix(".jpg") for name in facts), boxes=[("c", 1), ("c", 5), ("d", 1), ("e", 2), ("b", 2)]
    )
    found, findings = apply(exact_duplicates, dataset, action, facts)
    assert names_of(found) == [f"{name}.jpg" for name in names.split()]
    assert [(each.image_id, each.bbox[0]) for each in found.annotations] == boxes
    assert [(each.file_name, each.action, each.detail.partition(";")[0]) for each in findings] == [
        ("a.jpg", DID[action], "the same bytes as c.jpg, with other boxes: 0 here, 2 there"),
        ("d.jpg", DID[action], "the same bytes as c.jpg, with other boxes: 1 here, 2 there"),
        ("e.jpg", DID[action], "the same bytes as b.jpg, with the same boxes"),
    ]
    assert action == "report" or apply(exact_duplicates, found, action, facts) == (found, [])


@pytest.mark.parametrize(("action", "names"), [("report", "a b c d e f gone"), ("drop", "b c d e gone")])
def test_near(action: Any, names: str) -> None:
    facts = facts_of(a=("1", 1), b=("2", 1), c=("2", 1), d=("3", 2), e=("4", 3), f=("5", 3), gone=("", 0))
    dataset = dataset_of(*"abcdef", "gone", boxes=[("b", 1), ("d", 5)])
    found, findings = apply(near_duplicates, dataset, action, facts)
    assert names_of(found) == [f"{name}.jpg" for name in names.split()]
    said = [(each.file_name, each.action, each.detail) for each in findings]
    assert said == [("a.jpg", DID[action], "looks like b.jpg"), ("f.jpg", DID[action], "looks like e.jpg")]
    assert action == "report" or apply(near_duplicates, found, "drop", facts) == (found, [])
    groups = {f"{name}.jpg": f"{first}.jpg" for name, first in zip("abcef", "aaaee", strict=True)}
    assert duplicate_groups(dataset, facts) == groups, "exact ones too"


def test_flat_pictures_are_duplicates_only_by_their_bytes() -> None:
    facts = {f"{i}.jpg": ImageFacts(9, 9, digest=str(max(i, 2))) for i in range(1, 5)}
    assert duplicate_groups(dataset_of("1", "2", "3", "4"), facts) == {"1.jpg": "1.jpg", "2.jpg": "1.jpg"}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["", "1", "2", "3", "4"]), st.integers(1, 3)), max_size=9),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), max_size=9),
    st.sampled_from([(exact_duplicates, "drop"), (exact_duplicates, "repair"), (near_duplicates, "drop")]),
)
def test_what_is_left_has_no_duplicates(files: Any, boxes: Any, case: Any) -> None:
    """Pictures and digests in any combination; each rule leaves nothing to itself, and takes all of a group but one."""
    rule, action = case
    seeds = {}
    facts = facts_of(**{f"n{i}": (digest, seeds.setdefault(digest, seed)) for i, (digest, seed) in enumerate(files)})
    names = [f"n{i}" for i in range(len(files))]
    dataset = dataset_of(*names, boxes=[(f"n{i}", x) for i, x in boxes if i < len(files)])
    found, findings = apply(rule, dataset, action, facts)
    assert apply(rule, found, action, facts) == (found, [])
    assert sorted(names_of(found) + [each.file_name for each in findings]) == sorted(names_of(dataset))
    if rule is near_duplicates:
        groups = duplicate_groups(dataset, facts)
        assert {groups.get(name, name) for name in names_of(dataset)} == {
            groups.get(name, name) for name in names_of(found)
        }
    if action == "repair":
        assert len(found.annotations) == len(dataset.annotations)


def test_of_a_pan_more_than_one_frame_is_left_and_none_straddles() -> None:
    """What is dropped is like a picture that stays; what stays together is the whole of the pan."""
    wide = cv2.resize(np.random.default_rng(8).integers(0, 255, (24, 24, 3), np.uint8), (1200, 120))
    names = [f"{i:03d}" for i in range(120)]
    facts = {
        f"{name}.jpg": ImageFacts(
            160, 120, digest=name, fingerprint=fingerprint_of(np.ascontiguousarray(wide[:, x : x + 160]))
        )
        for name, x in zip(names, range(0, 240, 2), strict=True)
    }
    dataset = dataset_of(*names)
    assert set(duplicate_groups(dataset, facts).values()) == {"000.jpg"}
    assert len(duplicate_groups(dataset, facts)) == 120
    left, _ = apply(near_duplicates, dataset, "drop", facts)
    assert 5 < len(left.images) < 100
    assert duplicate_groups(left, facts) == {}


ONE, TWO, SHORT = "0123456789abcdef" * 2, "fedcba9876543210" * 2, "Zx81QuuX0aBcDeFgHi42aa"


@cases(
    "names, together",
    {
        "hexadecimal": ([f"a_jpg.rf.{ONE}.jpg", f"a_jpg.rf.{TWO}.jpg"], True),
        "letters": ([f"a_jpg.rf.{ONE}.jpg", f"a_jpg.rf.{SHORT}.jpg"], True),
        "in two folders": ([f"train/a_jpg.rf.{ONE}.jpg", f"valid/a_jpg.rf.{TWO}.jpg"], True),
        "converted": ([f"a_tif.rf.{ONE}.tif.png", f"a_tif.rf.{TWO}.tif.png"], True),
        "two sources": ([f"a_jpg.rf.{ONE}.jpg", f"b_jpg.rf.{TWO}.jpg"], False),
        "no such ids": (["a.rf.1.jpg", "a.rf.2.jpg"], False),
        "no such names": ([f"a.{ONE}.jpg", f"a.{TWO}.jpg"], False),
    },
)
def test_augmented_copies_of_one_picture(names: list[Any], together: bool) -> None:
    facts = {
        name: ImageFacts(120, 80, digest=name, fingerprint=fingerprint_of(smooth(i))) for i, name in enumerate(names)
    }
    dataset = CocoDataset(tuple(Image(i, name, 120, 80) for i, name in enumerate(names, 1)), (), CATEGORIES)
    assert duplicate_groups(dataset, facts) == (dict.fromkeys(names, names[0]) if together else {})
    assert apply(near_duplicates, dataset, "drop", facts) == (dataset, [])


@pytest.mark.parametrize("check", [exact_duplicates, near_duplicates])
@cases(
    "subsets, reserved, stays",
    {
        "the one with the most boxes": ({}, "", "c.jpg"),
        "the one of the test set": ({"d": "test", "a": "eval", "c": "train"}, "", "d.jpg"),
        "before those to train on, of the eval set": ({"a": "eval", "c": "train", "d": "train"}, "", "a.jpg"),
        "the one of the fixed test set": ({"d": "test"}, "a.jpg", "a.jpg"),
    },
)
def test_the_test_set_loses_no_picture(check: Any, subsets: dict[Any, Any], reserved: str, stays: str) -> None:
    seen = {"a": ("1", 1), "c": ("1" if check is exact_duplicates else "2", 1), "d": ("1", 1)}
    dataset = dataset_of(*seen, boxes=[("c", 1), ("c", 5), ("d", 1)])
    images = tuple(replace(each, extra={"subset": subsets.get(each.file_name[0], "")}) for each in dataset.images)
    given_names = frozenset({reserved} - {""})
    found, _ = apply(check, replace(dataset, images=images), "drop", facts_of(**seen), reserved=given_names)
    left = names_of(found)
    assert stays in left
    assert len({seen[name[0]][0] for name in left}) == 1
