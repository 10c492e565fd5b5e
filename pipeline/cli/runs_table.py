"""The table of runs: 80 columns, coloured on a terminal; and the same as CSV."""

from __future__ import annotations

import csv
import io
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from pipeline.cli.run_rows import AGE, NONE, UNKNOWN, RunRow, columns
from pipeline.runtime.manifest import FAILED, INTERRUPTED, KILLED, PASSED, RUNNING
from pipeline.runtime.run_summary import COMPLETE, RunState, metric_text

WIDTH = 80
GAP = "  "
METRIC_WIDTH = 15  # of a value from 0 to 1 with its interval
NARROWED = (  # the widths to which columns are cut, one after the other, until a line fits
    *(("changed", 9), ("status", 16), ("pipeline", 8)),
    *(("pipeline", 4), ("status", 12), ("changed", 6)),
)
COLOURS = {
    **dict.fromkeys((COMPLETE, PASSED), "green"),
    **dict.fromkeys((FAILED, KILLED, "unreadable"), "red"),
    **dict.fromkeys((RUNNING, UNKNOWN, INTERRUPTED), "yellow"),
}

Line = list[tuple[str, str]]  # cells with their styles


def runs_table(rows: Sequence[RunRow], metric: str) -> str:
    """A line for each run, and below them why a run cannot be read."""
    names = columns(metric)
    cells = {name: [_cell(row, name) for row in rows] for name in names}
    widths = {name: max(len(each) for each in [name, *cells[name]]) for name in names}
    widths[metric] = max([min(len(metric), METRIC_WIDTH), *map(len, cells[metric])])
    _narrow(widths)
    lines: list[Line] = [[(_aligned(_cut(name, widths[name]), name, widths), "bold") for name in names]]
    for row in rows:
        line = []
        for name in names:
            text = _fitted(row, name, widths[name])
            line.append((_aligned(text, name, widths), COLOURS.get(text.partition(" ")[0], "")))
        lines.append(line)
    broken = [_wrapped(f"{row.name}: {row.error}") for row in rows if row.error]
    return "\n".join([*_drawn(lines), *broken])


def runs_csv(rows: Sequence[RunRow], metric: str) -> str:
    """The runs as CSV; a missing value is empty, and several changes are separated by spaces."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ["run", "name", "mode", "pipeline", "created", "status", "step", metric, f"{metric}_low", f"{metric}_high"]
    writer.writerow([*names, "gate", "before", "changed", "error"])
    for row in rows:
        pipeline = "" if row.error else row.pipeline
        found = [row.metric.value, row.metric.low, row.metric.high] if row.metric else [None] * 3
        known = [row.run, row.name, row.mode, pipeline, row.created, row.state.word, row.state.step, *found]
        writer.writerow([*known, row.gate, row.before, " ".join(row.changed or ()), row.error])
    return stream.getvalue().rstrip("\n")


def _cell(row: RunRow, name: str) -> str:
    """A cell at its full width."""
    texts = {
        "run": row.name,
        AGE: _age(row.age),
        "mode": row.mode,
        "pipeline": row.pipeline,
        "status": _state(row.state, WIDTH),
        "gate": row.gate or NONE,
        "changed": _changes(row.changed, WIDTH),
    }
    return texts[name] if name in texts else _metric(row)


def _fitted(row: RunRow, name: str, width: int) -> str:
    """A cell in the width of its column."""
    if name == "status":
        return _state(row.state, width)
    return _changes(row.changed, width) if name == "changed" else _cut(_cell(row, name), width)


def _metric(row: RunRow) -> str:
    """`0.719 0.68-0.75`, or without the interval where there is none or no room for it."""
    if row.metric is None:
        return NONE
    value, low, high = _figure(row.metric.value, 3), row.metric.low, row.metric.high
    text = f"{value} {_figure(low, 2)}-{_figure(high, 2)}" if low is not None and high is not None else value
    return text if len(text) <= METRIC_WIDTH else _cut(value, METRIC_WIDTH)


def _figure(value: Any, digits: int) -> str:
    """A metric of 0 to 1 with so many decimals, so that all are below each other, and any other with four digits."""
    return f"{value:.{digits}f}" if isinstance(value, float) and abs(value) <= 1 else metric_text(value)


def _age(seconds: float) -> str:
    """`40s`, `12m`, `3h` or `5d`."""
    whole = max(int(seconds), 0)
    for unit, size, end in (("s", 1, 60), ("m", 60, 3600), ("h", 3600, 48 * 3600)):
        if whole < end:
            return f"{whole // size}{unit}"
    return f"{whole // 86400}d"


def _state(state: RunState, width: int) -> str:
    """`failed at model_train`, or `failed at …train`: the ends of steps' names differ most."""
    if not state.step:
        return _cut(state.word, width)
    before = f"{state.word} " if state.word == RUNNING else f"{state.word} at "
    room = width - len(before)
    if len(state.step) <= room:
        return before + state.step
    return f"{before}…{state.step[1 - room :]}" if room > 1 else _cut(before.strip(), width)


def _changes(changed: tuple[str, ...] | None, width: int) -> str:
    """As many changes as the width has room for, such as `data epochs +2`."""
    if not changed:
        return NONE if changed is None else "nothing"
    for shown in range(len(changed), 0, -1):
        text = " ".join([*changed[:shown], *([f"+{len(changed) - shown}"] if shown < len(changed) else [])])
        if len(text) <= width:
            return text
    more = f" +{len(changed) - 1}" if len(changed) > 1 else ""
    return _cut(changed[0], width - len(more)) + more


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _narrow(widths: dict[str, int]) -> None:
    """Make columns narrower until a line fits."""
    for name, least in NARROWED:
        excess = sum(widths.values()) + len(GAP) * (len(widths) - 1) - WIDTH
        widths[name] -= max(0, min(excess, widths[name] - least))


def _aligned(text: str, name: str, widths: dict[str, int]) -> str:
    return text.rjust(widths[name]) if name == AGE else text.ljust(widths[name])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _drawn(lines: list[Line]) -> list[str]:
    """Lines with colours where standard output is a terminal, unless NO_COLOR is set; without them elsewhere."""
    if not sys.stdout.isatty():
        return [GAP.join(text for text, _ in line).rstrip() for line in lines]
    from rich.console import Console  # slow to import
    from rich.text import Text

    console, drawn = Console(highlight=False), []
    for line in lines:
        with console.capture() as captured:
            console.print(Text(GAP).join(Text(*cell) for cell in line), soft_wrap=True)
        drawn.append(captured.get().rstrip())
    return drawn
