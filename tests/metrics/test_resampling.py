"""Draws of the images: the figures of each are those of a test set that has the images as often as they were drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from detections import found, matches_of

from pipeline.metrics.average_precision import average_precision, coco_figures
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.resampling import draw_weights, resample


def test_the_first_draw_is_the_test_set(real_truth: GroundTruth, jittered: Callable) -> None:
    matches = matches_of(real_truth, jittered(real_truth, 3))
    result = average_precision(matches)
    draws = resample(matches, draw_weights(matches.images, 2))
    for name, value in coco_figures(result).items():
        assert draws.figures[name][0] == pytest.approx(value, abs=1e-12), name
    assert draws.class_ap[0] == pytest.approx(result.ap[:, :, 0].mean(0), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("seed", range(4))
def test_a_draw_is_the_set_with_its_images_repeated(coco_file: Callable, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, sides = 9, [20, 50, 120]

    def box() -> list[float]:
        return [*rng.uniform(0, 100, 2).tolist(), *rng.choice(sides, 2).tolist()]

    truth = [(int(rng.integers(1, images + 1)), int(rng.integers(1, 4)), box()) for _ in range(30)]
    results = [
        found(image, label, (np.array(place) + rng.normal(0, 5, 4)).clip(1).tolist(), float(rng.random()))
        for image, label, place in truth * 2
    ]
    results += [found(int(rng.integers(1, images + 1)), int(rng.integers(1, 4)), box(), float(rng.random()))]
    matches = matches_of(coco_file(truth, images=images), results)
    weights = draw_weights(images, 20, seed)
    draws = resample(matches, weights)
    for draw in range(20):
        copies = np.repeat(np.arange(1, images + 1), weights[:, draw].astype(int)).tolist()
        repeated = [(new, *each[1:]) for new, old in enumerate(copies, 1) for each in truth if each[0] == old]
        again = [
            {**each, "image_id": new}
            for new, old in enumerate(copies, 1)
            for each in results
            if each["image_id"] == old
        ]
        expected = average_precision(matches_of(coco_file(repeated, images=images), again))
        for name, value in coco_figures(expected).items():
            assert draws.figures[name][draw] == pytest.approx(np.nan if value is None else value, nan_ok=True), name
        assert draws.class_ap[draw] == pytest.approx(expected.ap[:, :, 0].mean(0), nan_ok=True)


def test_draws_are_of_as_many_images_and_the_same_each_time() -> None:
    weights = draw_weights(34, 500)
    assert (weights[:, 0] == 1).all()
    assert (weights.sum(0) == 34).all()
    assert np.array_equal(weights, draw_weights(34, 500))
    assert not np.array_equal(weights, draw_weights(34, 500, seed=1))
    assert weights[:, 1:].mean() == pytest.approx(1)


def test_what_a_draw_does_not_have_is_not_defined(coco_file: Callable) -> None:
    """A class with one object, in one of two images, is absent from a quarter of the draws."""
    truth = coco_file([(1, 1, [10, 10, 40, 40]), (2, 2, [10, 10, 40, 40])], images=2)
    matches = matches_of(truth, [found(1, 1, [10, 10, 40, 40], 0.9)])
    weights = draw_weights(2, 400)
    draws = resample(matches, weights)
    assert np.array_equal(np.isnan(draws.class_ap[:, :2]), weights.T == 0)
    assert np.isnan(draws.class_ap[:, 2]).all()
    assert np.isnan(draws.figures["map_large"]).all()
    assert draws.class_ap[weights[0] > 0, 0] == pytest.approx(1)
