"""Old runs, run again by the real command lines: from another commit, tree, config and store than there are now."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from records import artifact, attempt, failed, run_of

from pipeline.cli.step_commands import parse_overrides
from pipeline.runtime.notebook import read_steps
from pipeline.runtime.parameters import TYPES
from pipeline.runtime.project import with_config
from pipeline.runtime.rerunning import _needed, _to_set
from pipeline.runtime.worktree import worktree

REPOSITORY = Path(__file__).parents[2]
CONFIG = "configs/demo.yaml"
COLLECT = """\
import shutil
shutil.copytree("files", step.outputs["letters"] / "files", symlinks=True)
(step.outputs["letters"] / "text.txt").write_text(f"{text!r} {times!r} {url!r}")"""


@pytest.fixture(scope="session")
def _committed(_ran: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("committed") / "toy"
    shutil.copytree(_ran[0].root, root)
    toy = type(_ran[0])(root)
    toy.commit()
    assert toy.step("--force").code == 0
    return toy


@pytest.fixture
def committed(_committed: Any, tmp_path: Path) -> Any:
    """The project after a run of three steps from a commit, which is `latest`; a copy, for this test alone."""
    shutil.copytree(_committed.root, tmp_path / "committed")
    return type(_committed)(tmp_path / "committed")


@pytest.fixture
def alone(tmp_path: Path, new_toy: Callable[..., Any]) -> Any:
    """A project of one step, which stores what it finds in `files/` and its parameters."""
    toy = new_toy(tmp_path / "alone", ("first",))
    cells = toy.cells_of("first")
    cells[5] = ("", COLLECT)
    toy.notebook("first", cells)
    (toy.root / "files").mkdir()
    (toy.root / "files" / "one.txt").write_text("one\n")
    toy.commit()
    return toy


def digests(toy: Any, run: str = "latest", *options: str) -> dict[str, str]:
    steps = toy.manifest(run, *options)["steps"].values()
    return {name: artifact["digest"] for step in steps for name, artifact in step["outputs"].items()}


def snapshot(toy: Any) -> dict[str, Any]:
    """All of a checkout that is somebody's work."""
    told = (("rev-parse", "HEAD"), ("branch", "-vv"), ("stash", "list"), ("status", "--porcelain", "-z"), ("tag",))
    state: dict[str, Any] = {" ".join(asked): toy.git(*asked) for asked in (*told, ("ls-files", "-s"))}
    for path in toy.root.rglob("*"):
        if path.is_file() and path.relative_to(toy.root).parts[0] not in (".git", ".store", ".cache", "out"):
            state[str(path)] = path.read_bytes()
    return state


def assert_no_worktree(toy: Any) -> None:
    assert len(toy.git("worktree", "list").splitlines()) == 1
    assert not (toy.root / ".git" / "worktrees").exists()
    assert [path for path in (toy.root / ".cache" / "rerun").iterdir() if path.is_dir()] == []


def again(toy: Any, *arguments: str) -> dict[str, Any]:
    """Run the named run or the newest again, and see that every output is the same."""
    outcome = toy.look("rerun", *(arguments or ["latest"]), "--json")
    assert outcome.code == 0, outcome.log
    content: dict[str, Any] = json.loads(outcome.out)
    assert content["is_same"]
    assert all(not step["different"] and not step["causes"] for step in content["steps"]), content
    assert content["environment"] == {}
    options = arguments[1:] if "--reload" not in arguments else ()
    assert digests(toy, content["new"], *options) == digests(toy, content["old"], *options)
    assert_no_worktree(toy)
    return content


