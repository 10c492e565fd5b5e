"""The table of a sweep's trials: 80 columns, the best first."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.cli.printing import count, table

if TYPE_CHECKING:
    from pipeline.evaluation.trial_figures import TrialFigures

WIDTH = 80
NONE = "-"
FRONT = "*"


def short_parameters(names: Sequence[str]) -> dict[str, str]:
    """`STEP.NAME` to NAME, unless another step's parameter among them has the same."""
    last = [name.partition(".")[2] for name in names]
    return {name: short if last.count(short) == 1 else name for name, short in zip(names, last, strict=True)}


def cautions(trials: Sequence[TrialFigures]) -> list[str]:
    """Sentences on why figures of measured trials cannot be compared."""
    from pipeline.evaluation.trial_figures import test_sets

    notes, sets = [], test_sets(trials)
    if len(sets) > 1:
        notes.append(
            f"The trials were evaluated on {len(sets)} different test sets, because a swept parameter changes the "
            "data: compare mAP only within a test set."
        )
    if len({each.hardware for each in trials if each.is_measured}) > 1:
        notes.append("The latencies were measured on different machines: do not compare them.")
    return notes


def trial_lines(
    trials: Sequence[TrialFigures],
    front: Collection[int],
    constant: Mapping[str, str],
    notes: Sequence[str],
    runs: Mapping[str, str],
) -> list[str]:
    """The table of ranked trials, and below it what a reader must know; `runs` are short names of runs.

    Values that a line has no room for are written below it.
    """
    from pipeline.evaluation.trial_figures import test_sets

    sets = test_sets(trials)
    images = f" on the same {trials[0].test_images} test images" if len(sets) == 1 else ""
    lines = [f"{count(len(trials), 'trial')}{images}, the best first"]
    if constant:
        lines += _wrapped(f"in each of them {', '.join(f'{name}={value}' for name, value in constant.items())}")
    figures = [["mAP", "ms", "training", "gate", *(["test set"] if len(sets) > 1 else []), "run"]]
    figures += [_figures(each, len(sets) > 1, runs) for each in trials]
    numbers = ["  trial", *(f"{FRONT if each.number in front else ' '} {each.number:5}" for each in trials)]
    values = [list(trials[0].values), *(list(each.values.values()) for each in trials)]
    in_columns = table([(a, *b, *c) for a, b, c in zip(numbers, values, figures, strict=True)]).splitlines()
    if max(map(len, in_columns)) <= WIDTH:
        lines += in_columns
    else:
        head, *rows = table([(a, *c) for a, c in zip(numbers, figures, strict=True)]).splitlines()
        lines.append(head)
        for row, each in zip(rows, trials, strict=True):
            lines += [row, *_wrapped(", ".join(f"{name}={value}" for name, value in each.values.items()), " " * 9)]
    if front:
        lines.append(f"{FRONT} on the Pareto front of mAP and latency, the median of the requests in ms")
    for text in (*notes, *(f"trial {each.number}: {each.problem}" for each in trials if each.problem)):
        lines += _wrapped(text)
    return lines


def _figures(each: TrialFigures, has_sets: bool, runs: Mapping[str, str]) -> list[str]:
    interval = "" if each.map_low is None or each.map_high is None else f" {each.map_low:.2f}-{each.map_high:.2f}"
    return [
        NONE if each.map is None else f"{each.map:.3f}{interval}",
        NONE if each.latency_p50_ms is None else f"{each.latency_p50_ms:.1f}",
        each.training,
        each.gate or NONE,
        *([each.test_set[:6] or NONE] if has_sets else []),
        runs.get(each.run, NONE),
    ]


def _wrapped(text: str, indent: str = "") -> list[str]:
    """A text in 80 columns, its further lines indented; names and values stay whole."""
    wrapper = textwrap.TextWrapper(WIDTH, initial_indent=indent, subsequent_indent=indent or "  ")
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return wrapper.wrap(text)
