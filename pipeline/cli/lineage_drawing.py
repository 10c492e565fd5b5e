"""A lineage as two trees of text, or as a mermaid flowchart."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.cli.printing import main_metrics, megabytes
from pipeline.runtime.lineage import Key, Lineage, Production
from pipeline.runtime.manifest import GOOD

Tree = Sequence[tuple[str, "Tree"]]  # each line with the lines below it


def lineage_text(lineage: Lineage) -> str:
    """Two trees: the artifacts before the subject, and those after it."""
    subject = lineage.artifacts[lineage.subject]
    lines = [f"{subject.name}  {subject.digest}", f"{subject.files} files, {megabytes(subject.size)}  {subject.url}"]
    shown: set[Key | str] = {lineage.subject}
    makers = lineage.makers[lineage.subject]
    lines += [f"made by {_production_text(each, shown)}" for each in makers]
    outside = "the outside world" if any(each.record for each in makers) else "nothing that can be read"
    lines += ["", "came from", *_tree_lines(_sources(lineage, lineage.subject, shown) or [(outside, [])])]
    lines += ["", "went into", *_tree_lines(_products(lineage, lineage.subject, shown) or [("nothing yet", [])])]
    return "\n".join(lines)


def lineage_mermaid(lineage: Lineage) -> str:
    """A mermaid flowchart of the artifacts, and the attempts between them."""
    names = {key: f"a{number}" for number, key in enumerate(lineage.artifacts)}
    productions = {each.made_by: each for makers in lineage.makers.values() for each in makers}.values()
    lines = ["flowchart LR", *(f'    {names[key]}(["{key[0]}<br>{key[1][:12]}"])' for key in lineage.artifacts)]
    drawn = [each for each in productions if not each.inputs or any(key in names for key in each.inputs)]
    for number, each in enumerate(drawn):
        run, step, attempt = each.made_by.split("/")
        lines.append(f'    w{number}["{step}<br>{run.rpartition("-")[2]}/{attempt}"]')
        lines += [
            f"    {names[key]} -->{'|chosen by hand|' if each.chose(key) else ''} w{number}"
            for key in each.inputs
            if key in names
        ]
        made = [key for key in names if any(maker.made_by == each.made_by for maker in lineage.makers[key])]
        lines += [f"    w{number} --> {names[key]}" for key in made]
    return "\n".join([*lines, f"    style {names[lineage.subject]} stroke-width:3px"])


def _sources(lineage: Lineage, key: Key, shown: set[Key | str]) -> Tree:
    """The inputs of an artifact's makers; where the makers read different inputs, each maker's apart."""
    makers = [each for each in lineage.makers.get(key, []) if each.inputs]
    different = {frozenset(each.inputs): each for each in reversed(makers)}
    if len(different) < 2:
        return [line for each in different.values() for line in _inputs(lineage, each, shown)]
    return [(f"as made by {each.made_by}", _inputs(lineage, each, shown)) for each in reversed(different.values())]


def _inputs(lineage: Lineage, production: Production, shown: set[Key | str]) -> Tree:
    lines: list[tuple[str, Tree]] = []
    for key in production.inputs:
        makers, remark = lineage.makers.get(key, []), "  (chosen by hand)" if production.chose(key) else ""
        again = key in shown
        text = _artifact_text(key, makers, shown, again=again and any(each.inputs for each in makers))
        shown.add(key)
        lines.append((text + remark, [] if again else _sources(lineage, key, shown)))
    return lines


def _products(lineage: Lineage, key: Key, shown: set[Key | str]) -> Tree:
    made: dict[Key, list[Production]] = {}
    for each in lineage.readers.get(key, []):
        for output in each.outputs:
            made.setdefault(output, []).append(each)
    lines: list[tuple[str, Tree]] = []
    for output, makers in made.items():
        again = output in shown
        text = _artifact_text(output, makers, shown, again=again and bool(lineage.readers.get(output)))
        shown.add(output)
        lines.append((text, [] if again else _products(lineage, output, shown)))
    return lines


def _artifact_text(key: Key, makers: Sequence[Production], shown: set[Key | str], *, again: bool) -> str:
    by = f"  {_production_text(makers[0], shown)}" if makers else ""
    more = f"  and {len(makers) - 1} more" if len(makers) > 1 else ""
    return f"{key[0]}  {key[1][:12]}{by}{more}{'  (see above)' if again else ''}"


def _production_text(production: Production, shown: set[Key | str]) -> str:
    """`run/step/attempt`, its status if it is not a success, and where it is first named its main metrics."""
    record = production.record
    if record is None:
        return f"{production.made_by}, whose record cannot be read"
    metrics = [] if production.made_by in shown else main_metrics(record, numbers_only=True)
    shown.add(production.made_by)
    return "  ".join([production.made_by, *([] if record.status in GOOD else [record.status]), *metrics])


def _tree_lines(tree: Tree, indent: str = "") -> list[str]:
    lines = []
    for number, (text, below) in enumerate(tree, 1):
        is_last = number == len(tree)
        lines.append(f"{indent}{'└─ ' if is_last else '├─ '}{text}")
        lines += _tree_lines(below, indent + ("   " if is_last else "│  "))
    return lines
