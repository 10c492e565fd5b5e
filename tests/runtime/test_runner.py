"""Steps that run: through real papermill and kernels."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from exam import in_process

from pipeline.errors import StoreError
from pipeline.runtime import executed_notebook, execution
from pipeline.runtime.git import commit_time
from pipeline.runtime.manifest import run_time
from pipeline.runtime.store.artifact_store import Store


def edit(toy: Any, name: str, more: str, cell: int = -1) -> None:
    """Add a source to a cell of a step's notebook."""
    path = toy.root / "steps" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[cell].source += more
    nbformat.write(notebook, path)


def test_all_steps_run_and_what_they_made_is_printed(ran: Any, first_outcome: Any) -> None:
    assert first_outcome.code == 0
    run = ran.manifest()["run"]
    lines = first_outcome.out.strip().splitlines()
    assert lines[0] == f"run {run}"
    assert [line.split()[:2] for line in lines[1:4]] == [[s, "succeeded"] for s in ("first", "second", "third")]
    assert lines[3].endswith("score 0.5  pages 1"), "the first two metrics, not the third"
    assert shlex.split(lines[4]) == ["index", f"{shlex.split(lines[6])[1].removesuffix('page')}index.html"]
    read, it, book, _, programs = shlex.split(lines[5])
    assert (read, it, Path(book).read_text()) == ("read", "it", "hallo"), "a deliverable is where its line says"
    assert Path(programs, "python").exists()
    assert Path(shlex.split(lines[6])[1], "page.txt").read_text() == "hallo"
    assert ran.left_over() == []


def test_a_notebook_knows_its_commit_and_the_time_of_it_or_of_its_inputs(toy: Any) -> None:
    said = '\nPath("said.txt").write_text(f"{step.code_version} {step.code_time}")'
    edit(toy, "second", said, cell=3)

    def step(name: str) -> str:
        assert toy.step(name, "--force").code == 0
        return (toy.root / "said.txt").read_text() if name == "second" else ""

    run = step("first") or toy.manifest()["run"]
    assert step("second") == f" {run_time(run)}", "outside of git"
    (toy.root / "said.txt").unlink()
    commit = toy.commit()
    step("first")
    assert step("second") == f"{commit} {commit_time(toy.root, commit)}"
    assert step("second") == f"{commit}-dirty {commit_time(toy.root, commit)}", "the file that it wrote is new"


def test_a_notebook_knows_its_parameters_and_their_defaults(toy: Any) -> None:
    edit(toy, "first", '\nPath("said.txt").write_text(repr((step.parameters, step.defaults)))', cell=3)
    assert toy.step("first", "--set", "first.times=3").code == 0
    url = "sample://x?a=1&b=2#c"
    values = {"text": "hallo", "times": 3, "url": url}, {"text": "hello", "times": 1, "url": url}
    assert (toy.root / "said.txt").read_text() == repr(values)


def test_a_notebook_knows_how_a_command_line_finds_its_run(toy: Any) -> None:
    edit(toy, "first", '\nPath("said.txt").write_text(f"{step.input_digests}{step.config_option}")', cell=3)
    assert toy.step("first").code == 0
    assert (toy.root / "said.txt").read_text() == "{}", "the default config needs no option"
    config = (toy.root / "configs/demo.yaml").read_text()
    for file in (toy.root / "configs/my team.yaml", toy.root.parent / "elsewhere.yaml"):
        file.write_text(f"{config}zone: team\n")
    assert toy.step("first", "--config", "configs/my team.yaml").code == 0
    option = (toy.root / "said.txt").read_text().removeprefix("{}")
    assert option == " --config 'configs/my team.yaml'"
    assert toy.look("show", *shlex.split(option)).out != toy.look("show").out, "that of the other zone"
    assert toy.step("first", "--force", "--config", str(toy.root.parent / "elsewhere.yaml")).code == 0
    assert (toy.root / "said.txt").read_text() == "{} --config elsewhere.yaml", "no path of this machine"


def test_the_record_says_what_went_in_and_what_came_out(ran: Any) -> None:
    manifest = ran.manifest()
    first, second, third = (manifest["steps"][name] for name in ("first", "second", "third"))
    assert first["parameters"] == {"text": "hallo", "times": 1, "url": "sample://x?a=1&b=2#c"}
    assert second["inputs"] == first["outputs"]
    assert third["inputs"] == {**first["outputs"], **second["outputs"]}
    assert second["outputs"]["words"]["made_by"] == f"{manifest['run']}/second/1"
    assert second["metrics"] == {"length": 5, "odd": None}
    assert second["started"] < second["ended"] <= third["started"]
    assert (third["limits"], third["judged"]) == ({}, "words")
    assert third["evidence"] == {"page/page.txt": hashlib.sha256(b"hallo").hexdigest()}
    assert second["environment"]["python"]
    assert manifest["config"]["parameters"]["first"] == first["parameters"]
    assert "The first step" in Path(first["report"]).read_text()
    contents = [path.read_text() for path in ran.root.glob(".store/default/dev/objects/*/*")]
    assert "sample://x?a=1&b=2#c" in contents, "the notebook was given it whole"


