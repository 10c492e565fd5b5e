"""What the commands print that check, clear up and repeat."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.cli.printing import table
from pipeline.runtime.reopening import Reopened
from pipeline.runtime.rerunning import Rerun
from pipeline.runtime.store.file_store import FileInfo
from pipeline.runtime.store_garbage import SPARED, Garbage
from pipeline.runtime.verification import Verification

SHOWN = 4  # runs that a finding names


def verification_text(found: Verification) -> str:
    """What was looked at, and what is wrong."""
    looked = f"{_count(found.runs, 'run')}, {_count(found.artifacts, 'artifact')}, {_count(found.files, 'file')} hashed"
    if not found.findings:
        return f"all is as it was recorded: {looked}"
    lines = [f"{_count(len(found.findings), 'finding')} in {looked}"]
    for finding in found.findings:
        more = f" and {len(finding.runs) - SHOWN} more" if len(finding.runs) > SHOWN else ""
        lines += [
            f"  {finding.where}: {finding.what}",
            f"    in run  {', '.join(finding.runs[:SHOWN])}{more}",
            f"    do      {finding.remedy}",
        ]
    lines.append(
        "where a step's code has changed since, what it made comes back by: python -m pipeline rerun RUN --reload"
    )
    return "\n".join(lines)


def garbage_json(garbage: Garbage, left: Mapping[Path, int], removed: Sequence[FileInfo] | None) -> dict[str, Any]:
    """Garbage for programs; `removed` is null where nothing was to be removed."""
    kinds = {name: [asdict(info) for info in getattr(garbage, name)] for name in KINDS}
    return {
        "kept": garbage.kept,
        "dropped": garbage.dropped,
        "bytes": garbage.size + sum(left.values()),
        **kinds,
        "left_behind": [str(path) for path in left],
        "young": len(garbage.young),
        "removed": None if removed is None else [info.key for info in removed],
    }


KINDS = {
    "records": "records of dropped runs",
    "markers": "artifacts",
    "objects": "file contents",
    "scraps": "unfinished or damaged",
}


def garbage_text(
    garbage: Garbage, left: Mapping[Path, int], removed: Sequence[FileInfo] | None, *, keep: int | None, command: str
) -> str:
    """What would be freed, or was.

    Args:
        garbage: What was found in the store.
        left: What killed attempts left, with the size of each in bytes.
        removed: What was removed; None where nothing was to be.
        keep: How many runs of each pipeline were to be kept.
        command: What does it.
    """
    hours = f"{SPARED / 3600:.0f} hours"
    lines = [f"{_count(len(garbage.kept), 'run')} kept, {len(garbage.dropped)} dropped"]
    if keep is not None:
        newest = "newest" if keep == 1 else f"newest {keep}"
        lines.append(f"  kept: each pipeline's {newest}, what began within {hours}, and runs whose work these reuse")
    lines += [f"  dropped  {run}" for run in garbage.dropped]
    kinds = ((what, getattr(garbage, name)) for name, what in KINDS.items())
    rows = [("  " + what, len(infos), _megabytes(sum(info.size for info in infos))) for what, infos in kinds if infos]
    lines += [table(rows)] if rows else []
    lines += [f"  what a killed attempt left to go on from, {_megabytes(left[path])}: {path}" for path in left]
    if garbage.young:
        more, size = _count(len(garbage.young), "file"), _megabytes(sum(info.size for info in garbage.young))
        lines.append(f"  not yet: {more}, {size}, written within {hours}")
    if not garbage.files and not left:
        lines.append("there is nothing to free")
    elif removed is None:
        lines.append(f"this would free {_megabytes(garbage.size + sum(left.values()))}; do it with: {command} --yes")
    else:
        freed = _megabytes(sum(info.size for info in removed) + sum(left.values()))
        folders = f" and {_count(len(left), 'folder')}" if left else ""
        lines.append(f"removed {_count(len(removed), 'file')}{folders}, {freed}")
        if kept := len(garbage.files) - len(removed):
            lines.append(f"{_count(kept, 'file')} came into use meanwhile, and stay")
    return "\n".join(lines)


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def reopened_text(opened: Reopened) -> str:
    """Where the notebook is, and how to go on."""
    notebook, programs = _near(opened.notebook), Path(sys.executable).parent
    lines = [f"{opened.attempt} is in {notebook}"]
    if not opened.fresh:
        lines.append("it was opened before, and is as it was left; remove it to begin anew")
    if opened.changes:
        lines.append(f"since then {' and '.join(opened.changes)}")
        lines += [f"its cells run with today's code; with the code of then: {opened.repeat}"] if opened.repeat else []
    if not (programs / "jupyter-lab").exists():
        lines.append("JupyterLab is not installed yet: make .venv/.lab")
    as_root = " --allow-root" if os.geteuid() == 0 else ""  # which JupyterLab otherwise refuses
    lines.append(f"{_near(programs / 'jupyter')} lab --ip 127.0.0.1{as_root} {notebook}")
    return "\n".join(lines)


def rerun_text(done: Rerun) -> str:
    """The old run beside the new one."""
    rows = []
    for step in done.steps:
        told = [f"the same: {', '.join(step.same)}"] if step.same else []
        told += [f"differs: {', '.join(step.different)}"] if step.different else []
        told += [f"not as it was: {', '.join(step.causes)}"] if step.causes else []
        rows.append(("  " + step.step, step.status, "; ".join(told)))
    lines = [f"run {done.new} is run {done.old} again", table(rows)]
    if done.environment:
        changed = [("  " + name, then or "-", "→", now or "-") for name, (then, now) in done.environment.items()]
        lines += ["the environment is another", table(changed)]
    lines.append(f"it is the newest {done.mode} run now, which a step that is run alone joins; --run names another")
    return "\n".join(lines)


def _near(path: Path) -> str:
    """As it is typed from here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
