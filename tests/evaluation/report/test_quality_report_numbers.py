"""`metrics.json` against its schema, and against what the objects say."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detections import found
from evaluations import evaluated
from jsonschema import Draft202012Validator

from pipeline.evaluation.form_comparison import MeasuredForm
from pipeline.evaluation.metrics_file import write_metrics
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.paired import compare_models

BOX = [10, 10, 40, 40]
SCHEMA = json.loads(resources.files("pipeline.evaluation").joinpath("metrics.schema.json").read_text("utf-8"))


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., dict]:
    def write(truth: GroundTruth, results: list[dict], **more: Any) -> dict:
        write_metrics(tmp_path / "metrics.json", *evaluated(truth, results, **more))
        read = json.loads((tmp_path / "metrics.json").read_text())
        Draft202012Validator.check_schema(SCHEMA)
        Draft202012Validator(SCHEMA).validate(read)
        return read

    return write


def test_one_object(coco_file: Callable, written: Callable) -> None:
    read = written(coco_file([(1, 1, BOX)]), [found(1, 1, BOX, 0.9)])
    assert read["map"] == pytest.approx(1.0)
    assert read["map_small"] is None
    assert read["classes"][0]["best"]["threshold"] == 0.45
    assert read["classes"][1]["ap"] is None
    assert len(read["precision"]) == 3
    assert read["precision"][1][0] is None
    assert read["ap_by_iou"] == pytest.approx([1.0] * 10)
    assert read["intervals"]["map"] is None
    assert read["error_kinds"]["missed"] == {"count": 0, "ap50_cost": 0.0}
    assert read["calibration"]["error"] == pytest.approx(0.1)
    assert read["calibration"]["bins"][9]["detections"] == 1


def test_nothing_at_all(coco_file: Callable, written: Callable) -> None:
    read = written(coco_file([]), [])
    assert {read[name] for name in ("map", "ar100", "threshold", "f1")} == {None}
    assert read["calibration"]["error"] is None
    assert read["error_kinds"]["background"]["ap50_cost"] is None


def test_every_figure_of_real_annotations(real_truth: GroundTruth, jittered: Callable, written: Callable) -> None:
    results = jittered(real_truth, 0)
    read, metrics = written(real_truth, results), evaluate(real_truth, results)
    assert {name: read[name] for name in metrics.summary()} == metrics.summary()
    assert [each["ap"] for each in read["classes"]] == [each.ap for each in metrics.classes]
    assert np.mean(read["ap_by_iou"]) == pytest.approx(metrics.map, abs=1e-6)
    for name, interval in read["intervals"].items():
        if interval is not None:
            assert interval[0] <= read[name] <= interval[1], name
    known = [each for each in read["classes"] if each["ap_interval"] is not None]
    assert 10 < len(known) < len(read["classes"])
    assert all(each["images"] >= 5 for each in known)


def test_the_forms_of_the_model(coco_file: Callable, written: Callable) -> None:
    truth = coco_file([(1, 1, BOX), (2, 1, BOX)], images=2)
    results = [found(1, 1, BOX, 0.9), found(2, 1, BOX, 0.9)]
    paired = compare_models(truth, results, results[:1], draws=20)
    forms = [MeasuredForm("cpu-int8", None, paired, "it loses"), MeasuredForm("openvino-bf16", refusal="no bf16")]
    read = written(truth, results, forms=forms)["forms"]
    assert read["openvino-bf16"] == {"refusal": "no bf16", "figures": {}}
    assert read["cpu-int8"]["figures"]["mAP"]["before"] == pytest.approx(1)
    assert read["cpu-int8"]["figures"]["mAP"]["change"] == pytest.approx(-0.495, abs=1e-3)


def test_the_decision_and_other_models(coco_file: Callable, written: Callable) -> None:
    truth = coco_file([(image, 1, BOX) for image in range(1, 9)], images=8)
    results = [found(image, 1, BOX) for image in range(1, 9)]
    others = {"given": results[:4], "earlier": "there is none"}
    read = written(truth, results, others=others, limits=["mAP >= given", "mAP >= earlier"])
    assert read["decision"]["outcome"] == "passed"
    assert list(read["gate"]["limits"].values()) == [True, None]
    given, earlier = read["references"]["given"], read["references"]["earlier"]
    assert given["figures"]["mAP"]["before"] == pytest.approx(51 / 101)
    assert (given["figures"]["mAP"]["verdict"], given["class_ap"]["cat"]["verdict"]) == ("better", "better")
    assert earlier == {"absence": "there is none", "caution": "", "figures": {}, "class_ap": {}}
