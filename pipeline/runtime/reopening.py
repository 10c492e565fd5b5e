"""Opens the notebook of an attempt for work by hand, with the attempt's inputs and parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.runtime.inputs import count_uses, require_agreement
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.project import Project
from pipeline.runtime.status import code_changes
from pipeline.runtime.step import CONTEXT, StepContext
from pipeline.runtime.transcript import kept_notebook


@dataclass(frozen=True)
class Reopened:
    """A notebook that is ready for Jupyter."""

    notebook: Path
    attempt: str
    fresh: bool  # otherwise it was opened before, and is kept as it is, since there may be work in it
    changed: bool  # whether the notebook in steps/, or the code that it imports, has changed since the attempt


def reopen(project: Project, manifest: RunManifest, record: StepRecord) -> Reopened:
    """Write a notebook whose cells repeat an attempt. Nothing is published from it."""
    store, cache, name = project.runs.store, project.root / ".cache", f"{record.step}.{record.attempt:03}"
    require_agreement(project.runs, manifest, record.step, record.own_inputs, record.chosen)
    for artifact in record.inputs.values():
        store.index(artifact)  # fails now rather than in the middle of the notebook
    content, made_by = kept_notebook(project, manifest, record), f"{manifest.run}/{record.made_by}"
    work = cache / "opened" / manifest.run / name
    work.mkdir(parents=True, exist_ok=True)
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
        uses=record.uses or count_uses(project.runs, record.step, record.own_inputs),
    )
    context.write(work / "context.json")
    notebook = project.root / "out" / "opened" / manifest.run / f"{name}.ipynb"  # Jupyter hides .cache
    fresh = not notebook.is_file()
    if fresh:
        first = f'# {made_by}\nimport os\n\nos.environ["{CONTEXT}"] = {json.dumps(str(work / "context.json"))}'
        cell: dict[str, Any] = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
        cell |= {"source": first, **({"id": "opened"} if content["nbformat_minor"] >= 5 else {})}
        notebook.parent.mkdir(parents=True, exist_ok=True)
        notebook.write_text(
            json.dumps({**content, "cells": [cell, *content["cells"]]}, ensure_ascii=False), encoding="utf-8"
        )
    step = project.steps.get(record.step)
    return Reopened(notebook, made_by, fresh, not step or bool(code_changes(step, record)))
