"""What a user reads of a wrong name."""

from __future__ import annotations

import pytest

from pipeline.errors import did_you_mean

CASES: dict[str, tuple[str, list[str], str]] = {
    "near": ("epoch", ["epochs", "seed"], "did you mean 'epochs'?"),
    "case is ignored": ("CAR", ["car", "bus"], "did you mean 'car'?"),
    "names that differ in case are all offered": ("truck", ["TRUCK", "Truck"], "did you mean 'TRUCK' or 'Truck'?"),
    "nothing near": ("zebra", ["epochs"], "there are others"),
}


@pytest.mark.parametrize(("name", "known", "expected"), CASES.values(), ids=CASES)
def test_the_nearest_names_are_offered(name: str, known: list[str], expected: str) -> None:
    assert did_you_mean(name, known, otherwise="there are others") == expected
