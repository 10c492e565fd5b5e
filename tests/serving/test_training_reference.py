"""Images beside those that a model learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import cases
from kept_samples import bright, write_record
from pictures import smooth

from pipeline.serving.image_fingerprint import fingerprint_of
from pipeline.serving.training_reference import BINS, PROPERTIES, TrainingReference, read_reference


def share_unusual(reference: TrainingReference, change: Any) -> float:
    prints = [fingerprint_of(change(smooth(seed)), of_flat=True) for seed in range(1000, 1100)]
    return float(np.mean([reference.compare(each).distance > reference.unusual for each in prints]))


@cases(
    "change, least, most",
    {
        "none": (lambda p: p, 0.0, 0.15),
        "a third of the light": (lambda p: p // 3, 0.9, 1.0),
        "fog": (lambda p: p // 4 + 160, 0.9, 1.0),
        "no colours": (lambda p: np.repeat(p[..., :1], 3, axis=2), 0.9, 1.0),
        "nothing at all": (np.zeros_like, 1.0, 1.0),
    },
)
def test_images_of_another_kind_are_unusual(
    reference: TrainingReference, change: Any, least: float, most: float
) -> None:
    assert least <= share_unusual(reference, change) <= most


def test_a_training_image_is_no_distance_away_and_each_range_holds_a_tenth_of_them(
    reference: TrainingReference,
) -> None:
    assert reference.compare(fingerprint_of(smooth(7))).distance == pytest.approx(0, abs=0.01)
    np.testing.assert_allclose(reference.shares, 1 / BINS, atol=0.01)
    assert reference.shares.shape == (len(PROPERTIES), BINS)


def test_of_many_training_images_evenly_chosen_ones_are_compared(tmp_path: Path) -> None:
    prints = np.random.default_rng(0).integers(0, 256, (5000, 288), np.uint8)
    found = [TrainingReference(prints) for _ in range(2)]
    assert found[0].images == 2048
    assert found[0].unusual == found[1].unusual


def test_equal_training_images_are_compared_without_a_division_by_zero() -> None:
    found = TrainingReference(np.full((200, 288), 128, np.uint8)).compare(bytes([128]) * 288)
    assert found.distance == 0


@cases(
    "pictures, says",
    {
        "none": (None, "the Bento has no learned_images.npz"),
        "few": ([bright(seed) for seed in range(20)], "there are 20 with a fingerprint, fewer than 150"),
        "flat": ([np.full((9, 9, 3), 7, np.uint8)] * 200, "there are 0 with a fingerprint"),
        "damaged": ("text", "cannot be read"),
    },
)
def test_a_record_that_is_of_no_use_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pictures: Any, says: str
) -> None:
    path = tmp_path / "learned_images.npz"
    if pictures == "text":
        path.write_text(pictures)
    elif pictures is not None:
        write_record(path, pictures)
    assert read_reference(path) is None
    assert says in caplog.text
