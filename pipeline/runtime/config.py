"""`configs/*.yaml`: typed, unknown keys refused, nothing hidden."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import DataError, UsageError, did_you_mean
from pipeline.runtime.parameters import holds_password

try:  # the parser in C, ten times as fast, which PyYAML is nearly always built with
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]

Values = dict[str, dict[str, Any]]

NAME = re.compile(r"[a-z][a-z0-9_]*")
ZONE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Config:
    """One scenario.

    Attributes:
        name: Of the pipeline; runs of one name belong together.
        store: Where artifacts and runs lie: a path relative to the project, or an fsspec URL.
        zone: A part of the store, to keep teams or experiments apart.
        parameters: Step to parameter to value; what is not named keeps the notebook's default.
        prod: The same, laid over `parameters` in prod mode.
        deliver: Entity to a line of text: when a run is complete, or, where no step reads the entity, at once, each is
            laid out as a plain folder, and the line is shown with `{path}` and `{bin}` (the folder of this Python's
            programs) filled in.
    """

    name: str
    store: str = ".store"
    zone: str = "default"
    parameters: Values = field(default_factory=dict)
    prod: Values = field(default_factory=dict)
    deliver: dict[str, str] = field(default_factory=dict)

    def values(self, mode: str) -> Values:
        """Parameters by step as they stand in a mode."""
        over = self.prod if mode == "prod" else {}
        steps = {*self.parameters, *over}
        return {step: {**self.parameters.get(step, {}), **over.get(step, {})} for step in steps}

    def store_url(self, root: Path, mode: str) -> str:
        """The part of the store that holds this zone's and mode's artifacts, and nothing else's."""
        base = self.store if "://" in self.store else str(root / self.store)
        return f"{base.rstrip('/')}/{self.zone}/{mode}"


def read_config(path: Path) -> Config:
    """Read a config.

    Raises:
        UsageError: No such file; the nearest is named.
        DataError: Not YAML, or with an unknown key or a value of the wrong type.
    """
    if not path.is_file():
        known = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        remedy = did_you_mean(path, known, cutoff=0.3)
        raise UsageError(
            "there is no such config", where=path, expected=", ".join(known) or "a YAML file", remedy=remedy
        )
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"the config is not valid YAML: {error}", where=path) from error
    return as_config({} if content is None else content, path)


def as_config(content: Any, path: Path) -> Config:
    """A config from what its file holds, or a manifest recorded.

    Args:
        content: A table of keys.
        path: Where it is, or was, for the error.

    Raises:
        DataError: An unknown key or a value of the wrong type.
    """
    try:
        return _config(content)
    except _EntryError as error:
        raise DataError(
            f"the config has a wrong entry, '{error.key}': {error}" if error.key else str(error),
            where=path,
            expected="the keys " + ", ".join(CHECKS),
            remedy="" if error.key in CHECKS else did_you_mean(error.key, CHECKS),
        ) from error


def read_yaml(text: str) -> Any:
    """YAML, in which 1e-3 is a number and a key may be there only once.

    Raises:
        yaml.YAMLError: It is not YAML.
    """
    return yaml.load(text, _Loader)  # noqa: S506, the loader is a safe one


class _Loader(SafeLoader):
    """PyYAML's safe loader, which takes YAML 1.1 at its word: 1e-3 a text, and of two equal keys the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A table, unless a key is there twice."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class _EntryError(ValueError):
    """What is wrong with one entry, named by its keys joined with dots."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def _config(content: Any) -> Config:
    """What a file holds as a config, checked by hand: to import a library for it would take a third of a no-op run."""
    if not isinstance(content, dict):
        raise _EntryError("", "the config is not a table of keys")
    for key in content:
        if key not in CHECKS:
            raise _EntryError(str(key), "there is no such key")
    if "name" not in content:
        raise _EntryError("name", "it is missing")
    for key, value in content.items():
        CHECKS[key](key, value)
    return Config(**content)


def _kind(value: Any) -> str:
    """What a value is; not the value itself, which may hold a secret."""
    return "empty" if value is None else f"of type {type(value).__name__}"


def _text(key: str, value: Any) -> None:
    if not isinstance(value, str):
        raise _EntryError(key, f"it is {_kind(value)}, not a text")


def _word(pattern: re.Pattern[str]) -> Callable[[str, Any], None]:
    def check(key: str, value: Any) -> None:
        _text(key, value)
        if not pattern.fullmatch(value):
            raise _EntryError(key, f"it is not of the form {pattern.pattern}")

    return check


def _table(key: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise _EntryError(key, f"it is {_kind(value)}, not a table of keys")
    for name in value:
        if not isinstance(name, str):
            raise _EntryError(f"{key}.{name}", "its name is not a text")


def _store(key: str, value: Any) -> None:
    _text(key, value)
    if holds_password(value):
        raise _EntryError(key, "it holds a password; give credentials through the environment")


def _values(key: str, value: Any) -> None:
    _table(key, value)
    for step, parameters in value.items():
        _table(f"{key}.{step}", parameters)


def _deliver(key: str, value: Any) -> None:
    _table(key, value)
    for entity, text in value.items():
        _text(f"{key}.{entity}", text)
        try:
            text.format(path="", bin="")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise _EntryError(f"{key}.{entity}", f"{text!r} may hold {{path}} and {{bin}} only") from error


CHECKS: dict[str, Callable[[str, Any], None]] = {
    "name": _word(NAME),
    "store": _store,
    "zone": _word(ZONE),
    "parameters": _values,
    "prod": _values,
    "deliver": _deliver,
}