def test_later_commits_and_work_in_progress_change_nothing_and_stay_untouched(committed: Any) -> None:
    old, commit = committed.manifest()["run"], committed.git("rev-parse", "HEAD").strip()
    config = committed.root / CONFIG
    config.write_text(config.read_text().replace("hallo", "hello"))
    cells = committed.cells_of("second")
    committed.notebook("second", [*cells[:-1], ("", 'text = "another"'), cells[-1]])
    committed.git("commit", "-qam", "later")
    config.write_text(config.read_text() + "# stashed\n")
    committed.git("stash")
    config.write_text(config.read_text() + "# staged\n")
    committed.git("add", "-A")
    (committed.root / "steps" / "third.ipynb").unlink()
    (committed.root / "new.txt").write_text("not known to git")
    hook = committed.root / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\ntouch "$(git rev-parse --git-common-dir)/hooked"\n')
    hook.chmod(0o755)
    before = snapshot(committed)
    outcome = committed.look("rerun", old)
    assert outcome.code == 0, outcome.log
    assert snapshot(committed) == before
    assert not (committed.root / ".git" / "hooked").exists()
    assert_no_worktree(committed)
    new = committed.manifest()
    assert new["steps"]["second"]["code"] == {"commit": commit, "dirty": False, "diff": "", "untracked": {}}
    assert new["config_file"] == CONFIG
    assert outcome.out.splitlines() == [
        f"run {new['run']} is run {old} again",
        "  first   reused     the same: letters",
        "  second  succeeded  the same: words",
        "  third   succeeded  the same: book, page",
        "it is the newest dev run now, which a step that is run alone joins; --run names another",
    ]
    assert outcome.log.count(f"run {new['run']}") == 1
    committed.git("checkout", "-q", "HEAD", "steps")
    assert committed.states() == {"first": "stale", "second": "stale", "third": "done"}


def test_a_dirty_tree_comes_back_to_the_byte(alone: Any) -> None:
    files = alone.root / "files"
    made = {
        "text.txt": b"old\nlines \t\n",
        "binary.bin": bytes(range(256)) * 9,
        "crlf.txt": b"one\r\ntwo\r\n",
        "no end.txt": b"no newline",
        "gone.txt": b"gone\n",
        "ümlaut.txt": b"name\n",
    }
    for name, content in made.items():
        (files / name).write_bytes(content)
    (files / "script.sh").write_text("#!/bin/sh\n")
    alone.git("add", "-A")
    alone.git("commit", "-qm", "files")
    (files / "text.txt").write_bytes("neu\nlines \t\n日本語\n".encode())
    (files / "binary.bin").write_bytes(bytes(reversed(range(256))) * 9)
    (files / "crlf.txt").write_bytes(b"one\r\n2\r\nthree\n")
    (files / "no end.txt").write_bytes(b"still no newline")
    (files / "ümlaut.txt").write_bytes(b"")
    (files / "gone.txt").unlink()
    (files / "one.txt").rename(files / "renamed.txt")
    (files / "script.sh").chmod(0o755)
    (files / "staged.txt").write_bytes(b"new\n")
    alone.git("add", "files/staged.txt", "files/renamed.txt")
    (files / "untracked.py").write_bytes(b"# not known to git\n")
    assert alone.step().code == 0
    old = alone.manifest()
    alone.git("reset", "--hard", "-q")
    assert not (files / "staged.txt").exists()
    content = again(alone, "latest", "--reload")
    assert content["steps"][0]["status"] == "succeeded"
    assert alone.manifest()["code"]["diff"] == old["code"]["diff"]


def test_a_diff_that_was_not_recorded_to_the_byte_is_refused(alone: Any) -> None:
    latin = alone.root / "files" / "latin.txt"
    latin.write_bytes(b"plain\n")
    alone.git("add", "-A")
    alone.git("commit", "-qm", "plain")
    latin.write_bytes("grün\n".encode("latin-1"))
    assert alone.step().code == 0
    before = snapshot(alone)
    outcome = alone.look("rerun", "latest")
    assert outcome.code == 1
    assert "the uncommitted changes of run" in outcome.log
    assert "expected: files in UTF-8, or binary ones" in outcome.log
    assert len(alone.runs()) == 1
    assert snapshot(alone) == before
    assert_no_worktree(alone)


