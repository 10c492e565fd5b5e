"""Trials side by side: which no other dominates, in which order, and what they cost."""

from __future__ import annotations

import pytest
from cases import cases

from pipeline.evaluation.trial_figures import TrialFigures, pareto_front, ranked
from pipeline.evaluation.trial_figures import test_sets as sets_of


def trial(number: int, value: float | None, latency: float | None, test_set: str = "a") -> TrialFigures:
    return TrialFigures(number, {}, map=value, latency_p50_ms=latency, test_set=test_set)


FRONTS = {
    "one": ([trial(1, 0.1, 5)], {1}),
    "none measured": ([trial(1, None, None), trial(2, 0.5, None)], set()),
    "better but slower": ([trial(1, 0.1, 5), trial(2, 0.2, 6)], {1, 2}),
    "better and faster": ([trial(1, 0.1, 5), trial(2, 0.2, 4)], {2}),
    "better and as fast": ([trial(1, 0.1, 5), trial(2, 0.2, 5)], {2}),
    "as good and faster": ([trial(1, 0.1, 5), trial(2, 0.1, 4)], {2}),
    "the same twice": ([trial(1, 0.1, 5), trial(2, 0.1, 5)], {1, 2}),
    "dominated by two together only": ([trial(1, 0.3, 9), trial(2, 0.1, 2), trial(3, 0.2, 5)], {1, 2, 3}),
    "other images": ([trial(1, 0.1, 5), trial(2, 0.2, 4, "b"), trial(3, 0.3, 3, "b")], {1, 3}),
}
ORDERS = {
    "by mAP": ([trial(1, 0.1, 5), trial(2, 0.3, 5), trial(3, 0.2, 5)], [2, 3, 1]),
    "the failed last": ([trial(1, None, None), trial(2, 0.1, 5), trial(3, None, None)], [2, 1, 3]),
    "as they were tried, where equal": ([trial(1, 0.1, 5), trial(2, 0.1, 4)], [1, 2]),
    "by test set, the most frequent first": (
        [trial(1, 0.9, 5, "b"), trial(2, 0.1, 5), trial(3, 0.2, 5)],
        [3, 2, 1],
    ),
}
TIMES = {
    "unknown": (None, False, "-"),
    "seconds": (41.4, False, "41s"),
    "nearly a minute": (59.7, False, "1m 00s"),
    "minutes": (725.0, False, "12m 05s"),
    "hours": (12_030.0, False, "3h 20m"),
    "a killed attempt": (725.0, True, "12m 05s+"),
}


@cases("trials, front", FRONTS)
def test_the_front_has_what_no_other_dominates(trials: list[TrialFigures], front: set[int]) -> None:
    assert pareto_front(trials) == front


@cases("trials, order", ORDERS)
def test_the_best_come_first(trials: list[TrialFigures], order: list[int]) -> None:
    assert [each.number for each in ranked(trials)] == order


@cases("seconds, is_longer, text", TIMES)
def test_the_time_of_a_training_is_short(seconds: float | None, is_longer: bool, text: str) -> None:
    assert TrialFigures(1, {}, train_seconds=seconds, is_train_longer=is_longer).training == text


@pytest.mark.parametrize("measured", [0, 1, 2])
def test_only_measured_trials_have_a_test_set(measured: int) -> None:
    trials = [trial(number, 0.5, 5.0, str(number)) for number in range(measured)]
    assert sets_of([*trials, trial(9, None, None, "")]) == [str(number) for number in range(measured)]
