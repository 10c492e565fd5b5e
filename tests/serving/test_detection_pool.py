"""The worker threads: the same results as without them, dropped work, bounded queues, and batches on request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.serving import detection_pool
from pipeline.serving.detection_pool import DetectionPool, Found
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import Detections, Predictor
from pipeline.serving.preprocessing import letterbox
from pipeline.serving.service_errors import ServiceError
from pipeline.serving.settings import Settings, read_settings
from pipeline.serving.tiled_detection import predict_image

RUN_SECONDS = 0.03
METADATA = ModelMetadata("nano", (96, 96), ("dim", "bright"))


def settings(**values: Any) -> Settings:
    return read_settings(0.3, 0.01, {f"DETECTOR_{name.upper()}": str(value) for name, value in values.items()})


class SlowPredictor:
    """A predictor that takes its time, and notes its batches."""

    def __init__(self, batch_size: int = 1) -> None:
        self.batch_size = batch_size
        self.batches: list[int] = []
        self.alone: list[bool] = []

    def detect(self, images: Any, *, alone: bool = True) -> list[Detections]:
        self.batches.append(len(images))
        self.alone.append(alone)
        time.sleep(RUN_SECONDS)
        empty = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        return [Detections(*empty, image.width, image.height) for image in images]


@contextmanager
def pool_of(predictor: Any, **values: Any) -> Iterator[DetectionPool]:
    pool = DetectionPool(predictor, METADATA, settings(**values))
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture
def png(picture: Callable[..., Any]) -> bytes:
    return bytes(cv2.imencode(".png", picture())[1])


@pytest.mark.parametrize("batch_size", [1, 8])
def test_each_image_gets_its_own_detections(tiny: Any, picture: Callable[..., Any], batch_size: int) -> None:
    images = [picture(150 + i, 100 + i % 7, (5 + i % 11, 5, 60 + i, 60)) for i in range(40)]
    files = [(str(i), bytes(cv2.imencode(".png", image)[1])) for i, image in enumerate(images)]
    expected = tiny.predictor.detect([letterbox(image, (96, 96)) for image in images])

    async def detect(pool: DetectionPool) -> list[Any]:
        single = [pool.detect([file]) for file in files]
        *alone, together = await asyncio.gather(*single, pool.detect(files))
        return [*[one for (one,) in alone], *together]

    predictor = Predictor(tiny.onnx_path, tiny.metadata, threads=2, batch_size=batch_size)
    with pool_of(predictor, threads=2, batch_size=batch_size) as pool:
        found = asyncio.run(detect(pool))
        assert pool.waiting == 0
    for one, other in zip(found, [*expected, *expected], strict=True):
        assert one.detections.to_json(("dim", "bright")) == other.to_json(("dim", "bright"))
        assert min(one.decode, one.wait, one.inference) >= 0


def test_an_image_that_is_alone_may_use_every_cpu(png: bytes) -> None:
    predictor = SlowPredictor()

    async def detect(pool: DetectionPool) -> None:
        await pool.detect([("a", png)])
        await asyncio.gather(*[pool.detect([("a", png)]) for _ in range(4)])

    with pool_of(predictor, threads=2) as pool:
        asyncio.run(detect(pool))
    assert predictor.alone[0]
    assert False in predictor.alone[1:]


def test_images_that_wait_share_a_batch(png: bytes) -> None:
    predictor = SlowPredictor(batch_size=8)

    async def detect(pool: DetectionPool) -> list[Any]:
        return [one for (one,) in await asyncio.gather(*[pool.detect([("a", png)]) for _ in range(32)])]

    with pool_of(predictor, threads=2) as pool:
        found = asyncio.run(detect(pool))
    assert sum(predictor.batches) == 32
    assert len(predictor.batches) < 24
    assert max(predictor.batches) == max(one.batch for one in found) <= 8


def test_a_failing_batch_fails_each_of_its_images(png: bytes) -> None:
    predictor = SlowPredictor(batch_size=4)
    predictor.detect = lambda images, alone=True: 1 / 0  # type: ignore[assignment]

    async def detect(pool: DetectionPool) -> list[Any]:
        return await asyncio.gather(*[pool.detect([("a", png)]) for _ in range(9)], return_exceptions=True)

    with pool_of(predictor, threads=2) as pool:
        assert [type(each) for each in asyncio.run(detect(pool))] == [ZeroDivisionError] * 9


@pytest.mark.parametrize("images", [1, 32])
def test_the_work_of_clients_that_have_gone_is_dropped(png: bytes, images: int) -> None:
    """Forty requests of 32 images would take twenty seconds."""
    predictor = SlowPredictor()

    async def detect(pool: DetectionPool) -> tuple[float, int]:
        left = [asyncio.ensure_future(pool.detect([("a", png)] * images)) for _ in range(40)]
        await asyncio.sleep(RUN_SECONDS / 2)  # the first of them are run
        before = sum(predictor.batches)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert pool.waiting == 0
        started = time.perf_counter()
        await pool.detect([("a", png)])
        return time.perf_counter() - started, sum(predictor.batches) - before

    with pool_of(predictor, threads=2, max_waiting=10_000) as pool:
        seconds, run_after = asyncio.run(detect(pool))
    assert run_after <= 2 + 2 + 1, "those under way, one more that each thread had begun, and the new one"
    assert seconds < 3 * RUN_SECONDS + 0.1


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_tiles_of_an_image_give_what_they_give_one_after_the_other(
    tiny: Any, picture: Callable[..., Any], batch_size: int
) -> None:
    metadata = replace(tiny.metadata, tile=96)
    images = [picture(500 + i, 300, (5 + i, 5, 260 + i, 160)) for i in range(4)]
    expected = [predict_image(tiny.predictor, image, metadata) for image in images]
    files = [(str(i), bytes(cv2.imencode(".png", image)[1])) for i, image in enumerate(images)]
    predictor = Predictor(tiny.onnx_path, metadata, threads=2, batch_size=batch_size)
    pool = DetectionPool(predictor, metadata, settings(threads=2, batch_size=batch_size))
    try:
        found = asyncio.run(pool.detect(files))
    finally:
        pool.close()
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Found)
        assert len(other.scores) > 4
        assert one.detections.to_json(("dim", "bright")) == other.to_json(("dim", "bright"))
        assert min(one.decode, one.inference) > 0


def test_the_tiles_of_one_image_are_a_batch(picture: Callable[..., Any]) -> None:
    predictor, image = SlowPredictor(batch_size=4), bytes(cv2.imencode(".png", picture(250, 250))[1])
    pool = DetectionPool(predictor, replace(METADATA, tile=96), settings(threads=2))  # type: ignore[arg-type]
    try:
        (found,) = asyncio.run(pool.detect([("a", image)]))
    finally:
        pool.close()
    assert isinstance(found, Found)
    assert sum(predictor.batches) == 1 + 9, "the whole image, and its tiles"
    assert 1 < found.batch == max(predictor.batches) <= 4


def test_the_tiles_of_a_client_that_has_gone_are_dropped(picture: Callable[..., Any]) -> None:
    """All 121 of them would take two seconds on two threads."""
    predictor, metadata = SlowPredictor(), replace(METADATA, tile=96)
    large = bytes(cv2.imencode(".png", picture(800, 800))[1])

    async def detect(pool: DetectionPool) -> int:
        left = asyncio.ensure_future(pool.detect([("a", large)]))
        while len(predictor.batches) < 4:
            await asyncio.sleep(RUN_SECONDS)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        before = len(predictor.batches)
        await asyncio.sleep(10 * RUN_SECONDS)
        return len(predictor.batches) - before

    pool = DetectionPool(predictor, metadata, settings(threads=2))  # type: ignore[arg-type]
    try:
        assert asyncio.run(detect(pool)) <= 2, "those under way"
    finally:
        pool.close()


def test_a_large_request_lets_others_have_their_turn(png: bytes) -> None:
    async def detect(pool: DetectionPool) -> tuple[float, float]:
        large = asyncio.ensure_future(pool.detect([("a", png)] * 40))
        await asyncio.sleep(RUN_SECONDS / 2)
        started = time.perf_counter()
        await pool.detect([("b", png)])
        single = time.perf_counter() - started
        await large
        return single, time.perf_counter() - started

    with pool_of(SlowPredictor(), threads=2) as pool:
        single, large = asyncio.run(detect(pool))
    assert single < large / 4


def test_too_many_waiting_images_are_refused(png: bytes) -> None:
    async def detect(pool: DetectionPool) -> list[Any]:
        requests = [pool.detect([("a", png)] * count) for count in (6, 3, 2, 1)]
        return await asyncio.gather(*requests, return_exceptions=True)

    with pool_of(SlowPredictor(), threads=2, max_waiting=8) as pool:
        first, second, third, fourth = asyncio.run(detect(pool))
    assert isinstance(second, ServiceError)
    assert (second.status, second.code) == (503, "overloaded")
    assert [len(each) for each in (first, third)] == [6, 2]
    assert isinstance(fourth, ServiceError)


def test_a_bad_image_does_not_fail_the_others(png: bytes, bomb: bytes) -> None:
    files = [("a", png), ("b", b"text"), ("c", bomb), ("d", png)]
    with pool_of(SlowPredictor(), threads=2) as pool:
        found = asyncio.run(pool.detect(files))
    assert [type(each) for each in found] == [Found, ServiceError, ServiceError, Found]
    errors = [each.body["error"] for each in found if isinstance(each, ServiceError)]
    assert [(each["code"], each["index"], each["file"]) for each in errors] == [
        ("invalid_image", 1, "b"),
        ("image_too_large", 2, "c"),
    ]


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch, png: bytes) -> None:
    monkeypatch.setattr(detection_pool, "_LARGE_PIXELS", 100)
    running, most, lock = 0, 0, threading.Lock()
    plain = detection_pool.decode

    def slow(data: bytes) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return plain(data)

    monkeypatch.setattr(detection_pool, "decode", slow)
    with pool_of(SlowPredictor(), threads=4) as pool:
        asyncio.run(pool.detect([("a", png)] * 8))
    assert most == 1