@pytest.mark.parametrize(
    ("place", "is_gone"),
    [
        pytest.param("untracked", False, id="untracked, changed", marks=pytest.mark.slow),
        pytest.param("ignored", True, id="ignored, gone"),
        pytest.param("outside", False, id="outside, changed"),
        pytest.param("outside", True, id="outside, gone", marks=pytest.mark.slow),
    ],
)
def test_a_config_that_git_does_not_know(alone: Any, tmp_path: Path, place: str, *, is_gone: bool) -> None:
    path = (tmp_path if place == "outside" else alone.root / "configs") / "mine.yaml"
    path.write_text("name: toy\nparameters:\n  first:\n    text: '1e-3'\n    url: 'ünï \\ \" 😀'\n", encoding="utf-8")
    if place == "ignored":
        (alone.root / ".git" / "info").mkdir(exist_ok=True)
        (alone.root / ".git" / "info" / "exclude").write_text("mine.yaml\n")
    mode = "dev" if place == "untracked" else "prod"
    assert alone.step("--config", str(path), mode=mode).code == 0
    old = alone.manifest("--mode", mode)
    path.unlink() if is_gone else path.write_text(path.read_text().replace("1e-3", "other"))
    before = snapshot(alone)
    outcome = alone.look("rerun", "latest", "--mode", mode, "--reload")
    assert outcome.code == 0, outcome.log
    new = alone.manifest("--mode", mode)
    assert new["steps"]["first"]["parameters"] == old["steps"]["first"]["parameters"]
    assert new["steps"]["first"]["status"] == "succeeded"
    assert "not as it was" not in outcome.out
    if place == "outside":
        status = alone.look("status", "--mode", mode)
        assert not is_gone or (status.code, status.log) == (0, "")
    else:
        assert new["config_file"] == "configs/mine.yaml"
    assert {**snapshot(alone), "tag": before["tag"]} == before
    assert_no_worktree(alone)


def test_a_notebook_that_git_did_not_know_has_to_be_as_it_was(alone: Any) -> None:
    alone.git("rm", "-q", "--cached", "steps/first.ipynb")
    alone.git("commit", "-qm", "unknown")
    (alone.root / "notes.txt").write_text("of no matter")
    assert alone.step().code == 0
    notebook = alone.root / "steps" / "first.ipynb"
    (alone.root / "notes.txt").unlink()
    content = notebook.read_text()
    alone.notebook("other", [*alone.cells_of("first")[:3], ("interface", OTHER)])  # without any step it is no project
    for change in (lambda: notebook.write_text(content + "\n"), notebook.unlink):
        change()
        outcome = alone.look("rerun", "latest")
        assert outcome.code == 1
        assert "steps/first.ipynb was not known to git, and has changed since" in outcome.log
        assert "restore it" in outcome.log
    assert len(alone.runs()) == 1
    notebook.write_text(content)
    outcome = alone.look("rerun", "latest")
    assert outcome.code == 0
    assert "notes.txt is left out" in outcome.log
    alone.git("add", "-A")
    alone.git("commit", "-qm", "known")
    assert again(alone, "latest", "--reload")


OTHER = 'step = Step.open("other", reads=[], writes=["others"])'

VALUES = {
    "spaces": ("str", "two words  and more "),
    "equals": ("str", "a=b=c"),
    "quotes": ("str", 'it\'s "so" `here` $HOME'),
    "unicode": ("str", "ünï 日本 😀"),
    "lines": ("str", "one\ntwo\n"),
    "dash": ("str", "--set"),
    "empty": ("str", ""),
    "number as text": ("str", "1e-3"),
    "tiny": ("float", 1e-05),
    "huge": ("float", 1e22),
    "negative": ("int", -7),
    "true": ("bool", True),
    "list": ("list[str]", ["a b", "it's", 'say "so"', "1e-3", "yes", "", "ü 😀", "x=y", "\x85 \u2028 \x7f"]),
    "lists": ("list[list[float]]", [[1.0, 2e-07], []]),
}


def test_a_value_is_written_as_set_reads_it(alone: Any) -> None:
    """What rerun hands to `--set` comes out of the command line as it was."""
    for kind, value in VALUES.values():
        empty = {"int": "0", "float": "0.0", "bool": "False", "str": '""'}.get(kind, "[]")
        alone.notebook("first", [("parameters", f"it: {kind} = {empty}"), ("interface", alone.cells_of("first")[3][1])])
        steps = read_steps(alone.root / "steps")
        read = parse_overrides([f"first.it={_to_set(value)}"], None, steps)
        assert steps["first"].resolve(read["first"]) == {"it": value}
    assert {kind for kind, _ in VALUES.values()} >= TYPES.keys()


def test_what_set_said_holds(alone: Any) -> None:
    said = ["--set", 'first.text=it\'s "so" = ünï 😀', "--set", "first.times=3", "--set", "first.url=1e-3"]
    assert alone.step(*said).code == 0
    again(alone, "latest", "--reload")
    assert alone.manifest()["config"]["set"] == {"first": {"text": 'it\'s "so" = ünï 😀', "times": 3, "url": "1e-3"}}


