"""The chart of trials: mAP with its interval against the latency of the service."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from pipeline.data.figures import PALETTE, Chart
from pipeline.evaluation.report.charts import GREY, start_axes
from pipeline.evaluation.trial_figures import TrialFigures, pareto_front
from pipeline.metrics.coco_matching import Floats

ON_FRONT, DOMINATED = PALETTE[0], "#767676"
_NAMED = 12  # trials whose values are written beside them; of more, only those on the front
_PLACES = (  # of a label, in points from its point, with its alignment: the first that is free
    (8, 7, "left", "bottom"),
    (8, -7, "left", "top"),
    (-8, 7, "right", "bottom"),
    (-8, -7, "right", "top"),
    (8, 20, "left", "bottom"),
    (8, -20, "left", "top"),
    (-8, 20, "right", "bottom"),
    (-8, -20, "right", "top"),
)


def trade_off_chart(trials: Sequence[TrialFigures], title: str) -> Chart:
    """Draw measured trials of one test set: those on the Pareto front as disks on a line, the others as crosses.

    A point is labelled with its values. With many trials, those off the front have their number alone.
    """
    chart, axes = start_axes(9.5, 5.5, title, "latency of a request, median in ms", "mAP on the test set")
    front = pareto_front(trials)
    drawn = sorted(trials, key=lambda each: (each.latency_p50_ms or 0.0, each.map or 0.0))
    best = [each for each in drawn if each.number in front]
    others = [each for each in drawn if each.number not in front]
    axes.step(*_points(best).T, where="post", color=ON_FRONT, linewidth=1)
    _draw_points(axes, best, "o", ON_FRONT, "on the Pareto front")
    _draw_points(axes, others, "X", DOMINATED, "another is as good and faster, or better and as fast")
    axes.hlines([], [], [], color=GREY, label="vertical lines: 95 % intervals")
    axes.margins(x=0.18, y=0.12)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.02), min(high, 1.02))
    chart.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    texts = {
        each.number: each.label if len(drawn) <= _NAMED or each.number in front else str(each.number) for each in drawn
    }
    _label(chart, axes, [(each, texts[each.number], each.number in front) for each in (*best, *others)])
    return chart


def _draw_points(axes: Axes, trials: Sequence[TrialFigures], marker: str, colour: str, label: str) -> None:
    for each in trials:
        if each.map_low is not None and each.map_high is not None and each.latency_p50_ms is not None:
            axes.vlines(each.latency_p50_ms, each.map_low, each.map_high, color=colour, linewidth=1.2, alpha=0.6)
    if trials:
        axes.plot(
            *_points(trials).T, marker, color=colour, markersize=8, markeredgecolor="white", label=label, zorder=3
        )


def _points(trials: Sequence[TrialFigures]) -> Floats:
    """Latency and mAP `(N, 2)`."""
    return np.array([(each.latency_p50_ms, each.map) for each in trials], np.float64).reshape(-1, 2)


def _label(chart: Chart, axes: Axes, labels: Sequence[tuple[TrialFigures, str, bool]]) -> None:
    """Write each label beside its point, where no other label and no point is as far as there is such a place."""
    chart.draw_without_rendering()  # lays the axes out
    points = axes.transData.transform(_points([each for each, _, _ in labels]))
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in points]
    for each, text, is_on_front in labels:
        options = [_annotation(axes, each, text, place, is_on_front=is_on_front) for place in _PLACES]
        boxes = [option.get_window_extent().padded(1) for option in options]
        inside = axes.get_window_extent()
        free = [
            place
            for place, box in enumerate(boxes)
            if not box.count_overlaps(taken) and box.x0 >= inside.x0 and box.x1 <= inside.x1
        ]
        chosen = free[0] if free else 0
        taken.append(boxes[chosen])
        for place, option in enumerate(options):
            if place != chosen:
                option.remove()


def _annotation(
    axes: Axes, each: TrialFigures, text: str, place: tuple[int, int, str, str], *, is_on_front: bool
) -> Annotation:
    right, up, across, along = place
    return axes.annotate(
        text,
        (each.latency_p50_ms or 0.0, each.map or 0.0),
        (right, up),
        textcoords="offset points",
        ha=across,
        va=along,
        fontsize=9,
        fontweight="bold" if is_on_front else "normal",
        color="black" if is_on_front else "#555555",
    )
