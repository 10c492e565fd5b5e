from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import cases

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.fonts import labels
from pipeline.data.report.box_columns import BoxColumns
from pipeline.data.report.dataset_figures import (
    aspect_ratios,
    box_sizes,
    boxes_per_image,
    centre_density,
    class_histogram,
    co_occurrence,
    heat_map,
    image_sizes,
    joint_images,
)
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


def test_a_subset_keeps_its_colour_where_another_is_empty() -> None:
    dataset = showing([0], [0, 1])
    both, alone = (
        boxes_per_image(Split(dataset, part, dataset)).axes[0].containers for part in (dataset, dataset.subset(()))
    )
    assert len(alone) == 2
    assert both[-1][0].get_facecolor() == alone[-1][0].get_facecolor()


def showing(*images: Any, classes: Any = 3) -> Any:
    """A data set whose images show these classes."""
    pairs = [(image, kind) for image, kinds in enumerate(images) for kind in kinds]
    annotations = tuple(Annotation(i, image, kind, (0.0, 0.0, 9.0, 9.0), 81.0) for i, (image, kind) in enumerate(pairs))
    categories = tuple(Category(i, f"a rather long class name {i}") for i in range(classes))
    return CocoDataset(tuple(Image(i, f"{i}.jpg", 9, 9) for i in range(len(images))), annotations, categories)


@cases(
    "counts, heights, last",
    {
        "a-bar-for-each-number": ([0, 1, 1, 2], [25, 50, 25], "2"),
        "only-empty": ([0], [100], "0"),
        "some-numbers-share-a-bar": ([0, 1, 1, *range(60)], None, "58-59"),
        "a-crowded-image-does-not-press-the-others-together": ([1] * 199 + [5000], None, "10+"),
    },
)
def test_heights_are_shares_of_the_images(counts: Any, heights: list[Any] | None, last: str) -> None:
    dataset = showing(*([0] * count for count in counts))
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


def test_shares_of_the_rows_images() -> None:
    dataset = showing([0], [0, 1], [0, 1, 1], [0, 2], [1])  # a second box on an image counts no more
    chart = co_occurrence(dataset)
    axes = chart.axes[0]
    share = axes.images[0].get_array()
    assert [each.get_text() for each in axes.get_yticklabels()] == [
        f"{name} ({count})" for name, count in zip(labels(dataset.categories), (4, 3, 1), strict=True)
    ]
    assert [each.get_text() for each in axes.get_xticklabels()] == labels(dataset.categories)
    assert share[0, 1] == pytest.approx(50)
    assert share[1, 0] == pytest.approx(200 / 3)
    assert share[2].tolist()[:2] == [100, 0]
    assert np.ma.getmaskarray(np.ma.masked_invalid(share)).diagonal().all()
    assert sorted(each.get_text() for each in axes.texts) == sorted(["50", "25", "67", "0", "100", "0"])


def test_the_most_frequent_of_many() -> None:
    dataset = showing(*(range(i % 90, 90) for i in range(100)), classes=90)
    bar_chart, table = class_histogram(split_of(dataset)), co_occurrence(dataset)
    assert "40 most frequent of 90" in title(bar_chart)
    assert len(set(names(bar_chart))) == 40
    assert "the 30 most frequent of 90" in title(table)
    assert table.axes[0].images[0].get_array().shape == (30, 30)
    assert not table.axes[0].texts
    assert bar_chart.get_figheight() < 16 > table.get_figheight() + 4


ODD = {
    "nothing": (CocoDataset((), (), ()), "Sizes of 0 images", "There are no boxes."),
    "no boxes": (
        CocoDataset((Image(1, "1.jpg", 0, 0),), (), ()),
        "Sizes of 1 images: all 0 x 0",
        "There are no boxes.",
    ),
    "one class": (showing([0], [0], [0]), "Sizes of 3 images: all 9 x 9", "There is one class on the images."),
}


