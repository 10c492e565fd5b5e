"""The artifacts that an artifact was made from, and those made from it, over all runs.

An artifact is an entity and its digest, however often it was made. A reused attempt produced nothing itself: it stands
for the attempt whose outputs it took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.cli.printing import count, megabytes
from pipeline.runtime.manifest import EARLIER, GOOD, REUSED, RunManifest, StepRecord
from pipeline.runtime.run_summary import main_metrics
from pipeline.runtime.store.artifact_store import Artifact

Key = tuple[str, str]  # entity and digest
Attempts = dict[str, StepRecord | None]  # by `run/step/attempt`, oldest first; None if the record cannot be read
COMPARED = "  (compared with)"
CHOSEN = "  (chosen by hand)"


@dataclass(frozen=True)
class Lineage:
    """An artifact with all before and after it, and the attempts that made each, or made something from it."""

    subject: Key
    artifacts: dict[Key, Artifact] = field(default_factory=dict)
    makers: dict[Key, Attempts] = field(default_factory=dict)
    readers: dict[Key, Attempts] = field(default_factory=dict)

    def sources(self, key: Key) -> dict[Key, str]:
        """What an artifact was made from, with a remark where a person named it, or it was only compared with."""
        records = [record for record in self.makers.get(key, {}).values() if record]
        return {
            (one.name, one.digest): (COMPARED if name.startswith(EARLIER) else "")
            + (CHOSEN if name in record.chosen else "")
            for record in records
            for name, one in record.inputs.items()
        }

    def products(self, key: Key) -> dict[Key, str]:
        """What was made from an artifact."""
        return {one: "" for record in self.readers.get(key, {}).values() if record for one in _keys(record.outputs)}


def trace(artifact: Artifact, manifests: Sequence[RunManifest]) -> Lineage:
    """Follow an artifact through all runs, in both directions."""
    lineage = Lineage((artifact.name, artifact.digest))
    known: dict[Key, Artifact] = {}
    for made_by, record in _attempts(manifests):
        for key in _keys(record.outputs):
            lineage.makers.setdefault(key, {})[made_by] = record
        for key in _keys(record.inputs):
            lineage.readers.setdefault(key, {})[made_by] = record
        for one in record.artifacts:
            known.setdefault((one.name, one.digest), one)
    known.setdefault(lineage.subject, artifact)
    related = _reachable(lineage.subject, lineage.sources) | _reachable(lineage.subject, lineage.products)
    lineage.artifacts.update({key: one for key, one in known.items() if key in related})
    for key, one in lineage.artifacts.items():
        lineage.makers.setdefault(key, {one.made_by: None} if one.made_by else {})  # its run may be gone
    return lineage


def lineage_json(lineage: Lineage) -> dict[str, Any]:
    """Nodes and edges as JSON: an edge leads from an artifact to one made from it, `by` an attempt."""
    nodes, edges = [], []
    for key, artifact in lineage.artifacts.items():
        made_by = []
        for attempt, record in lineage.makers[key].items():
            outcome = {"status": record.status, "metrics": record.metrics} if record else {}
            made_by.append({"attempt": attempt, **outcome})
            for name, one in record.inputs.items() if record else ():
                if record and (source := (one.name, one.digest)) in lineage.artifacts:
                    edge: dict[str, Any] = {"from": "/".join(source), "to": "/".join(key), "by": attempt}
                    edge |= {"chosen_by_hand": name in record.chosen, "is_compared_with": name.startswith(EARLIER)}
                    edges.append(edge)
        facts = {"url": artifact.url, "size": artifact.size, "files": artifact.files, "made_by": made_by}
        nodes.append({"id": "/".join(key), "entity": artifact.name, "digest": artifact.digest, **facts})
    return {"artifact": "/".join(lineage.subject), "nodes": nodes, "edges": edges}


def lineage_text(lineage: Lineage) -> str:
    """Two trees: the artifacts before the subject, and those after it; and the metrics of the attempts in them."""
    subject, makers = lineage.artifacts[lineage.subject], lineage.makers[lineage.subject]
    lines = [f"{subject.name}  {subject.digest}", f"{_size(subject)}  {subject.url}"]
    lines += [f"made by {_attempt_text(*each)}" for each in makers.items()]
    outside = "the outside world" if any(makers.values()) else "nothing that can be read"
    seen = {lineage.subject}
    lines += ["", "came from", *(_tree(lineage, lineage.subject, lineage.sources, seen) or [f"└─ {outside}"])]
    lines += ["", "went into", *(_tree(lineage, lineage.subject, lineage.products, seen) or ["└─ nothing yet"])]
    return "\n".join([*lines, *_metrics(lineage)])


def _metrics(lineage: Lineage) -> list[str]:
    """A line for each attempt with metrics, oldest first: they are the attempt's, not one of its outputs'."""
    found = [item for key in lineage.artifacts for item in lineage.makers[key].items()]
    attempts = {made_by: record for made_by, record in found if record}
    oldest_first = sorted(attempts.items(), key=lambda item: item[1].started)
    metrics = {made_by: main_metrics(record, numbers_only=True) for made_by, record in oldest_first}
    lines = [f"  {made_by}  {'  '.join(each)}" for made_by, each in metrics.items() if each]
    return ["", "metrics of the attempts", *lines] if lines else []


def _attempts(manifests: Iterable[RunManifest]) -> list[tuple[str, StepRecord]]:
    """Every attempt that made something, once; a reused one only where the original is missing."""
    own: dict[str, StepRecord] = {}
    reused: dict[str, StepRecord] = {}
    for manifest in manifests:
        for record in manifest.attempts:
            if record.outputs and record.status == REUSED:
                reused.setdefault(record.reused_from, record)
            elif record.outputs:
                own[f"{manifest.run}/{record.made_by}"] = record
    return sorted({**reused, **own}.items(), key=lambda item: item[1].started)


def _keys(artifacts: Mapping[str, Artifact]) -> list[Key]:
    return [(artifact.name, artifact.digest) for artifact in artifacts.values()]


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
        makers, is_last = lineage.makers[other], number == len(below)
        by = "".join(f"  {_attempt_text(*each)}" for each in list(makers.items())[:1])
        more = f"  and {len(makers) - 1} more" if len(makers) > 1 else ""
        again = other in seen
        seen.add(other)
        above = "  (see above)" if again and following(other) else ""
        artifact = f"{other[0]}  {other[1][:12]}  {_size(lineage.artifacts[other])}"
        lines.append(f"{indent}{'└─ ' if is_last else '├─ '}{artifact}{by}{more}{above}{remark}")
        if not again:
            lines += _tree(lineage, other, following, seen, indent + ("   " if is_last else "│  "))
    return lines


def _size(artifact: Artifact) -> str:
    return f"{count(artifact.files, 'file')}, {megabytes(artifact.size)}"


def _attempt_text(made_by: str, record: StepRecord | None) -> str:
    """`run/step/attempt`, and its status if it is not a success."""
    if record is None:
        return f"{made_by}, whose record cannot be read"
    return made_by if record.status in GOOD else f"{made_by}  {record.status}"
