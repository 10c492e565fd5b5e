"""A step at work: what a notebook holds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import GateError, IntegrityError, StepError, UsageError
from pipeline.runtime.step import COMMITTED, CONTEXT, Step, StepContext
from pipeline.runtime.store.artifact_store import Artifact, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With one artifact, `letters`."""
    return Store(str(tmp_path / "store"))


@pytest.fixture
def letters(store: Store, tmp_path: Path) -> Artifact:
    """An input."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.txt").write_text("hello")
    return store.put("letters", tmp_path / "in", "run/first/1")


@pytest.fixture
def step(store: Store, letters: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Step:
    """As the runner has it opened."""
    context = StepContext(
        step="second",
        made_by="run/second/1",
        store=store.url,
        work=str(tmp_path / "work"),
        cache=str(tmp_path / "cache"),
        inputs={"letters": letters},
        resume=str(tmp_path / "resume"),
        logs=str(tmp_path / "logs"),
    )
    context.write(tmp_path / "context.json")
    assert StepContext.read(tmp_path / "context.json") == context
    monkeypatch.setenv(CONTEXT, str(tmp_path / "context.json"))
    return Step.open("second", reads=["letters"], writes=["words", "more"])


def fill(step: Step) -> None:
    for name in step.outputs:
        (step.outputs[name] / "text.txt").write_text(name)


def committed(step: Step) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((step.work / COMMITTED).read_text())
    return content


def test_inputs_are_fetched_when_asked_for_and_outputs_are_empty_folders(step: Step) -> None:
    assert list(step.inputs) == ["letters"]
    assert not (step.work / "inputs").exists()
    assert (step.inputs["letters"] / "text.txt").read_text() == "hello"
    assert step.inputs["letters"] == step.inputs["letters"]
    assert {name: list(step.outputs[name].iterdir()) for name in step.outputs} == {"words": [], "more": []}
    assert step.cache.is_dir()
    assert step.resume.is_dir()
    assert not step.resume.is_relative_to(step.work)
    for side, name in ((step.inputs, "words"), (step.outputs, "letters"), (step.inputs, "zzz")):
        with pytest.raises(UsageError, match="interface cell"):
            side[name]


def test_a_commit_publishes_everything_once(step: Step, store: Store, tmp_path: Path) -> None:
    fill(step)
    metrics = {"length": 5, "rate": np.float32(0.5), "name": "x", "good": np.bool_(True)}
    undefined = {"nan": float("nan"), "inf": float("inf"), "numpy": np.float64("nan"), "none": None}
    step.commit(metrics={**metrics, **undefined}, limits={"rate 0.5, at least 0.5": True})
    content = committed(step)
    assert content["limits"] == {"rate 0.5, at least 0.5": True}
    assert content["metrics"] == {"length": 5, "rate": 0.5, "name": "x", "good": True, **dict.fromkeys(undefined)}
    words = Artifact(**content["outputs"]["words"])
    assert words.made_by == "run/second/1"
    assert (store.get(words, tmp_path / "out") / "text.txt").read_text() == "words"
    assert not (step.work / "inputs").exists(), "an input that was not read is not checked"
    with pytest.raises(StepError, match="committed already"):
        step.commit(metrics={"n": 2})
    assert committed(step) == content


def test_what_cannot_be_published_is_refused_before_anything_is(step: Step, store: Store) -> None:
    (step.outputs["words"] / "text.txt").write_text("x")
    with pytest.raises(StepError, match="wrote nothing to more"):
        step.commit(metrics={})
    fill(step)
    for value in ([1], {"a": 1}, np.zeros(2), object()):
        with pytest.raises(UsageError, match="the metric 'odd'"):
            step.commit(metrics={"odd": value})
    with pytest.raises(UsageError, match=r"(?s)'words' is judged, which is no input.*letters"):
        step.commit(metrics={}, judged="words")
    for path in ("words", "words/none.txt", "zzz/text.txt"):
        with pytest.raises(UsageError, match=r"no file of an output|interface cell"):
            step.commit(metrics={}, evidence=[path])
    assert not (step.work / COMMITTED).exists()
    assert store.files.names("artifacts/words") == []


def test_a_commit_tells_what_it_judges_its_limits_and_the_digest_of_its_evidence(step: Step) -> None:
    fill(step)
    limits = {"score 1, at least 0.5": True, "slips not known, at most 2": None}
    step.commit(metrics={"score": 1}, limits=limits, judged="letters", evidence=["words/text.txt"])
    found = {name: committed(step)[name] for name in ("limits", "judged", "evidence")}
    digest = hashlib.sha256(b"words").hexdigest()
    assert found == {"limits": limits, "judged": "letters", "evidence": {"words/text.txt": digest}}


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        pytest.param({"score 0.5, at least 0.5": True}, "", id="met"),
        pytest.param({"score 0.4, at least 0.5": False}, "not passed: score 0.4, at least 0.5", id="missed"),
        pytest.param({"a": True, "b": False, "c": False}, "not passed: b; c", id="some missed"),
        pytest.param({"share of known images": None}, "", id="unknown"),
        pytest.param({}, "", id="no limit"),
    ],
)
def test_beyond_its_gate_a_step_fails_and_its_outputs_are_kept(
    step: Step, limits: dict[str, bool | None], says: str
) -> None:
    fill(step)
    with pytest.raises(GateError, match=says) if says else nullcontext():
        step.commit(metrics={"score": 0.5}, notes=["one is known"], limits=limits)
    assert set(committed(step)["outputs"]) == {"words", "more"}
    assert (committed(step)["notes"], committed(step)["limits"]) == (["one is known"], limits)


def test_a_report_can_state_its_origin(step: Step, store: Store, letters: Artifact, tmp_path: Path) -> None:
    assert step.provenance == {"made by": "run/second/1", "commit": step.code_version, "letters": letters.digest}
    folders = {name: str(tmp_path / name) for name in ("work", "cache", "resume", "logs")}
    context = StepContext(
        "second", "run/second/1", store.url, inputs={"letters": letters}, mode="prod",
        chosen={"letters": "latest~3"}, uses={"letters": 14}, code_version="ab-dirty", code_time="2026",
        parameters={"loud": True}, defaults={"loud": False}, config_option=" --config a", **folders,
    )  # fmt: skip
    context.write(tmp_path / "context.json")
    step = Step.open("second", reads=["letters"], writes=["words"])
    assert step.provenance["letters"] == f"{letters.digest}, chosen by hand: latest~3"
    assert (step.mode, step.chosen, step.uses) == ("prod", {"letters": "latest~3"}, {"letters": 14})
    assert (step.code_version, step.code_time, step.input_digests) == ("ab-dirty", "2026", {"letters": letters.digest})
    assert (step.parameters, step.defaults) == ({"loud": True}, {"loud": False})
    assert (step.config_option, step.run_option) == (" --config a", " --run run")
    replace(context, by_hand=True).write(tmp_path / "context.json")
    assert Step.open("second", reads=["letters"], writes=["words"]).run_option == ""


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda path: (path.chmod(0o644), path.write_text("jello")), "text.txt", id="written in place"),
        pytest.param(lambda path: path.unlink(), "text.txt", id="removed"),
        pytest.param(lambda path: path.rename(path.with_name("x")), "text.txt", id="renamed"),
    ],
)
def test_a_step_that_changes_its_input_fails(
    step: Step, store: Store, letters: Artifact, tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    fill(step)
    spoil(step.inputs["letters"] / "text.txt")
    with pytest.raises(IntegrityError, match=f"changed its input letters: {says}"):
        step.commit(metrics={})
    assert not (step.work / COMMITTED).exists()
    with suppress(IntegrityError):  # where the store's own bytes were written to, it says so
        assert (store.get(letters, tmp_path / "again") / "text.txt").read_text() == "hello"


def test_an_input_of_the_same_bytes_is_the_same_input(step: Step, store: Store, letters: Artifact) -> None:
    fill(step)
    path = step.inputs["letters"] / "text.txt"
    store.files.renew(store.index(letters)[0].key)  # as another step does that stores the same bytes
    os.utime(path, (1, 1))
    step.commit(metrics={})
    path.unlink()
    path.write_text("hello")
    (step.work / COMMITTED).unlink()
    step.commit(metrics={})


# --- opened by hand --------------------------------------------------------------------------------------------------

BY_HAND = """
from pathlib import Path
from pipeline.runtime.step import Step
step = Step.open("second", reads=["letters"], writes=["words"])
print("here", Path.cwd(), flush=True)
print("read", (step.inputs["letters"] / "text.txt").read_text())
print("full", list(step.outputs["words"].iterdir()))
(step.outputs["words"] / "text.txt").write_text("by hand")
step.commit(metrics={"length": 1})
step.commit(metrics={"length": 2})
"""


def by_hand(place: Path, code: str = BY_HAND) -> subprocess.CompletedProcess[str]:
    """As Jupyter would run it: from the notebooks' folder, with no word from the runner."""
    return subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)


