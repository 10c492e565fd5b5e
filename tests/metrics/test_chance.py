"""Intervals: they hold the truth as often as they claim, by simulation, and where they cannot, they are not there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from detections import found

from pipeline.metrics.chance import Chance, Interval, measure_chance
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.paired import PairedFigures, compare_models
from pipeline.metrics.resampling import draw_figures

BOX = [10, 10, 40, 40]


def test_few_images_have_no_interval(coco_file: Callable) -> None:
    """The first class is in four images, the second in six, in which it is found or not."""
    truth = coco_file([(n, 1, BOX) for n in range(1, 5)] + [(n, 2, BOX) for n in range(5, 11)], images=12)
    metrics = evaluate(truth, [found(n, 2 - (n < 5), BOX) for n in (1, 2, 5, 6, 7, 8)])
    chance = measure_chance(metrics, draw_figures(metrics, draws=200))
    assert chance.class_ap[0] is None
    assert chance.class_ap[2] is None
    interval = chance.class_ap[1]
    assert interval is not None
    assert 0 <= interval.low < 67 / 101 < interval.high <= 1
    assert chance.figures["map_small"] is None
    assert chance.figures["map"] is not None


def test_where_all_is_right_nothing_is_left_to_chance(coco_file: Callable) -> None:
    truth = coco_file([(n, 1, BOX) for n in range(1, 9)], images=8)
    chance = measure_chance(evaluate(truth, [found(n, 1, BOX) for n in range(1, 9)]))
    assert chance.figures["map"] == Interval(pytest.approx(1), 1.0)
    assert chance.figures["fp_per_image_with_objects"] == Interval(0.0, 0.0)
    assert chance.figures["fp_per_image_without_objects"] is None


def test_four_times_the_images_halve_the_interval() -> None:
    chance = Chance(100, {"map": Interval(0.4, 0.48)}, ())
    assert chance.images_for(0.02) == 400
    assert Chance(4, {"map": None}, ()).images_for(0.02) is None


def draw_images(rng: np.random.Generator, images: int) -> tuple[list, list]:
    """Objects and detections of images that differ in how hard they are, and in how many objects they have."""
    truth, results = [], []
    for image in range(1, images + 1):
        is_easy = rng.normal(0.5, 1)
        for number in range(rng.poisson(3)):
            box, label = [10 + 60 * number, 10, 50, 50], int(rng.integers(1, 3))
            truth.append((image, label, box))
            quality = 1 / (1 + np.exp(-is_easy - rng.normal()))
            off = box[0] + 30 * (1 - quality)
            results.append(found(image, label, [off, 10, 50, 50], float(rng.beta(2 + 4 * quality, 3))))
        results += [
            found(image, int(rng.integers(1, 3)), [60 * number, 100, 50, 50], float(rng.beta(2, 4)))
            for number in range(rng.poisson(1.5))
        ]
    return truth, results


@pytest.mark.slow
@pytest.mark.parametrize("images", [34, 150])
def test_intervals_hold_the_truth_in_95_of_100_cases(coco_file: Callable, images: int) -> None:
    """A thousand test sets of one kind, whose true figures are those of a very large one."""
    truth, results = draw_images(np.random.default_rng(10**6), 20_000)
    true = evaluate(coco_file(truth, images=20_000), results)
    held: dict[str, list[bool]] = {}
    for seed in range(1000):
        truth, results = draw_images(np.random.default_rng(seed), images)
        metrics = evaluate(coco_file(truth, images=images), results)
        chance = measure_chance(metrics, draw_figures(metrics, draws=200))
        intervals = {name: chance.figures[name] for name in ("map", "map50", "ar100")}
        intervals |= {"class": chance.class_ap[0]}
        values = {"map": true.map, "map50": true.map50, "ar100": true.ar100, "class": true.classes[0].ap}
        for name, interval in intervals.items():
            held.setdefault(name, []).append(interval.low <= values[name] <= interval.high)
    shares = {name: np.mean(values) for name, values in held.items()}
    assert all(0.92 <= share <= 0.985 for share in shares.values()), shares


@pytest.mark.slow
def test_two_models_are_told_apart_as_often_as_claimed(coco_file: Callable) -> None:
    """A thousand test sets: intervals hold the true difference, and equal models are seldom told apart."""

    def figures(images: int, seed: int) -> dict[str, PairedFigures]:
        """Models of one kind, each wrong in its own way; the third loses a fifth of its detections."""
        truth, results = draw_images(np.random.default_rng(seed), images)
        _, others = draw_images(np.random.default_rng(seed), images)
        rng = np.random.default_rng(seed + 10**7)
        other = [each | {"score": float(np.clip(each["score"] + rng.normal(0, 0.1), 0.001, 1))} for each in others]
        before = [each | {"score": float(np.clip(each["score"] + rng.normal(0, 0.1), 0.001, 1))} for each in results]
        worse = [each for each in other if rng.random() > 0.2]
        file = coco_file(truth, images=images)
        return {
            name: compare_models(file, before, after, draws=200) for name, after in (("equal", other), ("worse", worse))
        }

    true = figures(20_000, 10**6)["worse"].figures["mAP"].change
    found = [figures(34, seed) for seed in range(1000)]
    equal = [each["equal"].figures["mAP"] for each in found]
    worse = [each["worse"].figures["mAP"] for each in found]
    assert np.mean([each.verdict in {"better", "worse"} for each in equal]) <= 0.08
    assert 0.91 <= np.mean([each.low <= true <= each.high for each in worse]) <= 0.985
    assert not any(each.verdict == "better" for each in worse)