@cases("dataset, sizes, together", ODD)
def test_charts_of_little(dataset: CocoDataset, sizes: str, together: str) -> None:
    assert title(image_sizes(dataset)) == sizes
    assert [each.get_text() for each in co_occurrence(dataset).axes[0].texts] == [together]
    charts = [chart(dataset) for chart in (image_sizes, co_occurrence, box_sizes, aspect_ratios)]
    charts += [chart(split_of(dataset)) for chart in (class_histogram, boxes_per_image, heat_map)]
    assert all(chart.to_png().startswith(b"\x89PNG") for chart in charts)


def test_counts_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    images = [rng.choice(12, rng.integers(0, 6), replace=False).tolist() for _ in range(60)]
    order, counts, together = joint_images(showing(*images, classes=12))
    for i, first in enumerate(order):
        assert counts[i] == sum(first in each for each in images)
        for j, second in enumerate(order):
            assert together[i, j] == sum(first in each and second in each for each in images)


def of_sizes(*sizes: Any) -> Any:
    return CocoDataset(tuple(Image(i, f"{i}.jpg", *size) for i, size in enumerate(sizes)), (), ())


def test_bubbles_by_how_many() -> None:
    left, right = image_sizes(of_sizes(*[(640, 480)] * 9, (480, 640), (2000, 1000))).axes[:2]
    bubbles = left.collections[0]
    assert bubbles.get_offsets().tolist()[0] == [640, 480]  # the most frequent lies below the others
    assert sorted(map(tuple, bubbles.get_offsets())) == [(480, 640), (640, 480), (2000, 1000)]
    areas = bubbles.get_sizes()
    assert areas[0] / areas[1] == pytest.approx(9)
    assert left.get_title(loc="left") == "Sizes of 11 images: 3 different, 82% are 640 x 480"
    heights = [bar.get_height() for bar in right.containers[0]]
    assert sum(heights) == 11
    assert heights[-2] + heights[-1] == 1  # the two megapixels


def of_boxes(*boxes: Any, size: Any = (100, 100)) -> Any:
    annotations = tuple(Annotation(i, 1, 1, tuple(map(float, box)), box[2] * box[3]) for i, box in enumerate(boxes, 1))
    return CocoDataset((Image(1, "1.jpg", *size),), annotations, (Category(1, "cat"),))


def split_of(train: Any) -> Any:
    return Split(train, train.subset(()), train.subset(()))


def title(chart: Any) -> Any:
    return chart.axes[0].get_title(loc="left")


def test_few_boxes_are_dots(two_classes: Any) -> None:
    chart = box_sizes(two_classes.dataset)
    (dots,) = chart.axes[0].collections
    assert dots.get_offsets().tolist() == [[20, 10], [40, 40], [160, 80], [80, 40], [40, 80]]
    assert title(chart) == "Sizes of 5 boxes: 20% small, 60% medium, 20% large"


def test_many_boxes_are_a_density_where_they_belong() -> None:
    rng = np.random.default_rng(0)
    sides = rng.uniform(8, 64, (4000, 2))
    chart = box_sizes(of_boxes(*((0, 0, *each) for each in sides)))
    chart.to_png()
    (cells,) = chart.axes[0].collections
    assert cells.get_array().sum() == 4000
    data = chart.axes[0].transData
    shown = data.transform((1, 1)) + cells.get_offset_transform().transform(cells.get_offsets())
    assert data.inverted().transform(shown).min(axis=0) == pytest.approx(8, rel=0.1)
    assert data.inverted().transform(shown).max(axis=0) == pytest.approx(64, rel=0.1)


@pytest.mark.parametrize("boxes", [[], [(0, 0, 5, 5)], [(0, 0, 300, 300)], [(0, 0, 0, 5), (0, 0, 3000, 2000)]])
def test_both_bounds_are_always_within(boxes: list[Any]) -> None:
    axes = box_sizes(of_boxes(*boxes)).axes[0]
    low, high = axes.get_xlim()
    assert low < 32 < 96 < high
    assert sum("small" in each.get_text() or "large" in each.get_text() for each in axes.texts) == 2


