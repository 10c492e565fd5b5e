"""A project: a checkout with its steps, a config and a mode, which every command works on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UsageError, did_you_mean
from pipeline.runtime.machines import Machine, wrong_machine
from pipeline.runtime.manifest import RunManifest
from pipeline.runtime.notebook import StepNotebook, follow_links
from pipeline.runtime.parameters import holds_password
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import OBJECTS, Store

try:  # the parser in C is ten times as fast
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]

Values = dict[str, dict[str, Any]]  # step to parameter to value

MODES = ("dev", "prod")
DEFAULT_MODE = "dev"
ENGINES = ("", "ray")  # this machine, and those that `engines` has beside it
NOT_SHARED = ("file", "local", "memory")  # places that other machines do not reach
ELSEWHERE = ("engine", "machines")  # keys of a config that tell where steps run, which changes no result
DEFAULT_CONFIG = "configs/demo.yaml"
PATTERNS = {"name": r"[a-z][a-z0-9_]*", "zone": r"[A-Za-z0-9_-]+"}


@dataclass(frozen=True)
class Config:
    """One config, `configs/*.yaml`."""

    name: str  # the pipeline's; runs of one name belong together
    store: str = ".store"  # the place of artifacts and runs: a path relative to the project, or an fsspec URL
    zone: str = "default"  # a part of the store, to keep teams or experiments apart
    engine: str = ""  # what runs the steps, one of `ENGINES`
    machines: Values = field(default_factory=dict)  # what each step asks of a machine there, see `machines`
    parameters: Values = field(default_factory=dict)  # the others keep the notebook's default
    prod: Values = field(default_factory=dict)  # laid over `parameters` in prod mode
    # entity, to be laid out as a plain folder, to the line that shows it, with {path} and {bin} of this Python
    deliver: dict[str, str] = field(default_factory=dict)

    def values(self, mode: str) -> Values:
        """Parameters by step in a mode."""
        over = self.prod if mode == "prod" else {}
        return {step: {**self.parameters.get(step, {}), **over.get(step, {})} for step in {*self.parameters, *over}}

    def machine(self, step: str) -> Machine:
        """What a step asks for; without an engine every step runs here."""
        return Machine(**self.machines.get(step, {})) if self.engine else Machine(here=True)

    def store_url(self, root: Path, mode: str) -> str:
        """The part of the store that holds the artifacts and runs of this zone and mode only."""
        base = self.store if "://" in self.store else str(root / self.store)
        return f"{base.rstrip('/')}/{self.zone}/{mode}"


@dataclass(frozen=True)
class Project:
    """A project in one mode, `dev` or `prod`."""

    root: Path
    mode: str
    config: Config
    config_file: str  # relative to the project where it lies in it
    steps: dict[str, StepNotebook]  # in the order in which they can run

    @property
    def resume(self) -> Path:
        """Where killed attempts leave what the next attempt at the same work continues from."""
        return self.root / ".cache" / "resume"

    @property
    def config_option(self) -> str:
        """` --config FILE`, unless it is the default; of a file outside of the project only the last name.

        Reports state it, and are the same on every machine.
        """
        file = Path(self.config_file)
        return config_option(file.name if file.is_absolute() else self.config_file)

    @cached_property
    def runs(self) -> Runs:
        """The runs of this zone and mode."""
        return Runs(Store(self.config.store_url(self.root, self.mode), self.root / ".cache" / OBJECTS))

    def parameters(self, overrides: Values) -> Values:
        """Every step's parameters, checked in both modes before anything starts."""
        for step in (*self.config.parameters, *self.config.prod, *self.config.machines, *overrides):
            check_name("step", step, self.steps)
        for entity in self.config.deliver:
            check_name("entity", entity, [entity for step in self.steps.values() for entity in step.writes])
        resolved: Values = {}
        for mode in sorted(MODES, key=lambda mode: mode == self.mode):  # this mode last
            values, over = self.config.values(mode), overrides if mode == self.mode else {}
            given = {name: {**values.get(name, {}), **over.get(name, {})} for name in self.steps}
            resolved = {name: step.resolve(given[name]) for name, step in self.steps.items()}
            resolved = follow_links(self.steps, given, resolved)
        return resolved


