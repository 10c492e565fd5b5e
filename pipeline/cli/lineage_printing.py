"""A lineage drawn: as two trees of text, or as a mermaid flowchart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.cli.printing import figures
from pipeline.runtime.lineage import Key, Lineage, Work
from pipeline.runtime.manifest import GOOD

FIRST, MORE, LAST = "├─ ", "│  ", "└─ "


@dataclass(frozen=True)
class _Branch:
    """A line of the tree, and the lines below it."""

    text: str
    below: list[_Branch] = field(default_factory=list)


def lineage_text(lineage: Lineage) -> str:
    """As two trees: what it came from, and what was made from it."""
    subject = lineage.artifacts[lineage.subject]
    lines = [f"{subject.name}  {subject.digest}", f"{subject.files} files, {subject.size / 1e6:.1f} MB  {subject.url}"]
    seen: set[Key | str] = {lineage.subject}
    makers = lineage.makers[lineage.subject]
    lines += [f"made by {_maker(work, seen)}" for work in makers]
    outside = "the outside world" if any(work.record for work in makers) else "nothing that can be read"
    lines += ["", "came from", *(_drawn(_sources(lineage, lineage.subject, seen)) or [f"{LAST}{outside}"])]
    lines += ["", "went into", *(_drawn(_products(lineage, lineage.subject, seen)) or [f"{LAST}nothing yet"])]
    return "\n".join(lines)


def lineage_mermaid(lineage: Lineage) -> str:
    """As a mermaid flowchart: artifacts, and the attempts between them."""
    names = {key: f"a{number}" for number, key in enumerate(lineage.artifacts)}
    works = {work.made_by: work for makers in lineage.makers.values() for work in makers}
    lines = ["flowchart LR"]
    lines += [f'    {names[key]}(["{key[0]}<br>{key[1][:12]}"])' for key in lineage.artifacts]
    drawn = [work for work in works.values() if not work.inputs or any(key in names for key in work.inputs)]
    for number, work in enumerate(drawn):
        run, step, attempt = work.made_by.split("/")
        lines.append(f'    w{number}["{step}<br>{run.rpartition("-")[2]}/{attempt}"]')
        lines += [
            f"    {names[key]} -->{'|chosen by hand|' if work.chose(key) else ''} w{number}"
            for key in work.inputs
            if key in names
        ]
        made = [key for key in names if any(one.made_by == work.made_by for one in lineage.makers[key])]
        lines += [f"    w{number} --> {names[key]}" for key in made]
    return "\n".join([*lines, f"    style {names[lineage.subject]} stroke-width:3px"])


def _sources(lineage: Lineage, key: Key, seen: set[Key | str]) -> list[_Branch]:
    """What an artifact came from; where its makers read different things, each maker's apart."""
    makers = [work for work in lineage.makers.get(key, []) if work.inputs]
    ways = {frozenset(work.inputs): work for work in reversed(makers)}
    if len(ways) < 2:
        return [branch for work in ways.values() for branch in _inputs(lineage, work, seen)]
    return [_Branch(f"as made by {work.made_by}", _inputs(lineage, work, seen)) for work in reversed(ways.values())]


def _inputs(lineage: Lineage, work: Work, seen: set[Key | str]) -> list[_Branch]:
    def branch(key: Key) -> _Branch:
        works, aside = lineage.makers.get(key, []), "  (chosen by hand)" if work.chose(key) else ""
        if key in seen:
            return _Branch(_line(key, works, seen, again=any(work.inputs for work in works)) + aside)
        seen.add(key)
        return _Branch(_line(key, works, seen) + aside, _sources(lineage, key, seen))

    return [branch(key) for key in work.inputs]


def _products(lineage: Lineage, key: Key, seen: set[Key | str]) -> list[_Branch]:
    made: dict[Key, list[Work]] = {}
    for work in lineage.readers.get(key, []):
        for output in work.outputs:
            made.setdefault(output, []).append(work)

    def branch(output: Key, works: list[Work]) -> _Branch:
        if output in seen:
            return _Branch(_line(output, works, seen, again=bool(lineage.readers.get(output))))
        seen.add(output)
        return _Branch(_line(output, works, seen), _products(lineage, output, seen))

    return [branch(output, works) for output, works in made.items()]


def _line(key: Key, works: Sequence[Work], seen: set[Key | str], *, again: bool = False) -> str:
    by = f"  {_maker(works[0], seen)}" if works else ""
    more = f"  and {len(works) - 1} more" if len(works) > 1 else ""
    return f"{key[0]}  {key[1][:12]}{by}{more}{'  (see above)' if again else ''}"


def _drawn(branches: Sequence[_Branch], indent: str = "") -> list[str]:
    lines = []
    for number, branch in enumerate(branches, 1):
        last = number == len(branches)
        lines.append(f"{indent}{LAST if last else FIRST}{branch.text}")
        lines += _drawn(branch.below, indent + ("   " if last else MORE))
    return lines


def _maker(work: Work, seen: set[Key | str]) -> str:
    """`run/step/attempt`, how it ended where that was not well, and where it is first named its first metrics."""
    record = work.record
    if record is None:
        return f"{work.made_by}, whose record cannot be read"
    metrics = [] if work.made_by in seen else figures(record, numbers=True)
    seen.add(work.made_by)
    return "  ".join([work.made_by, *([] if record.status in GOOD else [record.status]), *metrics])
