from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.report.cooccurrence import joint_images
from pipeline.data.report.dataset_figures import co_occurrence


def showing(*images, classes=3):
    """A data set whose images show these classes."""
    pairs = [(image, kind) for image, kinds in enumerate(images) for kind in kinds]
    annotations = tuple(Annotation(i, image, kind, (0.0, 0.0, 9.0, 9.0), 81.0) for i, (image, kind) in enumerate(pairs))
    categories = tuple(Category(i, f"kind {i}") for i in range(classes))
    return CocoDataset(tuple(Image(i, f"{i}.jpg", 9, 9) for i in range(len(images))), annotations, categories)


def test_shares_of_the_rows_images():
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


def test_crowds_show_nothing():
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
def test_nothing_to_show_is_said(images, words):
    assert [each.get_text() for each in co_occurrence(showing(*images)).axes[0].texts] == [words]


def test_the_most_frequent_of_many():
    images = [range(i % 80, 80) for i in range(100)]
    chart = co_occurrence(showing(*images, classes=80))
    assert chart.axes[0].images[0].get_array().shape == (30, 30)
    assert "the 30 most frequent of 80" in chart.axes[0].get_title(loc="left")
    assert not chart.axes[0].texts
    assert chart.get_figheight() < 12


def test_counts_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    images = [rng.choice(12, rng.integers(0, 6), replace=False).tolist() for _ in range(60)]
    order, counts, together = joint_images(showing(*images, classes=12))
    for i, first in enumerate(order):
        assert counts[i] == sum(first in each for each in images)
        for j, second in enumerate(order):
            assert together[i, j] == sum(first in each and second in each for each in images)
