"""From image files to detections on worker threads: an image is decoded, prepared and run on one thread.

On a CPU, one image a thread is the fastest, and costs no handing over. A GPU wants batches: there, the threads that
have an image ready run the graph together, the first of them for all.

The tiles of a large image are prepared and run on as many threads of their own, shared by all such images. So an image
holds only the tiles that are being run, and uses every CPU though few large images are decoded at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.errors import DataError
from pipeline.serving.decoding import decode, read_header
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import Detections, Predictor
from pipeline.serving.preprocessing import Letterboxed, letterbox
from pipeline.serving.service_errors import ServiceError, overloaded
from pipeline.serving.settings import Settings
from pipeline.serving.tiled_detection import detect_in_image

_LARGE_PIXELS = 16_000_000  # images beyond are decoded one at a time, so that memory stays bounded


@dataclass(frozen=True)
class Found:
    """The detections in one image, and the seconds of each stage."""

    detections: Detections
    decode: float  # with the letterbox
    wait: float  # for a thread, and for the batch
    inference: float  # the time of the whole run, also in a batch; of an image in tiles, from the first to the last run
    batch: int = 1  # images in the run, or in the largest of several


See = Callable[[bytes, Letterboxed, Detections], None]
T = TypeVar("T")


class DetectionPool:
    """Worker threads around a predictor; used from one event loop.

    On its thread, `see` is shown each image's file, the image as it was prepared, and its detections.
    """

    def __init__(
        self, predictor: Predictor, metadata: ModelMetadata, settings: Settings, see: See | None = None
    ) -> None:
        self._see = see
        self._predictor = predictor
        self._metadata = metadata
        self._settings = settings
        self._batch = _Batch(predictor) if predictor.batch_size > 1 else None
        # while a batch runs, the images of the next are prepared
        self._workers = max(settings.threads, 2 * predictor.batch_size if self._batch else 1)
        self._threads = ThreadPoolExecutor(self._workers, "detect")
        self._tiles = ThreadPoolExecutor(self._workers, "tile")  # starts none before there is a tile
        self._large = asyncio.Semaphore(1)
        self._running = 0  # images given to the threads
        self.waiting = 0  # images of all requests that are not done

    async def detect(self, files: Sequence[tuple[str, bytes | memoryview]]) -> list[Found | ServiceError]:
        """Detect objects in the image files of one request, given with their names.

        A request has at most as many images under way as there are threads, so that others get their turn. Where the
        caller is cancelled, no further image is begun.

        Raises:
            ServiceError: Too many images wait already.
        """
        if self.waiting and self.waiting + len(files) > self._settings.max_waiting:
            raise overloaded("too many images are waiting")
        self.waiting += len(files)
        try:
            if len(files) == 1:
                return [await self._detect(0, *files[0])]
            turns = asyncio.Semaphore(self._workers)

            async def detect_in_turn(index: int, name: str, data: bytes | memoryview) -> Found | ServiceError:
                async with turns:
                    return await self._detect(index, name, data)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(detect_in_turn(index, *file)) for index, file in enumerate(files)]
            return [task.result() for task in tasks]
        finally:
            self.waiting -= len(files)

    def close(self) -> None:
        """End the threads, without the images that wait."""
        for threads in (self._threads, self._tiles):
            threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, data: bytes | memoryview, work: Callable[[bytes], T]) -> T:
        """Do some work with an image file on a thread; images that are large to decode go one at a time.

        Raises:
            DataError: It is no image, or the work says so.
            TooManyPixels: It has more than the limit.
        """
        with contextlib.suppress(_IsLarge):  # which holds the file's bytes, and must be gone while this one waits
            return await self._submit(data, work, may_be_large=False)
        async with self._large:
            return await self._submit(data, work, may_be_large=True)

    async def _submit(self, data: bytes | memoryview, work: Callable[[bytes], T], *, may_be_large: bool) -> T:
        file = _File(data)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, file, work, may_be_large)
        finally:
            file.data = b""  # where the caller was cancelled, it waits for a thread still

    def _call(self, file: _File, work: Callable[[bytes], T], may_be_large: bool) -> T:
        data = bytes(file.data)  # a copy of the body's part for as long as it is decoded
        header = read_header(data)
        if header.pixels > self._settings.max_pixels:
            raise TooManyPixels(f"{header.width} x {header.height}")
        if header.pixels > _LARGE_PIXELS and not may_be_large:
            raise _IsLarge
        return work(data)

    async def _detect(self, index: int, name: str, data: bytes | memoryview) -> Found | ServiceError:
        submitted = time.perf_counter()
        is_gone = threading.Event()
        self._running += 1
        try:
            return await self.run(data, lambda content: self._work(content, submitted, is_gone))
        except DataError as error:
            return ServiceError(422, "invalid_image", f"image {index}: {error.problem}", index=index, file=name)
        except TooManyPixels as error:
            limit = self._settings.max_pixels
            message = f"image {index} is {error}, more than {limit} pixels"
            return ServiceError(413, "image_too_large", message, index=index, file=name, limit_pixels=limit)
        finally:
            is_gone.set()  # where the caller was cancelled, no further tile is begun
            self._running -= 1

    def _work(self, data: bytes, submitted: float, is_gone: threading.Event) -> Found:
        begun = time.perf_counter()
        image = decode(data)
        letterboxed = letterbox(image, self._metadata.image_size)
        cut = image if self._metadata.tiling.tiles(letterboxed.width, letterboxed.height) else None
        del image  # which else takes memory during the run
        prepared = time.perf_counter()
        runs: list[tuple[float, int]] = []  # the seconds and the images of each

        def detect(view: Letterboxed) -> Detections:
            if is_gone.is_set():
                raise _IsGone
            if self._batch:
                found, seconds, images = self._batch.detect(view)
            else:
                started, images = time.perf_counter(), 1
                few = self._running == 1 or 2 * self._running <= self._settings.threads
                (found,) = self._predictor.detect([view], alone=few and view is letterboxed)
                seconds = time.perf_counter() - started
            runs.append((seconds, images))
            return found

        if cut is None:
            detections = detect(letterboxed)
            inference = runs[0][0]
        else:
            detections = detect_in_image(cut, self._metadata, detect, whole=letterboxed, spread=self._tiles.map)
            inference = time.perf_counter() - prepared
        waited = (begun - submitted) + (time.perf_counter() - prepared - inference)
        if self._see:
            self._see(data, letterboxed, detections)
        return Found(detections, prepared - begun, waited, inference, max(images for _, images in runs))


@dataclass
class _File:
    """The bytes of an image file that waits for a thread."""

    data: bytes | memoryview


class _IsLarge(Exception):  # noqa: N818  # it never leaves the module
    """An image that must be decoded by itself."""


class _IsGone(Exception):  # noqa: N818
    """Nobody waits for the image any more."""


class TooManyPixels(Exception):  # noqa: N818
    """An image of more pixels than the limit, by its header."""


@dataclass
class _Job:
    image: Letterboxed
    detections: Detections | None = None
    inference: float = 0.0
    batch: int = 0
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.detections is not None or self.error is not None


@dataclass
class _Batch:
    """Runs the images of several threads together: a thread that finds the predictor free runs all that wait."""

    predictor: Predictor
    _waiting: list[_Job] = field(default_factory=list)
    _list_lock: threading.Lock = field(default_factory=threading.Lock)
    _run_lock: threading.Lock = field(default_factory=threading.Lock)

    def detect(self, image: Letterboxed) -> tuple[Detections, float, int]:
        """Detect objects, and return the seconds of the run and the number of its images."""
        job = _Job(image)
        with self._list_lock:
            self._waiting.append(job)
        with self._run_lock:
            while not job.is_done:
                self._run()
        if job.error:
            raise job.error
        assert job.detections is not None  # noqa: S101  # it is done without an error
        return job.detections, job.inference, job.batch

    def _run(self) -> None:
        with self._list_lock:
            batch = self._waiting[: self.predictor.batch_size]
            del self._waiting[: len(batch)]
        started = time.perf_counter()
        try:
            found = self.predictor.detect([job.image for job in batch])
        except Exception as error:  # noqa: BLE001  # each thread raises it
            for job in batch:
                job.error = error
            return
        for job, detections in zip(batch, found, strict=True):
            job.inference, job.batch = time.perf_counter() - started, len(batch)
            job.detections = detections
