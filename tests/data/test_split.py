from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.split import split
from pipeline.errors import DataError, UsageError


def dataset_of(labels):
    """A data set with an image per item, which shows the classes of that item."""
    images = tuple(Image(i, f"{i}.jpg", 64, 64) for i in range(1, len(labels) + 1))
    pairs = [(i, label) for i, shown in enumerate(labels, 1) for label in sorted(shown)]
    annotations = (Annotation(n, i, label, (0, 0, 9, 9), 81) for n, (i, label) in enumerate(pairs, 1))
    return CocoDataset(images, tuple(annotations), tuple(Category(i, f"class {i}") for i in range(1, 6)))


def names(dataset):
    return {image.file_name for image in dataset.images}


labels = st.lists(st.sets(st.integers(1, 5)), min_size=1, max_size=60)
shares = st.sampled_from([0.0, 0.1, 0.15, 0.3, 0.5])


@given(labels, shares, shares, st.sets(st.integers(1, 80)), st.integers(0, 9))
def test_partition(labels, train, evaluation, reserved, seed):
    """Every image and every box in exactly one subset, the sizes those asked for, or an error."""
    dataset = dataset_of(labels)
    test_names = {f"{i}.jpg" for i in reserved}
    try:
        parts = split(dataset, train_share=train, eval_share=evaluation, test_names=test_names, seed=seed)
    except (DataError, UsageError):
        return
    subsets = (parts.train, parts.eval, parts.test)
    assert sorted(image.id for subset in subsets for image in subset.images) == [image.id for image in dataset.images]
    assert sorted(each.id for subset in subsets for each in subset.annotations) == list(
        range(1, len(dataset.annotations) + 1)
    )
    if test_names:
        assert names(parts.test) == test_names & names(dataset)
    else:
        for subset, share in zip(subsets, (train, evaluation, 1 - train - evaluation), strict=True):
            assert abs(len(subset.images) - share * len(labels)) < 1
    turned = replace(dataset, images=dataset.images[::-1], annotations=dataset.annotations[::-1])
    again = split(turned, train_share=train, eval_share=evaluation, test_names=test_names, seed=seed)
    assert [names(part) for part in (again.train, again.eval, again.test)] == [names(part) for part in subsets]


def long_tailed(count, classes, seed=0):
    """Images that show 0 to 5 classes, some a hundred times rarer than others; as many boxes as COCO val2017."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, classes + 1)
    return [
        set((1 + rng.choice(classes, rng.integers(0, 6), p=weights / weights.sum())).tolist()) for _ in range(count)
    ]


def imbalance(parts):
    """Mean over classes of how far the subsets' shares of the class are from theirs of the images."""
    rows = np.array([row[1:] for row in parts.shares.rows], float)
    shares = rows[:, 1::4]
    return np.abs(shares[:-1] - shares[-1]).mean()


def test_balanced_better_than_by_chance():
    dataset = dataset_of(long_tailed(600, 5))
    chance = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(600)
        parts = split(dataset, seed=seed)
        drawn = [dataset.subset(dataset.images[i] for i in part) for part in np.split(order, [420, 510])]
        chance.append(imbalance(type(parts)(*drawn)))
        assert imbalance(parts) < 1.0  # percentage points
    assert np.mean(chance) > 2 * imbalance(split(dataset))


def test_five_thousand_images_of_eighty_classes_are_quick():
    labels = long_tailed(5000, 80)
    dataset = replace(dataset_of(labels), categories=tuple(Category(i, str(i)) for i in range(1, 81)))
    start = time.perf_counter()
    split(dataset)
    assert time.perf_counter() - start < 2


def test_seed_decides():
    dataset = dataset_of(long_tailed(100, 5))
    assert names(split(dataset, seed=1).test) != names(split(dataset, seed=2).test)


def test_test_list_shares_the_rest():
    dataset = dataset_of([{1}] * 30)
    parts = split(dataset, train_share=0.6, eval_share=0.2, test_names={f"{i}.jpg" for i in range(1, 11)})
    assert (len(parts.train.images), len(parts.eval.images), len(parts.test.images)) == (15, 5, 10)


@pytest.mark.parametrize(
    ("count", "options", "sizes"),
    [
        pytest.param(10, {"train_share": 1.0, "eval_share": 0.0}, (10, 0, 0), id="all to train"),
        pytest.param(10, {"train_share": 0.0, "eval_share": 0.0}, (0, 0, 10), id="all to test"),
        pytest.param(10, {"train_share": 0.7, "eval_share": 0.3}, (7, 3, 0), id="no test"),
        pytest.param(
            2, {"train_share": 0.0, "eval_share": 0.0, "test_names": {"1.jpg", "2.jpg"}}, (0, 0, 2), id="list"
        ),
        pytest.param(240, {}, (168, 36, 36), id="default"),
    ],
)
def test_sizes(count, options, sizes):
    parts = split(dataset_of([{1}] * count), **options)
    assert tuple(len(part.images) for part in (parts.train, parts.eval, parts.test)) == sizes


@pytest.mark.parametrize(
    ("options", "kind", "problem"),
    [
        pytest.param({"train_share": 0.8, "eval_share": 0.3}, UsageError, "no shares", id="above 1"),
        pytest.param({"train_share": -0.1}, UsageError, "no shares", id="negative"),
        pytest.param({"train_share": float("nan")}, UsageError, "no shares", id="not a number"),
        pytest.param({"train_share": 0.9, "eval_share": 0.02}, DataError, "eval set would be empty", id="too few"),
        pytest.param({"test_names": {"none.jpg"}}, DataError, "test list", id="list of others"),
        pytest.param(
            {"train_share": 0, "eval_share": 0, "test_names": {"1.jpg"}}, UsageError, "no share", id="nowhere to go"
        ),
    ],
)
def test_refused(options, kind, problem):
    with pytest.raises(kind, match=problem):
        split(dataset_of([{1}] * 10), **options)


def test_shares_table():
    parts = split(dataset_of([{1}] * 10), train_share=0.5, eval_share=0.2)
    assert parts.shares.rows[0] == ("class 1", 5, 50.0, 5, 50.0, 2, 20.0, 2, 20.0, 3, 30.0, 3, 30.0)
    assert parts.shares.rows[-1][0] == "all"
