"""What a step compares its inputs with: those of the newest earlier run in which every step succeeded.

A run without the step's own version of the entity counts, so a second run of the same model is still compared with the
model before. The complete runs are indexed by what they made, so that finding one takes one listing:

    <root>/complete/PIPELINE/ENTITY/RUN.DIGEST
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.errors import PipelineError
from pipeline.runtime.manifest import EARLIER, RunManifest
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact


def find_earlier(
    runs: Runs, pipeline: str, entities: Sequence[str], inputs: Mapping[str, Artifact], *, before: str
) -> dict[str, Artifact]:
    """What a step compares some `entities` of its own `inputs` with, named `earlier_ENTITY`; what there is of it.

    It comes from runs of the pipeline that were opened before the run `before`.
    """
    found = {}
    for entity in entities:
        if artifact := _newest_other(runs, f"complete/{pipeline}/{entity}", inputs[entity], before):
            found[EARLIER + entity] = artifact
    return found


def note_complete(runs: Runs, steps: Mapping[str, StepNotebook], run: RunManifest) -> None:
    """Index a run in which every step has succeeded, for `find_earlier`; any other is left out."""
    if all(run.success(name) for name in steps):
        for entity in {entity for step in steps.values() for entity in step.earlier}:
            if artifact := run.output(entity):
                runs.store.files.create(f"complete/{run.pipeline}/{entity}/{run.run}.{artifact.digest}", b"{}\n")


def _newest_other(runs: Runs, folder: str, own: Artifact, before: str) -> Artifact | None:
    for run, digest in _newest_first(runs.store.files.names(folder)):
        if run < before and digest != own.digest:
            try:
                artifact = runs.load(run).output(own.name)
            except PipelineError:  # it was removed, or cannot be read
                continue
            if artifact and artifact.digest == digest and runs.store.has(artifact):
                return artifact
    return None


def _newest_first(names: Iterable[str]) -> list[tuple[str, str]]:
    pairs = [name.partition(".") for name in names]
    return sorted(((run, digest) for run, _, digest in pairs), reverse=True)
