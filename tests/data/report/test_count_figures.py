from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.report.dataset_figures import boxes_per_image, class_histogram
from pipeline.data.split.dataset_split import Split


def bars(chart):
    return {group.get_label().split(" (")[0]: [bar.get_width() for bar in group] for group in chart.axes[0].containers}


def names(chart):
    return [each.get_text() for each in chart.axes[0].get_yticklabels()]


def test_every_bar_is_a_count(two_classes):
    chart = class_histogram(two_classes.parts)
    assert names(chart) == ["dog", "cat"]
    assert bars(chart) == {"train": [2, 1], "eval": [1, 0], "test": [0, 1]}
    assert [each.get_text() for each in chart.axes[0].texts] == ["3", "2"]
    assert [each.get_text() for each in chart.legends[0].get_texts()] == ["train (3)", "eval (1)", "test (1)"]


def test_many_classes_say_what_is_left_out(two_classes):
    categories = tuple(Category(i, f"a rather long class name {i}") for i in range(1, 91))
    parts = two_classes.parts
    many = replace(parts, **{name: replace(getattr(parts, name), categories=categories) for name in SUBSETS})
    chart = class_histogram(many)
    assert "40 most frequent of 90" in chart.axes[0].get_title(loc="left")
    assert len(set(names(chart))) == 40
    assert chart.get_figheight() < 16


def test_one_class_without_a_box_has_an_axis():
    empty = CocoDataset((Image(1, "a.jpg", 9, 9),), (), (Category(1, "cat"),))
    chart = class_histogram(Split(empty, empty, empty))
    assert bars(chart) == {"train": [0], "eval": [0], "test": [0]}
    assert chart.axes[0].get_xlim()[1] > 1


SUBSETS = ("train", "eval", "test")


def with_boxes(counts):
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
def test_heights_are_shares_of_the_images(counts, heights, last):
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


def test_a_subset_keeps_its_colour_where_another_is_empty():
    dataset = with_boxes([1, 2])
    none = dataset.subset(())
    both, alone = Split(dataset, dataset, dataset), Split(dataset, none, dataset)
    last = [boxes_per_image(each).axes[0].containers[-1][0].get_facecolor() for each in (both, alone)]
    assert last[0] == last[1]
    assert len(boxes_per_image(alone).axes[0].containers) == 2


def test_no_images_at_all():
    none = with_boxes([]).subset(())
    assert boxes_per_image(Split(none, none, none)).axes[0].containers == []
