"""What a step is compared with: outputs of the newest earlier complete run that made something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exam
import pytest

from pipeline.runtime import execution
from pipeline.runtime.step import Step

JUDGE = """\
read = {name: (step.inputs[name] / "value").read_text() for name in step.inputs}
(step.outputs["result"] / "read.json").write_text(json.dumps(read))"""


@pytest.fixture
def project(tmp_path: Path, new_toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two steps: `make` writes a value, and `judge` compares it with that of an earlier run."""
    monkeypatch.setattr(execution, "execute", exam.in_process)
    toy = new_toy(tmp_path / "judged", ())
    first = "import json\nfrom pipeline.runtime.step import Step"
    opened = 'step = Step.open("{}", reads={}, writes={}{})'
    commit = ("", "step.commit(metrics={})")
    make = [("", '(step.outputs["thing"] / "value").write_text(value)'), commit]
    toy.notebook(
        "make",
        [
            ("md", "# make"),
            ("", first),
            ("parameters", 'value: str = "a"  # what it makes'),
            ("interface", opened.format("make", [], ["thing"], "")),
            *make,
        ],
    )
    compared = opened.format("judge", ["thing"], ["result"], ', earlier=["thing"]')
    cells = [("md", "# judge"), ("", first), ("parameters", "strict: bool = False  # fails"), ("interface", compared)]
    fail = ("", "if strict:\n    raise ValueError(strict)")
    toy.notebook("judge", [*cells, ("", JUDGE), fail, commit])
    (toy.root / "configs" / "demo.yaml").write_text("name: judged\n")
    return toy


def run_with(toy: Any, value: str, *more: str) -> dict[str, str]:
    outcome = toy.step("--set", f"make.value={value}", *more)
    assert outcome.code == 0, outcome.log
    inputs = toy.manifest()["steps"]["judge"]["inputs"]
    return {name: each["digest"] for name, each in inputs.items()}


def test_the_newest_complete_run_that_made_something_else_is_compared_with(project: Any) -> None:
    assert [*run_with(project, "a")] == ["thing"], "there is no earlier run"
    a = run_with(project, "b")["earlier_thing"]
    b = run_with(project, "c")["earlier_thing"]
    assert [run_with(project, "a")["thing"], run_with(project, "b")["thing"]] == [a, b]
    assert run_with(project, "b")["earlier_thing"] == a, "not with itself"


def test_a_repeated_run_reuses_the_comparison(project: Any) -> None:
    run_with(project, "a")
    run_with(project, "b")
    run_with(project, "b")
    assert project.manifest()["steps"]["judge"]["status"] == "reused"


def test_an_incomplete_run_and_one_of_another_pipeline_are_not_compared_with(project: Any) -> None:
    first = run_with(project, "a")["thing"]
    assert project.step("--set", "make.value=b", "--set", "judge.strict=true").code == 1
    (project.root / "configs" / "other.yaml").write_text("name: other\n")
    assert [*run_with(project, "c", "--config", "configs/other.yaml")] == ["thing"]
    assert run_with(project, "d", "--config", "configs/demo.yaml")["earlier_thing"] == first


def test_another_is_chosen_by_hand_or_by_time(project: Any) -> None:
    a = run_with(project, "a")["thing"]
    first = project.manifest()["run"]
    b = run_with(project, "b")["thing"]
    second = project.manifest()["run"]
    assert run_with(project, "c", "--input", f"earlier_thing={first}")["earlier_thing"] == a
    assert project.manifest()["steps"]["judge"]["chosen"] == {"earlier_thing": first}
    assert run_with(project, "d", "--earlier-than", second)["earlier_thing"] == a
    assert run_with(project, "e", "--input", f"earlier_thing=thing/{b[:12]}")["earlier_thing"] == b
    outcome = project.step("judge", "--input", "earlier_think=latest")
    assert (outcome.code, "did you mean 'earlier_thing'?" in outcome.log) == (2, True)


def test_records_and_lineage_tell_it_apart_from_what_was_judged(project: Any) -> None:
    run_with(project, "a")
    digests = run_with(project, "b")
    record = project.manifest()["steps"]["judge"]
    assert record["uses"] == {}, "the earlier thing is no second input that the first is used with"
    lines = project.look("lineage", f"result/{record['outputs']['result']['digest']}").out.splitlines()
    compared = {line.split()[2][:12] for line in lines if "(compared with)" in line}
    assert compared == {digests["earlier_thing"][:12]}
    assert project.states() == {"make": "done", "judge": "done"}
    assert project.look("verify").code == 0
    assert project.look("gc", "--keep", "1").code == 0


def test_a_notebook_opened_by_hand_compares_with_the_same(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run_with(project, "a")
    digests = run_with(project, "b")
    monkeypatch.chdir(project.root)
    step = Step.open("judge", reads=["thing"], writes=["result"], earlier=["thing"])
    assert step.input_digests == digests
    earlier = step.earlier("thing")
    assert earlier is not None
    assert (earlier / "value").read_text() == "a"
    assert step.earlier("result") is None


def test_an_earlier_version_that_is_gone_is_passed_over(project: Any) -> None:
    first = run_with(project, "a")["thing"]
    second = run_with(project, "b")["thing"]
    (project.root / f".store/default/dev/artifacts/thing/{second}").unlink()
    assert run_with(project, "c")["earlier_thing"] == first


@pytest.mark.parametrize(
    "interface",
    [
        pytest.param('Step.open("judge", reads=["thing"], writes=["result"], earlier=["result"])', id="not read"),
        pytest.param('Step.open("judge", reads=["thing"], writes=["result"], earlier="thing")', id="a text"),
        pytest.param('Step.open("judge", reads=["thing", "earlier_x"], writes=["result"])', id="a reserved name"),
    ],
)
def test_a_wrong_declaration_is_refused(project: Any, interface: str) -> None:
    path = project.root / "steps" / "judge.ipynb"
    content = json.loads(path.read_text())
    (cell,) = [each for each in content["cells"] if "interface" in each["metadata"].get("tags", [])]
    cell["source"] = interface
    path.write_text(json.dumps(content))
    project.step("judge").fails("the interface cell does not open the step")