def with_config(mode: str, path: Path, root: Path, steps: dict[str, StepNotebook]) -> Project:
    """The project in one mode with one config."""
    config, file, top = read_config(path), path.resolve(), root.resolve()
    return Project(root, mode, config, (file.relative_to(top) if file.is_relative_to(top) else file).as_posix(), steps)


def with_config_of(manifest: RunManifest, root: Path, steps: dict[str, StepNotebook]) -> Project:
    """The project with a run's config: from its file, or as it was recorded if that is gone."""
    path = root / manifest.config_file
    if path.is_file():
        return with_config(manifest.mode, path, root, steps)
    return Project(root, manifest.mode, as_config(manifest.recorded_config, path), manifest.config_file, steps)


def read_config(path: Path) -> Config:
    """Read a config; see `as_config`."""
    if not path.is_file():
        known = sorted(map(str, path.parent.glob("*.yaml")))
        remedy, expected = did_you_mean(path, known, cutoff=0.3), ", ".join(known) or "a YAML file"
        raise UsageError("there is no such config", where=path, expected=expected, remedy=remedy)
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"the config is not valid YAML: {error}", where=path) from error
    return as_config({} if content is None else content, path)


def as_config(content: Any, path: Path) -> Config:
    """A config from the content of its file, or from a manifest. Checked by hand: importing pydantic takes 0.1 s."""
    keys = [each.name for each in fields(Config)]

    def check(is_right: object, key: str, problem: str) -> None:
        if not is_right:
            raise UsageError(
                f"the config has a wrong entry, '{key}': {problem}",
                where=path,
                expected=f"the keys {', '.join(keys)}",
                remedy="" if key in keys else did_you_mean(key, keys),
            )

    if not isinstance(content, dict):
        raise UsageError("the config is not a table of keys", where=path)
    for key, value in {**content, "name": content.get("name")}.items():  # no value is shown: it may hold a secret
        check(key in keys, key, "there is no such key")
        check(key in content, key, "it is missing")
        if key in ("name", "zone", "store", "engine"):
            check(isinstance(value, str), key, f"it is of type {type(value).__name__}, not a text")
            pattern = PATTERNS.get(key, ".*")
            check(re.fullmatch(pattern, value), key, f"it is not of the form {pattern}")
            check(not holds_password(value), key, "it holds a password; give credentials through the environment")
            check(key != "engine" or value in ENGINES, key, f"there is only {' and '.join(filter(None, ENGINES))}")
            continue
        check(_is_table(value), key, "it is not a table of keys")
        for name, item in value.items():
            if key == "deliver":
                check(_is_line(item), f"{key}.{name}", "it is not a text that may hold {path} and {bin} only")
            else:
                check(_is_table(item), f"{key}.{name}", "it is not a table of keys")
                wrong = wrong_machine(item) if key == "machines" else ""
                check(not wrong, f"{key}.{name}", wrong)
    config = Config(**content)
    scheme, is_url, _ = config.store.partition("://")
    if config.engine and (not is_url or scheme in NOT_SHARED):
        raise UsageError(
            f"engine: {config.engine} needs a store that every machine reaches",
            where=path,
            expected=f"the URL of an object store; 'store' is {config.store}, on this machine alone",
            remedy="store: s3://BUCKET/PREFIX; or remove 'engine', and the steps run here",
        )
    return config


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _is_line(value: Any) -> bool:
    try:
        value.format(path="", bin="")
    except (KeyError, IndexError, ValueError, AttributeError):
        return False
    return isinstance(value, str)


def read_yaml(text: str) -> Any:
    """Parse YAML in which 1e-3 is a number and a key occurs only once."""
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


def config_option(config_file: str) -> str:
    """` --config FILE`, unless it is the default."""
    return "" if config_file == DEFAULT_CONFIG else f" --config {shlex.quote(config_file)}"


def mode_option(mode: str) -> str:
    """` --mode prod`, unless the mode is dev."""
    return " --mode prod" if mode == "prod" else ""


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Refuse an unknown name, with the nearest known one as a remedy."""
    names = list(known)
    if name not in names:
        remedy = did_you_mean(name, names, cutoff=0.4)
        raise UsageError(f"there is no {kind} '{name}'", expected="one of " + ", ".join(names), remedy=remedy)
