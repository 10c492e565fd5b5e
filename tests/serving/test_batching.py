"""The dispatcher after a burst: batches are shared, and a lone request is not held back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from bentoml._internal.marshal.dispatcher import CorkDispatcher

from pipeline.serving.service import ObjectDetector, PromptOptimizer

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


def test_the_service_dispatches_promptly(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr("pipeline.serving.service.PromptOptimizer", made.append)
    ObjectDetector.to_asgi()
    assert len(made) == 1
