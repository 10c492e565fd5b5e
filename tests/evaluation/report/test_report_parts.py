"""The sections of the report on slices, thresholds and speed: they say what their values say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from detections import found
from evaluations import predictions
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.evaluation.form_comparison import MeasuredForm
from pipeline.evaluation.hardware import Hardware
from pipeline.evaluation.image_properties import Division, Divisions
from pipeline.evaluation.prediction import STAGES, ServicePredictions
from pipeline.evaluation.slices import measure_divisions
from pipeline.metrics.chance import FEWEST_IMAGES, Interval
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.paired import compare_models
from pipeline.metrics.thresholds import advise_threshold

BOX = [10, 10, 40, 40]
TIMES = {"mean": 12.0, "p50": 10.0, "p90": 18.0, "p95": 20.5, "p99": 21.0, "max": 23.4}
MACHINE = Hardware("EPYC", 2, 8 * 2**30, (), "Linux")


def shown(name: str, **values: Any) -> str:
    """The text of a section."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=PackageLoader("pipeline.evaluation.report", "."),
    )  # fmt: skip

    def figure(number: float | None, digits: int = 3) -> str:
        return "-" if number is None else f"{number:.{digits}f}"

    def interval(ends: Interval, digits: int) -> str:
        return f"{ends.low:.{digits}f} to {ends.high:.{digits}f}"

    environment.filters |= {"figure": figure, "interval": interval}
    page = environment.get_template(name).render(**values)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_slices(coco_file: Callable) -> None:
    truth = coco_file([(number, 1, BOX) for number in range(1, 81)], images=90)
    metrics = evaluate(truth, [found(number, 1, BOX) for number in range(1, 81) if number > 30 or number % 4 == 0])
    number = np.arange(90)
    parts = {"dusk": number < 30, "<day>": number >= 30, "fog": number == 3, "desert": number > 85}
    slices = measure_divisions(metrics, Divisions((Division("light", parts),), ("url",)), draws=100)
    values = {"slices": slices, "charts": {"Slices": ""}, "fewest": FEWEST_IMAGES, "metrics": metrics}
    text = shown("slices.html.j2", **values)
    assert "Worse than the rest beyond chance: light: dusk." in text
    assert re.search(r"light: dusk 30 30 worse 0\.2\d\d 0\.\d\d to 0\.\d\d 0\.23 0\.00 ", text)
    assert re.search(r"light: dusk .* light: &lt;day&gt; 60 50 1\.000", text), "the worst is first, and escaped"
    assert "On fewer than 5 images with objects, so not judged: object size: small" in text
    assert "light: fog (1 image, 1 with objects)" in text
    assert "light: desert (4 images, no object, 0.00 false positives per image)" in text
    assert "too many to make slices: url." in text
    judged = tuple(replace(each, is_worse=False) for each in slices.judged)
    assert "No slice is worse than the rest beyond chance." in shown(
        "slices.html.j2", **values | {"slices": replace(slices, judged=judged)}
    )


@pytest.mark.parametrize(("current", "said"), [(0.1, "from 0.10 on, where mean F1 is"), (0.45, "within that range")])
def test_the_threshold_and_how_to_adopt_it(coco_file: Callable, current: float, said: str) -> None:
    metrics = evaluate(coco_file([(n, 1, BOX) for n in range(1, 9)], images=8), [found(n, 1, BOX) for n in range(1, 9)])
    advice = advise_threshold(metrics, current, draws=20)
    text = shown("thresholds.html.j2", advice=advice, metrics=metrics, adopt=["pack --threshold={threshold}"])
    assert "0.45 gives the highest mean F1, 1.000." in text
    assert "from 0.45 to 0.45 in 95 of 100 cases" in text
    assert said in text
    assert "To adopt it: pack --threshold=0.45 " in text


def test_no_threshold_is_nothing_to_adopt(coco_file: Callable) -> None:
    metrics = evaluate(coco_file([(1, 1, BOX)]), [])
    text = shown("thresholds.html.j2", advice=None, metrics=metrics, adopt=["pack {threshold}"])
    assert "No score threshold can be recommended." in text
    assert "pack" not in text


@pytest.mark.parametrize("told", [True, False])
def test_speed(coco_file: Callable, told: bool) -> None:
    service = {"engine": "onnxruntime 1.31.1", "providers": ["CPUExecutionProvider"], "precision": "fp32", "threads": 2}
    predictions = ServicePredictions(
        results=[], service=service if told else {}, score_threshold=0.01, workers=4, retries=1, images_per_second=6.25,
        latency=TIMES, stages=dict.fromkeys(STAGES, TIMES) if told else {}, dropped={}, unknown_classes=(), resized=(),
    )  # fmt: skip
    gpus = ("NVIDIA H200, 143771 MiB, driver 570",) if told else ()
    text = shown(
        "speed.html.j2", predictions=predictions, stages=STAGES, hardware=replace(MACHINE, gpus=gpus),
        metrics=evaluate(coco_file([]), []),
    )  # fmt: skip
    assert "6.2 images/s: 4 images, one in each request, 4 requests at once, 1 retries." in text
    assert "the end of the answer 12.0 10.0 20.5 21.0 23.4 " in text
    assert ("inference the model runs 12.0 10.0 20.5 21.0 23.4 " in text) == told
    assert ("does not tell the times of its stages" in text) != told
    assert "EPYC, 2 CPUs, 8.0 GiB memory" in text
    assert ("GPU NVIDIA H200, 143771 MiB, driver 570 " if told else "GPU none ") in text
    assert ("onnxruntime 1.31.1 on CPUExecutionProvider, fp32, 2 threads" if told else "runtime unknown ") in text


def test_forms(coco_file: Callable) -> None:
    truth = coco_file([(number, 1, BOX) for number in range(1, 31)], images=30)
    right = [found(number, 1, BOX) for number in range(1, 31)]
    paired = compare_models(truth, right, right[:15], draws=50)
    gpu = {"runtime": "cuda", "precision": "fp32", "providers": ["CPUExecutionProvider"]}
    forms = [
        MeasuredForm("cpu-int8", predictions(right[:15], memory_bytes=120_000_000), paired, "it loses 0.495 of mAP"),
        MeasuredForm("cuda-fp32", predictions(right, service=gpu), compare_models(truth, right, right, draws=50)),
        MeasuredForm("openvino-bf16", refusal="this CPU has no bf16"),
    ]
    values = {"metrics": evaluate(truth, right), "predictions": predictions(right, model_bytes=3_800_000)}
    text = shown("forms.html.j2", forms=forms, **values)
    assert "cpu-fp32 1.000 10.0 20.0 6.0 3.8 0 the service" in text
    assert re.search(r"cpu-int8 0\.505 -0\.495 worse -0\.\d{3} to -0\.\d{3} 10\.0 20\.0 6\.0 0\.0 120 no", text), text
    assert re.search(r"cuda-fp32 1\.000 \+0\.000 the same .* yes", text)
    assert "openvino-bf16 - - - - - - no" in text
    assert "cpu-int8 is not delivered: it loses 0.495 of mAP." in text
    assert "openvino-bf16 is not delivered: this CPU has no bf16." in text
    assert "Here cuda-fp32 ran on CPUExecutionProvider." in text
    assert "cpu-int8 ran on" not in text
