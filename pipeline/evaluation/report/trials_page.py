"""The trials of a sweep as one HTML page: mAP against latency, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.data.report.inline_images import FigureList, draw
from pipeline.evaluation.report.templates import render
from pipeline.evaluation.report.trial_chart import trade_off_chart
from pipeline.evaluation.trial_figures import TrialFigures, pareto_front, ranked, test_sets
from pipeline.files import write_atomically


def write_trials(
    path: Path,
    trials: Sequence[TrialFigures],
    *,
    title: str,
    constant: Mapping[str, str],
    cautions: Sequence[str],
    command: str,
) -> None:
    """Write the page; it needs no network and no other file.

    Args:
        path: Of the page.
        trials: At least one of them measured.
        title: What was swept.
        constant: The swept parameters that are the same in all trials.
        cautions: Sentences on why figures cannot be compared.
        command: That makes the deliverables of the best trial.
    """
    rows = ranked(trials)
    page = render(
        "sweep.html.j2",
        {},
        title=title,
        names=list(trials[0].values),
        constant=constant,
        rows=rows,
        front=pareto_front(trials),
        sets=test_sets(trials),
        failed=[each for each in rows if each.problem],
        charts=_charts(rows),
        cautions=cautions,
        command=command,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)


def _charts(rows: Sequence[TrialFigures]) -> FigureList:
    """A chart for each test set, since trials on different images cannot be compared."""
    charts = []
    for name in test_sets(rows):
        shown = [each for each in rows if each.is_measured and each.test_set == name]
        title = f"mAP against latency, {shown[0].test_images} test images"
        charts.append(trade_off_chart(shown, f"{title}, set {name[:6]}" if len(test_sets(rows)) > 1 else title))
    return draw(*charts)
