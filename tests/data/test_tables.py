from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import messy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.checks.validation import apply_rules
from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.conversion import select
from pipeline.data.images import ImageFacts
from pipeline.data.split.dataset_split import split
from pipeline.data.tables import (
    Exclusion,
    account,
    exclude,
    exclusions_table,
    read_exclusions,
    reasons,
    write_exclusions,
)
from pipeline.errors import DataError, UsageError

TWO = (Exclusion(80, 159, "nobody annotated them"), Exclusion(5, 60, "background above max_empty_share", "train"))


def test_exclusions_are_logged_and_kept_beside_a_data_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert exclude({"a": 0, "b": 2}, 9, subset="train") == (Exclusion(2, 9, "b", "train"),)
    assert caplog.messages == ["2 of 9 images excluded from train: b"]
    write_exclusions(tmp_path, ())
    assert (list(tmp_path.iterdir()), read_exclusions(tmp_path)) == ([], ())
    write_exclusions(tmp_path, TWO)
    assert read_exclusions(tmp_path) == TWO


def test_a_table_is_aligned() -> None:
    assert str(exclusions_table(TWO)).splitlines() == [
        "Images and boxes excluded",
        "excluded   of  what    set    why",
        "      80  159  images  all    nobody annotated them",
        "       5   60  images  train  background above max_empty_share",
    ]
    assert str(exclusions_table(())) == "No image and no box was excluded"


# Twelve sound images beside what Hypothesis draws, so that a selection and a split have something to do. Ids may be the
# same; some images are the same, look alike or cannot be read.
SOUND = [Image(i, f"{i}.png", 60, 40) for i in range(3, 15)]
FACTS = messy.FACTS | {image.file_name: ImageFacts(60, 40, digest=image.file_name) for image in SOUND}
FACTS |= {
    "12.png": ImageFacts(60, 40, digest="a"),
    "13.png": ImageFacts(60, 40, digest="13", fingerprint=messy.LOOK),
    "14.png": ImageFacts(problem="the file is empty", kind="empty"),
}
places = st.sampled_from([(5.0, 5.0, 20.0, 10.0), (5.0, 5.0, 20.0, 10.5), (30.0, 10.0, 20.0, 20.0)])
sound_boxes = st.lists(
    st.builds(
        lambda id_, image, label, box, crowd: Annotation(id_, image, label, box, 200.0, crowd),
        st.integers(1, 40),
        st.sampled_from([image.id for image in SOUND]),
        st.sampled_from([10, 11, 12]),
        places,
        st.sampled_from([0, 0, 0, 1]),
    ),
    min_size=8,
    max_size=24,
)
SELECTIONS: list[dict[str, Any]] = [
    {},
    {"classes": ["a"]},
    {"classes": ["c", "b"], "max_images": 7},
    {"drop": ["a"]},
    {"rename": {"b": "a", "c": "a"}},
    {"rename": {"b": "a"}, "max_images": 9},
]


@st.composite
def datasets(draw: st.DrawFn) -> CocoDataset:
    """The sound images with boxes, some of them in subsets, before or after a few records of any kind."""
    subsets = draw(st.lists(st.sampled_from(["", "", "train", "train", "eval", "test"]), min_size=12, max_size=12))
    images = tuple(
        replace(image, extra={"subset": subset} if subset else {}) for image, subset in zip(SOUND, subsets, strict=True)
    )
    other = draw(messy.datasets)
    return CocoDataset(
        (*images, *other.images),
        (*draw(sound_boxes), *other.annotations),
        (*(Category(10 + i, name) for i, name in enumerate("abc")), *other.categories),
    )


@settings(deadline=None)
@given(
    datasets(),
    st.just({}) | messy.actions,
    st.sampled_from(SELECTIONS),
    st.sampled_from(["balanced", "stable"]),
    st.sampled_from(["honour", "ignore"]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sets(st.sampled_from([image.file_name for image in SOUND]), max_size=2),
)
def test_what_is_loaded_is_excluded_for_a_reason_or_in_the_sets(
    loaded: CocoDataset, actions: Any, selection: Any, mode: str, source_split: str, most: float, reserved: set[str]
) -> None:
    """Of images and of boxes, by every stage and in all."""
    checked = apply_rules(loaded, FACTS, actions=actions, reserved=reserved)
    accounted(loaded, [checked.dataset], checked.exclusions)
    try:
        selected, left_out = select(checked.dataset, **selection, reserved=reserved)
    except (DataError, UsageError):
        return
    accounted(checked.dataset, [selected], left_out)
    try:
        parts = split(
            selected,
            mode=mode,
            train_share=0.5,
            eval_share=0.25,
            test_names=reserved & {image.file_name for image in selected.images},
            groups=checked.groups,
            source_split=source_split,
            max_empty_share=most,
        )
    except (DataError, UsageError):
        return
    accounted(selected, parts.subsets.values(), parts.exclusions)
    accounted(loaded, parts.subsets.values(), (*checked.exclusions, *left_out, *parts.exclusions))


def accounted(before: CocoDataset, after: Collection[CocoDataset], exclusions: Collection[Exclusion]) -> None:
    """Whatever there was is there, or excluded."""
    account("images", len(before.images), sum(len(each.images) for each in after), exclusions)
    account("boxes", len(before.annotations), sum(len(each.annotations) for each in after), exclusions)
    assert all(0 < each.count <= each.of for each in exclusions)


def test_images_that_look_like_those_of_another_set_take_their_boxes_with_them() -> None:
    images = [replace(image, extra={"subset": "test" if image.id == 3 else "train"}) for image in SOUND[:9]]
    boxes = tuple(Annotation(image.id, image.id, 1, (5.0, 5.0, 20.0, 10.0), 200.0) for image in images)
    dataset = CocoDataset(tuple(images), (*boxes, replace(boxes[1], id=99, iscrowd=1)), (Category(1, "a"),))
    parts = split(dataset, groups={"3.png": "3.png", "4.png": "3.png"})
    assert reasons(parts.exclusions) == [
        "1 of 9 images and 2 of 10 boxes excluded: they look like, or belong to, images of another set"
    ]


def test_a_lost_box_is_an_error_of_this_project() -> None:
    assert account("images", 5, 3, exclude({"a": 2}, 5)) == "images: 5 loaded = 3 kept + 2 excluded"
    with pytest.raises(RuntimeError, match="of 5 boxes 3 are kept and 0 excluded: 2 lost"):
        account("boxes", 5, 3, exclude({"a": 2}, 5))
