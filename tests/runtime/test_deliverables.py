"""Deliverables: plain folders below `out/` that hold just what the run made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("in_process")


def same_size_and_time(path: Path) -> None:
    found = path.stat()
    path.write_text("hullo")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "written over": lambda path: path.write_text("mine"),
    "written over by as much, time set back": same_size_and_time,
    "removed": lambda path: path.unlink(),
    "something beside it": lambda path: (path.parent / "more.txt").write_text("more"),
    "renamed": lambda path: path.rename(path.with_name("other.txt")),
    "a link beside it": lambda path: (path.parent / "link").symlink_to(path),
    "a folder in its place": lambda path: (path.unlink(), path.mkdir()),
}


def test_a_deliverable_is_left_alone_and_what_was_changed_in_it_is_set_right(ran: Any) -> None:
    book = ran.root / "out" / "dev" / "toy" / "book" / "deep" / "book.txt"
    before = book.stat()
    assert ran.step().code == 0
    assert (book.stat().st_ino, book.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    for name, change in CHANGES.items():
        change(book)
        assert ran.step().code == 0
        assert book.read_text() == "hallo", name
        assert [path.name for path in book.parent.iterdir()] == ["book.txt"], name


INTERFACE = 'step = Step.open("second", reads=["letters"], writes=["words", "notes"])'


@pytest.fixture
def noting(toy: Any) -> Any:
    """A project whose second step also writes notes, which no other step reads."""
    cells = [(tag, INTERFACE if tag == "interface" else source) for tag, source in toy.cells_of("second")]
    cells.insert(-2, ("", '(step.outputs["notes"] / "notes.txt").write_text(text)'))
    toy.notebook("second", cells)
    config = toy.root / "configs" / "demo.yaml"
    config.write_text(config.read_text() + '  notes: "notes    {path}"\n  words: "words    {path}"\n')
    return toy


def test_what_no_other_step_reads_is_there_as_soon_as_it_is_made(noting: Any) -> None:
    out = noting.root / "out" / "dev" / "toy"
    assert noting.step("first").code == 0
    done = noting.step("second")
    assert (done.code, done.log.count(f"notes    {out / 'notes'}")) == (0, 1)
    assert (out / "notes" / "notes.txt").read_text() == "hallo"
    assert sorted(path.name for path in out.iterdir()) == ["notes"], "what is built on waits for the whole run"
    done = noting.step("third")
    assert [line.split()[0] for line in done.out.splitlines()[-5:]] == ["index", "read", "page", "notes", "words"]
    laid_out = ["book", "index.html", "notebooks", "notes", "page", "words"]
    assert sorted(path.name for path in out.iterdir()) == laid_out
    assert noting.step("second", "--set", "note=more").code == 0
    assert sorted(path.name for path in out.iterdir()) == laid_out, "what is the same stays, and so does the page"
    assert noting.step("first", "--set", "text=hello").code == 0
    assert noting.step("second").code == 0
    assert "index.html" not in [path.name for path in out.iterdir()], "the page told of other notes"
