from __future__ import annotations

import sys
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.data.coco import Annotation, Category, CocoDataset
from pipeline.data.dataset_folder import write_subset
from pipeline.data.report.dataset_figures import class_histogram, sample_grid
from pipeline.errors import UsageError


def pixels(chart):
    return cv2.imdecode(np.frombuffer(chart._repr_png_(), np.uint8), cv2.IMREAD_COLOR)


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


def test_odd_names_are_written(tiny, tmp_path):
    dataset, pictures = tiny
    named = replace(dataset, categories=(Category(7, "日本語"), Category(3, "$x^2$ & y")))
    (pictures / "1.png").rename(pictures / "a $b$ 日本.png")
    images = (replace(named.images[0], file_name="a $b$ 日本.png"), *named.images[1:])
    write_subset(replace(named, images=images), pictures, tmp_path / "out")
    chart = sample_grid(tmp_path / "out")
    assert "a $b$ .png" in [axes.get_title() for axes in chart.axes]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(chart).std() > 5


def test_no_global_state(two_classes):
    assert pixels(class_histogram(two_classes.parts)).shape[1] == 900
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
