"""The command that shows a run: its manifest, or its evaluation as a Markdown comment for a pull request."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from pipeline.cli import printing
from pipeline.cli.command import CommandContext, CommandResult, argument, command
from pipeline.errors import MissingError
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.process import work_folder

RESULTS, _METRICS = "coco_inference_result_dataset", "metrics.json"
_FIGURES = {"map": "mAP", "map50": "mAP50", "map75": "mAP75", "ar100": "AR100"}
_REFERENCES = {"given": "the given weights", "earlier": "the earlier model", "pytorch": "PyTorch"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")


@command(
    "show",
    "the manifest of a run",
    argument("run", nargs="?", help="a part of its id, or latest~1; the newest by default"),
    argument("--markdown", action="store_true", help="its evaluation as Markdown, for a pull request"),
)
def _show(context: CommandContext) -> CommandResult:
    manifest = context.find_run(context.arguments.run)
    if not context.arguments.markdown:
        return CommandResult(manifest.to_json(), printing.run_text(manifest))
    record = _evaluation(manifest)
    with work_folder(context.root / ".cache" / "work", "show") as work:
        store = context.project.runs.store
        folder = store.get(record.outputs[RESULTS], work / "results", link=True, only={_METRICS})
        metrics = json.loads((folder / _METRICS).read_text("utf-8"))
    return CommandResult(manifest.to_json(), markdown(manifest, metrics))


def _evaluation(run: RunManifest) -> StepRecord:
    """The newest attempt that evaluated a model, also where its model missed a limit."""
    for record in reversed(run.attempts):
        if RESULTS in record.outputs:
            return record
    raise MissingError(f"run {run.run} has evaluated no model", remedy="run model_eval, or name another run")


def markdown(run: RunManifest, metrics: dict[str, Any]) -> str:
    """The comment: the decision, the figures, the comparisons, the missed limits, and where it comes from."""
    decision = metrics["decision"]
    lines = [f"### {escape(decision['headline'])}", ""]
    lines += [f"- {escape(each)}" for each in decision["reasons"]]
    lines += ["", "| Figure | Value | 95 % interval |", "|---|---|---|"]
    for key, name in _FIGURES.items():
        lines.append(f"| {name} | {_number(metrics[key])} | {_interval(metrics['intervals'][key])} |")
    for key, title in _REFERENCES.items():
        lines += _reference(title, metrics["references"].get(key))
    missed = [name for name, passed in metrics["gate"]["limits"].items() if passed is False]
    if missed:
        lines += ["", f"Missed limits: {', '.join(map(escape, missed))}"]
    commit = str(run.code.get("commit", ""))[:12] or "unknown"
    lines += ["", f"Run `{run.run}`, commit `{commit}`, {metrics['images']} test images, {metrics['objects']} objects"]
    return "\n".join(lines)


def _reference(title: str, reference: dict[str, Any] | None) -> list[str]:
    if reference is None:
        return []
    if reference["absence"]:
        return ["", f"Against {title}: {escape(reference['absence'])}"]
    lines = ["", f"| Against {title} | Before | Change | 95 % interval | Verdict |", "|---|---|---|---|---|"]
    for name, each in reference["figures"].items():
        interval = _interval(each["interval"], "+.3f")
        lines.append(
            f"| {escape(name)} | {each['before']:.3f} | {each['change']:+.3f} | {interval} | {each['verdict']} |"
        )
    return [*lines, "", escape(reference["caution"])] if reference["caution"] else lines


def escape(text: str) -> str:
    """Text that GitHub shows as it is: no markup, no HTML, no line break, and nobody is notified."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return _SPECIAL.sub(r"\\\1", plain).replace("@", "@\u200b")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: list[float] | None, form: str = ".3f") -> str:
    return f"{ends[0]:{form}} to {ends[1]:{form}}" if ends else ""
