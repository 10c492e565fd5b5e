"""The URL of a repository, and the differences between its commits."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.runtime.git import changed_between, source_url

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
