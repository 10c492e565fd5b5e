from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.split.stratification import FilledSubsets, make_units, stratify


def units_of(groups: Any, classes: Any) -> Any:
    """Units from groups of images, each image a set of the classes it shows."""
    unit = [i for i, group in enumerate(groups) for _ in group]
    shown = [image for group in groups for image in group]
    pairs = np.array([(i, label) for i, image in enumerate(shown) for label in sorted(image)], np.int64).reshape(-1, 2)
    return make_units(np.array(unit, np.int64), pairs[:, 0], pairs[:, 1], len(groups), classes)


def filled(owner: Any, units: Any) -> Any:
    return np.bincount(owner, units.weights, 3)


def missed(owner: Any, units: Any, sizes: Any) -> Any:
    """Sum over subsets and classes of how many images a subset has more or fewer than its share."""
    wanted = np.outer(sizes / sizes.sum(), units.per_class)
    got = np.array([units.take(np.flatnonzero(owner == part)).per_class for part in range(3)])
    return np.abs(got - wanted).sum()


def test_units_count_images_that_show_a_class() -> None:
    objects = np.array([[0, 1], [0, 1], [1, 0], [1, 1], [2, 2]])
    units = make_units(np.array([0, 0, 2]), objects[:, 0], objects[:, 1], 3, 4)
    assert units.weights.tolist() == [2, 0, 1]
    assert units.per_class.tolist() == [1, 2, 1, 0]
    assert [units.columns[a:b].tolist() for a, b in zip(units.starts[:-1], units.starts[1:], strict=True)] == [
        [0, 1], [], [2],
    ]  # fmt: skip
    assert units.counts.tolist() == [1, 2, 1]
    last = units.take(np.array([0, 2]))
    assert (last.weights.tolist(), last.starts.tolist(), last.columns.tolist()) == ([2, 1], [0, 2, 3], [0, 1, 2])


images = st.sets(st.integers(0, 4))
groups = st.lists(st.lists(images, min_size=1, max_size=7), min_size=1, max_size=25)


