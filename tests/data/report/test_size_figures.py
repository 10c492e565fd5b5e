from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.report.box_columns import BoxColumns
from pipeline.data.report.size_figures import aspect_ratios, box_sizes, centre_density, heat_map, image_sizes
from pipeline.data.split.dataset_split import Split


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


@pytest.mark.parametrize(
    ("sizes", "title"),
    [
        pytest.param([], "Sizes of 0 images", id="none"),
        pytest.param([(9, 7)] * 3, "Sizes of 3 images: all 9 x 7", id="all-alike"),
        pytest.param([(0, 0)], "Sizes of 1 images: all 0 x 0", id="without-a-size"),
    ],
)
def test_titles(sizes: Any, title: str) -> None:
    chart = image_sizes(of_sizes(*sizes))
    assert chart.axes[0].get_title(loc="left") == title
    assert chart.to_png().startswith(b"\x89PNG")


NAN = float("nan")


def with_boxes(*boxes: Any, size: Any = (100, 100)) -> Any:
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
    chart = box_sizes(with_boxes(*((0, 0, *each) for each in sides)))
    chart.to_png()
    (cells,) = chart.axes[0].collections
    assert cells.get_array().sum() == 4000
    data = chart.axes[0].transData
    shown = data.transform((1, 1)) + cells.get_offset_transform().transform(cells.get_offsets())
    assert data.inverted().transform(shown).min(axis=0) == pytest.approx(8, rel=0.1)
    assert data.inverted().transform(shown).max(axis=0) == pytest.approx(64, rel=0.1)


@pytest.mark.parametrize(
    "boxes",
    [
        pytest.param([], id="none"),
        pytest.param([(0, 0, 5, 5)], id="one-small"),
        pytest.param([(0, 0, 300, 300)], id="one-large"),
        pytest.param([(0, 0, 0, 5), (0, 0, 3000, 2000)], id="a-line-and-a-giant"),
        pytest.param([(NAN, 0, 5, 5), (0, 0, NAN, 5)], id="not-a-number"),
    ],
)
def test_both_bounds_are_always_within(boxes: list[Any]) -> None:
    chart = box_sizes(with_boxes(*boxes))
    axes = chart.axes[0]
    low, high = axes.get_xlim()
    assert low < 32 < 96 < high
    assert sum("small" in each.get_text() or "large" in each.get_text() for each in axes.texts) == 2
    assert chart.to_png().startswith(b"\x89PNG")


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
    chart = aspect_ratios(with_boxes((0, 0, 1, 1000), (0, 0, 10, 10), (0, 0, 90, 0)))
    counts = [bar.get_height() for group in chart.axes[0].containers for bar in group]
    assert sum(counts) == 2
    assert "50.0% of the boxes beyond 4:1" in title(chart)


@pytest.mark.parametrize("chart", [aspect_ratios, lambda dataset: heat_map(split_of(dataset))])
def test_nothing_is_said_in_words(chart: Any) -> None:
    assert [each.get_text() for each in chart(with_boxes()).axes[0].texts] == ["There are no boxes."]


def test_a_map_shows_where_the_centres_are() -> None:
    top_right, bottom_left = [(90, 0, 10, 10)] * 3, [(0, 90, 10, 10)]
    chart = heat_map(split_of(with_boxes(*top_right, *bottom_left, (0, 0, 100, 20))))
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


@pytest.mark.parametrize(
    ("size", "shape"),
    [pytest.param((100, 400), "tall", id="tall"), pytest.param((400, 100), "wide", id="wide")],
)
def test_cells_are_square_on_the_image(size: tuple[Any, ...], shape: str) -> None:
    columns = BoxColumns.of(with_boxes(*[(1, 1, 5, 5)] * 900, size=size))
    down, across = centre_density(columns, size[1] / size[0]).shape
    assert (down / across > 2) == (shape == "tall")
    assert (across / down > 2) == (shape == "wide")