def test_a_second_run_reuses_everything_and_says_so(ran: Any) -> None:
    before = ran.manifest()
    outcome = ran.step()
    after = ran.manifest()
    assert outcome.code == 0
    assert after["run"] > before["run"]
    for name, step in after["steps"].items():
        assert f"from {before['run']}/{name}/1" in outcome.out
        found = ("outputs", "metrics", "limits", "judged", "evidence")
        fields = (*found, "fingerprint", "notebook", "report")
        assert [step[field] for field in fields] == [before["steps"][name][field] for field in fields]
    ran.step()
    assert ran.manifest()["steps"]["third"]["reused_from"] == f"{before['run']}/third/1", (
        "who made it, not who reused it"
    )


def test_a_changed_parameter_runs_its_step_and_what_depends_on_a_changed_output(ran: Any, in_process: None) -> None:
    ran.step("--set", "second.note=changes nothing that third reads")
    assert ran.statuses() == {"first": "reused", "second": "succeeded", "third": "reused"}
    ran.step("--set", "second.loud=true")
    assert ran.statuses() == {"first": "reused", "second": "succeeded", "third": "succeeded"}
    assert (ran.root / "out/dev/toy/book/deep/book.txt").read_text() == "HALLO"
    assert ran.manifest()["steps"]["second"]["overrides"] == {"loud": True}
    assert ran.step().code == 0
    assert set(ran.statuses().values()) == {"reused"}, "what was made before is still known"
    assert (ran.root / "out/dev/toy/book/deep/book.txt").read_text() == "hallo"


def test_a_changed_notebook_or_force_runs_again(ran: Any, in_process: None) -> None:
    edit(ran, "third", "  # more")
    ran.step()
    assert ran.statuses() == {"first": "reused", "second": "reused", "third": "succeeded"}
    assert ran.step("second", "--force").code == 0
    second = ran.manifest()["steps"]["second"]
    assert (second["status"], second["attempt"]) == ("succeeded", 2)
    assert [(earlier["status"], earlier["attempt"]) for earlier in second["earlier_attempts"]] == [("reused", 1)]


