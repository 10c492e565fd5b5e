"""What a step's notebook says of itself, read from the file without running it.

The cell tagged `parameters` is the schema of the step's parameters: `name: type = default  # help`. The cell tagged
`interface` holds `Step.open(name, reads=[...], writes=[...])`. Both are read as Python, not by pattern: papermill's own
inspection loses any line that holds a second equals sign, such as a URL with a query.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import io
import json
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, MissingError, StepError, UsageError

KERNEL = "python3"
TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "str": (str,), "bool": (bool,)}
CREDENTIALS = re.compile(r"://[^/\s@]*:[^/\s@]+@")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a step: its type as written, its default, and its comment."""

    name: str
    type: str
    default: Any
    help: str

    def check(self, value: Any, step: str) -> Any:
        """The value in the declared type.

        Raises:
            UsageError: It is of another type, or a URL with a password in it.
        """
        where = f"{step}.{self.name}"
        if not _fits(value, self.type):
            raise UsageError(
                f"{where} is {value!r}", where=where, expected=f"{self.type}, such as {self.default!r}", remedy=self.help
            )
        if any(isinstance(text, str) and CREDENTIALS.search(text) for text in _flat(value)):
            raise UsageError(
                f"{where} holds a password",
                where=where,
                expected="a URL without credentials: parameters are recorded and shown",
                remedy="give credentials through the environment",
            )
        return float(value) if self.type == "float" else value


@dataclass(frozen=True)
class StepNotebook:
    """A step as its file declares it.

    Attributes:
        name: The file's name without suffix.
        path: The file.
        title: The first line of its first markdown cell.
        digest: SHA-256 of the cells' sources, which outputs and metadata do not change.
        parameters: By name, in the order of the cell.
        reads: Entities it needs.
        writes: Entities it makes.
        imports: Modules of this package that it imports.
    """

    name: str
    path: Path
    title: str
    digest: str
    parameters: dict[str, Parameter]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    imports: tuple[str, ...]

    def resolve(self, values: dict[str, Any]) -> dict[str, Any]:
        """All parameters: defaults, with the given values laid over them and checked.

        Raises:
            UsageError: An unknown name, with the nearest right one, or a value of the wrong type.
        """
        for name in values:
            if name not in self.parameters:
                near = difflib.get_close_matches(name, self.parameters, 1, 0.4)
                raise UsageError(
                    f"{self.name} has no parameter '{name}'",
                    where=self.path,
                    expected="one of " + ", ".join(self.parameters),
                    remedy=f"did you mean '{near[0]}'?" if near else f"see: python step.dev.py {self.name} --help",
                )
        return {
            name: parameter.check(values.get(name, parameter.default), self.name)
            for name, parameter in self.parameters.items()
        }


def read_notebook(path: Path) -> StepNotebook:
    """Read a step's notebook.

    Raises:
        MissingError: No such file.
        DataError: Not a notebook, or without its tagged cells.
        StepError: It is for a kernel that is not this Python.
    """
    if not path.is_file():
        raise MissingError("there is no such notebook", where=path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cells = [(cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in content["cells"]]
        spec = content["metadata"].get("kernelspec", {"name": KERNEL})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("the file is not a Jupyter notebook", where=path, expected="nbformat 4 JSON") from error
    if spec.get("name") != KERNEL:
        raise StepError(
            f"the notebook is for the kernel '{spec.get('name')}'",
            where=path,
            expected=f"'{KERNEL}', which is the Python that runs the pipeline",
            remedy="open it in Jupyter, choose the kernel 'Python 3 (ipykernel)' and save",
        )
    sources = [source for kind, source, _ in cells if kind == "code"]
    reads, writes = _interface(_tagged(cells, "interface", path), path)
    return StepNotebook(
        name=path.stem,
        path=path,
        title=next((source.splitlines()[0].lstrip("# ") for kind, source, _ in cells if kind == "markdown"), path.stem),
        digest=hashlib.sha256(json.dumps([(kind, source) for kind, source, _ in cells]).encode()).hexdigest(),
        parameters=_parameters(_tagged(cells, "parameters", path), path),
        reads=reads,
        writes=writes,
        imports=tuple(sorted({name for source in sources for name in _imports(_parse(source, path))})),
    )


def read_steps(folder: Path) -> dict[str, StepNotebook]:
    """Every step in a folder in the order in which they can run: the graph of the pipeline.

    Raises:
        MissingError: The folder holds no notebooks.
        DataError: Two steps write one entity, none writes one that is read, or steps wait for each other.
    """
    left = {path.stem: read_notebook(path) for path in sorted(folder.glob("*.ipynb"))}
    if not left:
        raise MissingError("there are no steps", where=folder, expected="notebooks, one a step")
    writers: dict[str, str] = {}
    for step in left.values():
        for entity in step.writes:
            if entity in writers:
                raise DataError(f"{writers[entity]} and {step.name} both write {entity}", where=step.path)
            writers[entity] = step.name
    for step in left.values():
        for entity in step.reads:
            if entity not in writers:
                raise DataError(
                    f"{step.name} reads {entity}, and no step writes it",
                    where=step.path,
                    expected="one of " + ", ".join(sorted(writers)),
                )
    ordered: dict[str, StepNotebook] = {}
    while left:
        ready = [step for step in left.values() if all(writers[entity] in ordered for entity in step.reads)]
        if not ready:
            raise DataError(f"the steps {', '.join(left)} wait for each other", where=folder)
        ordered[ready[0].name] = left.pop(ready[0].name)
    return ordered


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


def _parse(source: str, path: Path) -> ast.Module:
    try:
        return ast.parse("\n".join("" if line.startswith(("%", "!")) else line for line in source.splitlines()))
    except SyntaxError as error:
        raise DataError(f"a cell is not valid Python: {error}", where=path) from error


def _parameters(source: str, path: Path) -> dict[str, Parameter]:
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    parameters: dict[str, Parameter] = {}
    for node in _parse(source, path).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.value is None:
            raise DataError(
                f"not a parameter: {ast.unparse(node)}",
                where=f"{path}, cell 'parameters', line {node.lineno}",
                expected="name: type = literal  # help",
            )
        name, kind = node.target.id, ast.unparse(node.annotation)
        try:
            default = ast.literal_eval(node.value)
        except ValueError as error:
            raise DataError(f"the default of '{name}' is not a literal", where=path) from error
        parameter = Parameter(name, kind, default, comments.get(node.end_lineno or node.lineno, ""))
        parameters[name] = parameter
        parameter.check(default, path.stem)
    return parameters


def _interface(source: str, path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for node in ast.walk(_parse(source, path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Step.open":
            try:
                name = ast.literal_eval(node.args[0])
                given = {keyword.arg: tuple(ast.literal_eval(keyword.value)) for keyword in node.keywords}
                if name == path.stem:
                    return given["reads"], given["writes"]
            except (ValueError, KeyError, IndexError, TypeError):
                pass
            break
    raise DataError(
        "the interface cell does not open the step",
        where=path,
        expected=f'step = Step.open("{path.stem}", reads=[...], writes=[...]) with literal names',
    )


def _imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline"):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("pipeline")}
    return found


def _fits(value: Any, kind: str) -> bool:
    if kind.startswith("list[") and kind.endswith("]"):
        return isinstance(value, list) and all(_fits(item, kind[5:-1]) for item in value)
    if kind not in TYPES:
        return False
    return isinstance(value, TYPES[kind]) and (kind == "bool") == isinstance(value, bool)


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
