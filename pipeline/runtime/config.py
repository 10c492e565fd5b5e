"""Configs, `configs/*.yaml`: typed, and unknown keys are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import DataError, UsageError, did_you_mean
from pipeline.runtime.parameters import holds_password

try:  # the parser in C is ten times as fast
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]

Values = dict[str, dict[str, Any]]

PATTERNS = {"name": re.compile(r"[a-z][a-z0-9_]*"), "zone": re.compile(r"[A-Za-z0-9_-]+")}


@dataclass(frozen=True)
class Config:
    """One config.

    Attributes:
        name: The pipeline's name; runs of one name belong together.
        store: The place of artifacts and runs: a path relative to the project, or an fsspec URL.
        zone: A part of the store, to keep teams or experiments apart.
        parameters: Step to parameter to value; the others keep the notebook's default.
        prod: The same, laid over `parameters` in prod mode.
        deliver: Entity to a line of text. Each is laid out as a plain folder when a run is complete, or at once if no
            step reads it; the line is shown with `{path}` and `{bin}` (the folder of this Python's programs).
    """

    name: str
    store: str = ".store"
    zone: str = "default"
    parameters: Values = field(default_factory=dict)
    prod: Values = field(default_factory=dict)
    deliver: dict[str, str] = field(default_factory=dict)

    def values(self, mode: str) -> Values:
        """Parameters by step in a mode."""
        over = self.prod if mode == "prod" else {}
        return {step: {**self.parameters.get(step, {}), **over.get(step, {})} for step in {*self.parameters, *over}}

    def store_url(self, root: Path, mode: str) -> str:
        """The part of the store that holds the artifacts and runs of this zone and mode only."""
        base = self.store if "://" in self.store else str(root / self.store)
        return f"{base.rstrip('/')}/{self.zone}/{mode}"


def read_config(path: Path) -> Config:
    """Read a config.

    Raises:
        UsageError: There is no such file.
        DataError: It is not YAML, or has an unknown key or a value of the wrong type.
    """
    if not path.is_file():
        known = sorted(map(str, path.parent.glob("*.yaml")))
        remedy, expected = did_you_mean(path, known, cutoff=0.3), ", ".join(known) or "a YAML file"
        raise UsageError("there is no such config", where=path, expected=expected, remedy=remedy)
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"the config is not valid YAML: {error}", where=path) from error
    return as_config({} if content is None else content, path)


def as_config(content: Any, path: Path) -> Config:
    """A config from the content of its file, or from a manifest.

    Raises:
        DataError: It has an unknown key or a value of the wrong type.
    """
    for key, problem in _problems(content):
        raise DataError(
            f"the config has a wrong entry, '{key}': {problem}" if key else problem,
            where=path,
            expected="the keys " + ", ".join(_keys()),
            remedy="" if key in _keys() else did_you_mean(key, _keys()),
        )
    return Config(**content)


def read_yaml(text: str) -> Any:
    """Parse YAML in which 1e-3 is a number and a key occurs only once.

    Raises:
        yaml.YAMLError: It is not YAML.
    """
    return yaml.load(text, _Loader)  # noqa: S506, the loader is a safe one


class _Loader(SafeLoader):
    """PyYAML's safe loader reads YAML 1.1, in which 1e-3 is a text, and takes the last of two equal keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A table, unless a key occurs twice."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _keys() -> list[str]:
    return [each.name for each in fields(Config)]


def _problems(content: Any) -> Iterator[tuple[str, str]]:
    """Keys joined with dots, and what is wrong there. Checked by hand: to import pydantic would take 0.1 s."""
    if not isinstance(content, dict):
        yield "", "the config is not a table of keys"
        return
    yield from ((str(key), "there is no such key") for key in content if key not in _keys())
    if "name" not in content:
        yield "name", "it is missing"
    for key, value in content.items():
        if key == "deliver":
            yield from _deliver_problems(value)
        elif key in ("parameters", "prod"):
            yield from _table_problems(key, value)
            for step, parameters in value.items():
                yield from _table_problems(f"{key}.{step}", parameters)
        elif not isinstance(value, str):
            yield key, f"it is {_type_name(value)}, not a text"
        elif key in PATTERNS and not PATTERNS[key].fullmatch(value):
            yield key, f"it is not of the form {PATTERNS[key].pattern}"
        elif key == "store" and holds_password(value):
            yield key, "it holds a password; give credentials through the environment"


def _table_problems(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield key, f"it is {_type_name(value)}, not a table of keys"
    yield from ((f"{key}.{name}", "its name is not a text") for name in value if not isinstance(name, str))


def _deliver_problems(value: Any) -> Iterator[tuple[str, str]]:
    yield from _table_problems("deliver", value)
    for entity, text in value.items():
        if not isinstance(text, str):
            yield f"deliver.{entity}", f"it is {_type_name(text)}, not a text"
        try:
            text.format(path="", bin="")
        except (KeyError, IndexError, ValueError, AttributeError):
            yield f"deliver.{entity}", f"{text!r} may hold {{path}} and {{bin}} only"


def _type_name(value: Any) -> str:
    """The type, not the value: that may hold a secret."""
    return "empty" if value is None else f"of type {type(value).__name__}"
