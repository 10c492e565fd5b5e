"""Runs that were killed or failed: the same command completes them, with the result of an undisturbed run."""

from __future__ import annotations

import random
import signal
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest

from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact, Store

MOMENTS = 30
STEPS = ("first", "second", "third")


def outputs(toy: Any) -> dict[str, str]:
    """Entity to digest, of the newest run."""
    steps = toy.manifest()["steps"]
    return {entity: artifact["digest"] for name in STEPS for entity, artifact in steps[name]["outputs"].items()}


def attempts(step: dict[str, Any]) -> list[str]:
    """Status of each attempt, the newest first."""
    return [step["status"], *(earlier["status"] for earlier in step["earlier_attempts"])]


def kill(process: Any, what: str) -> None:
    """SIGKILL for the runner, for its kernel, or for both at once, as when the machine goes down."""
    with suppress(psutil.NoSuchProcess):
        runner = psutil.Process(process.pid)
        kernels = runner.children(recursive=True)
        for victim in {"runner": [runner], "kernel": kernels, "machine": [runner, *kernels]}[what]:
            with suppress(psutil.NoSuchProcess):
                victim.kill()


def check_store(toy: Any) -> None:
    """Whatever reads as an artifact is whole, and a record refers to it."""
    runs = Runs(Store(str(toy.root / ".store/default/dev")))
    records = [record for run in runs.ids() for record in runs.load(run).attempts]
    referred = {(name, artifact.digest) for record in records for name, artifact in record.outputs.items()}
    names = runs.store.files.names("artifacts")
    stored = {(name, digest) for name in names for digest in runs.store.files.names(f"artifacts/{name}")}
    assert stored == referred
    for name, digest in stored:
        assert runs.store.check(Artifact(name, "", digest, 0, 0)) == []


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_the_run(new_toy: Any, tmp_path: Any) -> None:
    undisturbed, toy = new_toy(tmp_path / "undisturbed"), new_toy(tmp_path / "disturbed")
    began = time.monotonic()
    process = undisturbed.spawn("--set", "first.text=warm up")
    assert process.wait(120) == 0
    duration = time.monotonic() - began
    chance, continued = random.Random(7), 0
    for number in range(MOMENTS):
        command = ("--set", f"first.text=text {number}")
        moment = chance.uniform(0, duration)
        process = toy.spawn(*command)
        time.sleep(moment)
        kill(process, ("runner", "kernel", "machine")[number % 3])
        process.communicate(timeout=60)
        begun = [row["run"] for row in toy.runs()]
        for _ in range(3):
            if toy.step(*command).code == 0:
                break
        assert set(toy.statuses().values()) <= {"succeeded", "reused"}
        continued += toy.manifest()["run"] in begun
        assert undisturbed.step(*command).code == 0
        assert outputs(toy) == outputs(undisturbed)
        assert toy.states() == dict.fromkeys(STEPS, "done")
        check_store(toy)
    assert continued > MOMENTS / 3
    assert toy.left_over() == []
    ends = {a for row in toy.runs() for step in toy.manifest(row["run"])["steps"].values() for a in attempts(step)}
    assert ("killed" in ends, "running" in ends) == (True, False), "every attempt has an end"


def test_a_killed_run_is_continued_by_the_same_command(toy: Any) -> None:
    process = toy.spawn("--set", "second.act=sleep")
    kernel = toy.kernel()
    kill(process, "runner")
    process.communicate(timeout=30)
    toy.wait_for(lambda: not toy.is_alive(kernel))
    before = toy.manifest()
    assert toy.states() == {"first": "done", "second": "killed", "third": "not run"}
    assert toy.runs()[0]["steps"]["second"] == "killed", "before anyone records its end"
    assert "second, attempt 1: killed\n" in toy.look("show").out
    assert "its process is gone" in toy.look("status").out
    assert len(toy.left_over()) == 1
    (toy.root / ".cache" / "kernel.pid").unlink()
    process = toy.spawn("--set", "second.act=sleep")
    toy.kernel()
    process.send_signal(signal.SIGINT)
    assert f"run {before['run']}  dev  toy  continued" in process.communicate(timeout=30)[1]
    after = toy.manifest()
    assert after["run"] == before["run"]
    assert after["steps"]["first"] == before["steps"]["first"], "what is done is not done again"
    assert attempts(after["steps"]["second"]) == ["interrupted", "killed"]
    assert toy.left_over() == [], "the killed attempt's folder is gone"
    assert toy.step("--set", "second.act=go").code == 0
    assert toy.manifest()["run"] != before["run"], "another command opens another run"
    assert toy.statuses() == {"first": "reused", "second": "succeeded", "third": "succeeded"}


