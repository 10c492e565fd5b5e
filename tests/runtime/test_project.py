"""Configs, `configs/*.yaml`, and the parameters that they give."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.runtime.machines import Machine
from pipeline.runtime.notebook import read_steps
from pipeline.runtime.project import Config, Project, read_config, read_yaml


def config(folder: Path, text: str) -> Config:
    path = folder / "demo.yaml"
    path.write_text(text)
    return read_config(path)


def test_prod_values_are_laid_over_the_others(tmp_path: Path) -> None:
    text = "name: x\nparameters: {a: {p: 1, q: 2}, b: {r: 3}}\nprod: {a: {q: 4}, c: {s: 5}}"
    read = config(tmp_path, text)
    assert read.values("dev") == {"a": {"p": 1, "q": 2}, "b": {"r": 3}}
    assert read.values("prod") == {"a": {"p": 1, "q": 4}, "b": {"r": 3}, "c": {"s": 5}}


def test_each_zone_and_mode_has_its_part_of_the_store(tmp_path: Path) -> None:
    places = {".store": f"{tmp_path}/.store", "/var/store": "/var/store", "s3://bucket/x/": "s3://bucket/x"}
    for store, place in places.items():
        read = config(tmp_path, f"name: x\nzone: here\nstore: {store}")
        assert [read.store_url(tmp_path, mode) for mode in ("dev", "prod")] == [
            f"{place}/here/dev",
            f"{place}/here/prod",
        ]


def test_a_step_asks_for_a_machine(tmp_path: Path) -> None:
    machines = "machines: {a: {here: true}, b: {gpus: 2, memory_gb: 64, nodes: 3}}"
    read = config(tmp_path, f"name: x\nstore: s3://b/c\nengine: ray\n{machines}")
    there = Machine(gpus=2, memory_gb=64, nodes=3)
    assert [read.machine(step) for step in "abc"] == [Machine(here=True), there, Machine()]
    assert str(there) == "3 machines with 1 CPUs, 64 GB, 2 GPUs"
    assert config(tmp_path, f"name: x\n{machines}").machine("b") == Machine(here=True)


@pytest.mark.parametrize("store", [".store", "/var/store", "file:///var/store", "memory://x"])
def test_other_machines_do_not_reach_a_store_on_this_one(tmp_path: Path, store: str) -> None:
    with pytest.raises(UsageError, match=rf"(?s)every machine reaches.*demo\.yaml.*{store}.*store: s3://"):
        config(tmp_path, f"name: x\nengine: ray\nstore: {store}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("name: x\nparametres: {}", "did you mean 'parameters'", id="near key"),
        pytest.param("parameters: {}", "wrong entry, 'name'", id="no name"),
        pytest.param("name: Has Spaces", "wrong entry, 'name'", id="name of several words"),
        pytest.param("name: x\nzone: ../up", "wrong entry, 'zone'", id="zone that leaves its place"),
        pytest.param("name: x\nparameters: {a: 1}", "wrong entry, 'parameters.a'", id="no table"),
        pytest.param("name: x\nstore: [1]", "wrong entry, 'store'", id="wrong type"),
        pytest.param("nmae: x", "did you mean 'name'", id="near the missing one"),
        pytest.param("name: x\nparameters:", "wrong entry, 'parameters'", id="empty table"),
        pytest.param("name: x\nprod: {1: {}}", "wrong entry, 'prod'", id="step that is a number"),
        pytest.param("name: x\n1: {}", "wrong entry, '1'", id="key that is a number"),
        pytest.param("name: x\ndeliver: {a: 1}", "wrong entry, 'deliver.a'", id="no line"),
        pytest.param('name: x\nzone: "a\\n"', "wrong entry, 'zone'", id="zone with a line break"),
        pytest.param("name: x\ndeliver: {a: '{path.x}'}", "{path} and {bin} only", id="attribute of a place"),
        pytest.param("name: x\nstore: s3://key:s3cret@bucket", "holds a password", id="password"),
        pytest.param("name: x\ndeliver: {a: 'see {'}", "{path} and {bin} only", id="open brace"),
        pytest.param("name: x\nengine: slurm", "there is only ray", id="engine that there is not"),
        pytest.param("name: x\nmachines: {a: {gpu: 1}}", "did you mean 'gpus'", id="machine with an unknown key"),
        pytest.param("name: x\nmachines: {a: {nodes: 1.5}}", "'nodes' is no whole number", id="part of a machine"),
        pytest.param("name: x\nmachines: {a: {nodes: 0}}", "'nodes' is no number above 0", id="no machine"),
        pytest.param("name: x\nmachines: {a: {cpus: 0}}", "'cpus' is no number above 0", id="no processor"),
        pytest.param("name: x\nmachines: {a: {gpus: true}}", "'gpus' is no number above 0", id="GPU or not"),
        pytest.param("name: x\nmachines: {a: {here: true, cpus: 2}}", "'here' stands alone", id="here and there"),
        pytest.param("- 1\n- 2", "not a table of keys", id="list"),
        pytest.param("", "wrong entry, 'name'", id="empty"),
        pytest.param("name: [x", "not valid YAML", id="no yaml"),
        pytest.param("name: x\nname: y", "'name' is there twice", id="twice"),
        pytest.param("name: !!python/object:os.system x", "not valid YAML", id="code"),
    ],
)
def test_a_wrong_config_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        config(tmp_path, text)
    assert says in str(caught.value)
    assert "demo.yaml" in str(caught.value)
    assert "s3cret" not in str(caught.value).replace(text, "")


def test_a_missing_config_is_refused_with_the_nearest(tmp_path: Path) -> None:
    config(tmp_path, "name: x")
    with pytest.raises(UsageError, match=r"did you mean .*demo\.yaml"):
        read_config(tmp_path / "dmo.yaml")
    with pytest.raises(UsageError, match="no such config"):
        read_config(tmp_path / "nowhere" / "x.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("5E+2", 500.0), (".5e1", 5.0), ("1.5", 1.5), ("3", 3), ("1e", "1e"), ("[a, 2e2]", ["a", 200.0])],
)
def test_numbers_are_numbers(text: str, value: Any) -> None:
    assert read_yaml(text) == value
    assert type(read_yaml(text)) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_python_writes_is_read(value: float) -> None:
    assert read_yaml(repr(value)) == value


def test_merged_tables_may_be_written_over() -> None:
    assert read_yaml("a: &a {p: 1, q: 2}\nb: {<<: *a, q: 3}")["b"] == {"p": 1, "q": 3}
    with pytest.raises(yaml.YAMLError, match="twice"):
        read_yaml("b: {q: 1, q: 3}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("parameters: {frist: {}}", "did you mean 'first'", id="step"),
        pytest.param("parameters: {first: {txt: a}}", "did you mean 'text'", id="parameter"),
        pytest.param("prod: {first: {times: a}}", "first.times is 'a'", id="prod's values are checked in dev too"),
        pytest.param("prod: {zzz: {}}", "no step 'zzz'", id="prod's steps too"),
        pytest.param("deliver: {buch: x}", "no entity 'buch'", id="entity"),
    ],
)
def test_a_config_is_held_against_the_notebooks(toy: Any, text: str, says: str) -> None:
    read = config(toy.root, f"name: x\n{text}")
    with pytest.raises(UsageError, match=re.escape(says)):
        Project(toy.root, "dev", read, "demo.yaml", read_steps(toy.root / "steps")).parameters({})
