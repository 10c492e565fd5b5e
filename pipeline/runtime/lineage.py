"""The artifacts that an artifact was made from, and those made from it, over all runs.

An artifact is an entity and its digest, however often it was made. A reused attempt produced nothing itself: it stands
for the attempt whose outputs it took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.runtime.manifest import REUSED, RunManifest, StepRecord
from pipeline.runtime.store.artifact_store import Artifact

Key = tuple[str, str]  # entity and digest


@dataclass(frozen=True)
class Production:
    """An attempt that made artifacts.

    Attributes:
        made_by: `run/step/attempt`.
        record: Its record; None where its run is gone or cannot be read.
    """

    made_by: str
    record: StepRecord | None

    @property
    def inputs(self) -> tuple[Key, ...]:
        """The artifacts it read."""
        return _keys(self.record.inputs.values()) if self.record else ()

    @property
    def outputs(self) -> tuple[Key, ...]:
        """The artifacts it made."""
        return _keys(self.record.outputs.values()) if self.record else ()

    def chose(self, key: Key) -> bool:
        """Whether it read this input because a person named it."""
        return self.record is not None and key in self.inputs and key[0] in self.record.chosen


@dataclass(frozen=True)
class Lineage:
    """One artifact with everything before and after it.

    Attributes:
        subject: The artifact.
        artifacts: The subject, its ancestors and its descendants.
        makers: For each artifact the attempts that made it, oldest first.
        readers: For each artifact the attempts that made something from it, oldest first.
    """

    subject: Key
    artifacts: dict[Key, Artifact]
    makers: dict[Key, list[Production]]
    readers: dict[Key, list[Production]]


def trace(artifact: Artifact, manifests: Sequence[RunManifest]) -> Lineage:
    """Follow an artifact through all runs, in both directions."""
    known: dict[Key, Artifact] = {}
    makers: dict[Key, list[Production]] = {}
    readers: dict[Key, list[Production]] = {}
    for production in _productions(manifests):
        for key in production.outputs:
            makers.setdefault(key, []).append(production)
        for key in production.inputs:
            readers.setdefault(key, []).append(production)
        for one in production.record.artifacts if production.record else ():
            known.setdefault((one.name, one.digest), one)
    subject = (artifact.name, artifact.digest)
    known.setdefault(subject, artifact)
    before = _reachable(subject, lambda key: (name for each in makers.get(key, []) for name in each.inputs))
    after = _reachable(subject, lambda key: (name for each in readers.get(key, []) for name in each.outputs))
    related = {key: known[key] for key in known if key in before | after}
    for key, one in related.items():
        if key not in makers and one.made_by:  # its maker's run is gone or cannot be read
            makers[key] = [Production(one.made_by, None)]
    return Lineage(
        subject, related, {key: makers.get(key, []) for key in related}, {key: readers.get(key, []) for key in after}
    )


def lineage_json(lineage: Lineage) -> dict[str, Any]:
    """Nodes and edges as JSON: an edge leads from an artifact to one made from it, `by` an attempt."""
    nodes = [
        {
            "id": "/".join(key),
            "entity": artifact.name,
            "digest": artifact.digest,
            "url": artifact.url,
            "size": artifact.size,
            "files": artifact.files,
            "made_by": [_production_json(each) for each in lineage.makers[key]],
        }
        for key, artifact in lineage.artifacts.items()
    ]
    edges = [
        {"from": "/".join(source), "to": "/".join(key), "by": each.made_by, "chosen_by_hand": each.chose(source)}
        for key in lineage.artifacts
        for each in lineage.makers[key]
        for source in each.inputs
        if source in lineage.artifacts
    ]
    return {"artifact": "/".join(lineage.subject), "nodes": nodes, "edges": edges}


def _productions(manifests: Iterable[RunManifest]) -> list[Production]:
    """Every attempt that made something, once; a reused one only where the original is missing."""
    own: dict[str, Production] = {}
    reused: dict[str, Production] = {}
    for manifest in manifests:
        for record in manifest.attempts:
            if record.outputs and record.status == REUSED:
                reused.setdefault(record.reused_from, Production(record.reused_from, record))
            elif record.outputs:
                made_by = f"{manifest.run}/{record.made_by}"
                own[made_by] = Production(made_by, record)
    return sorted({**reused, **own}.values(), key=lambda each: each.record.started if each.record else "")


def _reachable(start: Key, following: Callable[[Key], Iterable[Key]]) -> set[Key]:
    """All keys that are reachable from a key. Each is visited once, so a cycle in the records does no harm."""
    seen, waiting = {start}, [start]
    while waiting:
        new = set(following(waiting.pop())) - seen
        seen |= new
        waiting += new
    return seen


def _production_json(production: Production) -> dict[str, Any]:
    record = production.record
    known = {"status": record.status, "metrics": record.metrics} if record else {}
    return {"attempt": production.made_by, **known}


def _keys(artifacts: Iterable[Artifact]) -> tuple[Key, ...]:
    return tuple((artifact.name, artifact.digest) for artifact in artifacts)
