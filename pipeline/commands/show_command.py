"""The command that shows a run: its manifest, or its evaluation as a Markdown comment for a pull request."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.cli import printing
from pipeline.cli.command import CommandContext, CommandResult, argument, command
from pipeline.commands.compare_command import RESULTS, TEST_SET, evaluation_of
from pipeline.errors import MissingError, UsageError
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.process import work_folder
from pipeline.runtime.run_summary import judged_another, shortcomings

PICTURES = {"precision_recall.png": "Precision against recall", "average_precision.png": "AP of each class"}
_METRICS, _PREDICTIONS, _ANNOTATIONS = "metrics.json", "predictions.json", "annotations.json"
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")


@command(
    "show",
    "the manifest of a run, or its evaluation as Markdown",
    argument("run", nargs="?", help="a part of its id, or latest~1; the newest by default"),
    argument("--markdown", action="store_true", help="the decision, and the figures beside other models"),
    argument("--pictures", metavar="FOLDER", type=Path, help="with --markdown: draw two charts here and show them"),
    argument("--pictures-at", metavar="URL", default="", help="the address of the pictures; by default the folder"),
)
def _show(context: CommandContext) -> CommandResult:
    manifest, arguments = context.find_run(context.arguments.run), context.arguments
    if not arguments.markdown:
        if arguments.pictures:
            raise UsageError("--pictures belongs to --markdown", remedy="show --markdown --pictures FOLDER")
        return CommandResult(manifest.to_json(), printing.run_text(manifest))
    record, store = evaluation_of(manifest), context.project.runs.store
    if record is None:
        raise MissingError(
            f"run {manifest.run} has evaluated no model", remedy="run its last step, or name another run"
        )
    with work_folder(context.root / ".cache" / "work", "show") as work:
        folder = store.get(record.outputs[RESULTS], work / "results", link=True, only={_METRICS, _PREDICTIONS})
        metrics = json.loads((folder / _METRICS).read_text("utf-8"))
        if "decision" not in metrics:
            raise MissingError("an earlier version evaluated this run", remedy="evaluate it again")
        if arguments.pictures:
            truth = store.get(record.inputs[TEST_SET], work / "test", link=True, only={_ANNOTATIONS}) / _ANNOTATIONS
            _draw(arguments.pictures, truth, folder / _PREDICTIONS)
    place = arguments.pictures_at.rstrip("/") or (arguments.pictures.as_posix() if arguments.pictures else "")
    since = since_evaluation(manifest, record, list(context.steps))
    text = "\n".join(comment_lines(manifest, metrics, place, since))
    content = {"run": manifest.run, "decision": metrics["decision"], "since": since, "markdown": text}
    return CommandResult(content, text)


def since_evaluation(run: RunManifest, evaluation: StepRecord, steps: Sequence[str]) -> list[str]:
    """What has become of a run since an evaluation in it: newer attempts that did not succeed, and another model."""
    newer = [step for step in steps if (attempts := run.of(step)) and attempts[-1] != evaluation]
    return [*shortcomings(run, newer), *(["the model was packed anew"] if judged_another(run, evaluation) else [])]


def _draw(folder: Path, annotations: Path, predictions: Path) -> None:
    from pipeline.evaluation.report.charts import ap_chart, precision_recall_chart
    from pipeline.metrics.chance import measure_chance
    from pipeline.metrics.detection_metrics import evaluate
    from pipeline.metrics.ground_truth import read_ground_truth

    metrics = evaluate(read_ground_truth(annotations), json.loads(predictions.read_text("utf-8")))
    folder.mkdir(parents=True, exist_ok=True)
    charts = precision_recall_chart(metrics), ap_chart(metrics, measure_chance(metrics))
    for name, chart in zip(PICTURES, charts, strict=True):
        chart.savefig(folder / name, dpi=110)


def comment_lines(run: RunManifest, metrics: dict[str, Any], pictures: str, since: Sequence[str]) -> Iterator[str]:
    """The lines of a comment on an evaluation, with pictures at an address, and what has happened `since`."""
    from pipeline.evaluation.reference_names import TITLES
    from pipeline.metrics.named_figures import FIGURES

    decision = metrics["decision"]
    yield f"### {escape(decision['headline'])}"
    if since:
        yield from ("", "**This evaluation is not the newest of the run.** Since then:", "")
        yield from (f"- {escape(each)}" for each in since)
    yield from ("", *(f"- {escape(each)}" for each in decision["reasons"]), "")
    others = {TITLES[name]: each["figures"] for name, each in metrics["references"].items() if each["figures"]}
    yield "| " + " | ".join(["figure", "this model, 95 % interval", *others]) + " |"
    yield "|---" * (2 + len(others)) + "|"
    for name, figure in FIGURES.items():
        if (value := metrics[figure.attribute]) is not None:
            ends = metrics["intervals"][figure.attribute]
            own = f"**{value:.3f}**" + (f" {ends[0]:.3f} to {ends[1]:.3f}" if ends else "")
            yield "| " + " | ".join([figure.meaning, own, *(_cell(each.get(name)) for each in others.values())]) + " |"
    for each in metrics["references"].values():
        yield from (["", escape(each["caution"])] if each["caution"] else [])
    if pictures:
        yield from ("", *(f"![{title}]({pictures}/{name})" for name, title in PICTURES.items()))
    commit = str(run.code.get("commit", ""))[:12] or "none"
    yield from (
        "",
        f"{metrics['images']} test images, {metrics['objects']} objects; run `{run.run}`, commit `{commit}`",
    )


def _cell(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return "-"
    ends = difference["interval"]
    interval = f" ({ends[0]:+.3f} to {ends[1]:+.3f})" if ends else ""
    return f"{difference['before']:.3f}, {difference['change']:+.3f} {difference['verdict']}{interval}"


def escape(text: str) -> str:
    """Text that GitHub shows as it is: no markup, no HTML, no line break, and nobody is notified."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return _SPECIAL.sub(r"\\\1", plain).replace("@", "@\u200b")
