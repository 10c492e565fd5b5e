"""The objects of the test image, and those recorded: compared strictly in fp32, loosely where CPUs round otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pipeline.serving.self_test import count_unmatched


@dataclass(frozen=True)
class Object:
    box: tuple[float, float, float, float] = (10, 10, 110, 60)
    score: float = 0.9
    label: str = "car"


RECORDED = [Object(), Object((200, 10, 260, 60), 0.6), Object((10, 200, 60, 260), 0.5, "bus")]
ROUNDED = [Object((12, 9, 111, 63), 0.85), Object((198, 11, 262, 64), 0.66), Object((10, 200, 61, 262), 0.44, "bus")]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_rounding_passes_in_a_lower_precision_alone(precision: str) -> None:
    assert count_unmatched(ROUNDED, RECORDED, 0.01, precision) == 0
    assert count_unmatched(ROUNDED, RECORDED, 0.01) == 6
    assert count_unmatched(RECORDED, RECORDED, 0.01) == 0


@pytest.mark.parametrize(
    "found",
    [
        pytest.param([], id="nothing"),
        pytest.param([Object(each.box, each.score, "dog") for each in RECORDED], id="other classes"),
        pytest.param([Object(tuple(2 * x for x in each.box), each.score) for each in RECORDED], id="another scale"),
        pytest.param([Object(each.box, each.score / 2, each.label) for each in RECORDED], id="other scores"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_another_model_fails_in_every_precision(found: list[Object], precision: str) -> None:
    assert count_unmatched(found, RECORDED, 0.01, precision) > 0


def test_a_single_lost_object_is_tolerated_in_a_lower_precision() -> None:
    assert count_unmatched(RECORDED[:2], RECORDED, 0.01, "int8") == 0
    assert count_unmatched(RECORDED[:2], RECORDED, 0.01) == 1
