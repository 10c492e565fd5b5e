"""Small video clips whose every frame shows its own number, made by PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

WIDTH, HEIGHT = 160, 96
_BITS, _ACROSS = 12, 4  # the number in binary: twelve squares, four in a row, white for 1
STEADY = "threads=1:lookahead-threads=1:sync-lookahead=0:rc-lookahead=0:mbtree=0:qp=20"  # the same bytes every time
CODECS = {".avi": "mpeg4", ".webm": "libvpx"}  # or else H.264


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """An image `(height, width, 3)` that shows a number below 4096."""
    bits = [number >> i & 1 for i in range(_BITS)]
    squares = np.array(bits, np.uint8).reshape(-1, _ACROSS) * 200 + 25
    return np.repeat(cv2.resize(squares, (width, height), interpolation=cv2.INTER_NEAREST)[..., None], 3, axis=2)


def number_in(file: Path) -> int:
    """The number that an image file shows."""
    pixels = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    squares = cv2.resize(pixels, (_ACROSS, _BITS // _ACROSS), interpolation=cv2.INTER_AREA).ravel()
    return sum(int(value > 127) << i for i, value in enumerate(squares))


def write_clip(
    path: Path,
    images: Iterable[Pixels] | int,
    *,
    rate: int = 10,
    times: Sequence[float] = (),
    codec: str = "",
    rotation: float = 0,
    mirrored: bool = False,
    **options: str,
) -> Path:
    """Encode a clip.

    Args:
        path: Its suffix says the container.
        images: The frames in RGB, all of one size, or how many numbered ones.
        rate: Frames a second, where no times are given.
        times: When each frame is shown, in seconds: a variable rate.
        codec: FFmpeg's name; empty for what is usual in the container.
        rotation: Degrees anticlockwise by which a player turns it.
        mirrored: Whether a player mirrors it, after that.
        options: For the container.
    """
    if isinstance(images, int):
        images = map(numbered, range(images))
    codec = codec or CODECS.get(path.suffix, "libx264")
    with av.open(str(path), "w", options={"fflags": "+bitexact", **options}) as container:
        stream = container.add_stream(codec, rate=rate, options={"x264-params": STEADY} if codec == "libx264" else {})
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        if times:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        for i, image in enumerate(images):
            if i == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times:
                frame.pts, frame.time_base = round(times[i] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A file of a video's kind with sound and no video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
