"""The artifacts that an artifact was made from, and those made from it, over all runs.

An artifact is an entity and its digest, however often it was made. A reused attempt produced nothing itself: it stands
for the attempt whose outputs it took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.cli.printing import main_metrics, megabytes
from pipeline.runtime.manifest import GOOD, REUSED, RunManifest, StepRecord
from pipeline.runtime.store.artifact_store import Artifact

Key = tuple[str, str]  # entity and digest
CHOSEN = "  (chosen by hand)"


@dataclass(frozen=True)
class Production:
    """An attempt that made artifacts: `run/step/attempt`, and its record, if that can be read."""

    made_by: str
    record: StepRecord | None

    @property
    def inputs(self) -> dict[Key, str]:
        """The artifacts it read, with a remark where a person named one."""
        read, chosen = (self.record.inputs, self.record.chosen) if self.record else ({}, {})
        return {(name, artifact.digest): CHOSEN if name in chosen else "" for name, artifact in read.items()}

    @property
    def outputs(self) -> dict[Key, str]:
        """The artifacts it made."""
        made = self.record.outputs if self.record else {}
        return {(name, artifact.digest): "" for name, artifact in made.items()}


@dataclass(frozen=True)
class Lineage:
    """An artifact with all before and after it, and the attempts that made each, or made something from it."""

    subject: Key
    artifacts: dict[Key, Artifact]
    makers: dict[Key, list[Production]]
    readers: dict[Key, list[Production]]

    def sources(self, key: Key) -> dict[Key, str]:
        """What an artifact was made from."""
        return {source: remark for each in self.makers.get(key, []) for source, remark in each.inputs.items()}

    def products(self, key: Key) -> dict[Key, str]:
        """What was made from an artifact."""
        return {product: remark for each in self.readers.get(key, []) for product, remark in each.outputs.items()}


def trace(artifact: Artifact, manifests: Sequence[RunManifest]) -> Lineage:
    """Follow an artifact through all runs, in both directions."""
    subject = (artifact.name, artifact.digest)
    lineage = Lineage(subject, {}, {}, {})
    known: dict[Key, Artifact] = {}
    for production in _productions(manifests):
        for key in production.outputs:
            lineage.makers.setdefault(key, []).append(production)
        for key in production.inputs:
            lineage.readers.setdefault(key, []).append(production)
        for one in production.record.artifacts if production.record else ():
            known.setdefault((one.name, one.digest), one)
    known.setdefault(subject, artifact)
    related = _reachable(subject, lineage.sources) | _reachable(subject, lineage.products)
    lineage.artifacts.update({key: one for key, one in known.items() if key in related})
    for key, one in lineage.artifacts.items():
        if one.made_by:  # its maker's run may be gone, or cannot be read
            lineage.makers.setdefault(key, [Production(one.made_by, None)])
    return lineage


def lineage_json(lineage: Lineage) -> dict[str, Any]:
    """Nodes and edges as JSON: an edge leads from an artifact to one made from it, `by` an attempt."""
    nodes, edges = [], []
    for key, artifact in lineage.artifacts.items():
        makers = lineage.makers.get(key, [])
        made_by = [
            {"attempt": each.made_by}
            | ({"status": each.record.status, "metrics": each.record.metrics} if each.record else {})
            for each in makers
        ]
        facts = {"url": artifact.url, "size": artifact.size, "files": artifact.files, "made_by": made_by}
        nodes.append({"id": "/".join(key), "entity": artifact.name, "digest": artifact.digest, **facts})
        edges += [
            {"from": "/".join(source), "to": "/".join(key), "by": each.made_by, "chosen_by_hand": remark == CHOSEN}
            for each in makers
            for source, remark in each.inputs.items()
            if source in lineage.artifacts
        ]
    return {"artifact": "/".join(lineage.subject), "nodes": nodes, "edges": edges}


def lineage_text(lineage: Lineage) -> str:
    """Two trees: the artifacts before the subject, and those after it."""
    subject, makers = lineage.artifacts[lineage.subject], lineage.makers.get(lineage.subject, [])
    seen = {lineage.subject}
    outside = "the outside world" if any(each.record for each in makers) else "nothing that can be read"
    return "\n".join(
        [
            f"{subject.name}  {subject.digest}",
            f"{subject.files} files, {megabytes(subject.size)}  {subject.url}",
            *(f"made by {_production_text(each)}" for each in makers),
            "",
            "came from",
            *(_tree(lineage, lineage.subject, lineage.sources, seen) or [f"└─ {outside}"]),
            "",
            "went into",
            *(_tree(lineage, lineage.subject, lineage.products, seen) or ["└─ nothing yet"]),
        ]
    )


def _productions(manifests: Iterable[RunManifest]) -> list[Production]:
    """Every attempt that made something, once; a reused one only where the original is missing."""
    own: dict[str, StepRecord] = {}
    reused: dict[str, StepRecord] = {}
    for manifest in manifests:
        for record in manifest.attempts:
            if record.outputs and record.status == REUSED:
                reused.setdefault(record.reused_from, record)
            elif record.outputs:
                own[f"{manifest.run}/{record.made_by}"] = record
    found = sorted({**reused, **own}.items(), key=lambda item: item[1].started)
    return [Production(made_by, record) for made_by, record in found]


def _reachable(start: Key, following: Callable[[Key], Iterable[Key]]) -> set[Key]:
    """All keys that are reachable from a key. Each is visited once, so a cycle in the records does no harm."""
    seen, waiting = {start}, [start]
    while waiting:
        new = set(following(waiting.pop())) - seen
        seen |= new
        waiting += new
    return seen


def _tree(
    lineage: Lineage, key: Key, following: Callable[[Key], dict[Key, str]], seen: set[Key], indent: str = ""
) -> list[str]:
    """What follows on an artifact, indented as a tree; what follows on one that was seen is not told again."""
    lines = []
    below = following(key)
    for number, (other, remark) in enumerate(below.items(), 1):
        makers, is_last = lineage.makers.get(other, []), number == len(below)
        by = f"  {_production_text(makers[0])}" if makers else ""
        more = f"  and {len(makers) - 1} more" if len(makers) > 1 else ""
        again = other in seen
        seen.add(other)
        above = "  (see above)" if again and following(other) else ""
        lines.append(f"{indent}{'└─ ' if is_last else '├─ '}{other[0]}  {other[1][:12]}{by}{more}{above}{remark}")
        if not again:
            lines += _tree(lineage, other, following, seen, indent + ("   " if is_last else "│  "))
    return lines


def _production_text(production: Production) -> str:
    """`run/step/attempt`, its status if it is not a success, and its main metrics."""
    record = production.record
    if record is None:
        return f"{production.made_by}, whose record cannot be read"
    status = [] if record.status in GOOD else [record.status]
    return "  ".join([production.made_by, *status, *main_metrics(record, numbers_only=True)])
