"""Two models on the same images: better, worse, or too close to call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from detections import found

from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.paired import Difference, PairedFigures, compare_models

BOX = [10, 10, 40, 40]


@pytest.fixture
def forty(coco_file: Callable) -> GroundTruth:
    """Forty images with one cat each, and a dog in the first three."""
    cats = [(image, 1, BOX) for image in range(1, 41)]
    return coco_file(cats + [(image, 2, [100, 100, 40, 40]) for image in (1, 2, 3)], images=40)


def cats(*images: int) -> list[dict]:
    return [found(image, 1, BOX, 0.9) for image in images]


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        pytest.param(range(1, 21), range(1, 41), "better", id="twice as many found"),
        pytest.param(range(1, 41), range(1, 21), "worse", id="half as many found"),
        pytest.param(range(1, 31), range(1, 32), "too close to call", id="one more found"),
        pytest.param(range(1, 21), range(21, 41), "too close to call", id="others found"),
        pytest.param(range(1, 31), range(1, 31), "the same", id="the same found"),
    ],
)
def test_a_model_is_better_only_beyond_chance(forty: GroundTruth, before: range, after: range, verdict: str) -> None:
    paired = compare_models(forty, cats(*before), cats(*after), draws=300)
    assert paired.class_ap["cat"].verdict == verdict
    difference = paired.class_ap["cat"]
    assert difference.low <= difference.change <= difference.high
    assert difference.change == pytest.approx(len(after) / 40 - len(before) / 40, abs=0.02)


def test_the_other_way_round_all_signs_turn(forty: GroundTruth) -> None:
    there, back = (compare_models(forty, *pair, draws=200).figures["mAP"] for pair in (
        (cats(*range(1, 11)), cats(*range(5, 31))), (cats(*range(5, 31)), cats(*range(1, 11))),
    ))  # fmt: skip
    assert (there.low, there.high, there.change) == pytest.approx((-back.high, -back.low, -back.change))
    assert (there.verdict, back.verdict) == ("better", "worse")


def test_on_few_images_nothing_is_decided(forty: GroundTruth) -> None:
    dogs = [found(image, 2, [100, 100, 40, 40], 0.9) for image in (1, 2, 3)]
    paired = compare_models(forty, cats(*range(1, 31)), cats(*range(1, 31)) + dogs, draws=100)
    assert (paired.class_ap["dog"].change, paired.class_ap["dog"].low) == (pytest.approx(1.0), None)
    assert paired.class_ap["dog"].verdict == "too close to call"
    assert set(paired.class_ap) == {"cat", "dog"}, "there is no owl"
    assert "mAP_large" not in paired.figures


def test_what_is_hard_for_both_is_no_difference(coco_file: Callable) -> None:
    """In most of 40 images both find nothing. In nine, the second finds one object more."""
    rng = np.random.default_rng(0)
    places = [[10 + 60 * number, 10, 40, 40] for number in range(4)]
    truth = coco_file([(image, 1, place) for image in range(1, 41) for place in places], images=40)
    seen = [image for image in range(1, 41) if rng.random() < 0.4]
    before = [found(image, 1, place, 0.9) for image in seen for place in places[:3]]
    after = before + [found(image, 1, places[3], 0.9) for image in seen[:9]]
    difference = compare_models(truth, before, after, draws=300).figures["mAP"]
    assert difference.verdict == "better"
    assert difference.high - difference.low < 0.1


def test_fewer_false_positives_are_better(forty: GroundTruth) -> None:
    false = [found(image, 2, [60, 60, 20, 20], 0.95) for image in range(1, 31)]
    difference = compare_models(forty, cats(*range(1, 41)) + false, cats(*range(1, 41)), draws=100)
    assert difference.figures["fp_per_image"].verdict == "better"
    assert difference.figures["fp_per_image"].change == pytest.approx(-0.75)
    assert "fp_per_empty_image" not in difference.figures


def test_what_is_equal_on_few_images_is_the_same() -> None:
    assert [Difference(0.5, after, None, None).verdict for after in (0.5, 0.6)] == ["the same", "too close to call"]


def test_a_quarter_of_the_interval_takes_sixteen_times_the_images() -> None:
    paired = PairedFigures(100, {"mAP": Difference(0.5, 0.52, -0.06, 0.10)}, {})
    assert paired.images_for(0.02) == 1600
    assert PairedFigures(3, {"mAP": Difference(0.5, 0.52, None, None)}, {}).images_for(0.02) is None
