"""`configs/*.yaml`: typed, unknown keys refused, nothing hidden."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.errors import DataError, UsageError
from pipeline.parameters import holds_password

Values = dict[str, dict[str, Any]]


class Config(BaseModel):
    """One scenario.

    Attributes:
        name: Of the pipeline; runs of one name belong together.
        store: Where artifacts and runs lie: a path relative to the project, or an fsspec URL.
        zone: A part of the store, to keep teams or experiments apart.
        parameters: Step to parameter to value; what is not named keeps the notebook's default.
        prod: The same, laid over `parameters` in prod mode.
        deliver: Entity to a line of text: when a run is complete each is laid out as a plain folder, and the line is
            shown with `{path}` and `{bin}` (the folder of this Python's programs) filled in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    store: str = ".store"
    zone: str = Field(default="default", pattern=r"^[A-Za-z0-9_-]+$")
    parameters: Values = {}
    prod: Values = {}
    deliver: dict[str, str] = {}

    @field_validator("store")
    @classmethod
    def _without_password(cls, store: str) -> str:
        if holds_password(store):
            raise ValueError("it holds a password; give credentials through the environment")
        return store

    @field_validator("deliver")
    @classmethod
    def _only_known_places(cls, deliver: dict[str, str]) -> dict[str, str]:
        for text in deliver.values():
            try:
                text.format(path="", bin="")
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(f"'{text}' may hold {{path}} and {{bin}} only") from error
        return deliver

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
        near = difflib.get_close_matches(str(path), known, 1, 0.3)
        raise UsageError(
            "there is no such config",
            where=path,
            expected=", ".join(known) or "a YAML file",
            remedy=f"did you mean {near[0]}?" if near else "",
        )
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
        return Config.model_validate({} if content is None else content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"the config is not valid YAML: {error}", where=path) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        near = difflib.get_close_matches(key, Config.model_fields, 1, 0.5)
        raise DataError(
            f"the config has a wrong entry, '{key}': {first['msg']}" if key else "the config is not a table of keys",
            where=path,
            expected="the keys " + ", ".join(Config.model_fields),
            remedy=f"did you mean '{near[0]}'?" if near and near[0] != key else "",
        ) from error


def read_yaml(text: str) -> Any:
    """YAML, in which 1e-3 is a number and a key may be there only once.

    Raises:
        yaml.YAMLError: It is not YAML.
    """
    return yaml.load(text, _Loader)  # noqa: S506, the loader is a safe one


class _Loader(yaml.SafeLoader):
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
