"""A whole training: continued to the same bytes, and exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import digests_of

from pipeline.detection import export
from pipeline.detection.export import check_parity, export_onnx
from pipeline.detection.hooks import ProgressHook
from pipeline.detection.hyperparameters import Hyperparameters, TrainingOptions
from pipeline.detection.training import TrainingResult

OPTIONS = TrainingOptions("rtmdet-tiny", 64, 2, 6, micro_batch=4, augmentation="mosaic", seed=3, workers=0)
RATES = Hyperparameters(learning_rate=1e-3, freeze="stem")
Run = Callable[..., TrainingResult]


class KilledError(Exception):
    """Stands for the end of the process."""


def test_a_training_is_continued_to_the_same_bytes_and_exported(
    run: Run, random_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"weights": random_weights, "hyperparameters": RATES}
    expected = run(OPTIONS, **named)
    assert [record.epoch for record in expected.history] == [0, 1, 2]
    assert expected.history[2].loss["loss"] < expected.history[1].loss["loss"]
    assert {"loss_cls", "loss_bbox"} < expected.history[1].loss.keys()

    after = ProgressHook.after_train_iter

    def die(self: Any, runner: Any, *arguments: Any, **others: Any) -> None:
        after(self, runner, *arguments, **others)
        if runner.epoch == 1:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(ProgressHook, "after_train_iter", die)
        with pytest.raises(KilledError):
            run(OPTIONS, **named, resume=tmp_path / "resume")
    result = run(OPTIONS, **named, resume=tmp_path / "resume")
    assert digests_of(result.folder) == digests_of(expected.folder)

    model, weights = tmp_path / "model.onnx", result.folder / "last.pth"
    metadata = result.metadata
    assert (metadata.name, metadata.detector) == ("RTMDet-tiny", "rtmdet-tiny")
    export_onnx(metadata, weights, model)
    figures, notes = check_parity(metadata, weights, model, sorted((result.folder / "parity_images").iterdir()))
    assert figures["parity_detections"] > 0
    assert figures["parity_max_box_difference"] <= export.BOX_TOLERANCE
    assert notes == []


@pytest.mark.parametrize(
    ("side", "found", "expected", "difference"),
    [
        pytest.param(20.0, 0.3, 0.25, 0.05, id="a score"),
        pytest.param(20.0, 0.0, 0.25, 0.25, id="a box that one graph drops"),
        pytest.param(0.001, 0.0, 0.25, 0.0, id="which had hardly a side"),
        pytest.param(0.001, 0.25, 0.0, 0.0, id="or none in the other"),
        pytest.param(-0.001, 0.25, 0.0, 0.0, id="or a negative one"),
        pytest.param(0.001, 0.3, 0.25, 0.05, id="hardly a side, and kept by both"),
        pytest.param(-3.0, 0.25, 0.0, 0.25, id="a negative side"),
    ],
)
def test_which_scores_differ(side: float, found: float, expected: float, difference: float) -> None:
    boxes = np.array([[[1.0, 1.0, 1.0 + side, 9.0]]], np.float32)
    scores = [np.array([[[value]]], np.float32) for value in (found, expected)]
    [[[measured]]] = export._score_differences((boxes, scores[0]), (boxes, scores[1]))
    assert float(measured) == pytest.approx(difference, abs=1e-6)
