"""Old runs, run again by the real command lines: from another commit, tree, config and store than there are now."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONFIG = "configs/demo.yaml"
COLLECT = """\
import shutil
shutil.copytree("files", step.outputs["letters"] / "files", symlinks=True)
(step.outputs["letters"] / "text.txt").write_text(f"{text!r} {times!r} {url!r}")"""


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
    assert list((toy.root / ".cache" / "rerun").glob("*")) == []


def again(toy: Any, *options: str) -> dict[str, Any]:
    """Run the newest run again, and see that every output is the same."""
    outcome = toy.look("rerun", "latest", *options, "--json")
    assert outcome.code == 0, outcome.log
    content: dict[str, Any] = json.loads(outcome.out)
    assert (content["is_same"], content["different"]) == (True, [])
    assert_no_worktree(toy)
    return content


def refused(toy: Any, says: str) -> None:
    """The newest run is not run again, and nothing has changed."""
    before, runs = snapshot(toy), toy.runs()
    outcome = toy.look("rerun", "latest")
    assert (outcome.code, says in outcome.log) == (1, True), outcome.log
    assert (snapshot(toy), toy.runs()) == (before, runs)


def test_later_commits_and_work_in_progress_change_nothing_and_stay_untouched(ran: Any) -> None:
    commit = ran.commit()
    assert ran.step("--force", "--set", "second.loud=true").code == 0
    old = ran.manifest()
    config = ran.root / CONFIG
    config.write_text(config.read_text().replace("hallo", "hello"))
    cells = ran.cells_of("second")
    ran.notebook("second", [*cells[:-1], ("", 'text = "another"'), cells[-1]])
    ran.git("commit", "-qam", "later")
    config.write_text(config.read_text() + "# stashed\n")
    ran.git("stash")
    config.write_text(config.read_text() + "# staged\n")
    ran.git("add", "-A")
    (ran.root / "steps" / "third.ipynb").unlink()
    (ran.root / "new.txt").write_text("not known to git")
    hook = ran.root / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\ntouch "$(git rev-parse --git-common-dir)/hooked"\n')
    hook.chmod(0o755)
    before = snapshot(ran)
    outcome = ran.look("rerun", old["run"])
    assert outcome.code == 0, outcome.log
    assert snapshot(ran) == before
    assert not (ran.root / ".git" / "hooked").exists()
    assert_no_worktree(ran)
    new = ran.manifest()
    assert outcome.out.splitlines() == [
        f"run {new['run']} is run {old['run']} again",
        "  the same: letters, words, book, page",
        f"see also: python -m pipeline compare {old['run']} {new['run']}",
    ]
    assert ran.statuses() == {"first": "reused", "second": "succeeded", "third": "succeeded"}
    for name, step in new["steps"].items():
        assert (step["parameters"], step["code"]) == (old["steps"][name]["parameters"], old["steps"][name]["code"])
    assert (new["config_file"], new["code"]["commit"]) == (CONFIG, commit)


def test_a_dirty_tree_comes_back_to_the_byte(alone: Any) -> None:
    files = alone.root / "files"
    changed = {
        "text.txt": (b"old\nlines \t\n", "neu\nlines \t\n日本語\n".encode()),
        "binary.bin": (bytes(range(256)) * 9, bytes(reversed(range(256))) * 9),
        "crlf.txt": (b"one\r\ntwo\r\n", b"one\r\n2\r\nthree\n"),
        "no end.txt": (b"no newline", b"still no newline"),
        "gone.txt": (b"gone\n", b""),
        "ümlaut.txt": (b"name\n", b""),
    }
    for name, (before, _) in changed.items():
        (files / name).write_bytes(before)
    (files / "script.sh").write_text("#!/bin/sh\n")
    alone.git("add", "-A")
    alone.git("commit", "-qm", "files")
    for name, (_, after) in changed.items():
        (files / name).write_bytes(after)
    (files / "gone.txt").unlink()
    (files / "one.txt").rename(files / "renamed.txt")
    (files / "script.sh").chmod(0o755)
    (files / "staged.txt").write_bytes(b"new\n")
    alone.git("add", "files/staged.txt", "files/renamed.txt")
    (files / "untracked.py").write_bytes(b"# not known to git\n")
    assert alone.step().code == 0
    old = alone.manifest()
    alone.git("reset", "--hard", "-q")
    again(alone, "--reload")
    assert alone.manifest()["steps"]["first"]["status"] == "succeeded"
    assert alone.manifest()["code"]["diff"] == old["code"]["diff"]


@pytest.mark.parametrize("place", ["untracked", "ignored", "outside"])
def test_a_config_that_git_does_not_know_comes_from_the_record(alone: Any, tmp_path: Path, place: str) -> None:
    path = (tmp_path if place == "outside" else alone.root / "configs") / "mine.yaml"
    path.write_text("name: toy\nparameters:\n  first:\n    text: '1e-3'\n    url: 'ünï \\ \" 😀'\n", encoding="utf-8")
    if place == "ignored":
        (alone.root / ".git" / "info").mkdir(exist_ok=True)
        (alone.root / ".git" / "info" / "exclude").write_text("mine.yaml\n")
    mode = "dev" if place == "untracked" else "prod"
    assert alone.step("--config", str(path), mode=mode).code == 0
    old = alone.manifest("--mode", mode)
    path.write_text(path.read_text().replace("1e-3", "other"))
    again(alone, "--mode", mode, "--reload")
    new = alone.manifest("--mode", mode)
    assert new["steps"]["first"]["parameters"] == old["steps"]["first"]["parameters"]
    assert new["steps"]["first"]["status"] == "succeeded"


def test_an_input_chosen_by_hand_is_the_same_again(ran: Any) -> None:
    first = ran.manifest()["run"]
    ran.commit()
    assert ran.step("--set", "first.text=other", "--input", f"letters={first}").code == 0
    again(ran)
    assert [*ran.manifest()["steps"]["third"]["chosen"]] == ["letters"]


def test_a_prod_run_from_a_dirty_tree_tags_the_old_commit(alone: Any) -> None:
    commit = alone.git("rev-parse", "HEAD").strip()
    assert alone.step(mode="prod").code == 0
    alone.notebook("first", [*alone.cells_of("first"), ("md", "later")])
    alone.git("commit", "-qam", "later")
    (alone.root / CONFIG).write_text("name: dirty\n")
    content = json.loads(alone.look("rerun", "latest", "--mode", "prod", "--json").out)
    assert alone.git("rev-parse", content["new"]).strip() == commit


@pytest.mark.parametrize("store", [".store/deeper", "../../the store", "{}/elsewhere"])
def test_wherever_the_store_lies_what_set_said_holds(alone: Any, tmp_path: Path, store: str) -> None:
    config = alone.root / CONFIG
    config.write_text(config.read_text() + f"store: {store.format(tmp_path)}\nzone: mine\n")
    alone.git("commit", "-qam", "a store of its own")
    said = ["--set", 'first.text=it\'s "so" = ünï 😀', "--set", "first.times=3", "--set", "first.url=1e-3"]
    assert alone.step(*said).code == 0
    again(alone, "--reload")
    assert alone.manifest()["config"]["set"] == {"first": {"text": 'it\'s "so" = ünï 😀', "times": 3, "url": "1e-3"}}
    assert len(alone.runs()) == 2


def test_a_source_that_has_changed_or_is_gone_is_told_where_it_is_loaded_again(alone: Any) -> None:
    outside = alone.root.parent / "outside.txt"
    outside.write_text("one")
    cells = alone.cells_of("first")
    cells[5] = ("", f'(step.outputs["letters"] / "text.txt").write_text(Path({str(outside)!r}).read_text())')
    alone.notebook("first", cells)
    alone.git("commit", "-qam", "reads the world outside")
    assert alone.step().code == 0
    outside.write_text("two")
    again(alone)
    outcome = alone.look("rerun", "latest", "--reload")
    assert (outcome.code, "  differs: letters" in outcome.out) == (0, True)
    outside.unlink()
    alone.look("rerun", "latest", "--reload").fails("first fails where it once succeeded")
    assert_no_worktree(alone)


def test_what_cannot_be_repeated_is_refused(alone: Any) -> None:
    latin, config = alone.root / "files" / "latin.txt", alone.root / CONFIG
    latin.write_bytes(b"plain\n")
    alone.git("add", "-A")
    alone.git("commit", "-qm", "plain")
    latin.write_bytes("grün\n".encode("latin-1"))
    assert alone.step().code == 0
    refused(alone, "its uncommitted changes were not recorded to the byte")
    alone.git("reset", "--hard", "-q")
    notes = alone.root / "notes.py"
    notes.write_text("# one")
    assert alone.step("--set", "times=2", "first").code == 0
    notes.write_text("# two")
    refused(alone, "notes.py was not known to git, and has changed since")
    run = alone.manifest()["run"]
    assert alone.step("first", "--run", run, "--force").code == 0
    refused(alone, "its steps ran with different code")
    notes.unlink()
    config.write_text(config.read_text() + "# lost\n")
    alone.git("commit", "-qam", "lost")
    assert alone.step("--set", "first.text=lost").code == 0
    alone.git("reset", "--hard", "-q", "HEAD~1")
    for arguments in (("reflog", "expire", "--expire=now", "--all"), ("gc", "--prune=now", "-q")):
        alone.git(*arguments)
    refused(alone, "its commit is not here")


def test_a_run_outside_of_git_and_an_incomplete_one_are_refused(ran: Any) -> None:
    assert "it ran outside of git" in ran.look("rerun", "latest").log
    ran.commit()
    assert ran.step("first").code == 0
    refused(ran, "it has no success of second, third")
    assert_no_worktree(ran)


def test_ctrl_c_ends_the_step_and_leaves_no_worktree(ran: Any) -> None:
    cells = ran.cells_of("second")
    slow = f'if Path({str(ran.root.parent)!r}, "slow").is_file():\n    (step.cache / "x").touch()\n    time.sleep(60)'
    ran.notebook("second", [*cells[:-1], ("", slow), cells[-1]])
    ran.commit()
    assert ran.step("--force").code == 0
    (ran.root.parent / "slow").touch()
    process = subprocess.Popen([sys.executable, "-m", "pipeline", "rerun", "latest"], cwd=ran.root, process_group=0)
    ran.wait_for(lambda: any((ran.root / ".cache" / "rerun").glob("*/tree/.cache/x")))
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert_no_worktree(ran)
    assert ran.manifest()["steps"]["second"]["status"] == "interrupted"
