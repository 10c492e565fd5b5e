"""The declaration of a step, read from its notebook without running it.

The cell tagged `parameters` declares the step's parameters, see `parameters`. The cell tagged `interface` holds
`Step.open(name, reads=[...], writes=[...])` with literals, and before it checks of parameters, see `parameter_checks`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, MissingError, StepError, UsageError, did_you_mean
from pipeline.runtime.code import imported_modules
from pipeline.runtime.manifest import EARLIER
from pipeline.runtime.parameter_checks import ParameterCheck, read_checks
from pipeline.runtime.parameters import LINK, Parameter, parse, read_parameters
from pipeline.runtime.store.artifact_store import NAME

KERNEL = "python3"


@dataclass(frozen=True)
class StepNotebook:
    """A step as its file, NAME.ipynb, declares it."""

    name: str
    path: Path
    title: str  # the first line of its first markdown cell
    digest: str  # SHA-256 of the cells' sources, which outputs and metadata do not change
    parameters: dict[str, Parameter]
    reads: tuple[str, ...]  # entities
    writes: tuple[str, ...]
    earlier: tuple[str, ...]  # of those that it reads, what it compares with that of an earlier run
    imports: tuple[str, ...]  # modules of this package
    checks: tuple[ParameterCheck, ...]
    content: str = field(repr=False)  # the file's text

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of all its inputs: what it reads, and what it compares that with."""
        return (*self.reads, *(EARLIER + entity for entity in self.earlier))

    def parameter(self, name: str) -> Parameter:
        """The parameter of a name; UsageError with the nearest name where there is none."""
        if name not in self.parameters:
            see_help = f"see: python step.dev.py {self.name} --help"
            raise UsageError(
                f"{self.name} has no parameter '{name}'",
                where=self.path,
                expected="one of " + ", ".join(self.parameters),
                remedy=did_you_mean(name, self.parameters, otherwise=see_help, cutoff=0.4),
            )
        return self.parameters[name]

    def resolve(self, values: dict[str, Any]) -> dict[str, Any]:
        """All parameters: the defaults with the given values laid over them, checked."""
        for name in values:
            self.parameter(name)
        resolved = {
            name: parameter.check(values.get(name, parameter.default), self.name)
            for name, parameter in self.parameters.items()
        }
        for each in self.checks:
            each.check(resolved, self.parameters, self.name, self.path)
        return resolved


