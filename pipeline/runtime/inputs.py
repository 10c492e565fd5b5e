"""Whether the inputs of a step agree, and how often they were used.

If two inputs of a step descend from the same earlier step, they must descend from the outputs of one attempt at it.
This guarantees that a model is evaluated on images that were held out when it was trained. Artifacts are compared by
digest, so an attempt that made the same bytes again is as good as the first.

An input named by hand is not compared at the step it was named for; that step's outputs descend from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import PipelineError, StepError
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact

COUNTED = "uses/counted"  # exists once the uses recorded by earlier versions are noted

Digests = Mapping[str, str]  # of artifacts by entity


@dataclass(frozen=True)
class _Attempt:
    """The lineage of an attempt: its step, and the digests of its inputs and outputs."""

    step: str
    inputs: Digests
    outputs: Digests


def inputs_agree(runs: Runs, run: RunManifest, inputs: Mapping[str, Artifact]) -> bool:
    """Whether no two inputs of a step in a run descend from different outputs of one earlier step."""
    return _unaccounted(runs, run, inputs) is None


def require_agreement(
    runs: Runs, run: RunManifest, step: str, inputs: Mapping[str, Artifact], chosen: Collection[str] = ()
) -> None:
    """Refuse inputs that do not agree, except those `chosen` by hand.

    Raises:
        StepError: Names the step that is out of date and what to run.
    """
    compared = {entity: artifact for entity, artifact in inputs.items() if entity not in chosen}
    attempts = _unaccounted(runs, run, compared)
    if attempts:
        problem, where, expected, remedy = _explained(run, step, compared, attempts)
        raise StepError(
            f"the inputs of {step} do not agree: {problem}",
            where=f"run {run.run}{where}",
            expected=expected,
            remedy=f"{remedy}; an input that need not agree is named with --input ENTITY=RUN",
        )


def _unaccounted(runs: Runs, run: RunManifest, inputs: Mapping[str, Artifact]) -> _Attempts | None:
    """The attempts of all runs if they cannot account for the inputs, otherwise None.

    The other runs are read only if the run's own attempts cannot.
    """
    needed = list(_digests(inputs).items())
    if len(needed) < 2 or _Attempts([run]).account_for(needed):
        return None
    every = _Attempts([run, *(other for other in runs.readable() if other.run != run.run)])
    return None if every.account_for(needed) else every


def chosen_before(runs: Runs, run: RunManifest, inputs: Mapping[str, Artifact]) -> dict[str, str]:
    """The inputs of earlier steps that were named by hand and that these descend from, as `STEP: ENTITY` to source."""
    found: dict[str, str] = {}
    for entity, artifact in inputs.items():
        maker = _maker(runs, run, entity, artifact)
        if maker:
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
    return {entity: len({*files.names(_uses(step, entity, inputs)), _others(entity, inputs)}) for entity in inputs}


def note_uses(runs: Runs, record: StepRecord) -> None:
    """Note for each input of an attempt with outputs which other inputs it was used with, for `count_uses`.

        <root>/uses/STEP/ENTITY/DIGEST/OTHERS        OTHERS is a digest of the other inputs' names and digests

    The notes outlive the run, and counting takes one listing.
    """
    if record.outputs and not record.reused_from and len(record.inputs) > 1:
        for entity in record.inputs:
            key = f"{_uses(record.step, entity, record.inputs)}/{_others(entity, record.inputs)}"
            runs.store.files.create(key, b"{}\n")


def _uses(step: str, entity: str, inputs: Mapping[str, Artifact]) -> str:
    return f"uses/{step}/{entity}/{inputs[entity].digest}"


def _others(entity: str, inputs: Mapping[str, Artifact]) -> str:
    others = sorted((name, artifact.digest) for name, artifact in inputs.items() if name != entity)
    return hashlib.sha256(json.dumps(others).encode()).hexdigest()


class _Attempts:
    """The attempts of some runs, by the artifacts they made."""

    def __init__(self, manifests: Sequence[RunManifest]) -> None:
        self._made: dict[tuple[str, str], list[_Attempt]] = {}
        seen = set()
        for record in (record for manifest in manifests for record in manifest.attempts if record.outputs):
            attempt = _Attempt(record.step, _digests(record.inputs), _digests(record.outputs))
            key = (record.step, *(tuple(sorted(each.items())) for each in (attempt.inputs, attempt.outputs)))
            if key not in seen:
                seen.add(key)
                for made in attempt.outputs.items():
                    self._made.setdefault(made, []).append(attempt)

    def makers(self, entity: str, digest: str) -> list[_Attempt]:
        """The attempts that made an artifact."""
        return self._made.get((entity, digest), [])

    def account_for(self, needed: Sequence[tuple[str, str]]) -> bool:
        """Whether one attempt at each step can have made all needed (entity, digest) pairs, and their ancestors."""
        return self._complete({}, list(needed))

    def _complete(self, attempts: dict[str, _Attempt], needed: list[tuple[str, str]]) -> bool:
        """Complete a choice of attempts by step, with backtracking."""
        while needed:
            entity, digest = needed.pop()
            makers = self.makers(entity, digest)
            if any(attempts.get(maker.step) == maker for maker in makers):
                continue
            return any(
                self._complete({**attempts, maker.step: maker}, [*needed, *maker.inputs.items()])
                for maker in makers
                if maker.step not in attempts
            )
        return True


def _explained(
    run: RunManifest, step: str, inputs: Mapping[str, Artifact], attempts: _Attempts
) -> tuple[str, str, str, str]:
    """The problem, the place in the run, what is expected, and the remedy, which names the first step to run."""
    above = {entity: list(_above(entity, artifact.digest, attempts)) for entity, artifact in inputs.items()}
    read_by = {each for walk in above.values() for maker in walk for each in maker.inputs.items()}
    for entity, digest in sorted({*_digests(inputs).items(), *read_by}):
        if not attempts.makers(entity, digest):
            problem = f"no record tells what {entity} {digest[:12]} was made from"
            expected = f"{' and '.join(inputs)} that descend from artifacts with a record in this store"
            return problem, "", expected, "make it again in this run"
    steps = {each.step for walk in above.values() for each in walk}
    order = [name for name in dict.fromkeys(record.step for record in run.attempts) if name in steps]
    split = [name for name in order if len(_versions(name, above.values())) > 1]
    source = split[-1] if split else next(iter(sorted(steps)), "an earlier step")
    entities = [name for name, walk in above.items() if any(each.step == source for each in walk)] or list(inputs)
    expected = f"{' and '.join(entities)} that descend from the same outputs of {source}"
    for stale in order:
        record = run.success(stale)
        for entity, artifact in record.inputs.items() if record else ():
            now = run.output(entity)
            if now is not None and now.digest != artifact.digest:
                where = f": {stale} read {entity} {artifact.digest[:12]}, the run now has {now.digest[:12]}"
                rest = ", then ".join(["", *(name for name in _after(stale, run) if name != step), step])
                remedy = f"python step.{run.mode}.py {stale} --run {run.run}{rest}"
                return f"{stale} is out of date", where, expected, remedy
    problem = f"{' and '.join(entities)} descend from different outputs of {source}"
    return problem, "", expected, f"run {source} and the steps after it again"


def _above(entity: str, digest: str, attempts: _Attempts) -> Iterator[_Attempt]:
    """The attempts that an artifact descends from, its own first; each artifact's newest maker counts."""
    seen, left = set(), [(entity, digest)]
    while left:
        key = left.pop()
        if key in seen:
            continue
        seen.add(key)
        for maker in attempts.makers(*key)[-1:]:
            yield maker
            left += maker.inputs.items()


def _versions(step: str, walks: Iterable[Sequence[_Attempt]]) -> set[tuple[tuple[str, str], ...]]:
    return {tuple(sorted(each.outputs.items())) for walk in walks for each in walk if each.step == step}


def _after(stale: str, run: RunManifest) -> list[str]:
    """The steps of a run that depend on a step, directly or not."""
    records = [record for name in dict.fromkeys(r.step for r in run.attempts) if (record := run.success(name))]
    made = {entity for record in records if record.step == stale for entity in record.outputs}
    after: list[str] = []
    for _ in records:  # they are in the order of their first attempts, which may not be the steps' order
        for record in records:
            if made & set(record.inputs) and record.step not in after:
                after.append(record.step)
                made |= set(record.outputs)
    return after


def _digests(artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    return {entity: artifact.digest for entity, artifact in artifacts.items()}
