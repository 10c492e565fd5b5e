"""Opens the notebook of an attempt for work by hand, with the attempt's inputs and parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import IntegrityError, MissingError
from pipeline.runtime.code import code_digest
from pipeline.runtime.inputs import count_uses, require_agreement
from pipeline.runtime.manifest import RunManifest, StepRecord, notebook_key
from pipeline.runtime.project import Project, mode_option
from pipeline.runtime.step import CONTEXT, StepContext


@dataclass(frozen=True)
class Reopened:
    """A notebook that is ready for Jupyter.

    Attributes:
        notebook: The file; opening it again keeps it as it is, since there may be work in it.
        attempt: `run/step/attempt` that it is of.
        fresh: Whether it was written just now.
        changed: Whether the notebook in steps/, or the code that it imports, has changed since then.
    """

    notebook: Path
    attempt: str
    fresh: bool
    changed: bool


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
    notebook = project.root / "out" / "opened" / manifest.run / f"{name}.ipynb"  # Jupyter hides .cache
    fresh = not notebook.is_file()
    content = _with_context(_read_executed(project, manifest, record), made_by, work / "context.json") if fresh else {}
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
    if fresh:
        notebook.parent.mkdir(parents=True, exist_ok=True)
        notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    step = project.steps.get(record.step)
    then = (record.notebook_digest, record.code_digest)
    return Reopened(notebook, made_by, fresh, not step or (step.digest, code_digest(step.imports)) != then)


def _read_executed(project: Project, manifest: RunManifest, record: StepRecord) -> dict[str, Any]:
    files, key = project.runs.store.files, notebook_key(manifest.origin(record))
    try:
        content: dict[str, Any] = json.loads(files.read(key))
        return {**content, "cells": [*content["cells"]]}
    except FileNotFoundError as error:
        raise MissingError(
            f"no notebook is kept of {manifest.run}/{record.made_by}, which is recorded as {record.state}",
            where=files.location(key),
            expected="an attempt that has ended",
            remedy=f"name another with --attempt N: python -m pipeline show {manifest.run}{mode_option(manifest.mode)}",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError("the file is not a Jupyter notebook", where=files.location(key)) from error


def _with_context(content: dict[str, Any], made_by: str, context: Path) -> dict[str, Any]:
    """The notebook with a first cell that tells the step where its inputs are."""
    source = f"""\
# The inputs and parameters of {made_by}; outputs stay in this machine's .cache.
import os

os.environ["{CONTEXT}"] = {json.dumps(str(context))}"""
    has_ids = (content["nbformat"], content["nbformat_minor"]) >= (4, 5)
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": source,
    }
    return {**content, "cells": [{**cell, "id": "opened"} if has_ids else cell, *content["cells"]]}