def test_a_failing_cell_is_told_in_few_lines(toy: Any) -> None:
    outcome = toy.step("--set", "second.act=fail")
    assert outcome.code == 1
    error = outcome.log[outcome.log.index("error:") :].splitlines()
    assert error[0] == "error: second failed"
    assert error[1] == "  ValueError: no such luck"
    assert "in:       cell 6 of 9: Work on." in error[2]
    assert any('raise ValueError("no such luck")' in line for line in error)
    assert len(error) <= 10
    assert toy.statuses() == {"first": "succeeded", "second": "failed"}
    second = toy.manifest()["steps"]["second"]
    assert (second["outputs"], second["error_kind"]) == ({}, "ValueError")
    assert not list(toy.root.glob(".store/default/dev/artifacts/words/*")), "it has published nothing"
    notebook = nbformat.read(second["notebook"], as_version=4)
    assert any(output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", []))
    assert "no such luck" in Path(second["report"]).read_text()
    assert not (toy.root / "out").exists()
    assert toy.left_over() == []
    assert toy.states() == {"first": "done", "second": "failed", "third": "not run"}


@pytest.mark.parametrize(
    ("act", "says", "kind"),
    [
        pytest.param("refuse", "the text is bad\n    where:    text.txt\n    do:       write", "DataError", id="own"),
        pytest.param("forget", "without step.commit(...)", "StepError", id="no commit"),
    ],
)
def test_a_step_that_fails_says_why(ran: Any, act: str, says: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if act != "refuse":  # once through a kernel
        monkeypatch.setattr(execution, "execute", in_process)
    outcome = ran.step("second", "--set", f"act={act}")
    assert (outcome.code, says in outcome.log, "Traceback" in outcome.log) == (1, True, False), outcome.log
    assert ran.manifest()["steps"]["second"]["error_kind"] == kind
    assert ran.step("third").code == 0, "the earlier success still counts"


def test_a_killed_kernel_is_told(ran: Any) -> None:
    ran.step("second", "--set", "act=die").fails(
        "second failed\n  the kernel died\n    in:       cell 7 of 9: Work on.", "memory"
    )
    second = ran.manifest()["steps"]["second"]
    assert (second["status"], second["error_kind"]) == ("failed", "DeadKernelError")
    assert "so far so good" in Path(second["notebook"]).read_text(), "kept as far as it came"
    assert ran.left_over() == []


def test_below_its_gate_a_step_fails_and_what_it_made_can_be_looked_at(ran: Any, in_process: None) -> None:
    before = ran.manifest()
    ran.step("--set", "third.minimum=0.8").fails(
        "the quality gate is not passed: score 0.5, at least 0.8", f"page     {ran.root}/out/dev/toy/below_gate/page"
    )
    assert (ran.root / "out/dev/toy/below_gate/page/page.txt").read_text() == "hallo"
    assert "<h1>toy: failed at third</h1>" in (ran.root / "out/dev/toy/below_gate/index.html").read_text()
    assert "<h1>toy: complete</h1>" in (ran.root / "out/dev/toy/index.html").read_text()
    third = ran.manifest()["steps"]["third"]
    assert (third["status"], third["error_kind"]) == ("failed", "GateError")
    assert third["metrics"] == before["steps"]["third"]["metrics"]
    assert third["limits"] == {"score 0.5, at least 0.8": False}
    assert third["outputs"].keys() == before["steps"]["third"]["outputs"].keys()
    assert ran.step("--set", "third.minimum=0.8").code == 1, "a failure is not reused"
    assert ran.step().code == 0
    assert not (ran.root / "out/dev/toy/below_gate").exists(), "what passes now leaves no failure beside it"


def test_what_missed_its_gate_is_not_built_on(ran: Any, in_process: None) -> None:
    ran.notebook(
        "second", [*ran.cells_of("second")[:-1], ("", 'step.commit(metrics={"n": 1}, limits={"n at least 2": False})')]
    )
    assert [ran.step(name).code for name in ("first", "second")] == [0, 1]
    assert set(ran.manifest()["steps"]["second"]["outputs"]) == {"words"}
    ran.step("third").fails("third needs words, and second has not made it in this run", "python step.dev.py second")


def test_prod_tags_the_commit_and_keeps_apart_from_dev(ran: Any, in_process: None) -> None:
    dev, commit = ran.manifest(), ran.commit()
    assert ran.step("first", mode="prod").code == 0
    manifest = ran.manifest("--mode", "prod")
    assert manifest["steps"]["first"]["status"] == "succeeded", "dev's success is not prod's"
    assert manifest["steps"]["first"]["parameters"]["text"] == "servus"
    assert (manifest["code"]["commit"], manifest["code"]["dirty"]) == (commit, False)
    assert ran.git("tag", "--points-at", commit).split() == [manifest["run"]]
    assert ran.manifest() == dev

    edited = ran.root / "configs" / "demo.yaml"
    edited.write_text(edited.read_text() + "# my work\n")
    before = (edited.read_text(), ran.json("runs", "--mode", "prod"))
    ran.step("first", mode="prod").fails("prod refuses a dirty tree: 1 file")
    assert (edited.read_text(), ran.json("runs", "--mode", "prod")) == before


def test_a_failed_prod_step_is_not_tagged(toy: Any, in_process: None) -> None:
    toy.commit()
    assert toy.step("first", "--set", "times=x", mode="prod").code == 2
    edit(toy, "first", "\n1 / 0", 1)
    toy.git("commit", "-q", "-a", "-m", "broken")
    assert toy.step("first", mode="prod").code == 1
    assert toy.git("tag") == ""


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [(Store, "keep", StoreError("the store is full")), (executed_notebook, "write_html", ValueError("its own"))],
    ids=["store", "converter"],
)
def test_a_step_does_not_fail_with_its_html(
    ran: Any, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, fault: Exception
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(owner, name, fail)
    monkeypatch.setattr(execution, "execute", in_process_with_notebook)
    outcome = ran.step("second", "--force")
    assert outcome.code == 0
    assert "the notebook of second/2 is not kept whole" in outcome.log
    second = ran.manifest()["steps"]["second"]
    assert (second["status"], second["outputs"]["words"]["files"]) == ("succeeded", 1)


def in_process_with_notebook(
    root: Path, step: Any, parameters: dict[str, Any], executed: Path, context: Path, *, stream: bool
) -> execution.Execution:
    executed.write_text(step.content)
    return in_process(root, step, parameters, executed, context, stream=stream)


# --- stopping and being killed ---------------------------------------------------------------------------------------


NAMED = '\n(Path(".cache") / "kernel.pid").write_text(str(os.getpid()))'


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, told = process.communicate(timeout=30)
    return process.returncode, told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_step_tidies_up_and_is_recorded(ran: Any, number: signal.Signals, code: int) -> None:
    process = ran.spawn("second", "--set", "act=sleep")
    kernel = ran.kernel()
    process.send_signal(number)
    assert ended(process)[0] == code
    assert (ran.root / ".cache" / "tidied").is_file(), "the cell could end what it had begun"
    ran.wait_for(lambda: not ran.is_alive(kernel))
    second = ran.manifest()["steps"]["second"]
    assert (second["status"], second["error"]) == ("interrupted", f"stopped by {number.name}")
    assert Path(second["notebook"]).is_file()
    assert ran.left_over() == []
    assert ran.states()["second"] == "interrupted"


def test_a_stop_that_comes_too_late_for_a_step_stops_before_the_next(ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*arguments: Any, **more: Any) -> execution.Execution:
        return replace(in_process(*arguments, **more), signal=signal.SIGINT)

    monkeypatch.setattr(execution, "execute", late)
    outcome = ran.step("--force")
    assert outcome.code == 130
    assert ran.statuses() == {"first": "succeeded"}


def test_after_a_cell_that_takes_ctrl_c_for_its_own_no_other_runs(ran: Any) -> None:
    edit(ran, "second", f"{NAMED}\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass", 1)
    process = ran.spawn("second")
    ran.kernel()
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130
    assert ran.manifest()["steps"]["second"]["status"] == "interrupted"


def test_a_cell_that_will_not_stop_is_ended_by_the_second_ctrl_c(ran: Any) -> None:
    deaf = "\nimport signal; signal.signal(signal.SIGINT, lambda *_: None)"
    edit(ran, "second", f"{deaf}{NAMED}\ntime.sleep(60)", 1)
    process = ran.spawn("second")
    kernel = ran.kernel()
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130
    ran.wait_for(lambda: not ran.is_alive(kernel))
    assert ran.manifest()["steps"]["second"]["status"] == "interrupted"


# --- the kernel's surroundings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "long" * 30], ids=["short", "long"])
def test_sockets_lie_where_only_this_user_can_go_and_are_removed(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    with tempfile.TemporaryDirectory() as short:
        (Path(short) / place).mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(Path(short) / place))
        with execution.kernel_sockets() as sockets:
            folder = Path(sockets.KernelManager.connection_file).parent
            assert sockets.KernelManager.transport == "ipc"
            assert len(os.fsencode(sockets.KernelManager.connection_file)) < execution.SOCKET_PATH
            assert folder.stat().st_mode & 0o777 == 0o700
            (folder / "k-ipc-1").touch()
        assert not folder.exists()


def test_a_kernel_that_does_not_start_is_told_and_recorded(ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    ran.step("second", "--force").fails("second failed\n  the notebook could not be executed: Kernel died")
    assert ran.manifest()["steps"]["second"]["status"] == "failed"
    assert ran.left_over() == []


def test_whatever_happens_the_record_is_closed(ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(execution, "execute", explode)
    ran.step("second", "--force").fails("no space left on device")
    second = ran.manifest()["steps"]["second"]
    assert (second["status"], second["error_kind"]) == ("failed", "OSError")
    assert "No space left" in second["error"]


def test_a_notebook_is_executed_as_it_was_when_the_command_began(ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ran.root / "steps" / "third.ipynb"

    def edited_meanwhile(*arguments: Any, **more: Any) -> execution.Execution:
        path.write_text(path.read_text().replace("The third step", "Another step"))
        return in_process_with_notebook(*arguments, **more)

    monkeypatch.setattr(execution, "execute", edited_meanwhile)
    assert ran.step("third", "--force").code == 0
    assert "Another step" in path.read_text()
    third = ran.manifest()["steps"]["third"]
    assert "The third step" in Path(third["notebook"]).read_text()
    assert ran.states()["third"] == "stale"


def test_a_project_may_lie_anywhere(ran: Any, tmp_path: Path) -> None:
    odd = tmp_path / "it's {a} [strange] ü place #1 %20"
    ran.root.rename(odd)
    moved = type(ran)(odd)
    assert moved.step().code == 0
    assert set(moved.statuses().values()) == {"reused"}, "a moved project keeps what it has made"
    assert moved.step("third", "--force").code == 0
    assert (odd / "out/dev/toy/book/deep/book.txt").read_text() == "hallo"
