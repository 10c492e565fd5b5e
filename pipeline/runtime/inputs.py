"""Whether the inputs of a step agree, and how often they were used; see the package's docstring.

A model is thus evaluated only on images that were held out when it was trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from pipeline.errors import PipelineError, StepError
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact

COUNTED = "uses/counted"  # exists once the uses recorded by earlier versions are noted

Version = tuple[str, str]  # entity and digest


class _Attempt(NamedTuple):
    step: str
    inputs: frozenset[Version]
    outputs: frozenset[Version]


Makers = dict[Version, list[_Attempt]]  # the different attempts that made an artifact, oldest first


def inputs_agree(runs: Runs, run: RunManifest, inputs: Mapping[str, Artifact]) -> bool:
    """Whether no two inputs of a step in a run descend from different outputs of one earlier step."""
    needed = list(_versions(inputs))
    # the other runs are read only if the run's own attempts cannot account for the inputs
    return len(needed) < 2 or _account_for(needed, {}, _makers([run])) or _account_for(needed, {}, _all(runs, run))


def require_agreement(
    runs: Runs, run: RunManifest, step: str, inputs: Mapping[str, Artifact], chosen: Collection[str] = ()
) -> None:
    """Refuse inputs that do not agree, except those `chosen` by hand, with the first step that is out of date."""
    compared = {entity: artifact for entity, artifact in inputs.items() if entity not in chosen}
    if inputs_agree(runs, run, compared):
        return
    stale, what = _first_stale(run, _ancestors(_versions(compared), _all(runs, run)))
    problem = "an earlier step made them in different attempts, or no record tells what they were made from"
    remedy = f"python step.{run.mode}.py {stale} --run {run.run}, then the steps after it"
    raise StepError(
        f"the inputs of {step} do not agree: {f'{stale} is out of date' if stale else problem}",
        where=f"run {run.run}{what}",
        expected=f"{' and '.join(compared)} that descend from the same attempts",
        remedy=f"{remedy if stale else f'run the steps before {step} again in one run'}; an input that need not agree "
        "is named with --input ENTITY=RUN",
    )


def _first_stale(run: RunManifest, steps: Collection[str]) -> tuple[str, str]:
    """The first of some steps that read another version than the run has now, and which; empty if there is none."""
    for step in dict.fromkeys(record.step for record in run.attempts if record.step in steps):
        record = run.success(step)
        for entity, artifact in record.inputs.items() if record else ():
            now = run.output(entity)
            if now is not None and now.digest != artifact.digest:
                return step, f": {step} read {entity} {artifact.digest[:12]}, the run now has {now.digest[:12]}"
    return "", ""


def chosen_before(runs: Runs, run: RunManifest, inputs: Mapping[str, Artifact]) -> dict[str, str]:
    """The inputs of earlier steps that were named by hand and that these descend from, as `STEP: ENTITY` to source."""
    found: dict[str, str] = {}
    for entity, artifact in inputs.items():
        if maker := _maker(runs, run, entity, artifact):
            found |= maker.chosen_before
            found |= {f"{maker.step}: {name}": source for name, source in maker.chosen.items()}
    return found


def _maker(runs: Runs, run: RunManifest, entity: str, artifact: Artifact) -> StepRecord | None:
    """The record of the attempt that made an artifact: the newest in the run, or the one that the artifact names."""
    own = [r for r in run.attempts if entity in r.outputs and r.outputs[entity].digest == artifact.digest]
    if own:
        return own[-1]
    name, _, attempt = artifact.made_by.partition("/")
    try:
        made = runs.load(name).attempts if attempt else ()
    except PipelineError:  # gone or unreadable; if that matters, `require_agreement` fails
        return None
    return next((record for record in made if record.made_by == attempt), None)


def count_uses(runs: Runs, step: str, inputs: Mapping[str, Artifact]) -> dict[str, int]:
    """For each input, the number of different other inputs that a step has used it with, these included.

    For a test set this is the number of models evaluated on it. Attempts with outputs count, also those that missed
    their quality gate.
    """
    files = runs.store.files
    if not files.exists(COUNTED):  # an earlier version wrote this store
        for record in (record for run in runs.readable() for record in run.attempts):
            note_uses(runs, record)
        files.create(COUNTED, b"{}\n")
    uses = {entity: _use(step, entity, inputs) for entity in inputs}
    return {entity: len({*files.names(folder), others}) for entity, (folder, others) in uses.items()}


def note_uses(runs: Runs, record: StepRecord) -> None:
    """Note for each input of an attempt with outputs which other inputs it was used with, for `count_uses`.

        <root>/uses/STEP/ENTITY/DIGEST/OTHERS        OTHERS is a digest of the other inputs' names and digests

    The notes outlive the run, and counting takes one listing.
    """
    inputs = record.own_inputs
    if record.outputs and not record.reused_from and len(inputs) > 1:
        for entity in inputs:
            runs.store.files.create("/".join(_use(record.step, entity, inputs)), b"{}\n")


def _use(step: str, entity: str, inputs: Mapping[str, Artifact]) -> tuple[str, str]:
    """The folder of an input's notes, and the name of one for these other inputs."""
    others = sorted((name, artifact.digest) for name, artifact in inputs.items() if name != entity)
    return f"uses/{step}/{entity}/{inputs[entity].digest}", hashlib.sha256(json.dumps(others).encode()).hexdigest()


def _versions(artifacts: Mapping[str, Artifact]) -> frozenset[Version]:
    return frozenset((entity, artifact.digest) for entity, artifact in artifacts.items())


def _all(runs: Runs, run: RunManifest) -> Makers:
    return _makers([run, *(other for other in runs.readable() if other.run != run.run)])


def _makers(manifests: Iterable[RunManifest]) -> Makers:
    records = (record for manifest in manifests for record in manifest.attempts)
    attempts = [_Attempt(record.step, _versions(record.inputs), _versions(record.outputs)) for record in records]
    made: Makers = {}
    for attempt in dict.fromkeys(attempts):
        for version in attempt.outputs:
            made.setdefault(version, []).append(attempt)
    return made


def _account_for(needed: list[Version], attempts: Mapping[str, _Attempt], made: Makers) -> bool:
    """Whether one attempt at each step, those given included, can have made all that is needed and its ancestors."""
    while needed:
        *needed, version = needed
        makers = made.get(version, [])
        if any(attempts.get(maker.step) == maker for maker in makers):
            continue
        return any(
            _account_for([*needed, *maker.inputs], {**attempts, maker.step: maker}, made)
            for maker in makers
            if maker.step not in attempts
        )
    return True


def _ancestors(versions: Collection[Version], made: Makers) -> set[str]:
    """The steps that artifacts descend from."""
    steps, seen, waiting = set(), {*versions}, [*versions]
    while waiting:
        for maker in made.get(waiting.pop(), []):
            steps.add(maker.step)
            waiting += maker.inputs - seen
            seen |= maker.inputs
    return steps
