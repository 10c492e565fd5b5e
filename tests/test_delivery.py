"""Deliverables: plain folders below `out/` that hold just what the run made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


def book(toy: Any) -> Path:
    return toy.root / "out" / "dev" / "toy" / "book" / "deep" / "book.txt"


def test_a_folder_that_holds_the_deliverable_is_left_alone(ran: Any) -> None:
    before = book(ran).stat()
    assert ran.step().code == 0
    assert (book(ran).stat().st_ino, book(ran).stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def same_size_and_time(path: Path) -> None:
    found = path.stat()
    path.write_text("hullo")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: path.write_text("mine"), id="written over"),
        pytest.param(same_size_and_time, id="written over by as much, time set back"),
        pytest.param(lambda path: path.unlink(), id="removed"),
        pytest.param(lambda path: (path.parent / "more.txt").write_text("more"), id="something beside it"),
        pytest.param(lambda path: path.rename(path.with_name("other.txt")), id="renamed"),
        pytest.param(lambda path: (path.parent / "link").symlink_to(path), id="a link beside it"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a folder in its place"),
    ],
)
def test_what_was_changed_in_it_is_set_right(ran: Any, change: Any) -> None:
    change(book(ran))
    assert ran.step().code == 0
    assert book(ran).read_text() == "hallo"
    assert [path.name for path in book(ran).parent.iterdir()] == ["book.txt"]
