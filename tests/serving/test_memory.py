"""Buffers for bodies, and memory that goes back to the system."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.serving import memory
from pipeline.serving.memory import BodyBuffer, Memory

MEBI = 2**20


@pytest.mark.parametrize("most", [100_000, 5 * MEBI], ids=["short", "long"])
@pytest.mark.parametrize("pieces", [[], [b""], [b"ab", b"", b"c" * 70_000, b"d"]], ids=["none", "empty", "several"])
def test_a_body_is_the_pieces_it_came_in(most: int, pieces: list[bytes]) -> None:
    buffer = BodyBuffer(most)
    for piece in pieces:
        buffer.append(piece)
    assert buffer.content() == b"".join(pieces)


def test_a_long_body_may_be_as_long_as_it_said() -> None:
    buffer = BodyBuffer(2 * MEBI)
    buffer.append(b"x" * 2 * MEBI)
    assert buffer.content() == b"x" * 2 * MEBI


@pytest.mark.parametrize(("held", "trims"), [(63 * MEBI, 0), (65 * MEBI, 1)], ids=["little", "much"])
def test_free_pages_go_back_once_after_much_was_held(held: int, trims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []

    class Libc:
        malloc_trim = called.append

    async def serve(requests: Any) -> None:
        requests.hold(held)
        requests.release(held // 4)
        requests.release(held - held // 4)
        requests.hold(100)
        requests.release(100)
        await asyncio.sleep(0.1)

    monkeypatch.setattr(memory, "_libc", Libc)
    monkeypatch.setattr(memory, "_TRIM_AFTER_SECONDS", 0.01)
    requests = Memory(256 * MEBI)
    asyncio.run(serve(requests))
    assert called == [0] * trims
    assert requests.held == 0
