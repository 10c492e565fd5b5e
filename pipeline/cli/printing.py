"""What the commands print: runs, steps and the graph as text."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.notebook import StepNotebook

Steps = Mapping[str, StepNotebook]


def figure(value: Any) -> str:
    """A metric, to four digits."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(rows: Sequence[tuple[Any, ...]], indent: str = "") -> str:
    """Rows as aligned columns, numbers to the right."""
    widths = [max(len(str(value)) for value in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            str(value).rjust(width) if isinstance(value, int | float) else str(value).ljust(width)
            for value, width in zip(row, widths, strict=True)
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def step_line(record: StepRecord, width: int) -> str:
    """`model_eval  succeeded     41.0 s  mAP 0.612  mAP50 0.874`."""
    source = f"from {record.reused_from}" if record.reused_from else ""
    took = f"{record.seconds:7.1f} s" if record.seconds else " " * 9  # of what was killed nobody knows
    parts = [record.step.ljust(width), record.state.ljust(11), took, *figures(record), source]
    return "  ".join(part for part in parts if part).rstrip()


def note_lines(record: StepRecord) -> list[str]:
    """What a user must know of a step, for below its line, in 80 columns."""
    return [
        line
        for text in record.remarks
        for line in textwrap.wrap(
            text,
            78,
            initial_indent="    - ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def figures(record: StepRecord, *, numbers: bool = False) -> list[str]:
    """The first two metrics, which a notebook commits in the order of their weight; of them the numbers, if wanted."""
    first = list(record.metrics.items())[:2]
    return [f"{name} {figure(value)}" for name, value in first if not (numbers and isinstance(value, str))]


def run_lines(manifest: RunManifest, steps: Steps, own: Sequence[StepRecord] = ()) -> list[str]:
    """A run in short: its id and a line a step.

    Args:
        manifest: The run.
        steps: All steps.
        own: The attempts to tell of, whatever another process may have tried in the same run since.
    """
    latest = {name: manifest.of(name)[-1] for name in steps if manifest.of(name)}
    records = {**latest, **{record.step: record for record in own}}.values()
    return [f"run {manifest.run}", *(f"  {step_line(record, name_width(steps))}" for record in records)]


def name_width(steps: Steps) -> int:
    """Characters of the longest step's name."""
    return max(map(len, steps))


def step_help(step: StepNotebook) -> str:
    """A step's parameters, read from its notebook."""
    rows = [(f"  {p.name}", p.type, _json(p.default), p.help) for p in step.parameters.values()]
    reads, writes = ", ".join(step.reads) or "the outside world", ", ".join(step.writes)
    return f"{step.title}\n\nreads   {reads}\nwrites  {writes}\n\nparameters, their types and defaults:\n{table(rows)}"


def step_list(steps: Steps) -> str:
    """The steps and what each does."""
    return "steps, in their order:\n" + table([(f"  {step.name}", step.title) for step in steps.values()])


def runs_table(runs: Iterable[tuple[str, RunManifest | str]], steps: Steps) -> str:
    """A line a run.

    Args:
        runs: Id, and the run or why it cannot be read.
        steps: For the columns.
    """
    rows, broken = [("run", "pipeline", "commit", *steps)], []
    for run, manifest in runs:
        if isinstance(manifest, str):
            broken.append(f"{run}  {manifest}")
            continue
        commit = manifest.code["commit"][:8] + ("+" if manifest.code["dirty"] else "")
        latest = {name: manifest.of(name)[-1].state for name in steps if manifest.of(name)}
        rows.append((run, manifest.pipeline, commit, *(latest.get(name, "-") for name in steps)))
    return "\n".join([table(rows) if len(rows) > 1 else "", *broken]).strip() or "no runs yet"


def run_brief(run: str, manifest: RunManifest | str) -> dict[str, Any]:
    """A run's line for programs."""
    if isinstance(manifest, str):
        return {"run": run, "error": manifest}
    steps = {record.step: manifest.of(record.step)[-1].state for record in manifest.attempts}
    return {"run": run, "mode": manifest.mode, "pipeline": manifest.pipeline, "steps": steps}


def run_text(manifest: RunManifest) -> str:
    """A run's manifest to be read."""
    tree = " with changes" if manifest.code["dirty"] else ""
    lines = [
        f"run       {manifest.run}",
        f"pipeline  {manifest.pipeline}, {manifest.mode}, zone {manifest.zone}",
        f"config    {manifest.config_file}",
        f"commit    {manifest.code['commit'] or 'none'}{tree}",
    ]
    return "\n".join([*lines, *(line for record in manifest.attempts for line in _attempt_lines(record))])


def graph(steps: Steps) -> list[dict[str, Any]]:
    """The steps for programs."""
    return [
        {
            "step": step.name,
            "reads": step.reads,
            "writes": step.writes,
            "parameters": [asdict(parameter) for parameter in step.parameters.values()],
        }
        for step in steps.values()
    ]


def mermaid(steps: Steps) -> str:
    """The steps and what passes between them, as a mermaid flowchart."""
    lines = ["flowchart LR"]
    for step in steps.values():
        lines.append(f"    {step.name}[{step.name}]")
        lines += [f"    {step.name} --> {entity}([{entity}])" for entity in step.writes]
    lines += [f"    {entity} --> {step.name}" for step in steps.values() for entity in step.reads]
    return "\n".join(lines)


def _attempt_lines(record: StepRecord) -> list[str]:
    took = f", {record.seconds:.1f} s" if record.seconds else ""
    lines = [f"\n{record.step}, attempt {record.attempt}: {record.state}{took}"]
    lines += [f"  outputs of {record.reused_from}"] if record.reused_from else []
    sides = [("<-", *item) for item in record.inputs.items()] + [("->", *item) for item in record.outputs.items()]
    rows = [
        (sign, name, a.digest[:12], a.files, "files", f"{a.size / 1e6:.1f} MB", _aside(record, name))
        for sign, name, a in sides
    ]
    lines += [table(rows, "  ")] if rows else []
    lines += [table([("  ", name, _json(value)) for name, value in record.metrics.items()])] if record.metrics else []
    lines += [f"  descends from {name}, chosen by hand: {source}" for name, source in record.chosen_before.items()]
    lines += [f"  note: {note}" for note in record.notes]
    lines += [f"  {line}" for line in record.error.splitlines()]
    return [*lines, *(f"  {path}" for path in (record.notebook, record.report) if path)]


def _aside(record: StepRecord, entity: str) -> str:
    """What is to be known of an input besides: who chose it, and how often this step has met it."""
    chosen = f"chosen by hand: {record.chosen[entity]}" if entity in record.chosen else ""
    uses = record.uses.get(entity, 0)
    return ", ".join(filter(None, [chosen, f"used with {uses} different others" if uses > 1 else ""]))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