@pytest.mark.slow
def test_steps_that_ran_at_several_commits_and_twice(ran: Any) -> None:
    """Each attempt that went into the run is repeated at its own commit, with its own `--set`, in the same order."""
    commit = ran.commit()
    assert ran.step("--force", "--set", "first.text=one").code == 0
    run = ran.manifest()["run"]
    cells = ran.cells_of("second")
    ran.notebook("second", [*cells[:-1], ("", 'note = note + "later"'), cells[-1]])
    ran.git("commit", "-qam", "later")
    assert ran.step("second", "--run", run, "--set", "loud=true").code == 0
    assert ran.step("first", "--run", run, "--set", "text=two").code == 0
    (ran.root / "notes.txt").write_text("now it is dirty")
    typed = ["third", "--run", run, "--set", "score=0.7", "--force"]
    assert ran.step(*typed).code == 1, "second read other letters"
    assert ran.step(*typed, "--input", f"letters={run}").code == 0
    old = ran.manifest()
    content = again(ran, run)
    assert [step["step"] for step in content["steps"]] == ["first/1", "second", "first/2", "third"]
    new = ran.manifest()
    assert [new["steps"][name]["code"] == old["steps"][name]["code"] for name in old["steps"]] == [True] * 3
    assert commit == new["code"]["commit"] != new["steps"]["second"]["code"]["commit"]
    assert new["steps"]["second"]["parameters"]["loud"] is True
    assert new["steps"]["first"]["overrides"] == {"text": "two"}
    assert new["steps"]["third"]["metrics"]["score"] == 0.7
    assert [*new["steps"]["third"]["chosen"]] == ["letters"]


def test_a_prod_run_from_a_dirty_tree_tags_the_old_commit(alone: Any) -> None:
    ran, commit = alone, alone.git("rev-parse", "HEAD").strip()
    assert ran.step(mode="prod").code == 0
    ran.notebook("first", [*ran.cells_of("first"), ("md", "later")])
    ran.git("commit", "-qam", "later")
    (ran.root / CONFIG).write_text("name: dirty\n")
    before = snapshot(ran)
    content = again(ran, "latest", "--mode", "prod")
    assert ran.git("rev-parse", content["new"]).strip() == commit
    after = snapshot(ran)
    assert after.pop("tag").splitlines() == sorted([content["old"], content["new"]])
    del before["tag"]
    assert after == before


@pytest.mark.parametrize(
    "store",
    [
        ".store/deeper",
        "../../the store",
        pytest.param("../the store", marks=pytest.mark.slow),
        pytest.param("", id="absolute", marks=pytest.mark.slow),
    ],
)
def test_wherever_the_store_lies(alone: Any, tmp_path: Path, store: str) -> None:
    config = alone.root / CONFIG
    config.write_text(config.read_text() + f"store: {store or tmp_path / 'elsewhere'}\nzone: mine\n")
    alone.git("commit", "-qam", "store")
    assert alone.step(mode="prod").code == 0
    again(alone, "latest", "--mode", "prod")
    again(alone, "latest", "--mode", "prod")
    assert alone.manifest("--mode", "prod")["steps"]["first"]["status"] == "reused"


def test_what_cannot_be_repeated_is_refused(alone: Any, new_toy: Callable[..., Any]) -> None:
    commit = alone.git("rev-parse", "HEAD").strip()
    assert alone.step().code == 0
    alone.git("commit", "-q", "--amend", "-m", "another")
    assert alone.look("rerun", "latest").code == 0, "no branch has it, git still does"
    alone.git("reflog", "expire", "--expire=now", "--all")
    alone.git("gc", "-q", "--prune=now")
    outcome = alone.look("rerun", "latest~1")
    assert outcome.code == 1
    assert f"is not here: {commit[:12]}" in outcome.log
    assert "git fetch --all" in outcome.log
    shutil.rmtree(alone.root / ".git")
    assert alone.step("--force").code == 0
    alone.notebook("first", [*alone.cells_of("first")[:4], ("", "1 / 0")])
    assert alone.step("first").code == 1
    alone.commit()
    for name, message in (("latest~1", "ran outside of git: its code was not kept"), ("latest", "no step of run")):
        outcome = alone.look("rerun", name)
        assert outcome.code == 1
        assert message in outcome.log
    assert len(alone.runs()) == 4


