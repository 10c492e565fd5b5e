"""The chart of trials: mAP with its interval against the latency of the service."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from pipeline.data.figures import PALETTE, Chart
from pipeline.evaluation.trial_figures import TrialFigures, pareto_front

Floats = npt.NDArray[np.float64]

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
    chart = Chart(9.5, 5.5)
    axes = chart.add_subplot()
    axes.set(title=title, xlabel="latency of a REST request, median in ms", ylabel="mAP, with its 95 % interval")
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    front = pareto_front(trials)
    drawn = sorted(trials, key=lambda each: (each.latency_p50_ms or 0.0, each.map or 0.0))
    best = [each for each in drawn if each.number in front]
    others = [each for each in drawn if each.number not in front]
    axes.step(*_points(best).T, where="post", color=ON_FRONT, linewidth=1, linestyle=":", zorder=1)
    _draw_points(axes, best, "o", ON_FRONT, "on the Pareto front")
    _draw_points(axes, others, "X", DOMINATED, "dominated by another trial")
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
    """Draw points, and the interval of each that has one."""
    if not trials:
        return
    x, y = _points(trials).T
    axes.plot(x, y, marker, color=colour, label=label, markersize=8, markeredgecolor="white", zorder=3)
    for x, low, high in _intervals(trials):
        middle = (low + high) / 2
        axes.errorbar(x, middle, high - middle, fmt="none", ecolor=colour, elinewidth=1.1, capsize=3, alpha=0.75)


def _points(trials: Sequence[TrialFigures]) -> Floats:
    """Latency and mAP `(N, 2)`."""
    return np.array([(each.latency_p50_ms, each.map) for each in trials], np.float64).reshape(-1, 2)


def _intervals(trials: Sequence[TrialFigures]) -> Floats:
    """Latency and both ends of the interval `(M, 3)`, of the trials that have one."""
    known = [(each.latency_p50_ms, each.map_low, each.map_high) for each in trials if each.map_low is not None]
    return np.array(known, np.float64).reshape(-1, 3)


def _label(chart: Chart, axes: Axes, labels: Sequence[tuple[TrialFigures, str, bool]]) -> None:
    """Write each label beside its point, where no other label and no point is as far as there is such a place."""
    chart.draw_without_rendering()  # lays the axes out
    trials = [each for each, _, _ in labels]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in axes.transData.transform(_points(trials))]
    for x, low, high in _intervals(trials):
        taken.append(Bbox(axes.transData.transform(np.array([(x, low), (x, high)]))).padded(2))
    inside = axes.get_window_extent()
    for each, text, is_on_front in labels:
        options = [_annotation(axes, each, text, place, is_on_front=is_on_front) for place in _PLACES]
        boxes = [option.get_window_extent().padded(1) for option in options]
        free = (
            place
            for place, box in enumerate(boxes)
            if not box.count_overlaps(taken) and box.x0 >= inside.x0 and box.x1 <= inside.x1
        )
        chosen = next(free, 0)
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
