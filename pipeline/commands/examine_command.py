"""The command that replays the exam of a packed service, and says whether the service gives the same predictions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pipeline.cli.command import CommandContext, CommandResult, argument, command
from pipeline.cli.printing import count, table
from pipeline.commands.exam_replay import Comparison, Replay, replay
from pipeline.commands.recorded_exams import UNKNOWN, Exam, find_exam
from pipeline.runtime.code import environment, hardware
from pipeline.runtime.manifest import FAILED

_ENGINES = ("numpy", "onnxruntime", "opencv-python-headless")  # packages that decide on a prediction's last digits
_OUTCOMES = {True: "met", False: "missed", None: "unknown"}  # of a limit
_WIDTH = 64  # characters of a digest, and of a line of the column that holds them


@command(
    "examine",
    "replay the exam of a packed service: the same test set through REST must give the same predictions",
    argument("bento", metavar="BENTO", help="a run; ENTITY/DIGEST or the URL of an artifact; the folder of a Bento"),
    argument("--run", metavar="RUN", help="the exam in this run; the newest of the service by default"),
    argument(
        "--statement", metavar="FILE", type=Path, help="the exam that an exported file tells of, instead of the records"
    ),
)
def _examine(context: CommandContext) -> CommandResult:
    arguments = context.arguments
    exam = find_exam(context, arguments.bento, arguments.run, arguments.statement)
    return outcome(exam, replay(context, exam), environment())


def outcome(exam: Exam, replayed: Replay, here: Mapping[str, str]) -> CommandResult:
    """What the command prints, and its exit code, where the replay ran in the environment `here`.

    The code is 0 where the same predictions were given, or other ones on another kind of processor that leave the
    gate's decision as it is; but 1 where the gate failed.
    """
    compared = replayed.comparison
    is_same_kind = exam.hardware == hardware(here) if exam.hardware else None
    packages = {
        name: [then, here[name]] for name in _ENGINES if (then := exam.packages.get(name, here[name])) != here[name]
    }
    content = {
        "exam": exam.name,
        "bento": exam.bento.digest,
        "test_set": exam.test_set.digest,
        "is_reproduced": compared is None,
        "images": replayed.images,
        "detections": replayed.detections,
        "predictions": {"recorded": exam.predictions, "replayed": replayed.predictions},
        "map": replayed.map,
        "gate": {"recorded": exam.gate, "replayed": compared.gate if compared else exam.gate},
        "limits": dict(exam.limits),
        "hardware": {"recorded": exam.hardware, "here": hardware(here), "is_same_kind": is_same_kind},
        "packages": packages,
        "differences": asdict(compared) if compared else None,
    }
    rows = [("bento", exam.bento.digest), ("test set", exam.test_set.digest), ("exam", exam.name)]
    rows.append(("predictions", exam.predictions))
    if compared:
        rows += _difference_rows(replayed, compared)
        if not is_same_kind:
            rows += [*_wrapped("processor", exam.hardware or "not recorded"), *_wrapped("  here", hardware(here))]
        rows += [(name, f"{then}, here {now}") for name, (then, now) in packages.items()]
    else:
        rows.append(("mAP", _figure(replayed.map)))
    code, verdict = _judge(exam, replayed, is_same_kind)
    return CommandResult(content, "\n".join([verdict, table(rows, "  "), *_gate_lines(exam)]), code)


def _judge(exam: Exam, replayed: Replay, is_same_kind: bool | None) -> tuple[int, str]:
    """The exit code, and the sentence that says why."""
    compared, images = replayed.comparison, count(replayed.images, "image")
    failed = 1 if exam.gate == FAILED else 0
    if compared is None:
        return failed, f"the exam is reproduced: {images}, the same predictions, gate {exam.gate}"
    if is_same_kind:
        differ = f"the predictions differ on {compared.predictions.images} of {images}"
        return 1, f"the exam is not reproduced on the same kind of processor:\n{differ}"
    kind = "an unknown kind" if is_same_kind is None else "another kind"
    start = f"the exam was held on {kind} of processor, and the predictions differ;\n"
    if compared.gate == UNKNOWN:
        return 1, f"{start}the gate's decision here is unknown: it has other limits than those recorded"
    if compared.gate != exam.gate:
        return 1, f"{start}the gate's decision changes from {exam.gate} to {compared.gate}"
    return failed, f"{start}the gate's decision stays the same: {exam.gate}"


def _difference_rows(replayed: Replay, compared: Comparison) -> list[tuple[str, str]]:
    found = compared.predictions
    return [
        ("  replayed", replayed.predictions),
        ("detections", f"{found.before} recorded, {found.after} replayed, {found.unmatched} without counterpart"),
        ("boxes", f"differ by up to {found.pixels:.3g} pixels"),
        ("scores", f"differ by up to {found.score:.3g}"),
        ("mAP", f"{_figure(compared.map_recorded)} recorded, {_figure(replayed.map)} replayed"),
    ]


def _wrapped(name: str, text: str) -> list[tuple[str, str]]:
    lines = textwrap.wrap(text, _WIDTH, break_on_hyphens=False)
    return [("" if number else name, line) for number, line in enumerate(lines)]


def _gate_lines(exam: Exam) -> list[str]:
    """The recorded decision, and each limit with the figure reached."""
    rows = [row for text, is_met in exam.limits.items() for row in _wrapped(_OUTCOMES[is_met], text)]
    return [f"  gate {exam.gate}", *([table(rows, "    ")] if rows else [])]


def _figure(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"
