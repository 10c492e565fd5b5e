"""What the commands print: steps, runs, the graph and comparisons, as text, JSON or mermaid."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.run_summary import main_metrics, metric_text

if TYPE_CHECKING:
    from pipeline.runtime.comparison import Comparison

Steps = Mapping[str, StepNotebook]

VALUE_WIDTH = 48  # characters of a compared value; --json has all of it
DIGEST = re.compile(r"\b([0-9a-f]{12})(?:[0-9a-f]{28}|[0-9a-f]{52})\b")  # of git, and SHA-256


def table(rows: Sequence[tuple[Any, ...]], indent: str = "") -> str:
    """Rows as aligned columns; numbers are aligned to the right."""
    widths = [max(len(str(value)) for value in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        aligned = zip(row, widths, strict=True)
        cells = [
            str(value).rjust(width) if isinstance(value, int) else str(value).ljust(width) for value, width in aligned
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def count(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def megabytes(size: int) -> str:
    """Bytes as `1.5 MB`."""
    return f"{size / 1e6:.1f} MB"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _wrapped(text: str, first: str, other: str) -> list[str]:
    wrapper = textwrap.TextWrapper(80, initial_indent=first, subsequent_indent=other, break_on_hyphens=False)
    wrapper.break_long_words = False
    return wrapper.wrap(text)


# --- steps -----------------------------------------------------------------------------------------------------------


def step_help(step: StepNotebook) -> str:
    """A step's parameters, read from its notebook, in 80 columns."""
    lines = [step.title, "", *_wrapped(", ".join(step.reads) or "the outside world", "reads   ", "        ")]
    lines += _wrapped(", ".join(step.writes), "writes  ", "        ")
    lines += _wrapped(", ".join(step.earlier) + " of an earlier run", "against ", "        ") if step.earlier else []
    lines += ["", "parameters:"]
    for each in step.parameters.values():
        lines.append(f"  {each.name}: {each.type} = {_json(each.default)}")
        lines += _wrapped(each.help, "      ", "      ")
    return "\n".join(lines)


def step_list(steps: Steps) -> str:
    """The steps and their titles."""
    return "steps, in their order:\n" + table([(step.name, step.title) for step in steps.values()], "  ")


def step_line(record: StepRecord, steps: Steps) -> str:
    """`model_eval  succeeded     41.0 s  mAP 0.612  mAP50 0.874`."""
    source = f"from {record.reused_from}" if record.reused_from else ""
    took = f"{record.seconds:7.1f} s" if record.seconds else " " * 9  # unknown for a killed attempt
    parts = [record.step.ljust(max(map(len, steps))), record.state.ljust(11), took, *main_metrics(record), source]
    return "  ".join(part for part in parts if part).rstrip()


def note_lines(record: StepRecord) -> list[str]:
    """A step's notes, wrapped to 80 columns, for below its line."""
    return [line for text in record.remarks for line in _wrapped(text, "    - ", "      ")]


def graph_json(steps: Steps) -> list[dict[str, Any]]:
    """The steps as JSON."""
    graph = []
    for step in steps.values():
        parameters = [asdict(parameter) for parameter in step.parameters.values()]
        graph.append({"step": step.name, "reads": step.reads, "writes": step.writes, "parameters": parameters})
    return graph


def graph_mermaid(steps: Steps) -> str:
    """The steps and the entities that pass between them, as a mermaid flowchart."""
    lines = ["flowchart LR"]
    for step in steps.values():
        lines.append(f"    {step.name}[{step.name}]")
        lines += [f"    {step.name} --> {entity}([{entity}])" for entity in step.writes]
    lines += [f"    {entity} --> {step.name}" for step in steps.values() for entity in step.reads]
    return "\n".join(lines)


# --- runs ------------------------------------------------------------------------------------------------------------


def run_lines(manifest: RunManifest, steps: Steps) -> list[str]:
    """A line for each step of a run."""
    return [f"  {step_line(manifest.of(name)[-1], steps)}" for name in steps if manifest.of(name)]


def run_text(manifest: RunManifest) -> str:
    """A run's manifest to be read."""
    changes = " with changes" if manifest.code["dirty"] else ""
    lines = [
        f"run       {manifest.run}",
        f"pipeline  {manifest.pipeline}, {manifest.mode}, zone {manifest.zone}",
        f"config    {manifest.config_file}",
        f"commit    {manifest.code['commit'] or 'none'}{changes}",
    ]
    return "\n".join([*lines, *(line for record in manifest.attempts for line in _attempt_lines(record))])


def _attempt_lines(record: StepRecord) -> list[str]:
    took = f", {record.seconds:.1f} s" if record.seconds else ""
    lines = [f"\n{record.step}, attempt {record.attempt}: {record.state}{took}"]
    lines += [f"  outputs of {record.reused_from}"] if record.reused_from else []
    rows = [
        (sign, name, each.digest[:12], each.files, "files", megabytes(each.size), _remark(record, name))
        for sign, artifacts in (("<-", record.inputs), ("->", record.outputs))
        for name, each in artifacts.items()
    ]
    lines += [table(rows, "  ")] if rows else []
    lines += [table([(name, _json(value)) for name, value in record.metrics.items()], "    ")] if record.metrics else []
    lines += [f"  descends from {name}, chosen by hand: {source}" for name, source in record.chosen_before.items()]
    lines += [f"  note: {note}" for note in record.notes]
    lines += [f"  {line}" for line in record.error.splitlines()]
    return [*lines, *(f"  {path}" for path in (record.notebook, record.report) if path)]


def _remark(record: StepRecord, entity: str) -> str:
    """Whether an input was chosen by hand, and how many other inputs it was combined with."""
    chosen = f"chosen by hand: {record.chosen[entity]}" if entity in record.chosen else ""
    uses = record.uses.get(entity, 0)
    return ", ".join(filter(None, [chosen, f"used with {uses} different others" if uses > 1 else ""]))


# --- comparison ------------------------------------------------------------------------------------------------------


def comparison_text(comparison: Comparison, *, everything: bool = False) -> str:
    """The differences, all metrics and the inputs that were chosen by hand; or everything."""
    shown = [
        row for row in comparison.rows if everything or row.differs or row.section in ("metrics", "chosen by hand")
    ]
    cells: list[tuple[str, ...]] = [("", comparison.left, comparison.right, "")]
    for section in dict.fromkeys(row.section for row in shown):
        cells.append((section, "", "", ""))
        for row in (row for row in shown if row.section == section):
            shown_as = metric_text if section == "metrics" else _value_text
            difference = f"{row.difference:+.4g}" if row.difference else ""
            cells.append((f"  {row.name}", shown_as(row.left), shown_as(row.right), difference))
    text = table(cells)
    if comparison.files:
        text += "\nfiles that differ between the commits\n" + "\n".join(f" {line}" for line in comparison.files)
    elif comparison.files is None and any(row.name == "commit" and row.differs for row in comparison.rows):
        text += "\nthe files that differ are not known: this repository does not have both commits"
    if not any(row.differs for row in comparison.rows):
        return f"{text}\nnothing differs"
    return text if everything else f"{text}\nall other values are equal"


def _value_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict) and "digest" in value:
        return f"{value['digest'][:12]}  {value['files']} files  {megabytes(value['size'])}"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value) or "none"
    text = DIGEST.sub(r"\1", value if isinstance(value, str) and value else _json(value))
    return text if len(text) <= VALUE_WIDTH else f"{text[: VALUE_WIDTH - 1]}…"
