"""What an artifact came from and what was made from it, over all runs.

An artifact is an entity and its digest, however often it was made. What made it is an attempt that ran: a reused one
did nothing of its own, and stands for the one whose outputs it took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.runtime.manifest import REUSED, RunManifest, StepRecord
from pipeline.runtime.store.artifact_store import Artifact

Key = tuple[str, str]  # entity and digest


@dataclass(frozen=True)
class Work:
    """An attempt that made something.

    Attributes:
        made_by: `run/step/attempt`.
        record: What is known of it; None where it is only named, and its run is gone or cannot be read.
    """

    made_by: str
    record: StepRecord | None

    @property
    def inputs(self) -> tuple[Key, ...]:
        """What it read."""
        return _keys(self.record.inputs.values()) if self.record else ()

    def chose(self, key: Key) -> bool:
        """Whether it read this because a person named it."""
        return self.record is not None and key in self.inputs and key[0] in self.record.chosen

    @property
    def outputs(self) -> tuple[Key, ...]:
        """What it made."""
        return _keys(self.record.outputs.values()) if self.record else ()


@dataclass(frozen=True)
class Lineage:
    """One artifact with everything before and after it.

    Attributes:
        subject: The artifact.
        artifacts: It, what it came from, and what was made from it.
        makers: Of each artifact the attempts that made it, oldest first.
        readers: Of each artifact the attempts that made something of it, oldest first.
    """

    subject: Key
    artifacts: dict[Key, Artifact]
    makers: dict[Key, list[Work]]
    readers: dict[Key, list[Work]]


def trace(artifact: Artifact, manifests: Sequence[RunManifest]) -> Lineage:
    """Follow an artifact through all runs, both ways.

    Args:
        artifact: Where to start.
        manifests: The runs, oldest first.
    """
    works = _works(manifests)
    known: dict[Key, Artifact] = {}
    makers: dict[Key, list[Work]] = {}
    readers: dict[Key, list[Work]] = {}
    for work in works:
        for key in work.outputs:
            makers.setdefault(key, []).append(work)
        for key in work.inputs:
            readers.setdefault(key, []).append(work)
        record = work.record
        for one in record.artifacts if record else ():
            known.setdefault((one.name, one.digest), one)
    subject = (artifact.name, artifact.digest)
    known.setdefault(subject, artifact)
    before = _reached(subject, lambda key: (i for work in makers.get(key, []) for i in work.inputs))
    after = _reached(subject, lambda key: (o for work in readers.get(key, []) for o in work.outputs))
    told = {key: known[key] for key in known if key in before | after}
    for key, one in told.items():
        if key not in makers and one.made_by:  # the run that made it is gone or cannot be read
            makers[key] = [Work(one.made_by, None)]
    return Lineage(
        subject,
        told,
        {key: makers.get(key, []) for key in told},
        {key: readers.get(key, []) for key in after},
    )


def lineage_json(lineage: Lineage) -> dict[str, Any]:
    """As nodes and edges: an edge leads from an artifact to one made of it, `by` an attempt."""
    nodes = [
        {
            "id": _id(key),
            "entity": artifact.name,
            "digest": artifact.digest,
            "url": artifact.url,
            "size": artifact.size,
            "files": artifact.files,
            "made_by": [_told(work) for work in lineage.makers[key]],
        }
        for key, artifact in lineage.artifacts.items()
    ]
    edges = [
        {"from": _id(source), "to": _id(key), "by": work.made_by, "chosen_by_hand": work.chose(source)}
        for key in lineage.artifacts
        for work in lineage.makers[key]
        for source in work.inputs
        if source in lineage.artifacts
    ]
    return {"artifact": _id(lineage.subject), "nodes": nodes, "edges": edges}


def _works(manifests: Iterable[RunManifest]) -> list[Work]:
    """Every attempt that made something, once; of a reused one whose original is not there, what it knows of it."""
    own: dict[str, Work] = {}
    borrowed: dict[str, Work] = {}
    for manifest in manifests:
        for record in manifest.attempts:
            if not record.outputs:
                continue
            if record.status == REUSED:
                borrowed.setdefault(record.reused_from, Work(record.reused_from, record))
            else:
                made_by = f"{manifest.run}/{record.step}/{record.attempt}"
                own[made_by] = Work(made_by, record)
    return sorted({**borrowed, **own}.values(), key=lambda work: work.record.started if work.record else "")


def _reached(start: Key, onward: Callable[[Key], Iterable[Key]]) -> set[Key]:
    """All that can be got at from a key; each once, so that a record that names itself as its input does no harm."""
    seen, left = {start}, [start]
    while left:
        for key in onward(left.pop()):
            if key not in seen:
                seen.add(key)
                left.append(key)
    return seen


def _told(work: Work) -> dict[str, Any]:
    known = {"status": work.record.status, "metrics": work.record.metrics} if work.record else {}
    return {"attempt": work.made_by, **known}


def _keys(artifacts: Iterable[Artifact]) -> tuple[Key, ...]:
    return tuple((artifact.name, artifact.digest) for artifact in artifacts)


def _id(key: Key) -> str:
    return f"{key[0]}/{key[1]}"
