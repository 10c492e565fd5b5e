"""Frames of a video clip as JPEG files, in a stream: memory does not grow with the clip's length.

A clip is taken whole or not at all, see `reading`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideData
from numpy.typing import NDArray

from pipeline.data.coco import unsafe_name
from pipeline.data.fetch.credentials import expand
from pipeline.data.fetch.fetching import fetch
from pipeline.data.sources.file_sorting import CLIP_SUFFIXES
from pipeline.data.sources.loaded_source import Raw
from pipeline.data.sources.video_frames import EXPECTED, open_clip
from pipeline.data.sources.video_sampling import Sampler, Sampling
from pipeline.errors import DataError, UsageError

_QUALITY = 95  # of the JPEG files


@dataclass(frozen=True)
class Frames:
    """What was taken from a clip.

    Attributes:
        names: The files, relative to the images folder, in the clip's order.
        fields: By name: `video`, the clip; `frame`, the zero-based number; `time`, seconds since the first frame;
            `scene`, the number of the scene within the clip, from 0, see `Sampler`.
        decoded: How many frames the clip has.
        taken: How many were written.
        seconds: From the first frame to the end of the last.
        bytes: The files' size together.
    """

    names: tuple[str, ...]
    fields: Mapping[str, Mapping[str, Any]]
    decoded: int
    taken: int
    seconds: float
    bytes: int


def is_video(url: str | Path) -> bool:
    """Whether a path, or the path in a URL, ends like a video file."""
    return _path_in(str(url)).suffix.lower() in CLIP_SUFFIXES


def load_video(
    url: str, images: Path, markup: Path, *, cache: Path, sha256: str = "", sampling: Sampling | None = None
) -> Raw:
    """Take the frames of one clip; there is no markup.

    Args:
        url: The clip: a path or a URL that `fetch` reads; `${NAME}` in it comes from the environment.
        images: Where the frames go, as `<clip name without suffix>/frame_000123.jpg`.
        markup: Left empty.
        cache: Where downloads are kept.
        sha256: What the clip's digest must be; empty to accept any.
        sampling: Which frames; one a second where it is None.

    Raises:
        UsageError: The URL is of an unknown kind, or names a folder.
        MissingError: There is nothing at the URL.
        DataError: The clip is none, cut or damaged, encrypted, too large, or another than `sha256` says.
    """
    markup.mkdir(parents=True, exist_ok=True)
    found = fetch(url, cache, sha256=sha256)
    if found.path.is_dir():
        raise UsageError("This is a folder, not a video", where=found.url, expected=EXPECTED)
    name = _path_in(expand(url)).stem
    frames = extract_frames(found.path, images, name=name, sampling=sampling or Sampling())
    return Raw("video", found.url, found.sha256, frames.taken, frames.bytes, fields=frames.fields)


def extract_frames(clip: Path, images: Path, *, name: str, sampling: Sampling) -> Frames:
    """Write frames of a clip as `<name>/frame_000123.jpg`: JPEG, quality 95, turned upright as the clip says.

    The number is the frame's, from 0, in the order they are shown, which is the order they are decoded in: the number
    that CVAT's annotations of the clip use. The same clip gives the same bytes.

    Args:
        clip: A file.
        images: The images folder.
        name: The clip's path in its source, without suffix.
        sampling: Which frames are taken.

    Raises:
        MissingError: There is no such file.
        DataError: It is no video, has no frames, is cut, damaged or encrypted, or its frames are too large.
    """
    video = f"{name}{clip.suffix}"
    if unsafe_name(name):
        raise DataError(f"The clip's name leads out of the images folder: {name!r}", where=clip)
    names: list[str] = []
    fields: dict[str, dict[str, Any]] = {}
    written = 0
    sampler = Sampler(sampling)
    with open_clip(clip) as reading:
        (images / name).mkdir(parents=True, exist_ok=True)
        for number, (seconds, frame) in enumerate(reading.frames()):
            if sampler.takes(frame, seconds):
                file = f"{name}/frame_{number:06d}.jpg"
                written += _write(_upright(frame), images / file, clip)
                names.append(file)
                fields[file] = {"video": video, "frame": number, "time": round(seconds, 6), "scene": sampler.scene}
    return Frames(tuple(names), fields, reading.decoded, len(names), reading.end, written)


def _path_in(url: str) -> PurePosixPath:
    """The path in a URL; of what is no URL, itself: `fetch` says what is wrong with it."""
    try:
        return PurePosixPath(unquote(urlsplit(url).path) if "://" in url else url)
    except ValueError:
        return PurePosixPath(url)


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The pixels, (height, width, 3) in BGR, turned and mirrored as the frame's display matrix says.

    The matrix (ISO/IEC 14496-12, section 8.2.2) maps (x, y) to (a x + c y, b x + d y); of it, right angles are heeded.
    """
    pixels = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    side_data: Any = frame.side_data  # its stubs lag behind
    if SideData.DISPLAYMATRIX not in side_data:
        return pixels
    a, b, _, c, d = np.frombuffer(side_data[SideData.DISPLAYMATRIX], np.int32)[:5].tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _write(pixels: NDArray[np.uint8], file: Path, clip: Path) -> int:
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise DataError(f"A frame of {pixels.shape[1]} x {pixels.shape[0]} pixels cannot be JPEG", where=clip)
    try:
        with file.open("xb") as opened:
            return opened.write(encoded.tobytes())
    except FileExistsError:
        problem = f"Two frames would be {file.parent.name}/{file.name}"
        raise DataError(problem, where=clip, remedy="rename one of the clips of that name") from None