def world(toy: Any, flag: Path, source: str) -> None:
    """Let the second step depend on the outside world."""
    cells = toy.cells_of("second")
    cells.insert(6, ("", source.format(flag=str(flag))))
    toy.notebook("second", cells)
    toy.commit()
    assert toy.step().code == 0


def test_a_step_that_fails_now_is_told_with_how_to_see_it(ran: Any, tmp_path: Path) -> None:
    world(ran, tmp_path / "flag", 'if Path("{flag}").exists():\n    raise OSError("the world is away")')
    (tmp_path / "flag").touch()
    old = ran.manifest()["run"]
    outcome = ran.look("rerun", "latest")
    assert outcome.code == 1
    assert outcome.out == ""
    new = ran.manifest()["run"]
    assert outcome.log.splitlines()[-4:] == [
        "error: second fails where it once succeeded",
        f"  where:    run {new}",
        f"  expected: the outputs of {old}/second/1",
        f"  do:       python -m pipeline log second {new}",
    ]
    assert "the world is away" in ran.look("log", "second", new).out
    assert "OSError: the world is away" in outcome.log
    assert_no_worktree(ran)


WAIT = """\
if Path("{flag}").exists():
    Path("{flag}").write_text(str(os.getpid()))
    try:
        time.sleep(100)
    finally:
        Path("{flag}.tidied").touch()"""


def started(toy: Any, flag: Path) -> tuple[subprocess.Popen[str], int]:
    """A rerun as a process of its own, once its kernel is at work."""
    flag.touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "rerun", "latest"],
        cwd=toy.root,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    toy.wait_for(lambda: flag.read_text() != "")
    return process, int(flag.read_text())


STOPS = {
    "Ctrl-C": (lambda process: os.killpg(process.pid, signal.SIGINT), 130),
    "SIGTERM": (lambda process: process.terminate(), 143),
}


