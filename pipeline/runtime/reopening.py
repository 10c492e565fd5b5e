"""Opens the notebook of an attempt for work by hand, with the attempt's inputs and parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import IntegrityError, MissingError
from pipeline.runtime.code import code_digest
from pipeline.runtime.inputs import count_uses, require_agreement
from pipeline.runtime.manifest import KILLED, RUNNING, RunManifest, StepRecord, notebook_key
from pipeline.runtime.project import Project, mode_option
from pipeline.runtime.step_context import CONTEXT, StepContext

TAG = "opened"


@dataclass(frozen=True)
class Reopened:
    """A notebook that is ready for Jupyter.

    Attributes:
        notebook: The file; opening it again keeps it as it is, since there may be work in it.
        attempt: `run/step/attempt` that it is of.
        fresh: Whether it was written just now.
        changes: The changes since then: of the notebook, of the code that it imports, or the removal of the step.
        repeat: The command that runs it with the old code; empty where that was not kept.
    """

    notebook: Path
    attempt: str
    fresh: bool
    changes: tuple[str, ...]
    repeat: str


def reopen(project: Project, manifest: RunManifest, record: StepRecord) -> Reopened:
    """Write a notebook whose cells repeat an attempt. Nothing is published from it.

    Raises:
        MissingError: Its notebook was not kept, or an input is no longer in the store.
        IntegrityError: The notebook cannot be read.
        StepError: Its inputs do not agree, which old records allow.
    """
    made_by, store, cache = f"{manifest.run}/{record.made_by}", project.runs.store, project.root / ".cache"
    require_agreement(project.runs, manifest, record.step, record.inputs, record.chosen)
    for artifact in record.inputs.values():
        store.index(artifact)  # fails now rather than in the middle of the notebook
    name = f"{record.step}.{record.attempt:03}"
    work = cache / "opened" / manifest.run / name
    work.mkdir(parents=True, exist_ok=True)
    StepContext(
        step=record.step,
        made_by=f"{made_by}, opened by hand",
        store=store.url,
        work=str(work),
        cache=str(cache),
        inputs=record.inputs,
        resume=str(work / "resume"),
        logs=str(cache / "logs" / "opened" / manifest.run / name),
        by_hand=True,
        mode=manifest.mode,
        chosen={**record.chosen, **record.chosen_before},
        uses=record.uses or count_uses(project.runs, record.step, record.inputs),
    ).write(work / "context.json")
    notebook = project.root / "out" / "opened" / manifest.run / f"{name}.ipynb"  # Jupyter hides .cache
    fresh = not notebook.is_file()
    if fresh:
        content = _with_context(_read_executed(project, manifest, record), made_by, work / "context.json")
        notebook.parent.mkdir(parents=True, exist_ok=True)
        notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rerun = f"python -m pipeline rerun {manifest.run}{mode_option(manifest.mode)}"
    return Reopened(notebook, made_by, fresh, _changes(project, record), rerun if record.code["commit"] else "")


def _read_executed(project: Project, manifest: RunManifest, record: StepRecord) -> dict[str, Any]:
    files, key = project.runs.store.files, notebook_key(manifest.origin(record))
    where = files.location(key)
    try:
        content = json.loads(files.read(key))
    except FileNotFoundError:
        is_killed = record.status == KILLED or record.is_killed
        state = "has not ended yet" if record.status == RUNNING else f"{record.status}; it has been removed"
        show = f"python -m pipeline show {manifest.run}{mode_option(manifest.mode)}"
        raise MissingError(
            f"no notebook is kept of {manifest.run}/{record.made_by}, which {'was killed' if is_killed else state}",
            where=where,
            expected="an attempt that has ended",
            remedy=f"{show} has all attempts; choose one with --attempt N",
        ) from None
    except ValueError as error:
        raise IntegrityError("the notebook cannot be read", where=where, expected="JSON") from error
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise IntegrityError("the file is not a Jupyter notebook", where=where)
    return content


def _with_context(content: dict[str, Any], made_by: str, context: Path) -> dict[str, Any]:
    """The notebook with a first cell that tells the step where its inputs are."""
    source = [
        f"# The inputs and parameters of {made_by}; outputs stay in this machine's .cache.\n",
        "import os\n",
        "\n",
        f'os.environ["{CONTEXT}"] = {json.dumps(str(context))}',
    ]
    cell = {
        "cell_type": "code",
        "execution_count": None,
        **({"id": TAG} if (content["nbformat"], content["nbformat_minor"]) >= (4, 5) else {}),  # older ones have no id
        "metadata": {"tags": [TAG]},
        "outputs": [],
        "source": source,
    }
    return {**content, "cells": [cell, *content["cells"]]}


def _changes(project: Project, record: StepRecord) -> tuple[str, ...]:
    step = project.steps.get(record.step)
    if step is None:
        return ("the step was removed",)
    changes = {
        "its notebook in steps/ changed": step.digest != record.notebook_digest,
        "the code it imports changed": code_digest(step.imports) != record.code_digest,
    }
    return tuple(change for change, applies in changes.items() if applies)
