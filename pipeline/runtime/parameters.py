"""The parameters of a step: declared in its notebook, one a line as `name: type = default  # help`.

They are read as Python, not by pattern: papermill's own inspection loses any line that holds a second equals sign, such
as a URL with a query.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, UsageError

TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "str": (str,), "bool": (bool,)}
KIND = re.compile(r"dict\[str, (int|float|str|bool)\]|(list\[)*(int|float|str|bool)\]*")
PLACEHOLDER = re.compile(r"\$\{\w+\}")  # stands for a variable of the environment, whose value nobody records
LINK = re.compile(r"where (?P<own>\w+) is (?P<value>[^\s:]+): (?P<step>\w+)\.(?P<name>\w+)")  # in a comment, see `Link`
SENSITIVE = r"(key|token|secret|sig|signature|auth|authorization|pass|passwd|password|pwd|code|credentials?|connect)"
CREDENTIALS = re.compile(
    r"https?://[^/\s@]*:[^/\s@]+@"  # a password before the host; before an HTTP host a token may stand alone
    r"|https?://[^/\s@]*[^/\s@:][^/\s@]*@"
    r"|(?<!http)(?<!https)://[^:/?#@\s]*:(?!\d+[/?#])[^@\s]+@"  # elsewhere, as in databases' URLs, with / and ? in it
    rf"|://\S*[?&#;][^=&#\s]*{SENSITIVE}=[^&#\s]",
    re.IGNORECASE,
)
SECRET_KEY = re.compile(rf".*{SENSITIVE}", re.IGNORECASE)
SHORTEST_SECRET = 12  # letters; what is shorter under such a key is a word, as in a table of class names


@dataclass(frozen=True)
class Link:
    """Where a parameter that was not set gets its value: `# where weights_url is coco: model_train.variant`.

    Attributes:
        own: A parameter of the same step that decides.
        value: What that has to be; with anything else the parameter keeps its default.
        step: Whose parameter is taken.
        name: Which.
    """

    own: str
    value: str
    step: str
    name: str


@dataclass(frozen=True)
class Parameter:
    """One parameter of a step: its type as written, its default, and its comment."""

    name: str
    type: str
    default: Any
    help: str

    @property
    def link(self) -> Link | None:
        """Where else its value comes from, which its comment says."""
        found = LINK.search(self.help)
        return Link(**found.groupdict()) if found else None

    def check(self, value: Any, step: str) -> Any:
        """The value in the declared type.

        Raises:
            UsageError: It is of another type, or a URL with a password in it.
        """
        where = f"{step}.{self.name}"
        if holds_password(value):
            raise UsageError(
                f"{where} holds a password or token",
                where=where,
                expected="no credentials: parameters are recorded and shown",
                remedy="put it into the environment, and in its place write ${NAME}, the name of the variable",
            )
        if not _fits(value, self.type):
            raise UsageError(
                f"{where} is {value!r}",
                where=where,
                expected=f"{self.type}, such as {self.default!r}",
                remedy=self.help,
            )
        return _exact(value, self.type)


def read_parameters(source: str, path: Path) -> dict[str, Parameter]:
    """The parameters that a cell declares, in its order.

    Raises:
        DataError: A line that is no `name: type = literal`, a type that parameters cannot have, a name twice.
    """
    tree = parse(source, path)
    comments = _comments(tree, source)
    parameters: dict[str, Parameter] = {}
    for node in tree.body:
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
        if name in parameters:
            raise DataError(f"the parameter '{name}' is there twice", where=path)
        if not KIND.fullmatch(kind) or not _fits(default, kind):
            raise DataError(
                f"the parameter '{name}' is declared as {kind} = {default!r}",
                where=path,
                expected="int, float, str, bool, list[...] or dict[str, ...] of these, and a default of that type",
            )
        parameters[name] = Parameter(name, kind, default, comments.get(node.end_lineno, ""))
        parameters[name].check(default, path.stem)
    return parameters


def _comments(tree: ast.Module, source: str) -> dict[int | None, str]:
    """The comment behind the last statement of each line; Python's tokenizer, which is not needed, is slow to start."""
    lines, comments = source.splitlines(), {}
    for node in tree.body:
        behind = lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset or 0 :].decode().lstrip("; \t")
        comments[node.end_lineno] = behind.lstrip("# ") if behind.startswith("#") else ""
    return comments


def parse(source: str, path: Path) -> ast.Module:
    """A cell as Python; lines for IPython alone are left out.

    Raises:
        DataError: It is not Python.
    """
    try:
        return ast.parse("\n".join("" if line.startswith(("%", "!")) else line for line in source.splitlines()))
    except SyntaxError as error:
        raise DataError(f"a cell is not valid Python: {error}", where=path) from error


def holds_password(value: Any) -> bool:
    """Whether a value is, or has in it, a URL with a password or token, or a long text under a name such as `token`.

    `${NAME}`, which a source takes from the environment, is none.
    """
    if isinstance(value, dict):
        return any(_is_secret(str(key), item) or holds_password(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return any(holds_password(item) for item in value)
    return isinstance(value, str) and CREDENTIALS.search(PLACEHOLDER.sub("", value)) is not None


def _is_secret(key: str, value: Any) -> bool:
    is_long = isinstance(value, str) and len(PLACEHOLDER.sub("", value)) >= SHORTEST_SECRET
    return is_long and SECRET_KEY.fullmatch(key) is not None


def _fits(value: Any, kind: str) -> bool:
    if kind.startswith("list["):
        return isinstance(value, list) and all(_fits(item, kind[5:-1]) for item in value)
    if kind.startswith("dict["):
        return isinstance(value, dict) and all(
            isinstance(key, str) and _fits(item, kind[len("dict[str, ") : -1]) for key, item in value.items()
        )
    fits = isinstance(value, TYPES[kind]) and (kind == "bool") == isinstance(value, bool)
    return fits and (kind != "float" or abs(value) <= sys.float_info.max)  # records are JSON, which has no NaN


def _exact(value: Any, kind: str) -> Any:
    """1 as 1.0 where a float is declared, so that both are the same work."""
    if kind.startswith("list["):
        return [_exact(item, kind[5:-1]) for item in value]
    if kind.startswith("dict["):
        return {key: _exact(item, kind[len("dict[str, ") : -1]) for key, item in value.items()}
    return float(value) if kind == "float" else value
