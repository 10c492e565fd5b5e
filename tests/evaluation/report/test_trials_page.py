"""The page of trials and its chart: everything is told without colour, and no label hides another."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from browsers import DESK, PHONE, grave_violations
from cases import cases
from matplotlib.text import Annotation
from playwright.sync_api import Page

from pipeline.data.figures import Chart
from pipeline.evaluation.report.trial_chart import trade_off_chart
from pipeline.evaluation.report.trials_page import write_trials
from pipeline.evaluation.trial_figures import TrialFigures, pareto_front


def trial(number: int, detector: str, epochs: str, value: float, latency: float, half: float = 0.05) -> TrialFigures:
    interval = {"map_low": value - half, "map_high": value + half} if half else {}
    values = {"detector": detector, "epochs": epochs}
    known = {"run": f"2026-{number}", "gate": "passed", "map": value, "latency_p50_ms": latency}
    known |= {"latency_p95_ms": latency * 2, "train_seconds": 60.0, "test_set": "a" * 64, "test_images": 36}
    return TrialFigures(number, values, **interval, **known)


FOUR = [
    trial(1, "yolox-nano", "1", 0.21, 6.1),
    trial(2, "yolox-nano", "5", 0.52, 6.3),
    trial(3, "rtmdet-tiny", "1", 0.18, 11.9),
    trial(4, "rtmdet-tiny", "5", 0.66, 12.1),
]
CHANCE = random.Random(1)
MANY = [trial(n, "yolox-s", str(n), CHANCE.uniform(0.2, 0.8), CHANCE.uniform(5, 30)) for n in range(1, 31)]
CHARTS = {
    "four": FOUR,
    "one": FOUR[:1],
    "without intervals": [trial(n, "a", str(n), n / 10, n, half=0) for n in (1, 2, 3)],
    "all at one place": [trial(n, "a", str(n), 0.5, 5.0) for n in (1, 2, 3)],
    "nothing found": [trial(n, "a", str(n), 0.0, n, half=0) for n in (1, 2)],
    "thirty": MANY,
}


def labels(chart: Chart) -> list[Annotation]:
    return [each for each in chart.axes[0].texts if isinstance(each, Annotation)]


@cases("trials", CHARTS)
def test_each_trial_is_a_point_with_its_interval_and_a_label(trials: list[TrialFigures]) -> None:
    chart = trade_off_chart(trials, "the title")
    assert chart.to_png().startswith(b"\x89PNG")
    (axes,) = chart.axes
    front = pareto_front(trials)
    drawn = {line.get_marker(): line for line in axes.lines if line.get_marker() in ("o", "X")}
    counts = {marker: len(line.get_xdata()) for marker, line in drawn.items()}
    assert counts.get("o", 0) == len(front)
    assert counts.get("X", 0) == len(trials) - len(front), (
        "a dominated trial has another shape, not only another colour"
    )
    texts = {each.get_text() for each in labels(chart)}
    few = len(trials) <= 12
    assert texts == {each.label if few or each.number in front else str(each.number) for each in trials}
    bars = sum(len(each.get_segments()) for each in axes.collections)
    assert bars == sum(each.map_low is not None for each in trials)


def test_no_label_of_a_few_trials_hides_another_or_leaves_the_chart() -> None:
    chart = trade_off_chart(FOUR, "the title")
    chart.to_png()
    boxes = [each.get_window_extent() for each in labels(chart)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(chart.bbox.contains(*box.min) and chart.bbox.contains(*box.max) for box in boxes)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    failed = TrialFigures(
        5, {"detector": "<b>huge</b>", "epochs": "5"}, run="2026-5", problem="model_train: too <i>huge</i>"
    )
    path = tmp_path / "new" / "page.html"
    write_trials(
        path,
        [*FOUR, failed],
        title="demo: 5 trials of detector, epochs",
        constant={"model_train.image_size": "64"},
        cautions=["The latencies were measured on different machines: do not compare them."],
        command="python step.dev.py --config configs/demo.yaml --set model_train.detector=rtmdet-tiny",
    )
    return path


def test_the_page_has_all_trials_the_best_first_and_escapes_what_it_is_given(page: Path) -> None:
    text = page.read_text("utf-8")
    rows = [part.split("</tr>")[0] for part in text.split("<tbody>")[1].split("<tr")[1:]]
    assert [row.split('scope="row">')[1][0] for row in rows] == ["4", "2", "1", "3", "5"]
    assert ["front" in row.split(">")[0] for row in rows] == [True, True, True, False, False]
    assert "0.610 to 0.710" in rows[0]
    assert "12.1 ms" in rows[0]
    assert ">no<" in rows[3]
    assert "<b>huge" not in text
    assert "too &lt;i&gt;huge" in text
    assert "model_train.image_size=64" in text
    assert "different machines" in text


SCREENS = {
    "desk": ("light", DESK),
    "desk in the dark": ("dark", DESK),
    "phone": ("light", PHONE),
}


@cases("scheme, viewport", SCREENS)
def test_everybody_can_read_the_page_on_any_screen(
    open_page: Callable[..., Page], page: Path, scheme: str, viewport: dict[str, int]
) -> None:
    opened = open_page(page, viewport=viewport, color_scheme=scheme)
    assert opened.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert grave_violations(opened) == []
