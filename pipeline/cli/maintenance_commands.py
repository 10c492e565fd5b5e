"""The commands that check, clean up and repeat: verify, gc, open and rerun, with what they print."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.command import CommandContext, CommandResult, argument, command
from pipeline.cli.printing import count, megabytes, table
from pipeline.cli.run_commands import ATTEMPT, RUN, STEP
from pipeline.runtime.resolving import find_attempt

if TYPE_CHECKING:
    from pipeline.runtime.garbage_collection import Garbage
    from pipeline.runtime.reopening import Reopened
    from pipeline.runtime.rerunning import Rerun
    from pipeline.runtime.store.file_store import FileInfo
    from pipeline.runtime.verification import Verification

SHOWN_RUNS = 4  # in a finding
GARBAGE_KINDS = {
    "records": "records of dropped runs",
    "markers": "artifacts",
    "objects": "file contents",
    "scraps": "unfinished or damaged",
}


@command(
    "verify",
    "check every record, and every byte that runs refer to",
    argument("run", nargs="?", help="check only what one run refers to"),
)
def _verify(context: CommandContext) -> CommandResult:
    from pipeline.runtime.verification import verify

    runs, name = context.project.runs, context.arguments.run
    found = verify(runs, [context.find_run(name).run] if name else runs.ids())
    return CommandResult(asdict(found), verification_text(found), code=1 if found.findings else 0)


@command(
    "gc",
    "remove what no kept run refers to; without --yes, only list it",
    argument("--keep", type=int, metavar="N", help="keep the newest N runs of each pipeline; all by default"),
    argument("--yes", action="store_true", help="remove it"),
)
def _gc(context: CommandContext) -> CommandResult:
    from pipeline.runtime.garbage_collection import abandoned, collect, find_garbage

    arguments, runs = context.arguments, context.project.runs
    garbage = find_garbage(runs, keep=arguments.keep)
    leftovers = {path: _folder_size(path) for path in abandoned(context.project.resume)}
    removed = collect(runs, garbage, leftovers) if arguments.yes else None
    again = "python -m pipeline gc" + (" --mode prod" if arguments.mode == "prod" else "")
    again += f" --config {shlex.quote(arguments.config)}" if arguments.config else ""
    again += f" --keep {arguments.keep}" if arguments.keep is not None else ""
    text = garbage_text(garbage, leftovers, removed, keep=arguments.keep, again=again)
    return CommandResult(garbage_json(garbage, leftovers, removed), text)


@command(
    "open",
    "a step's notebook with the inputs and parameters of its run, for Jupyter; STEP and RUN in either order",
    STEP,
    RUN,
    ATTEMPT,
)
def _open(context: CommandContext) -> CommandResult:
    from pipeline.runtime.reopening import reopen

    step, manifest = context.find_step_and_run()
    opened = reopen(context.project, manifest, find_attempt(manifest, step, context.arguments.attempt))
    return CommandResult({**asdict(opened), "notebook": str(opened.notebook)}, reopened_text(opened))


@command(
    "rerun",
    "repeat a run: the same commit, uncommitted changes, config and inputs, in a git worktree of its own",
    argument("run", help="a run's id, its beginning or end, latest or latest~1"),
    argument("--reload", action="store_true", help="read external sources again, too, which may have changed"),
)
def _rerun(context: CommandContext) -> CommandResult:
    from pipeline.runtime.rerunning import rerun

    done = rerun(context.project, context.find_run(context.arguments.run), reload=context.arguments.reload)
    return CommandResult({**asdict(done), "is_same": done.is_same}, rerun_text(done))


def verification_text(found: Verification) -> str:
    """The number of things checked, and each finding."""
    checked = f"{count(found.runs, 'run')}, {count(found.artifacts, 'artifact')}, {count(found.files, 'file')} hashed"
    if not found.findings:
        return f"all is as it was recorded: {checked}"
    lines = [f"{count(len(found.findings), 'finding')} in {checked}"]
    for finding in found.findings:
        more = f" and {len(finding.runs) - SHOWN_RUNS} more" if len(finding.runs) > SHOWN_RUNS else ""
        lines += [
            f"  {finding.where}: {finding.what}",
            f"    in run  {', '.join(finding.runs[:SHOWN_RUNS])}{more}",
            f"    do      {finding.remedy}",
        ]
    return "\n".join([*lines, "where a step's code has changed since, use: python -m pipeline rerun RUN --reload"])


def garbage_json(garbage: Garbage, leftovers: Mapping[Path, int], removed: Sequence[FileInfo] | None) -> dict[str, Any]:
    """Garbage as JSON; `removed` is null where nothing was to be removed."""
    return {
        "kept": garbage.kept,
        "dropped": garbage.dropped,
        "bytes": garbage.size + sum(leftovers.values()),
        **{name: [asdict(info) for info in getattr(garbage, name)] for name in GARBAGE_KINDS},
        "left_behind": [str(path) for path in leftovers],
        "young": len(garbage.young),
        "removed": None if removed is None else [info.key for info in removed],
    }


def garbage_text(
    garbage: Garbage,
    leftovers: Mapping[Path, int],
    removed: Sequence[FileInfo] | None,
    *,
    keep: int | None,
    again: str,
) -> str:
    """What would be freed, or was.

    Args:
        garbage: Found in the store.
        leftovers: Folders of killed attempts, with the size of each in bytes.
        removed: The removed files; None where nothing was to be removed.
        keep: How many runs of each pipeline were to be kept.
        again: The command without `--yes`.
    """
    from pipeline.runtime.garbage_collection import SPARED

    hours = f"{SPARED / 3600:.0f} hours"
    lines = [f"{count(len(garbage.kept), 'run')} kept, {len(garbage.dropped)} dropped"]
    if keep is not None:
        newest = "newest" if keep == 1 else f"newest {keep}"
        lines.append(f"  kept: each pipeline's {newest}, what began within {hours}, and runs whose work these reuse")
    lines += [f"  dropped  {run}" for run in garbage.dropped]
    kinds = [(f"  {kind}", getattr(garbage, name)) for name, kind in GARBAGE_KINDS.items() if getattr(garbage, name)]
    lines += [table([(kind, len(infos), megabytes(_size(infos))) for kind, infos in kinds])] if kinds else []
    lines += [f"  left by a killed attempt, {megabytes(size)}: {path}" for path, size in leftovers.items()]
    if garbage.young:
        young = f"{count(len(garbage.young), 'file')}, {megabytes(_size(garbage.young))}"
        lines.append(f"  not yet: {young}, written within {hours}")
    if not garbage.files and not leftovers:
        lines.append("there is nothing to free")
    elif removed is None:
        total = megabytes(garbage.size + sum(leftovers.values()))
        lines.append(f"this would free {total}; do it with: {again} --yes")
    else:
        folders = f" and {count(len(leftovers), 'folder')}" if leftovers else ""
        freed = megabytes(_size(removed) + sum(leftovers.values()))
        lines.append(f"removed {count(len(removed), 'file')}{folders}, {freed}")
        if kept := len(garbage.files) - len(removed):
            lines.append(f"{count(kept, 'file')} came into use meanwhile, and stay")
    return "\n".join(lines)


def reopened_text(opened: Reopened) -> str:
    """Where the notebook is, and how to open it."""
    notebook, programs = _typed_path(opened.notebook), Path(sys.executable).parent
    lines = [f"{opened.attempt} is in {notebook}"]
    if not opened.fresh:
        lines.append("it was opened before, and keeps your changes; remove it to start afresh")
    if opened.changes:
        lines.append(f"since then {' and '.join(opened.changes)}")
        lines += [f"its cells run with today's code; with the code of then: {opened.repeat}"] if opened.repeat else []
    if not (programs / "jupyter-lab").exists():
        lines.append("JupyterLab is not installed yet: make .venv/.lab")
    as_root = " --allow-root" if os.geteuid() == 0 else ""  # JupyterLab refuses to run as root without it
    lines.append(f"{_typed_path(programs / 'jupyter')} lab --ip 127.0.0.1{as_root} {notebook}")
    return "\n".join(lines)


def rerun_text(done: Rerun) -> str:
    """The old run beside the new one."""
    rows = []
    for step in done.steps:
        parts = (("the same", step.same), ("differs", step.different), ("not as it was", step.causes))
        text = "; ".join(f"{label}: {', '.join(names)}" for label, names in parts if names)
        rows.append((f"  {step.step}", step.status, text))
    lines = [f"run {done.new} is run {done.old} again", table(rows)]
    if done.environment:
        changed = [(f"  {name}", then or "-", "→", now or "-") for name, (then, now) in done.environment.items()]
        lines += ["the environment differs", table(changed)]
    lines.append(f"it is the newest {done.mode} run now, which a step that is run alone joins; --run names another")
    return "\n".join(lines)


def _size(infos: Sequence[FileInfo]) -> int:
    return sum(info.size for info in infos)


def _folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _typed_path(path: Path) -> str:
    """A path as it is typed in the working directory."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
