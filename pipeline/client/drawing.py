"""Predictions drawn: pictures with their boxes, labels and scores, and videos of such pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import cast

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream

from pipeline.client.http_client import ServedImage
from pipeline.client.image_prediction import Prediction
from pipeline.client.image_sources import FoundFile, NamedImage
from pipeline.data.figures import PALETTE, Pixels, draw_labelled
from pipeline.data.fonts import written
from pipeline.errors import DataError, UsageError
from pipeline.files import atomic_path, write_atomically
from pipeline.serving.decoding import decode, read_header

_QUALITY = 95  # of a JPEG
_ENCODED = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp"})  # suffixes that OpenCV encodes by
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}  # those that hold H.264
_TICKS = 90_000  # a second, of a drawn video: MPEG's own, a multiple of all usual frame rates
_USUAL_RATE = 25  # of a video of one frame
_LETTERS = 50  # of them fill the shorter side of a picture from top to bottom
_SMALLEST, _LARGEST = 12, 64  # pixels of a letter
_LONGEST_NAME = 40


def draw_detections(pixels: Pixels, answer: ServedImage, classes: Sequence[str]) -> Pixels:
    """Draw the detections on a copy of an upright image in BGR, the most certain on top; a class has one colour."""
    found = answer.detections[::-1]
    if not found:
        return pixels
    label = int(np.clip(min(pixels.shape[:2]) // _LETTERS, _SMALLEST, _LARGEST))
    corners = np.array([each.box for each in found], np.float64)
    boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    places = {name: place for place, name in enumerate(classes)}
    colours = [PALETTE[places.get(each.label, 0) % 7] for each in found]
    texts = [f"{written(each.label, _LONGEST_NAME)} {each.score:.2f}" for each in found]
    return draw_labelled(pixels, boxes, colours, texts, label=label, thickness=max(2, label // 6))


class Drawer:
    """Writes drawn images below a folder, under their names; frames of a video become a video again.

    Use it as a context manager: an unfinished video is removed where the block ends with an error.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder = folder
        self._classes = classes
        self._video = ExitStack()
        self._clip = ""
        self._writer: VideoWriter | None = None

    def check(self, files: Sequence[FoundFile]) -> None:
        """Raise a `UsageError` where a drawn picture would replace its own source."""
        for file in files:
            if (self._folder / file.name).resolve() == file.path.resolve():
                remedy = "choose another folder"
                raise UsageError("the drawn picture would replace the image itself", where=file.path, remedy=remedy)

    def draw(self, image: NamedImage, data: bytes, answer: ServedImage) -> Pixels | None:
        """Write a drawn picture; the pixels of a drawn frame, which `add` takes. Several threads may draw."""
        drawn = draw_detections(decode(data), answer, self._classes)
        if image.clip:
            return drawn
        path = self._folder / image.name
        if path.suffix.lower() not in _ENCODED:
            path = path.with_name(f"{path.name}.{read_header(data).format.lower().replace('jpeg', 'jpg')}")
        path.parent.mkdir(parents=True, exist_ok=True)
        is_written, encoded = cv2.imencode(path.suffix.lower(), drawn, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if not is_written:
            size = f"{drawn.shape[1]} x {drawn.shape[0]} pixels"
            raise DataError(f"an image of {size} cannot be a {path.suffix} file", where=path)
        write_atomically(path, encoded.tobytes())
        return None

    def add(self, prediction: Prediction[Pixels | None]) -> None:
        """Take a prediction, in order: the frames of a video become one."""
        image = prediction.image
        if image.clip != self._clip:
            self._video.close()
            self._clip, self._writer = image.clip, None
        if prediction.result is not None:
            if self._writer is None:
                path = self._folder / image.clip
                if path.suffix.lower() not in _CONTAINERS:
                    path = path.with_name(f"{path.name}.mp4")
                path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = self._video.enter_context(video_file(path))
            self._writer.add(prediction.result, image.seconds)

    def __enter__(self) -> Drawer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._video.__exit__(kind, error, traceback)


class VideoWriter:
    """Adds frames to a video; see `video_file`."""

    def __init__(self, container: OutputContainer) -> None:
        self._container = container
        self._stream: VideoStream | None = None
        self._first: tuple[Pixels, float] | None = None  # held until the second tells the frame rate
        self._last = -1  # tick of the last frame

    def add(self, pixels: Pixels, seconds: float) -> None:
        """Add a frame in BGR, shown at a time; each has the size of the first."""
        if self._stream is None and self._first is None:
            self._first = pixels, seconds
            return
        if self._stream is None:
            self._start(seconds)
        self._encode(pixels, seconds)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is None and self._first:
            self._start(self._first[1] + 1 / _USUAL_RATE)
        if self._stream:
            self._container.mux(self._stream.encode())

    def _encode(self, pixels: Pixels, seconds: float) -> None:
        if self._stream:
            size = self._stream.width, self._stream.height
            if pixels.shape[1::-1] != size:
                pixels = cv2.resize(pixels, size).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            self._last = max(self._last + 1, round(seconds * _TICKS))
            frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
            self._container.mux(self._stream.encode(frame))

    def _start(self, second: float) -> None:
        """Begin with the frame that is held; the next is shown at `second`, by which the last one's time is known."""
        if self._first is None:
            return
        pixels, first = self._first
        height, width = pixels.shape[:2]
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        rate = Fraction(_TICKS, max(1, round((second - first) * _TICKS)))
        self._stream = stream = cast("VideoStream", self._container.add_stream(codec, rate=rate))
        stream.width, stream.height = width, height
        # H.264 halves both sides of the colours in 4:2:0, so they must be even
        is_odd = codec == "libx264" and (width % 2 or height % 2)
        stream.pix_fmt = "yuv444p" if is_odd else "yuv420p"
        stream.time_base = Fraction(1, _TICKS)
        if codec == "mpeg4":
            stream.codec_context.time_base = Fraction(1, 30_000)  # it takes no more than 16 bits
            stream.codec_context.bit_rate = width * height * 8
        else:
            stream.codec_context.time_base = Fraction(1, _TICKS)
        self._encode(pixels, first)


@contextmanager
def video_file(path: Path) -> Iterator[VideoWriter]:
    """Write a video in H.264, or in MPEG-4 where FFmpeg has no encoder for it, which appears when the block has ended.

    Frames keep their times, so the frame rate is that of their source.
    """
    container = _CONTAINERS[PurePosixPath(path).suffix.lower()]
    with atomic_path(path) as draft, av.open(str(draft), "w", format=container) as output:
        writer = VideoWriter(output)
        yield writer
        writer.finish()
        output.close()  # before the file takes its place