def test_aspect_ratios_are_stacked_by_size(two_classes: Any) -> None:
    chart = aspect_ratios(two_classes.dataset)
    axes = chart.axes[0]
    names = [each.get_text() for each in chart.legends[0].get_texts()]
    bars = [np.array([bar.get_height() for bar in group]) for group in axes.containers]
    heights = dict(zip(names, bars, strict=True))
    centres = np.array([bar.get_x() + bar.get_width() / 2 for bar in axes.containers[0]])
    assert [heights[name].sum() for name in ("small", "medium", "large")] == [1, 3, 1]
    assert centres[heights["small"] > 0] == pytest.approx([1], abs=0.06)  # two to one, in doublings
    assert centres[heights["medium"] > 0] == pytest.approx([-1, 0, 1], abs=0.06)
    ticks = dict(zip(axes.get_xticks(), (each.get_text() for each in axes.get_xticklabels()), strict=True))
    assert (ticks[-2], ticks[0], ticks[1]) == ("1:4", "1:1", "2:1")


def test_ratios_beyond_the_axis_are_counted_at_its_end() -> None:
    chart = aspect_ratios(of_boxes((0, 0, 1, 1000), (0, 0, 10, 10), (0, 0, 90, 0)))
    counts = [bar.get_height() for group in chart.axes[0].containers for bar in group]
    assert sum(counts) == 2
    assert "50.0% of the boxes beyond 4:1" in title(chart)


def test_a_map_shows_where_the_centres_are() -> None:
    top_right, bottom_left = [(90, 0, 10, 10)] * 3, [(0, 90, 10, 10)]
    chart = heat_map(split_of(of_boxes(*top_right, *bottom_left, (0, 0, 100, 20))))
    density = chart.axes[0].images[0].get_array()
    assert density[0, -1] == pytest.approx(3 * density[-1, 0])
    assert density[0, 2] == density[-1, 0] > 0  # the wide box, by its centre
    assert density[0, 0] == 0
    assert density.mean() == pytest.approx(1)  # an even spread
    assert chart.axes[0].images[0].get_extent() == [0, 1, 1, 0]  # y goes down, as in an image


def test_one_map_for_each_subset_with_boxes(two_classes: Any) -> None:
    chart = heat_map(two_classes.parts)
    assert [title for title in (axes.get_title(loc="left") for axes in chart.axes) if title] == [
        "train: 3 boxes",
        "eval: 1 boxes",
        "test: 1 boxes",
    ]
    assert len({axes.images[0].get_clim() for axes in chart.axes[:3]}) == 1
    empty = replace(two_classes.parts, eval=two_classes.parts.eval.subset(()))
    assert len(heat_map(empty).axes) == 3  # two maps and the colour bar


@pytest.mark.parametrize("size", [(100, 400), (400, 100)])
def test_cells_are_square_on_the_image(size: tuple[int, int]) -> None:
    columns = BoxColumns.of(of_boxes(*[(1, 1, 5, 5)] * 900, size=size))
    down, across = centre_density(columns, size[1] / size[0]).shape
    assert (down / across > 2, across / down > 2) == (size[0] == 100, size[0] == 400)


NAMES = ["日本語", "人 person", "བོད", "$x^2$", "_hidden", "naïve Ελλάδα, Москва", "two\nlines\x07", " ", "😀", "صورة"]


def test_charts_write_every_name_without_a_missing_letter() -> None:
    """Matplotlib warns of a letter that its fonts lack, and takes what is between dollars for a formula."""
    categories = tuple(Category(i, name) for i, name in enumerate(NAMES))
    boxes = tuple(Annotation(i, 1, i, (0.0, 0.0, 9.0, 9.0), 81.0) for i in range(len(NAMES)))
    dataset = CocoDataset((Image(1, "a.jpg", 9, 9),), boxes, categories)
    charts = [class_histogram(Split(dataset, dataset, dataset)), co_occurrence(dataset)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for chart in charts:
            chart.to_png()
    shown = [each.get_text() for each in charts[0].axes[0].get_yticklabels()]
    assert shown == labels(categories)
    assert not any(each.get_parse_math() for chart in charts for each in chart.axes[0].get_yticklabels())
