"""The command that sets two runs side by side, with the differences of their models that chance does not explain."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli import printing
from pipeline.cli.command import CommandContext, CommandResult, argument, command
from pipeline.cli.printing import table
from pipeline.errors import MissingError
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.process import work_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.evaluation.changes import Changes
    from pipeline.evaluation.examples import Selection
    from pipeline.metrics.detection_metrics import DetectionMetrics
    from pipeline.metrics.ground_truth import GroundTruth
    from pipeline.metrics.paired import Difference, PairedFigures

TEST_SET, RESULTS = "coco_test_dataset", "coco_inference_result_dataset"
_ANNOTATIONS, _PREDICTIONS = "annotations.json", "predictions.json"
_PER_CLASS = 12  # pictures of each kind of change
_FIRST_FILES, _WIDTH = 10, 38  # that are named in a line, and the characters that they may take


@dataclass(frozen=True)
class _Evaluations:
    """Two models on the same test images."""

    truth: GroundTruth
    before: DetectionMetrics
    after: DetectionMetrics
    paired: PairedFigures
    changes: Changes


@command(
    "compare",
    "two runs side by side: their differences, their metrics, and whether one model is better beyond chance",
    argument("left", help="a run: a part of its id, or latest~1"),
    argument("right", nargs="?", help="another run; the newest by default"),
    argument("--all", action="store_true", help="show equal values, too"),
    argument("--page", metavar="FILE", type=Path, help="write an HTML page with pictures of what changed"),
)
def _compare(context: CommandContext) -> CommandResult:
    from pipeline.runtime.comparison import compare, comparison_json
    from pipeline.runtime.git import changed_between

    left, right = context.find_run(context.arguments.left), context.find_run(context.arguments.right)
    commits = [str(run.code.get("commit", "")) for run in (left, right)]
    comparison = compare(left, right, changed_between(context.root, *commits))
    text = printing.comparison_text(comparison, everything=context.arguments.all)
    content: dict[str, Any] = comparison_json(comparison)
    page: Path | None = context.arguments.page
    models: _Evaluations | None = None
    try:
        models = _evaluate(context, left, right)
    except MissingError as error:  # the rest of the comparison stands
        told = f"the models cannot be compared: {error}"
    else:
        told = _text(models) if models else _reason(left, right)
    if models is None:
        if page:
            told = f"there is no page: {told or 'a run has evaluated no model'}"
        code = 1 if page else 0
        return CommandResult(content | {"models": None}, "\n\n".join(filter(None, [text, told])), code)
    if page:
        told += f"\n\npictures  {page}"
    found = asdict(models.paired) | {"changes": models.changes.to_json(models.truth)}
    return CommandResult(content | {"models": found}, f"{text}\n\n{told}")


def evaluation_of(run: RunManifest) -> StepRecord | None:
    """The newest attempt that evaluated a model, also where its model missed a limit."""
    for record in reversed(run.attempts):
        if TEST_SET in record.inputs and RESULTS in record.outputs:
            return record
    return None


def _reason(left: RunManifest, right: RunManifest) -> str:
    """Why the models of two runs are not compared."""
    if evaluation_of(left) and evaluation_of(right):
        return "the models were evaluated on different test sets: their figures cannot be compared"
    return ""


def _evaluate(context: CommandContext, left: RunManifest, right: RunManifest) -> _Evaluations | None:
    """Compare the models, and write the page if one is wanted; None where the test images are not the same."""
    from pipeline.metrics.ground_truth import read_ground_truth

    records = evaluation_of(left), evaluation_of(right)
    if records[0] is None or records[1] is None:
        return None
    test_set = records[0].inputs[TEST_SET]
    if records[1].inputs[TEST_SET].digest != test_set.digest:
        return None
    store = context.project.runs.store
    with work_folder(context.root / ".cache" / "work", "compare") as work:
        truth = read_ground_truth(store.get(test_set, work / "test", link=True, only={_ANNOTATIONS}) / _ANNOTATIONS)
        results = []
        for record in (records[0], records[1]):
            folder = store.get(record.outputs[RESULTS], work / "results", link=True, only={_PREDICTIONS})
            results.append(json.loads((folder / _PREDICTIONS).read_text("utf-8")))
        models = _measure(truth, results)
        if context.arguments.page:
            selection = models.changes.select(_PER_CLASS)
            shown = {each.image_id for each in selection.examples}
            files = {f"images/{image.file_name}" for image in truth.images if image.id in shown}
            photographs = store.get(test_set, work / "test", link=True, only=files)
            names = left.run, right.run
            _write_page(context.arguments.page, replace(truth, folder=photographs), models, selection, names)
    return models


def _measure(truth: GroundTruth, results: Sequence[Any]) -> _Evaluations:
    from pipeline.evaluation.changes import find_changes
    from pipeline.metrics.detection_metrics import evaluate
    from pipeline.metrics.paired import compare_models

    before, after = (evaluate(truth, each) for each in results)
    return _Evaluations(truth, before, after, compare_models(truth, *results), find_changes(truth, before, after))


def _write_page(
    path: Path, truth: GroundTruth, models: _Evaluations, selection: Selection, names: tuple[str, str]
) -> None:
    from pipeline.evaluation.report.comparison_page import write_comparison
    from pipeline.evaluation.report.gallery import draw_gallery

    gallery = draw_gallery(truth, {"before": models.before, "after": models.after}, selection)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_comparison(path, truth=truth, names=names, paired=models.paired, changes=models.changes, gallery=gallery)


def _text(models: _Evaluations) -> str:
    paired, changes = models.paired, models.changes
    lines = [
        f"models on the same {paired.images} test images; differences with their 95 % intervals",
        table([_row(name, each) for name, each in paired.figures.items()], "  "),
    ]
    if paired.decided:
        lines.append("AP of classes that differ beyond chance")
        lines.append(table([_row(*each) for each in paired.decided.items()], "  "))
    lines += [
        "what changed, each model from its own best score on: {:.2f} and {:.2f}".format(*changes.thresholds),
        table([_change(group, changes, models.truth) for group in changes.groups], "  "),
    ]
    return "\n".join(lines)


def _row(name: str, each: Difference) -> tuple[str, ...]:
    interval = "" if each.low is None or each.high is None else f"{each.low:+.4f} to {each.high:+.4f}"
    return name, f"{each.before:.4f}", f"{each.after:.4f}", f"{each.change:+.4f}", interval, each.verdict


def _change(group: str, changes: Changes, truth: GroundTruth) -> tuple[str, int, str]:
    """A kind of change, how many there are, and the first images of it."""
    names = ", ".join(changes.files(group, truth)[:_FIRST_FILES])
    return group, len(changes.groups[group]), textwrap.shorten(names, _WIDTH, placeholder=" …")
