"""What the commands print that check, clear up and repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.files import FileInfo
from pipeline.inspection.collection import SPARED, Garbage
from pipeline.inspection.reopening import Reopened
from pipeline.inspection.rerunning import Rerun
from pipeline.inspection.verification import Verification
from pipeline.views import table

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
    return "\n".join(lines)


def garbage_json(garbage: Garbage, left: Sequence[Path], removed: Sequence[FileInfo] | None) -> dict[str, Any]:
    """Garbage for programs; `removed` is null where nothing was to be removed."""
    kinds = {name: [asdict(info) for info in getattr(garbage, name)] for name in KINDS}
    return {
        "kept": garbage.kept,
        "dropped": garbage.dropped,
        "bytes": garbage.size,
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


def garbage_text(garbage: Garbage, left: Sequence[Path], removed: Sequence[FileInfo] | None) -> str:
    """What would be freed, or was."""
    lines = [f"{_count(len(garbage.kept), 'run')} kept, {len(garbage.dropped)} dropped"]
    lines += [f"  dropped  {run}" for run in garbage.dropped]
    kinds = ((what, getattr(garbage, name)) for name, what in KINDS.items())
    rows = [("  " + what, len(infos), _megabytes(sum(info.size for info in infos))) for what, infos in kinds if infos]
    lines += [table(rows)] if rows else []
    lines += [f"  what killed attempts left to go on from: {path}" for path in left]
    if garbage.young:
        size, hours = _megabytes(sum(info.size for info in garbage.young)), SPARED / 3600
        lines.append(
            f"{_count(len(garbage.young), 'file')} more, {size}, stay: they are younger than {hours:.0f} hours"
        )
    if removed is not None:
        freed = _megabytes(sum(info.size for info in removed))
        lines.append(f"removed {_count(len(removed), 'file')}, {freed}")
        if kept := len(garbage.files) - len(removed):
            lines.append(f"{_count(kept, 'file')} came into use meanwhile, and stay")
    elif garbage.files or left:
        lines.append(f"this would free {_megabytes(garbage.size)}; do it with --yes")
    else:
        lines.append("there is nothing to free")
    return "\n".join(lines)


def reopened_text(opened: Reopened) -> str:
    """Where the notebook is, and how to go on."""
    was = "" if opened.fresh else ", as it was left when it was opened before; remove it to begin anew"
    lines = [f"{opened.attempt} is in {opened.notebook}{was}"]
    if opened.changes:
        lines.append(f"{' and '.join(opened.changes)} changed since; python -m pipeline rerun has the code of then")
    lines.append(f"jupyter lab --ip 127.0.0.1 {opened.notebook}")
    return "\n".join(lines)


def rerun_text(done: Rerun) -> str:
    """The old run beside the new one."""
    rows = []
    for step in done.steps:
        told = f"differs: {', '.join(step.different)}" if step.different else f"the same: {', '.join(step.same)}"
        rows.append(("  " + step.step, step.status, told))
    lines = [f"run {done.new} is run {done.old} again", table(rows)]
    if done.environment:
        changed = [("  " + name, then or "-", "→", now or "-") for name, (then, now) in done.environment.items()]
        lines += ["the environment is another", table(changed)]
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