def read_notebook(path: Path) -> StepNotebook:
    """Read a step's notebook; DataError if a cell does not declare what it should."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        cells = [
            (cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in content["cells"]
        ]
        kernel = content["metadata"].get("kernelspec", {"name": KERNEL}).get("name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("the file is not a Jupyter notebook", where=path, expected="nbformat 4 JSON") from error
    if kernel != KERNEL:
        raise StepError(
            f"the notebook is for the kernel '{kernel}'",
            where=path,
            expected=f"'{KERNEL}', which is the Python that runs the pipeline",
            remedy="open it in Jupyter, choose the kernel 'Python 3 (ipykernel)' and save",
        )
    if not path.stem.isidentifier():
        expected = "a name of letters, digits and _"
        raise DataError(f"'{path.stem}' cannot name a step", where=path, expected=expected, remedy="rename it")
    code = [source for kind, source, _ in cells if kind == "code"]
    titles = [source.strip().splitlines()[0] for kind, source, _ in cells if kind == "markdown" and source.strip()]
    trees = [parse(source, path) for source in code]
    interface = _tagged(cells, "interface", path)
    reads, writes, earlier = _interface(interface, path)
    parameters = read_parameters(_tagged(cells, "parameters", path), path)
    return StepNotebook(
        name=path.stem,
        path=path,
        title=titles[0].lstrip("# ") if titles else path.stem,
        digest=hashlib.sha256(json.dumps([(kind, source) for kind, source, _ in cells]).encode()).hexdigest(),
        parameters=parameters,
        reads=reads,
        writes=writes,
        earlier=earlier,
        imports=tuple(sorted({name for tree in trees for name in imported_modules(tree)})),
        checks=read_checks(parse(interface, path), trees, parameters, path),
        content=text,
    )


def read_steps(folder: Path) -> dict[str, StepNotebook]:
    """The steps in a folder, in an order in which they can run."""
    waiting = {path.stem: read_notebook(path) for path in sorted(folder.glob("*.ipynb"))}
    if not waiting:
        raise MissingError("there are no steps", where=folder, expected="notebooks, one a step")
    writers: dict[str, str] = {}
    for step in waiting.values():
        for entity in step.writes:
            if entity in writers:
                raise DataError(f"{writers[entity]} and {step.name} both write {entity}", where=step.path)
            writers[entity] = step.name
    for step in waiting.values():
        for entity in step.reads:
            if entity not in writers:
                raise DataError(f"{step.name} reads {entity}, and no step writes it", where=step.path)
    for step, parameter, link in _links(waiting):
        owner = waiting.get(link["step"])
        other = owner.parameters.get(link["name"]) if owner else None
        if other is None or other.type != parameter.type:
            raise DataError(
                f"the comment of '{parameter.name}' names what is not there: {parameter.help}",
                where=step.path,
                expected="STEP.PARAMETER of the same type behind the colon",
            )
    ordered: dict[str, StepNotebook] = {}
    while waiting:
        ready = [step for step in waiting.values() if all(writers[entity] in ordered for entity in step.reads)]
        if not ready:
            raise DataError(f"the steps {', '.join(waiting)} wait for each other", where=folder)
        ordered[ready[0].name] = waiting.pop(ready[0].name)
    return ordered


def follow_links(
    steps: Mapping[str, StepNotebook], given: Mapping[str, Mapping[str, Any]], resolved: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """All steps' parameters, in which linked parameters that are not set have their source's value.

    `given` are the values that a config or command line sets, `resolved` all parameters, defaults included.
    """
    linked = {name: dict(values) for name, values in resolved.items()}
    for step, parameter, link in _links(steps):
        if parameter.name not in given.get(step.name, {}) and resolved[step.name][link["own"]] == link["value"]:
            linked[step.name][parameter.name] = resolved[link["step"]][link["name"]]
    return linked


def _links(steps: Mapping[str, StepNotebook]) -> Iterator[tuple[StepNotebook, Parameter, re.Match[str]]]:
    for step in steps.values():
        for parameter in step.parameters.values():
            link = LINK.search(parameter.help)
            if link and link["own"] in step.parameters:  # or a comment that only reads like a link
                yield step, parameter, link


def _tagged(cells: list[tuple[str, str, list[str]]], tag: str, path: Path) -> str:
    found = [source for kind, source, tags in cells if kind == "code" and tag in tags]
    if len(found) != 1:
        raise DataError(
            f"the notebook has {len(found)} cells tagged '{tag}'",
            where=path,
            expected="exactly one",
            remedy="tag it in Jupyter: property inspector, Cell Tags",
        )
    return found[0]


def _interface(source: str, path: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """What the step reads and writes, and compares with that of an earlier run."""
    calls = (node for node in ast.walk(parse(source, path)) if isinstance(node, ast.Call))
    with suppress(ValueError, KeyError, IndexError, TypeError, StopIteration):
        opening = next(call for call in calls if ast.unparse(call.func) == "Step.open")
        given = {each.arg: ast.literal_eval(each.value) for each in opening.keywords}
        reads, writes, earlier = given["reads"], given["writes"], given.get("earlier", [])
        names = [*reads, *writes]
        are_lists = all(isinstance(each, list) for each in (reads, writes, earlier))
        are_names = all(NAME.fullmatch(name) and not name.startswith(EARLIER) for name in names)
        is_own = ast.literal_eval(opening.args[0]) == path.stem
        if is_own and are_lists and are_names and len({*names}) == len(names) and {*earlier} <= {*reads}:
            return tuple(reads), tuple(writes), tuple(earlier)
    raise DataError(
        "the interface cell does not open the step",
        where=path,
        expected=f'step = Step.open("{path.stem}", reads=[...], writes=[...]) with literal names, none of them twice; '
        "earlier=[...] may name some of those that it reads",
    )
