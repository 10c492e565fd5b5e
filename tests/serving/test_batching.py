"""The dispatcher after a burst: batches are shared, and a lone request is not held back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from bentoml._internal.marshal.dispatcher import CorkDispatcher

from pipeline.serving.service import ObjectDetector, PromptDispatcher, PromptOptimizer

RUN_SECONDS = 0.03


async def burst_then_one(*, promptly: bool) -> tuple[int, float]:
    """100 requests at once, then one; the number of batches of the burst and the seconds of the last."""
    sizes = []

    async def run(batch: Any) -> Any:
        sizes.append(len(batch))
        await asyncio.sleep(RUN_SECONDS)
        return batch

    dispatcher = CorkDispatcher(60_000, 8, fallback=pytest.fail, get_batch_size=len)
    if promptly:
        dispatcher.optimizer = PromptOptimizer(60)
    call = dispatcher(run)
    answers = await asyncio.gather(*[call([number]) for number in range(100)])
    assert answers == [[number] for number in range(100)]
    runs = len(sizes)
    dispatcher.optimizer.trigger_refresh()
    assert dispatcher.optimizer.o_a + dispatcher.optimizer.o_b > 0
    started = time.perf_counter()
    await call([0])
    seconds = time.perf_counter() - started
    dispatcher.shutdown()
    return runs, seconds


def test_a_burst_shares_batches_and_the_next_request_does_not_wait() -> None:
    runs, seconds = asyncio.run(burst_then_one(promptly=True))
    assert runs <= 20
    assert seconds < RUN_SECONDS + 0.05


def test_the_reason_is_still_there() -> None:
    """Once BentoML's own dispatcher passes this, `PromptService` can go."""
    _, seconds = asyncio.run(burst_then_one(promptly=False))
    assert seconds > RUN_SECONDS + 0.05


async def abandoned(images: int) -> tuple[list[int], float]:
    """Forty requests of so many images whose clients go at once, then one that stays: what is run, and its seconds."""
    ran: list[int] = []

    async def run(batches: Any) -> Any:
        ran.extend(len(batch) for batch in batches)
        await asyncio.sleep(RUN_SECONDS)
        return [list(batch) for batch in batches]

    def fallback() -> Any:
        raise TimeoutError

    dispatcher: Any = PromptDispatcher(60_000, 8, fallback=fallback, get_batch_size=len)
    dispatcher.optimizer = PromptOptimizer(60)
    call = dispatcher(run)
    assert await call([0]) == [0]
    ran.clear()
    left = [asyncio.ensure_future(call([number] * images)) for number in range(40)]
    await asyncio.sleep(RUN_SECONDS / 2)  # the first of them is run
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    started = time.perf_counter()
    assert await asyncio.wait_for(call([0]), 10) == [0]
    seconds = time.perf_counter() - started
    dispatcher.shutdown()
    return ran, seconds


@pytest.mark.parametrize("images", [1, 32])
def test_the_work_of_clients_that_have_gone_is_dropped(images: int) -> None:
    """Forty requests of 32 images would be 160 batches, five seconds."""
    ran, seconds = asyncio.run(abandoned(images))
    assert sum(ran) <= 2 * 8 + 1
    assert seconds < 3 * RUN_SECONDS + 0.1


def test_the_service_dispatches_promptly(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr("pipeline.serving.service.PromptOptimizer", made.append)
    ObjectDetector.to_asgi()
    assert len(made) == 1