def test_opened_by_hand_a_notebook_has_the_newest_dev_runs_inputs_and_publishes_nothing(ran: Any) -> None:
    newest = ran.manifest()
    artifacts = sorted((ran.root / ".store").glob("*/dev/artifacts/*/*"))
    for _ in range(2):
        done = by_hand(ran.root / "steps")
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()
        assert {f"here {ran.root}", "read hallo", "full []"} <= set(said), "each opening starts afresh"
        assert f"opened by hand, with the inputs of run {newest['run']}" in said
        assert "publish with: python step.dev.py second" in said
    assert sorted((ran.root / ".store").glob("*/dev/artifacts/*/*")) == artifacts
    assert ran.manifest() == newest
    written = ran.root / ".cache" / "by_hand" / "second" / "outputs" / "words" / "text.txt"
    assert written.read_text() == "by hand"


def test_opened_by_hand_before_any_run_it_says_what_to_do(toy: Any) -> None:
    done = by_hand(toy.root / "steps")
    assert done.returncode == 1
    assert "no dev run has made it yet" in done.stderr
    assert "python step.dev.py" in done.stderr
    first = 'from pipeline.runtime.step import Step\nStep.open("first", reads=[], writes=["letters"])'
    done = by_hand(toy.root / "steps", first)
    assert done.returncode == 0, "what reads nothing needs no run"


def test_opened_by_hand_it_follows_the_store_of_the_newest_run(ran: Any) -> None:
    (ran.root / ".store" / "default").rename(ran.root / ".store" / "team")
    assert by_hand(ran.root / "steps").returncode == 1
    config = ran.root / "configs" / "demo.yaml"
    config.write_text(config.read_text() + "zone: team\n")
    assert ran.step().code == 0
    assert "read hallo" in by_hand(ran.root / "steps").stdout