@pytest.mark.parametrize("how", ["Ctrl-C", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_stopped_it_lets_the_step_tidy_up_and_leaves_nothing(ran: Any, tmp_path: Path, how: str) -> None:
    world(ran, tmp_path / "flag", WAIT)
    before = snapshot(ran)
    process, kernel = started(ran, tmp_path / "flag")
    STOPS[how][0](process)
    out, log = process.communicate(timeout=30)
    assert (process.returncode, out) == (STOPS[how][1], "")
    assert (tmp_path / "flag.tidied").exists()
    assert not ran.is_alive(kernel)
    assert_no_worktree(ran)
    assert snapshot(ran) == before
    assert ran.statuses() == {"first": "reused", "second": "interrupted"}
    assert "Traceback" not in log
    assert log.splitlines()[-1] == "stopped"
    assert "goes on from there" not in log, "a rerun begins anew"


@pytest.mark.slow
def test_killed_what_it_left_goes_with_the_next(ran: Any, tmp_path: Path) -> None:
    world(ran, tmp_path / "flag", WAIT)
    old = ran.manifest()["run"]
    process, _ = started(ran, tmp_path / "flag")
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        each.kill()
    process.communicate(timeout=30)
    assert len(ran.git("worktree", "list").splitlines()) == 2
    (tmp_path / "flag").unlink()
    own = tmp_path / "own"
    ran.git("worktree", "add", "-q", "--detach", str(own))
    shutil.rmtree(own)  # a disk that is not mounted just now
    assert ran.look("rerun", old).code == 0
    assert [line.split()[0] for line in ran.git("worktree", "list").splitlines()] == [str(ran.root), str(own)]


@pytest.mark.slow
def test_two_at_once_do_not_meet(committed: Any) -> None:
    run = committed.manifest()["run"]
    command = [sys.executable, "-m", "pipeline", "rerun", run, "--json"]
    both = [
        subprocess.Popen(command, cwd=committed.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    found = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert found[0]["new"] != found[1]["new"]
    assert_no_worktree(committed)


def test_what_differs_is_told_and_what_follows_from_it(ran: Any) -> None:
    cells = ran.cells_of("second")
    cells[7] = ("", 'text = str(time.time())\n(step.outputs["words"] / "text.txt").write_text(text)')
    ran.notebook("second", cells)
    ran.commit()
    assert ran.step().code == 0
    outcome = ran.look("rerun", "latest")
    assert outcome.code == 0, "it ran, which is what was asked for"
    assert outcome.out.splitlines()[1:4] == [
        "  first   reused     the same: letters",
        "  second  succeeded  differs: words",
        "  third   succeeded  differs: book, page; not as it was: its input words",
    ]
    assert digests(ran)["words"] != digests(ran, "latest~1")["words"]
    assert digests(ran)["letters"] == digests(ran, "latest~1")["letters"]


def test_the_screen_and_json(committed: Any) -> None:
    """Progress goes to stderr, plain lines as it comes; on stdout is nothing but the answer."""
    command = [sys.executable, "-m", "pipeline", "rerun", "latest", "--json", "--reload"]
    done = subprocess.run(command, cwd=committed.root, capture_output=True, text=True, check=True)
    content = json.loads(done.stdout)
    assert [step["status"] for step in content["steps"]] == ["succeeded"] * 3, "--reload runs the first, too"
    assert content.keys() == {"old", "new", "mode", "steps", "environment", "is_same"}
    lines = done.stderr.splitlines()
    assert lines[:2] == [f"run {content['new']}  dev  toy", "first"]
    assert [line.split()[:2] for line in lines if "succeeded" in line] == [
        [name, "succeeded"] for name in ("first", "second", "third")
    ]
    assert "\x1b" not in done.stderr


def test_the_code_that_runs_is_the_code_of_then(alone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that holds the pipeline, as the real one does: its worktree's package is the one that is imported."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (alone.root / "pipeline").mkdir()
    for path in (REPOSITORY / "pipeline").glob("*.py"):
        shutil.copy(path, alone.root / "pipeline")
    for package in ("cli", "runtime"):
        shutil.copytree(REPOSITORY / "pipeline" / package, alone.root / "pipeline" / package)
    words = alone.root / "pipeline" / "words.py"
    words.write_text('GREETING = "then"\n')
    cells = alone.cells_of("first")
    cells[1] = ("", cells[1][1] + "\nfrom pipeline.words import GREETING")
    cells[5] = ("", 'text = GREETING\n(step.outputs["letters"] / "text.txt").write_text(text)')
    alone.notebook("first", cells)
    alone.git("add", "-A")
    alone.git("commit", "-qm", "with the package")
    subprocess.run([sys.executable, "step.dev.py"], cwd=alone.root, check=True, capture_output=True)
    old = alone.manifest()
    words.write_text('GREETING = "now"\n')
    alone.git("commit", "-qam", "later")
    command = [sys.executable, "-m", "pipeline", "rerun", "latest", "--reload", "--json"]
    done = subprocess.run(command, cwd=alone.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [step] = json.loads(done.stdout)["steps"]
    assert step == {"step": "first", "status": "succeeded", "same": ["letters"], "different": [], "causes": []}
    assert alone.manifest()["steps"]["first"]["code_digest"] == old["steps"]["first"]["code_digest"]


def test_attempts_that_nothing_was_made_from_are_left_out() -> None:
    one, two = artifact("letters", "1"), artifact("letters", "2")
    words = artifact("words")
    manifest = run_of(
        1,
        attempt("first", makes=(one,)),
        attempt("first", makes=(two,), attempt=2),
        attempt("second", (two,), (words,), attempt=3),
        failed("second", attempt=4),
        attempt("first", makes=(one,), attempt=5),
    )
    assert [record.made_by for record in _needed(manifest)] == ["first/2", "second/3", "first/5"]


def test_the_worktree_goes_when_what_is_done_in_it_fails(alone: Any) -> None:
    assert alone.step().code == 0
    project = with_config("dev", alone.root / CONFIG, alone.root, read_steps(alone.root / "steps"))
    manifest = project.runs.newest()
    assert manifest
    with pytest.raises(AssertionError), worktree(project, manifest, manifest.code) as tree:
        assert not (tree / "steps" / "first.ipynb").is_file()
    assert_no_worktree(alone)
    assert (alone.root / ".store" / "default" / "dev").is_dir()