def test_a_run_that_another_process_is_at_work_on_is_left_to_it(toy: Any) -> None:
    process = toy.spawn("--set", "second.act=sleep")
    toy.kernel()
    first = toy.manifest()["run"]
    other = toy.spawn("--set", "second.act=sleep")
    toy.wait_for(lambda: len(toy.runs()) == 2)
    for each in (process, other):
        kill(each, "machine")
        each.communicate(timeout=30)
    assert toy.runs()[0]["run"] == first


def test_a_run_that_failed_is_continued_until_it_is_complete(toy: Any, in_process: None) -> None:
    flag = toy.root / ".cache" / "flag"
    cells = toy.cells_of("second")
    cells[5] = ("", cells[5][1] + '\nif not (step.cache / "flag").exists():\n    raise OSError("the world is away")')
    toy.notebook("second", cells)
    assert toy.step().code == 1
    failed = toy.manifest()["run"]
    flag.touch()
    assert toy.step().code == 0
    manifest = toy.manifest()
    assert manifest["run"] == failed
    assert attempts(manifest["steps"]["second"]) == ["succeeded", "failed"]
    assert toy.step().code == 0
    assert toy.manifest()["run"] != failed, "a complete run is not continued"


def test_a_changed_command_opens_a_run_of_its_own(toy: Any, in_process: None) -> None:
    failing, config = ("--set", "second.act=fail"), toy.root / "configs" / "demo.yaml"
    assert toy.step(*failing).code == 1
    toy.notebook("first", [*toy.cells_of("first"), ("md", "more")])
    assert toy.step(*failing).code == 1
    config.write_text(config.read_text().replace("hallo", "hello"))
    assert toy.step(*failing).code == 1
    assert toy.step(*failing, "--force").code == 1
    assert len(toy.runs()) == 4


RESUME = """\
done = step.resume / "done.txt"
already = done.read_text() if done.is_file() else ""
done.write_text(already + "x")
if len(already) < int(note or 0):
    raise OSError("not yet")
text = text + str(len(already))"""


def test_a_resume_folder_is_there_for_the_same_work_only(toy: Any, in_process: None) -> None:
    cells = toy.cells_of("second")
    cells.insert(6, ("", RESUME))
    toy.notebook("second", cells)
    left = toy.root / ".cache" / "resume"
    assert toy.step("--set", "second.note=2").code == 1
    assert len(list(left.iterdir())) == 1
    assert toy.step("--set", "second.note=1").code == 1, "other work starts from nothing"
    assert len(list(left.iterdir())) == 2
    assert toy.step("--set", "second.note=2", "--force").code == 1, "--force starts from nothing"
    assert toy.step("--set", "second.note=2").code == 1
    assert toy.step("--set", "second.note=2").code == 0
    assert (toy.root / "out/dev/toy/book/deep/book.txt").read_text() == "hallo2"
    assert len(list(left.iterdir())) == 1, "it goes when the step has succeeded"


def test_inputs_of_the_same_bytes_are_not_stale_whoever_made_them(ran: Any, in_process: None) -> None:
    run = ran.manifest()["run"]
    assert ran.step("first", "--run", run, "--force").code == 0
    first = ran.manifest(run)["steps"]["first"]
    assert first["outputs"]["letters"]["made_by"] == f"{run}/first/2"
    assert ran.states() == {"first": "done", "second": "done", "third": "done"}
