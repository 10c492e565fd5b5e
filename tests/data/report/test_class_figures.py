from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.report.class_figures import boxes_per_image, class_histogram, co_occurrence, joint_images
from pipeline.data.split.dataset_split import Split


def bars(chart: Any) -> Any:
    return {group.get_label().split(" (")[0]: [bar.get_width() for bar in group] for group in chart.axes[0].containers}


def names(chart: Any) -> Any:
    return [each.get_text() for each in chart.axes[0].get_yticklabels()]


def test_every_bar_is_a_count(two_classes: Any) -> None:
    chart = class_histogram(two_classes.parts)
    assert names(chart) == ["dog", "cat"]
    assert bars(chart) == {"train": [2, 1], "eval": [1, 0], "test": [0, 1]}
    assert [each.get_text() for each in chart.axes[0].texts] == ["3", "2"]
    assert [each.get_text() for each in chart.legends[0].get_texts()] == ["train (3)", "eval (1)", "test (1)"]


def test_many_classes_say_what_is_left_out(two_classes: Any) -> None:
    categories = tuple(Category(i, f"a rather long class name {i}") for i in range(1, 91))
    parts = two_classes.parts
    many = replace(parts, **{name: replace(getattr(parts, name), categories=categories) for name in SUBSETS})
    chart = class_histogram(many)
    assert "40 most frequent of 90" in chart.axes[0].get_title(loc="left")
    assert len(set(names(chart))) == 40
    assert chart.get_figheight() < 16


def test_one_class_without_a_box_has_an_axis() -> None:
    empty = CocoDataset((Image(1, "a.jpg", 9, 9),), (), (Category(1, "cat"),))
    chart = class_histogram(Split(empty, empty, empty))
    assert bars(chart) == {"train": [0], "eval": [0], "test": [0]}
    assert chart.axes[0].get_xlim()[1] > 1


SUBSETS = ("train", "eval", "test")


def with_boxes(counts: Any) -> Any:
    """A data set of as many images, with so many boxes each."""
    images = tuple(Image(i, f"{i}.jpg", 100, 100) for i in range(len(counts)))
    owners = np.repeat(np.arange(len(counts)), counts)
    boxes = tuple(Annotation(n, int(i), 1, (1.0, 1.0, 9.0, 9.0), 81.0) for n, i in enumerate(owners))
    return CocoDataset(images, boxes, (Category(1, "cat"),))


@pytest.mark.parametrize(
    ("counts", "heights", "last"),
    [
        pytest.param([0, 1, 1, 2], [25, 50, 25], "2", id="a-bar-for-each-number"),
        pytest.param([0], [100], "0", id="only-empty"),
        pytest.param([0, 1, 1, *range(60)], None, "58-59", id="some-numbers-share-a-bar"),
        pytest.param([1] * 199 + [5000], None, "10+", id="a-crowded-image-does-not-press-the-others-together"),
    ],
)
def test_heights_are_shares_of_the_images(counts: Any, heights: list[Any] | None, last: str) -> None:
    dataset = with_boxes(counts)
    chart = boxes_per_image(Split(dataset, dataset.subset(()), dataset.subset(())))
    (group,) = chart.axes[0].containers
    shown = [bar.get_height() for bar in group]
    assert sum(shown) == pytest.approx(100)
    assert heights is None or shown == pytest.approx(heights)
    assert len(shown) <= 31
    assert f"{np.mean(counts):.1f}, {counts.count(0)} empty" in group.get_label()
    ticks = [each.get_text() for each in chart.axes[0].get_xticklabels()]
    assert len(ticks) <= 16
    assert last in ticks or len(shown) > 15


def test_a_subset_keeps_its_colour_where_another_is_empty() -> None:
    dataset = with_boxes([1, 2])
    none = dataset.subset(())
    both, alone = Split(dataset, dataset, dataset), Split(dataset, none, dataset)
    last = [boxes_per_image(each).axes[0].containers[-1][0].get_facecolor() for each in (both, alone)]
    assert last[0] == last[1]
    assert len(boxes_per_image(alone).axes[0].containers) == 2


def test_no_images_at_all() -> None:
    none = with_boxes([]).subset(())
    assert boxes_per_image(Split(none, none, none)).axes[0].containers == []


def showing(*images: Any, classes: Any = 3) -> Any:
    """A data set whose images show these classes."""
    pairs = [(image, kind) for image, kinds in enumerate(images) for kind in kinds]
    annotations = tuple(Annotation(i, image, kind, (0.0, 0.0, 9.0, 9.0), 81.0) for i, (image, kind) in enumerate(pairs))
    categories = tuple(Category(i, f"kind {i}") for i in range(classes))
    return CocoDataset(tuple(Image(i, f"{i}.jpg", 9, 9) for i in range(len(images))), annotations, categories)


def test_shares_of_the_rows_images() -> None:
    dataset = showing([0], [0, 1], [0, 1, 1], [0, 2], [1])  # a second box on an image counts no more
    chart = co_occurrence(dataset)
    axes = chart.axes[0]
    share = axes.images[0].get_array()
    assert [each.get_text() for each in axes.get_yticklabels()] == ["kind 0 (4)", "kind 1 (3)", "kind 2 (1)"]
    assert [each.get_text() for each in axes.get_xticklabels()] == ["kind 0", "kind 1", "kind 2"]
    assert share[0, 1] == pytest.approx(50)
    assert share[1, 0] == pytest.approx(200 / 3)
    assert share[2].tolist()[:2] == [100, 0]
    assert np.ma.getmaskarray(np.ma.masked_invalid(share)).diagonal().all()
    assert sorted(each.get_text() for each in axes.texts) == sorted(["50", "25", "67", "0", "100", "0"])


def test_crowds_show_nothing() -> None:
    dataset = showing([0, 1])
    crowd = replace(dataset, annotations=tuple(replace(each, iscrowd=1) for each in dataset.annotations))
    assert [each.get_text() for each in co_occurrence(crowd).axes[0].texts] == ["There are no boxes."]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        pytest.param([[0], [0]], "There is one class on the images.", id="one-class"),
        pytest.param([[]], "There are no boxes.", id="no-boxes"),
        pytest.param([], "There are no boxes.", id="no-images"),
    ],
)
def test_classes_together_of_nothing(images: list[Any], words: str) -> None:
    assert [each.get_text() for each in co_occurrence(showing(*images)).axes[0].texts] == [words]


def test_the_most_frequent_of_many() -> None:
    images = [range(i % 80, 80) for i in range(100)]
    chart = co_occurrence(showing(*images, classes=80))
    assert chart.axes[0].images[0].get_array().shape == (30, 30)
    assert "the 30 most frequent of 80" in chart.axes[0].get_title(loc="left")
    assert not chart.axes[0].texts
    assert chart.get_figheight() < 12


def test_counts_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    images = [rng.choice(12, rng.integers(0, 6), replace=False).tolist() for _ in range(60)]
    order, counts, together = joint_images(showing(*images, classes=12))
    for i, first in enumerate(order):
        assert counts[i] == sum(first in each for each in images)
        for j, second in enumerate(order):
            assert together[i, j] == sum(first in each and second in each for each in images)
