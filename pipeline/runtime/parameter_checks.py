"""Checks of parameters that the domain does, called before anything runs: the calls before `Step.open`.

What the comment of a parameter cannot declare, such as the grammar of a text or what two parameters may not be
together, the interface cell checks by a call of an imported function with parameters alone: `check_limits(limits)`. The
notebook makes the call, and so does the command line, which knows the function only by the notebook's import.
"""

from __future__ import annotations

import ast
import importlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, PipelineError, UsageError
from pipeline.runtime.parameters import Parameter


@dataclass(frozen=True)
class ParameterCheck:
    """One call: a function and the names of the parameters that it is given."""

    module: str
    function: str
    positional: tuple[str, ...]
    named: Mapping[str, str]  # the function's argument to the parameter

    def check(self, values: Mapping[str, Any], parameters: Mapping[str, Parameter], step: str, path: Path) -> None:
        """Raise a `UsageError` where the function refuses the values of parameters.

        Defaults are always allowed, so the domain is imported only where a value is another.
        """
        names = (*self.positional, *self.named.values())
        chosen = [name for name in names if values[name] != parameters[name].default]
        if not chosen:
            return
        try:
            function = getattr(importlib.import_module(self.module), self.function)
        except (ImportError, AttributeError) as error:
            raise DataError(f"a check of parameters cannot be imported: {error}", where=path) from error
        keywords = {argument: values[name] for argument, name in self.named.items()}
        try:
            function(*(values[name] for name in self.positional), **keywords)
        except PipelineError as error:
            where = f"{step}, {error.where or ' and '.join(chosen)}"
            raise UsageError(error.problem, where=where, expected=error.expected, remedy=error.remedy) from error


def read_checks(
    interface: ast.Module, cells: Iterable[ast.Module], parameters: Mapping[str, Parameter], path: Path
) -> tuple[ParameterCheck, ...]:
    """The checks in an interface cell, whose functions the notebook's cells import.

    Raises:
        DataError: A statement before `Step.open` that only calls something is no check.
    """
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for cell in cells
        for node in cell.body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
    before = itertools.takewhile(lambda node: "Step.open(" not in ast.unparse(node), interface.body)
    calls = [node.value for node in before if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    return tuple(_read(call, imported, parameters, path) for call in calls)


def _read(
    call: ast.Call, imported: Mapping[str, str], parameters: Mapping[str, Parameter], path: Path
) -> ParameterCheck:
    positional, named = map(ast.unparse, call.args), {each.arg or "": ast.unparse(each.value) for each in call.keywords}
    name, _, attributes = ast.unparse(call.func).partition(".")
    module, _, function = f"{imported.get(name, '')}.{attributes}".strip(".").rpartition(".")
    check = ParameterCheck(module, function, tuple(positional), named)
    given = [*check.positional, *named.values()]
    if name not in imported or not given or not parameters.keys() >= {*given} or "" in named:
        raise DataError(
            f"not a check of parameters: {ast.unparse(call)}",
            where=f"{path}, cell 'interface', line {call.lineno}",
            expected="FUNCTION(PARAMETER, …), with `from … import` of the function or its module",
        )
    return check
