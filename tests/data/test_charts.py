from __future__ import annotations

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.data.charts import box_sizes, boxes_per_image, class_histogram, sample_grid
from pipeline.data.coco import Annotation, Category, CocoDataset
from pipeline.data.sample import SampleSpec, sample_dataset
from pipeline.data.split import split
from pipeline.data.subsets import write_subset
from pipeline.errors import UsageError


def pixels(chart):
    return cv2.imdecode(np.frombuffer(chart._repr_png_(), np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture(scope="module")
def parts():
    return split(sample_dataset(SampleSpec()))


def test_class_histogram_shows_every_count(parts):
    chart = class_histogram(parts)
    bars = [[bar.get_width() for bar in group] for group in chart.axes[0].containers]
    totals = np.sum(bars, axis=0)
    dataset = sample_dataset(SampleSpec())
    counts = np.bincount([each.category_id for each in dataset.annotations])[1:]
    assert totals.tolist() == sorted(counts.tolist(), reverse=True)
    assert pixels(chart).shape[1] == 900


def test_class_histogram_of_many_classes_says_what_it_leaves_out(parts):
    categories = tuple(Category(i, f"a rather long class name {i}") for i in range(1, 91))
    many = type(parts)(*(replace(each, categories=categories) for each in (parts.train, parts.eval, parts.test)))
    chart = class_histogram(many)
    assert "40 most frequent of 90" in chart.axes[0].get_title(loc="left")
    assert pixels(chart).shape[0] < 1600


@pytest.mark.parametrize("repeat", [0, 1, 9])
def test_box_sizes(parts, repeat):
    dataset = replace(parts.train, annotations=parts.train.annotations * repeat)
    chart = box_sizes(dataset)
    assert f"{len(dataset.annotations)} boxes" in chart.axes[0].get_title(loc="left")
    assert pixels(chart).std() > 5


def test_boxes_per_image_adds_up(parts):
    chart = boxes_per_image(parts)
    for group in chart.axes[0].containers:
        assert sum(bar.get_height() for bar in group) == pytest.approx(100)
    assert "empty" in chart.axes[0].get_legend_handles_labels()[1][0]


def test_boxes_per_image_with_an_empty_subset(parts):
    empty = replace(parts.test, images=(), annotations=())
    assert len(boxes_per_image(replace(parts, test=empty)).axes[0].containers) == 2


def test_grid_shows_boxes(tiny, tmp_path):
    write_subset(*tiny, tmp_path / "with")
    write_subset(replace(tiny[0], annotations=()), tiny[1], tmp_path / "without")
    bare, boxed = (pixels(sample_grid(tmp_path / name, count=3)) for name in ("without", "with"))
    assert bare.shape == boxed.shape
    assert (bare != boxed).any(axis=2).mean() > 0.01
    assert len(sample_grid(tmp_path / "with", count=2).axes) == 2


def test_grid_of_crowds_and_many_classes(tiny, tmp_path):
    dataset, pictures = tiny
    categories = tuple(Category(i, f"class {i}") for i in range(1, 31))
    crowd = tuple(Annotation(i, 1, i, (float(i), 2.0, 9.0, 9.0), 81.0, iscrowd=i % 2) for i in range(1, 31))
    write_subset(CocoDataset(dataset.images, crowd, categories), pictures, tmp_path / "out")
    assert pixels(sample_grid(tmp_path / "out")).std() > 5


def test_grid_of_none_is_refused(tmp_path):
    with pytest.raises(UsageError):
        sample_grid(tmp_path, count=0)


def test_no_global_state(parts):
    class_histogram(parts)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
