"""A notebook as it ran, with the very inputs and parameters it had, to be worked on by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import IntegrityError, MissingError
from pipeline.runtime.code import code_digest
from pipeline.runtime.inputs import count_uses, require_agreement
from pipeline.runtime.manifest import KILLED, RUNNING, RunManifest, StepRecord
from pipeline.runtime.project import Project
from pipeline.runtime.step_context import CONTEXT, StepContext
from pipeline.runtime.transcript import notebook_key

TAG = "opened"


@dataclass(frozen=True)
class Reopened:
    """A notebook that is ready for Jupyter.

    Attributes:
        notebook: The file; it is left as it is when it is opened again, since there may be work in it.
        attempt: `run/step/attempt` that it is of.
        fresh: Whether it was written just now.
        changes: What has happened since: the step's notebook or the code that it imports changed, or the step is gone.
        repeat: The command that runs it with the code of then; empty where that was not kept.
    """

    notebook: Path
    attempt: str
    fresh: bool
    changes: tuple[str, ...]
    repeat: str


def reopen(project: Project, manifest: RunManifest, record: StepRecord) -> Reopened:
    """Lay out the notebook of an attempt so that running its cells repeats the attempt; nothing is published from it.

    Args:
        project: Where its run is.
        manifest: The run.
        record: The attempt.

    Raises:
        MissingError: No notebook is kept of it, or an input is not in the store any more.
        IntegrityError: The notebook cannot be read.
        StepError: Its inputs do not agree, as those of a record made before they had to may not.
    """
    made_by, store = f"{manifest.run}/{record.made_by}", project.runs.store
    require_agreement(project.runs, manifest, record.step, record.inputs, record.chosen)
    for artifact in record.inputs.values():
        store.index(artifact)  # now rather than in the middle of the notebook
    name = f"{record.step}.{record.attempt:03}"
    work = project.root / ".cache" / "opened" / manifest.run / name
    cache = project.root / ".cache"
    context = StepContext(
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
    )
    work.mkdir(parents=True, exist_ok=True)
    context.write(work / "context.json")
    notebook = project.root / "out" / "opened" / manifest.run / f"{name}.ipynb"  # Jupyter hides what is in .cache
    fresh = not notebook.is_file()
    if fresh:
        content = _with_context(_executed(project, manifest, record), made_by, work / "context.json")
        notebook.parent.mkdir(parents=True, exist_ok=True)
        notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    mode = " --mode prod" if manifest.mode == "prod" else ""
    repeat = f"python -m pipeline rerun {manifest.run}{mode}" if record.code["commit"] else ""
    return Reopened(notebook, made_by, fresh, _changes(project, record), repeat)


def _executed(project: Project, manifest: RunManifest, record: StepRecord) -> dict[str, Any]:
    mode = " --mode prod" if manifest.mode == "prod" else ""
    key = notebook_key(manifest.run, record)
    where = project.runs.store.files.location(key)
    try:
        content = json.loads(project.runs.store.files.read(key))
    except FileNotFoundError:
        raise MissingError(
            f"no notebook is kept of {manifest.run}/{record.made_by}, which {_came_to(record)}",
            where=where,
            expected="an attempt that came to an end",
            remedy=f"python -m pipeline show {manifest.run}{mode} has all attempts; choose one with --attempt N",
        ) from None
    except ValueError as error:
        raise IntegrityError("the notebook cannot be read", where=where, expected="JSON") from error
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise IntegrityError("the file is not a Jupyter notebook", where=where)
    return content


def _came_to(record: StepRecord) -> str:
    if record.status == KILLED or record.is_killed:
        return "was killed"
    return "has not ended yet" if record.status == RUNNING else f"{record.status}; it has been removed"


def _with_context(content: dict[str, Any], made_by: str, context: Path) -> dict[str, Any]:
    """The notebook with a first cell that tells its step where its inputs are."""
    source = [
        f"# The inputs and parameters of {made_by}; what is written stays in this machine's .cache.\n",
        "import os\n",
        "\n",
        f'os.environ["{CONTEXT}"] = {json.dumps(str(context))}',
    ]
    cell = {
        "cell_type": "code",
        "execution_count": None,
        **({"id": TAG} if (content["nbformat"], content["nbformat_minor"]) >= (4, 5) else {}),  # none has it before
        "metadata": {"tags": [TAG]},
        "outputs": [],
        "source": source,
    }
    return {**content, "cells": [cell, *content["cells"]]}


def _changes(project: Project, record: StepRecord) -> tuple[str, ...]:
    step = project.steps.get(record.step)
    if step is None:
        return ("the step was removed",)
    found = [
        ("its notebook in steps/ changed", step.digest != record.notebook_digest),
        ("the code it imports changed", code_digest(step.imports) != record.code_digest),
    ]
    return tuple(what for what, changed in found if changed)
