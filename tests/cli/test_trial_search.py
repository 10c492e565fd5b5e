"""A search: seeded, among what may be tried, and never the same values twice."""

from __future__ import annotations

import math
import sys
from statistics import median
from typing import Any

import pytest

from pipeline.cli.swept_parameters import Combination, SweptParameter
from pipeline.cli.trial_search import search
from pipeline.runtime.parameters import Parameter

RATE = SweptParameter("fit", Parameter("rate", "float", 0.0, ""), (1e-4, 1.0), is_range=True)
DEPTH = SweptParameter("fit", Parameter("depth", "int", 1, ""), (1, 4), is_range=True)
NAMES = SweptParameter("fit", Parameter("names", "list[str]", [], ""), (["a"], ["b", "c"]))
BEST = 0.5  # of the rate


def asked(swept: list[SweptParameter], trials: int, failing: range = range(0)) -> list[Combination]:
    """What is asked for where the rate had best be `BEST`, and some trials fail."""
    found: list[Combination] = []

    def run(combination: Combination) -> float | None:
        found.append(combination)
        return None if len(found) in failing else -distance(combination)

    search(swept, trials, run)
    return found


def distance(combination: Combination) -> float:
    """Factors of ten from the best rate."""
    return abs(math.log10(combination.get("fit.rate", BEST) / BEST))


def test_it_asks_for_the_same_again_for_the_same_results() -> None:
    whole = asked([RATE, DEPTH, NAMES], 16)
    assert len(whole) == 16
    assert asked([RATE, DEPTH, NAMES], 16) == whole
    assert asked([RATE, DEPTH, NAMES], 5) == whole[:5]
    assert asked([RATE, DEPTH, NAMES], 16, failing=range(1, 5))[:5] == whole[:5]


def test_all_that_is_asked_for_is_within_the_ranges_and_easy_to_type() -> None:
    for each in asked([RATE, DEPTH, NAMES], 30):
        assert 1e-4 <= each["fit.rate"] <= 1
        assert each["fit.rate"] == float(f"{each['fit.rate']:.3g}")
        assert each["fit.depth"] in (1, 2, 3, 4)
        assert each["fit.names"] in NAMES.values


def test_it_comes_nearer_to_the_best() -> None:
    far = [distance(each) for each in asked([RATE], 30)]
    assert median(far[-10:]) < median(far[:10]) / 2  # the first ten are drawn by chance


def test_no_values_are_tried_twice_and_it_ends_where_there_are_no_others() -> None:
    found = asked([DEPTH, NAMES], 8)
    assert len({str(each) for each in found}) == len(found) == 8
    assert len(asked([DEPTH], 9)) == 4


def test_without_optuna_the_command_says_what_to_install(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = toy.look("sweep", "configs/demo.yaml", "--over", "first.times=1,2,3", "--trials", "2")
    outcome.fails("pip install -e '.[sweep]'", code=2)
    assert not (toy.root / ".store").exists()
