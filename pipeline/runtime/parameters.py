"""The parameters of a step, declared in its notebook, one a line: `name: type = default  # help; constraint`.

Lines of comment alone below a parameter continue its help.

A comment may declare what values are allowed, each constraint after a semicolon: `one of nano, tiny, s`, `from 0 to 1`,
`at least 1`, `at most 100`, `above 0`, `a multiple of 32`. In a list or table they hold for each item. The default is
always allowed, so that it may stand for "off" or "chosen automatically".

A comment may name the source of a parameter that is not set: `where url is coco: model_train.detector`. With any other
value of `url`, a parameter of the same step, the default holds.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, UsageError, did_you_mean

TYPES: dict[str, Any] = {"int": int, "float": (float, int), "str": str, "bool": bool}
KIND = re.compile(r"dict\[str, (int|float|str|bool)\]|(list\[)*(int|float|str|bool)\]*")
PLACEHOLDER = re.compile(r"\$\{\w+\}")  # an environment variable, whose value is never recorded
LINK = re.compile(r"where (?P<own>\w+) is (?P<value>[^\s:]+): (?P<step>\w+)\.(?P<name>\w+)")
CHOICES = re.compile(r"one of (?P<names>[\w.-]+(, [\w.-]+)*)")
NUMBER = r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)"
MULTIPLE = re.compile(rf"a multiple of {NUMBER}")
BOUNDS: dict[re.Pattern[str], Callable[..., bool]] = {
    re.compile(rf"from {NUMBER} to {NUMBER}"): lambda value, low, high: low <= value <= high,
    re.compile(rf"at least {NUMBER}"): lambda value, low: value >= low,
    re.compile(rf"at most {NUMBER}"): lambda value, high: value <= high,
    re.compile(rf"above {NUMBER}"): lambda value, low: value > low,
    MULTIPLE: lambda value, divisor: value % divisor == 0,
}
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
ALWAYS_SECRET = re.compile(r".*(password|passwd|pwd|api[_-]?key)", re.IGNORECASE)  # however short
AUTHORIZATION = re.compile(r"\s*(Bearer|Basic)\s+", re.IGNORECASE)  # as the value of an HTTP header begins


@dataclass(frozen=True)
class Parameter:
    """One parameter of a step: its type as written, its default, and its comment."""

    name: str
    type: str
    default: Any
    help: str

    @property
    def clauses(self) -> list[str]:
        """The parts of the comment, of which some are constraints."""
        return [clause.strip() for clause in self.help.split(";")]

    @property
    def has_gaps(self) -> bool:
        """Whether a value between two allowed ones may be refused."""
        return any(CHOICES.fullmatch(clause) or MULTIPLE.fullmatch(clause) for clause in self.clauses)

    def check(self, value: Any, step: str) -> Any:
        """The value in the declared type: 1 as 1.0 where a float is declared, so that both have one fingerprint."""
        where = f"{step}.{self.name}"
        if holds_password(value):
            raise UsageError(
                f"{where} holds a password or token",
                expected="no credentials: parameters are recorded and shown",
                remedy="put it into the environment, and in its place write ${NAME}, the name of the variable",
            )
        try:
            typed = _typed(value, self.type)
        except TypeError as error:
            example = "" if self.default in ("", [], {}) else f", such as {self.default!r}"
            raise UsageError(f"{where} is {value!r}", expected=f"{self.type}{example}", remedy=self.help) from error
        for item in _items(typed) if value != self.default else ():
            for clause in self.clauses:
                if not _holds(clause, item):
                    names = choices["names"].split(", ") if (choices := CHOICES.fullmatch(clause)) else []
                    remedy = did_you_mean(item, names, otherwise=self.help)
                    raise UsageError(f"{where} is {item!r}", expected=clause, remedy=remedy)
        return typed


def read_parameters(source: str, path: Path) -> dict[str, Parameter]:
    """The parameters that a cell declares, in its order; DataError if a line is none, or a name is repeated."""
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
        if name in parameters:
            raise DataError(f"the parameter '{name}' is there twice", where=path)
        try:
            default = ast.literal_eval(node.value)
            _typed(default, kind if KIND.fullmatch(kind) else "")
        except (ValueError, TypeError) as error:
            raise DataError(
                f"the parameter '{name}' is declared as {kind} = {ast.unparse(node.value)}",
                where=path,
                expected="int, float, str, bool, list[...] or dict[str, ...] of these, and a literal of that type",
            ) from error
        parameters[name] = Parameter(name, kind, default, comments.get(node.end_lineno, ""))
        parameters[name].check(default, path.stem)
    return parameters


def _comments(tree: ast.Module, source: str) -> dict[int | None, str]:
    """The comment after the last statement of each line, with the lines of comment alone that follow it.

    Python's tokenizer would be slow to import.
    """
    lines, comments = source.splitlines(), {}
    for node in tree.body:
        rest = lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset or 0 :].decode().lstrip("; \t")
        parts = [rest] if rest.startswith("#") else []
        parts += itertools.takewhile(lambda line: line.startswith("#"), lines[node.end_lineno or 1 :])
        comments[node.end_lineno] = " ".join(part.lstrip("# ") for part in parts)
    return comments


def parse(source: str, path: Path) -> ast.Module:
    """A cell as Python, without the lines that only IPython understands."""
    try:
        return ast.parse("\n".join("" if line.startswith(("%", "!")) else line for line in source.splitlines()))
    except SyntaxError as error:
        raise DataError(f"a cell is not valid Python: {error}", where=path) from error


def holds_password(value: Any) -> bool:
    """Whether a value is or contains a URL with a password or token, or has a table with one.

    In a table that is any value under a key such as `password`, a long one under a key such as `auth`, and the value of
    an `Authorization` header. `${NAME}`, which a source takes from the environment, does not count.
    """
    if isinstance(value, dict):
        return any(_is_secret(str(key), item) or holds_password(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return any(holds_password(item) for item in value)
    return isinstance(value, str) and CREDENTIALS.search(PLACEHOLDER.sub("", value)) is not None


def _is_secret(key: str, value: Any) -> bool:
    """Whether a value in a table is a secret, by itself or by its key."""
    if not isinstance(value, str):
        return False
    text = PLACEHOLDER.sub("", value)
    header = AUTHORIZATION.match(text)
    bare = text[header.end() :] if header else text.strip()
    if not bare:
        return False
    if header or ALWAYS_SECRET.fullmatch(key):
        return True
    return len(bare) >= SHORTEST_SECRET and SECRET_KEY.fullmatch(key) is not None


def _typed(value: Any, kind: str) -> Any:
    """The value in a type; TypeError if it is of another."""
    if kind.startswith("list[") and isinstance(value, list):
        return [_typed(item, kind[len("list[") : -1]) for item in value]
    if kind.startswith("dict[") and isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _typed(item, kind[len("dict[str, ") : -1]) for key, item in value.items()}
    if not isinstance(value, TYPES.get(kind, ())) or (kind == "bool") != isinstance(value, bool):
        raise TypeError(kind)
    if kind == "float" and not abs(value) <= sys.float_info.max:  # records are JSON, which has no NaN
        raise TypeError(kind)
    return float(value) if kind == "float" else value


def _items(value: Any) -> Iterator[Any]:
    """The value, or the items of a list or table at any depth."""
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _items(item)
    else:
        yield value


def _holds(clause: str, item: Any) -> bool:
    """Whether a value meets a clause of a comment; most clauses are no constraint."""
    if choices := CHOICES.fullmatch(clause):
        return str(item) in choices["names"].split(", ")
    for pattern, is_within in BOUNDS.items():
        if found := pattern.fullmatch(clause):
            return isinstance(item, int | float) and is_within(item, *map(float, found.groups()))
    return True
