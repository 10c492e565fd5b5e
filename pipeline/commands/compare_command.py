"""The command that sets two runs side by side, with the differences of their models that chance does not explain."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.cli import printing
from pipeline.cli.command import CommandContext, CommandResult, argument, command
from pipeline.cli.printing import table
from pipeline.errors import MissingError
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.process import work_folder

if TYPE_CHECKING:
    from pipeline.evaluation.paired import Difference, PairedFigures

TEST_SET, RESULTS = "coco_test_dataset", "coco_inference_result_dataset"


@command(
    "compare",
    "two runs side by side: their differences, their metrics, and whether one model is better beyond chance",
    argument("left", help="a run: a part of its id, or latest~1"),
    argument("right", nargs="?", help="another run; the newest by default"),
    argument("--all", action="store_true", help="show equal values, too"),
)
def _compare(context: CommandContext) -> CommandResult:
    from pipeline.runtime.comparison import compare, comparison_json
    from pipeline.runtime.git import changed_between

    left, right = context.find_run(context.arguments.left), context.find_run(context.arguments.right)
    commits = [str(run.code.get("commit", "")) for run in (left, right)]
    comparison = compare(left, right, changed_between(context.root, *commits))
    text = printing.comparison_text(comparison, everything=context.arguments.all)
    content: dict[str, Any] = comparison_json(comparison)
    evaluated = [_evaluation(run) for run in (left, right)]
    if evaluated[0] is None or evaluated[1] is None:
        return CommandResult(content | {"models": None}, text)
    sets = [each.inputs[TEST_SET].digest for each in evaluated if each]
    if sets[0] != sets[1]:
        told = "the models were evaluated on different test sets: their figures cannot be compared"
        return CommandResult(content | {"models": None}, f"{text}\n\n{told}")
    try:
        paired = _paired(context, evaluated[0], evaluated[1])
    except MissingError as error:  # the rest of the comparison stands
        return CommandResult(content | {"models": None}, f"{text}\n\nthe models cannot be compared: {error}")
    return CommandResult(content | {"models": asdict(paired)}, f"{text}\n\n{_text(paired)}")


def _evaluation(run: RunManifest) -> StepRecord | None:
    """The newest attempt that evaluated a model, also where its model missed a limit."""
    for record in reversed(run.attempts):
        if TEST_SET in record.inputs and RESULTS in record.outputs:
            return record
    return None


def _paired(context: CommandContext, left: StepRecord, right: StepRecord) -> PairedFigures:
    from pipeline.evaluation.ground_truth import read_ground_truth
    from pipeline.evaluation.paired import compare_models

    store = context.project.runs.store
    with work_folder(context.root / ".cache" / "work", "compare") as work:
        truth = read_ground_truth(store.get(left.inputs[TEST_SET], work / "test", link=True) / "annotations.json")
        results = [
            json.loads((store.get(artifact, work / side, link=True) / "predictions.json").read_text("utf-8"))
            for side, artifact in (("left", left.outputs[RESULTS]), ("right", right.outputs[RESULTS]))
        ]
        return compare_models(truth, *results)


def _text(paired: PairedFigures) -> str:
    lines = [
        f"models on the same {paired.images} test images; differences with their 95 % intervals",
        table([_row(name, each) for name, each in paired.figures.items()], "  "),
    ]
    decided = {name: each for name, each in paired.class_ap.items() if each.verdict in {"better", "worse"}}
    if decided:
        lines += ["AP of classes that differ beyond chance", table([_row(*each) for each in decided.items()], "  ")]
    return "\n".join(lines)


def _row(name: str, each: Difference) -> tuple[str, ...]:
    interval = "" if each.low is None or each.high is None else f"{each.low:+.4f} to {each.high:+.4f}"
    return name, f"{each.before:.4f}", f"{each.after:.4f}", f"{each.change:+.4f}", interval, each.verdict