@settings(deadline=None)
@given(groups, st.tuples(*[st.integers(0, 9)] * 3))
def test_no_subset_misses_by_more_than_the_largest_group(groups: Any, shares: Any) -> None:
    units = units_of(groups, 5)
    total, largest = int(units.weights.sum()), int(units.weights.max())
    sizes = np.array([total * share // max(1, sum(shares)) for share in shares], np.int64)
    sizes[0] += total - sizes.sum()
    owner = stratify(units, sizes)
    assert owner.min() >= 0
    off = filled(owner, units) - sizes
    # A subset that would stay empty gets a group, however large, from one that has several.
    spared = (sizes < largest) & (np.bincount(owner, minlength=3) == 1)
    assert (np.abs(off) <= largest).all() or spared.any()
    assert not filled(owner, units)[sizes == 0].any()
    if len(groups) >= 3 * (sizes > 0).sum():
        assert filled(owner, units)[sizes > 0].all()


def test_large_groups_come_first_where_there_is_nothing_to_see() -> None:
    units = units_of([[set()] * weight for weight in (1, 1, 1, 1, 8)], 1)
    assert filled(stratify(units, np.array([8, 2, 2])), units).tolist() == [8, 2, 2]


@settings(deadline=None)
@given(groups, st.tuples(*[st.integers(0, 9)] * 3))
def test_the_bounds_where_none_is_empty_anyway(groups: Any, shares: Any) -> None:
    """Less than a group too many, two thirds of one too few: nothing is spared where subsets have images before."""
    units = units_of(groups, 5)
    total, largest = int(units.weights.sum()), int(units.weights.max())
    sizes = np.array([total * share // max(1, sum(shares)) for share in shares], np.int64)
    sizes[0] += total - sizes.sum()
    held = FilledSubsets(np.ones(3, np.int64), np.zeros((3, 5), np.int64))
    off = filled(stratify(units, sizes, held), units) - sizes
    assert off.max() < largest
    assert off.min() >= -2 * largest / 3


def test_a_group_goes_where_all_of_it_has_room() -> None:
    """Not to a subset that lacks its class and has room for a part: two overfilled ones would leave train short."""
    units = units_of([[{0}] * 4, [set()] * 5, [{0}] * 4, [set()] * 5], 1)
    held = FilledSubsets(np.ones(3, np.int64), np.zeros((3, 1), np.int64))
    assert filled(stratify(units, np.array([13, 3, 2]), held), units).tolist() == [13, 5, 0]


@settings(deadline=None)
@given(st.lists(images, min_size=1, max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_single_images_fill_every_place(images: Any, train: Any, evaluation: Any) -> None:
    units = units_of([[image] for image in images], 5)
    sizes = np.diff([0, *sorted((min(train, len(images)), min(evaluation, len(images)))), len(images)])
    assert filled(stratify(units, sizes), units).tolist() == sizes.tolist()


@pytest.mark.parametrize(
    ("weights", "sizes", "filled_with"),
    [
        pytest.param([48, 48, 4], [70, 15, 15], [48, 4, 48], id="one for each"),
        pytest.param([90, 5, 5], [70, 15, 15], [90, 5, 5], id="one too large"),
        pytest.param([20, 20, 20, 20, 20], [70, 15, 15], [60, 20, 20], id="all too large for two"),
        pytest.param([50, 50], [70, 15, 15], [50, 50, 0], id="too few"),
        pytest.param([60, 30, 10], [80, 10, 10], [60, 10, 30], id="the smaller one of the two is spared"),
        pytest.param([15] * 6 + [10], [50, 49, 1], [45, 45, 10], id="it is spared by the subset with most too many"),
        pytest.param([1, 1, 1, 1, 8], [8, 2, 2], [8, 2, 2], id="the large ones come first"),
        pytest.param([7, 7, 7, 1, 1, 1], [16, 4, 4], [15, 2, 7], id="small ones fill up"),
    ],
)
def test_sizes_of_groups(weights: Any, sizes: list[Any], filled_with: list[Any]) -> None:
    units = units_of([[{0}] * weight for weight in weights], 1)
    found = filled(stratify(units, np.array(sizes)), units)
    assert sorted(found[1:]) == sorted(filled_with[1:])
    assert found[0] == filled_with[0]


def test_what_is_there_already_counts() -> None:
    """Train has nearly all of class 0 that is its share: what comes goes to the others."""
    units = units_of([[{0}]] * 4 + [[{1}]] * 4, 2)
    held = FilledSubsets(np.array([8, 0, 0]), np.array([[8, 0], [0, 0], [0, 0]]))
    sizes = np.array([4, 2, 2])
    assert stratify(units, sizes)[:4].tolist().count(0) == 2
    assert stratify(units, sizes, held)[:4].tolist().count(0) == 1


def test_near_the_best_there_is() -> None:
    """Against every split there is of small cases: close to the best one, far from the average one."""
    rng = np.random.default_rng(0)
    found, best, average = [], [], []
    for _ in range(12):
        units = units_of([[set(np.flatnonzero(rng.random(3) < 0.4).tolist())] for _ in range(8)], 3)
        sizes = np.array([4, 2, 2])
        every = [np.array(owner) for owner in product(range(3), repeat=8)
                 if [owner.count(part) for part in range(3)] == [4, 2, 2]]  # fmt: skip
        scores = [missed(owner, units, sizes) for owner in every]
        found.append(missed(stratify(units, sizes), units, sizes))
        best.append(min(scores))
        average.append(np.mean(scores))
    assert np.mean(best) <= np.mean(found) < 1.35 * np.mean(best)
    assert np.mean(found) < 0.6 * np.mean(average)


def test_groups_are_balanced_better_than_by_chance() -> None:
    rng = np.random.default_rng(1)
    groups = [[set(rng.choice(10, 2, p=np.arange(1, 11) / 55).tolist())] * int(rng.integers(1, 9)) for _ in range(200)]
    units = units_of(groups, 10)
    total = int(units.weights.sum())
    sizes = np.array([total - 2 * (total // 5), total // 5, total // 5])
    chance = [missed(rng.choice(3, 200, p=sizes / total), units, sizes) for _ in range(20)]
    assert missed(stratify(units, sizes), units, sizes) < 0.35 * np.mean(chance)
