"""The state of a checkout, its tags, its URL, and the differences between its commits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StepError
from pipeline.files import sha256_of
from pipeline.runtime import git
from pipeline.runtime.git import changed_between, changed_files, code_state, commit_time, refuse_dirty, source_url, tag


def test_a_clean_checkout(toy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = toy.commit()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as inside a hook
    state = code_state(toy.root)
    assert (state.commit, state.dirty, state.diff, state.untracked) == (commit, False, "", {})
    refuse_dirty(toy.root, state)
    assert code_state(toy.root / "steps").commit == "", "a folder inside a checkout is none"
    asked, calls = git.git, []
    monkeypatch.setattr(git, "git", lambda *a, **k: (calls.append(a), asked(*a, **k))[1])
    assert not code_state(toy.root).dirty
    assert len(calls) == 1, "a clean tree takes one call of git"


def test_the_time_of_a_commit_is_its_own_wherever_it_is_asked_for(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.commit()
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-11-29T04:46:27+02:00")
    git.git(toy.root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "--message", "later")
    commit = code_state(toy.root).commit
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert commit_time(toy.root, commit) == "2026-11-29T02:46:27Z"
    assert [commit_time(toy.root, none) for none in ("", "ab" * 20)] == ["", ""]
    assert commit_time(toy.root / "nowhere", commit) == ""


def test_what_differs_is_recorded(toy: Any) -> None:
    toy.commit()
    (toy.root / "configs" / "demo.yaml").write_text("name: changed\n")
    (toy.root / "with space.txt").write_text("new")
    (toy.root / "ü.txt").write_text("new")
    (toy.root / ".store").mkdir()
    (toy.root / ".store" / "ignored").write_text("x")
    state = code_state(toy.root)
    assert state.dirty
    assert "+name: changed" in state.diff
    assert "-name: toy" in state.diff
    assert set(state.untracked) == {"with space.txt", "ü.txt"}
    assert state.untracked["ü.txt"] == state.untracked["with space.txt"] == sha256_of(toy.root / "ü.txt")
    assert changed_files(vars(state)) == ["configs/demo.yaml", "with space.txt", "ü.txt"]


@pytest.mark.parametrize("change", ["removed", "binary", "diff.noprefix", "diff.external"])
def test_any_change_makes_it_dirty_and_prod_refuses(toy: Any, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.commit()
    if "." in change:  # as a person has set git to show differences
        toy.git("config", change, "true")
    script = toy.root / "step.dev.py"
    script.unlink() if change == "removed" else script.write_bytes(b"\xff\xfe\x00" if change == "binary" else b"# x\n")
    state = code_state(toy.root)
    assert state.dirty
    assert any(name.startswith("step.") for name in changed_files(vars(state)))
    with pytest.raises(StepError, match=r"(?s)prod refuses a dirty tree: 1 files? differ.*step\."):
        refuse_dirty(toy.root, state)
    asked = git.git
    monkeypatch.setattr(git, "git", lambda root, name, *a, **k: None if name == "diff" else asked(root, name, *a, **k))
    assert code_state(toy.root).dirty, "a diff that cannot be had is no sign of a clean tree"


def test_without_a_commit_the_code_is_unknown_and_prod_refuses(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [code_state(toy.root)]
    toy.git("init", "-q")
    states.append(code_state(toy.root))
    toy.commit()
    monkeypatch.setenv("PATH", "")  # no git command
    states.append(code_state(toy.root))
    for state in states:
        assert (state.commit, state.dirty) == ("", True)
        with pytest.raises(StepError, match="prod needs a commit"):
            refuse_dirty(toy.root, state)


def test_a_commit_is_tagged_once_and_no_tag_is_moved(toy: Any) -> None:
    first = toy.commit()
    toy.git("config", "tag.gpgSign", "true")
    assert [tag(toy.root, first, "run1", step) for step in ("first", "second")] == ["run1", "run1"]
    later = []
    for n in range(3):
        toy.git("commit", "-q", "--allow-empty", "-m", str(n))
        later.append(toy.git("rev-parse", "HEAD").strip())
    names = [tag(toy.root, commit, "run1", "second") for commit in later]
    assert names == ["run1-second", f"run1-second-{later[1][:12]}", f"run1-second-{later[2][:12]}"]
    assert [tag(toy.root, commit, "run1", "second") for commit in later] == names
    assert tag(toy.root, later[0], "run1", "third") == "run1-third"
    assert toy.git("rev-parse", "run1", *names).split() == [first, *later]
    with pytest.raises(StepError, match="git tag run2"):
        tag(toy.root, "f" * 40, "run2", "first")


REMOTES = {
    "https://example.org/a/b.git": "https://example.org/a/b.git",
    "https://user:secret@example.org/b.git?x=1#y": "https://example.org/b.git",
    "https://token@example.org:8443/b.git": "https://example.org:8443/b.git",
    "git@example.org:a/b.git": "ssh://git@example.org/a/b.git",
    "ssh://git@example.org:22/a/b.git": "ssh://git@example.org:22/a/b.git",
    "ssh://git:secret@example.org/a.git": "ssh://git@example.org/a.git",
    "/srv/a b.git": "file:///srv/a%20b.git",
    "file:///srv/a.git": "file:///srv/a.git",
}


def test_the_repository_is_named_by_its_remote_without_secrets_or_by_its_folder(toy: Any) -> None:
    assert source_url(toy.root) == toy.root.resolve().as_uri(), "without git"
    toy.commit()
    assert source_url(toy.root) == toy.root.resolve().as_uri(), "without a remote"
    toy.git("remote", "add", "origin", "x")
    for remote, url in REMOTES.items():
        toy.git("remote", "set-url", "origin", remote)
        assert source_url(toy.root) == url


def test_the_files_between_two_commits_are_named(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert changed_between(toy.root, "a" * 40, "b" * 40) is None
    first = toy.commit()
    (toy.root / "new.txt").write_text("x\n")
    toy.git("add", "-A")
    toy.git("commit", "-q", "-m", "more")
    second = toy.git("rev-parse", "HEAD").strip()
    assert changed_between(toy.root, first, second) == (" new.txt | 1 +", " 1 file changed, 1 insertion(+)")
    assert changed_between(toy.root, first, first) == ()
    assert changed_between(toy.root, first, "f" * 40) is None
    assert changed_between(toy.root, "", second) is None
    monkeypatch.setenv("PATH", "")
    assert changed_between(toy.root, first, second) is None
    assert source_url(toy.root) == toy.root.resolve().as_uri()
