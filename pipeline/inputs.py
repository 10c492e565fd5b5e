"""How the inputs of a step relate: to each other, and to the inputs of earlier attempts.

If two inputs of a step descend from the same earlier step, they descend from outputs that one attempt at it made. Only
so is a model judged on images that were set apart when it was trained. Artifacts are compared by digest: an attempt
that made the same bytes again is as good as the first.

An input that was named by hand is left out of the comparison at the step that it was named for, and only there: what
that step makes descends from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import StepError
from pipeline.manifest import RunManifest
from pipeline.runs import Runs
from pipeline.store import Artifact

Digests = Mapping[str, str]  # of artifacts by entity


@dataclass(frozen=True)
class _Attempt:
    """An attempt as far as lineage goes: the step, and the digests of what it read and made."""

    step: str
    inputs: Digests
    outputs: Digests


@dataclass(frozen=True)
class Disagreement:
    """Why inputs do not agree.

    Attributes:
        source: The earlier step from whose different outputs they descend.
        entities: The inputs that descend from it.
        stale: The first step of the run that read other outputs than the run has now; empty where there is none.
        after: The steps that work on what it makes, in their order.
        read: What `stale` read, and what the run has now: entity, digest and digest.
    """

    source: str
    entities: tuple[str, ...]
    stale: str = ""
    after: tuple[str, ...] = ()
    read: tuple[str, str, str] = ("", "", "")


def require_agreement(
    runs: Runs, run: RunManifest, step: str, inputs: Mapping[str, Artifact], chosen: Collection[str] = ()
) -> None:
    """Refuse inputs of which two descend from different outputs of one earlier step.

    The run's own attempts are looked at first. Only where they do not settle it are those of all other runs.

    Args:
        runs: Of the store.
        run: The run that the step is to work in.
        step: The step.
        inputs: All of them, pinned.
        chosen: Those of them that were named by hand.

    Raises:
        StepError: They do not agree; says which step is out of date and what to run.
    """
    compared = {entity: artifact for entity, artifact in inputs.items() if entity not in chosen}
    found = disagreement(runs, run, compared)
    if found is None:
        return
    shown = " and ".join(found.entities)
    script = f"python step.{run.mode}.py"
    by_hand = f"to use an input all the same, name it: --input {found.entities[0]}={run.run}"
    if not found.stale:
        raise StepError(
            f"the inputs of {step} do not agree: {shown} descend from different outputs of {found.source}",
            where=f"run {run.run}",
            expected=f"inputs that descend from one attempt at {found.source}, or from equal bytes",
            remedy=f"run {found.source} and the steps after it again; {by_hand}",
        )
    entity, then, now = found.read
    rest = ", then ".join(["", *(name for name in found.after if name != step), step])
    raise StepError(
        f"the inputs of {step} do not agree: {found.stale} is out of date",
        where=f"run {run.run}: {found.stale} read {entity} {then[:12]}, the run now has {now[:12]}",
        expected=f"{shown} that descend from the same outputs of {found.source}",
        remedy=f"{script} {found.stale} --run {run.run}{rest}; {by_hand}",
    )


def disagreement(runs: Runs, run: RunManifest, inputs: Mapping[str, Artifact]) -> Disagreement | None:
    """What inputs disagree on; None where they agree.

    Args:
        runs: Of the store.
        run: The run whose attempts are looked at first.
        inputs: Those that have to agree.
    """
    if len(inputs) < 2:
        return None
    demands = [(entity, artifact.digest, artifact.made_by) for entity, artifact in inputs.items()]
    own = _Attempts([run])
    if own.settle(demands, strict=True):
        return None
    every = _Attempts([run, *(other for other in runs.readable() if other.run != run.run)])
    if every.settle(demands):
        return None
    return _explained(run, inputs, every)


def count_uses(runs: Runs, step: str, inputs: Mapping[str, Artifact]) -> dict[str, int]:
    """Of each input, with how many different other inputs a step has made something of it, these included.

    Of a test set that is how many models it has judged. Attempts that have outputs count, those below their gate too.
    What a removed run counted is kept by the records that came after it.

    Args:
        runs: All of which are looked at.
        step: The step.
        inputs: Of the attempt that is about to start.
    """
    records = [
        record
        for manifest in runs.readable()
        for record in manifest.of(step)
        if record.outputs and not record.reused_from
    ]
    counts = {}
    for entity, artifact in inputs.items():
        same = [r for r in records if entity in r.inputs and r.inputs[entity].digest == artifact.digest]
        met = {_beside(entity, record.inputs) for record in same}
        before = max([len(met), *(record.uses.get(entity, 0) for record in same)])
        counts[entity] = before + (_beside(entity, inputs) not in met)
    return counts


def _beside(entity: str, inputs: Mapping[str, Artifact]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, artifact.digest) for name, artifact in inputs.items() if name != entity))


class _Attempts:
    """The attempts of some runs that made something, by the step and what they made."""

    def __init__(self, manifests: Sequence[RunManifest]) -> None:
        self._writer: dict[str, str] = {}
        self._made: dict[tuple[str, str], list[_Attempt]] = {}
        seen = set()
        for record in (record for manifest in manifests for record in manifest.attempts if record.outputs):
            attempt = _Attempt(record.step, _digests(record.inputs), _digests(record.outputs))
            key = (record.step, *(tuple(sorted(each.items())) for each in (attempt.inputs, attempt.outputs)))
            if key not in seen:
                seen.add(key)
                for entity, digest in attempt.outputs.items():
                    self._writer[entity] = record.step
                    self._made.setdefault((entity, digest), []).append(attempt)

    def makers(self, entity: str, digest: str) -> list[_Attempt]:
        """The attempts that made an artifact, oldest first."""
        return self._made.get((entity, digest), [])

    def settle(self, demands: Sequence[tuple[str, str, str]], *, strict: bool = False) -> bool:
        """Whether one attempt at each step can account for all that is demanded, and for what these attempts read.

        Args:
            demands: Entity, digest, and `run/step/attempt` that is said to have made it, or nothing.
            strict: Whether what no attempt made is a failure; else nothing is known of where it came from, and it may
                be the only thing of its step.
        """
        return self._settled({}, list(demands), strict)

    def _settled(self, chosen: dict[str, _Attempt], demands: list[tuple[str, str, str]], strict: bool) -> bool:
        while demands:
            entity, digest, made_by = demands.pop()
            makers = self.makers(entity, digest)
            step = self._writer.get(entity) or (made_by.split("/")[1] if made_by.count("/") == 2 else "")
            if step in chosen:
                if chosen[step].outputs.get(entity) != digest:
                    return False
                continue
            if not makers:
                if strict:
                    return False
                if step:
                    chosen[step] = _Attempt(step, {}, {entity: digest})
                continue
            return any(
                self._settled(
                    {**chosen, step: maker},
                    [*demands, *((name, value, "") for name, value in maker.inputs.items())],
                    strict,
                )
                for maker in makers
            )
        return True


def _explained(run: RunManifest, inputs: Mapping[str, Artifact], attempts: _Attempts) -> Disagreement:
    """The nearest step that inputs disagree on, and which step of the run has to be run first."""
    above = {entity: list(_above(entity, artifact.digest, attempts)) for entity, artifact in inputs.items()}
    steps = {each.step for walk in above.values() for each in walk}
    order = [step for step in dict.fromkeys(record.step for record in run.attempts) if step in steps]
    split = [step for step in order if len(_versions(step, above.values())) > 1]
    source = split[-1] if split else next(iter(sorted(steps)), "an earlier step")
    entities = tuple(name for name, walk in above.items() if any(each.step == source for each in walk)) or tuple(inputs)
    for step in order:
        record = run.success(step)
        for entity, artifact in record.inputs.items() if record else ():
            now = run.output(entity)
            if now is not None and now.digest != artifact.digest:
                read = (entity, artifact.digest, now.digest)
                return Disagreement(source, entities, step, tuple(_after(step, run)), read)
    return Disagreement(source, entities)


def _above(entity: str, digest: str, attempts: _Attempts) -> Iterator[_Attempt]:
    """The attempts that an artifact descends from, by the newest maker of each artifact, that of itself first."""
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
    """The steps of a run that work on what a step made, directly or not."""
    records = [record for name in dict.fromkeys(r.step for r in run.attempts) if (record := run.success(name))]
    made = {entity for record in records if record.step == stale for entity in record.outputs}
    after: list[str] = []
    for _ in records:  # their order is that of their first attempts, which may not be that of the steps
        for record in records:
            if made & set(record.inputs) and record.step not in after:
                after.append(record.step)
                made |= set(record.outputs)
    return after


def _digests(artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    return {entity: artifact.digest for entity, artifact in artifacts.items()}
