"""Frames of a clip as JPEG files, in a stream: memory does not grow with the clip's length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideData
from numpy.typing import NDArray

from pipeline.data.sources.video_frames import open_clip
from pipeline.errors import DataError, UsageError

_QUALITY = 95  # of the JPEG files
_ROUNDING = 0.001  # seconds: Matroska keeps times in whole milliseconds
_USUAL_CHANGE = 0.15  # where scenes are only counted
_SMALL = 32  # pixels: the side of frames that are compared


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a clip are taken: those due by time or by scene; every one if both are 0.

    Attributes:
        per_second: Frames a second by the clip's own time stamps, so a variable frame rate is fine: the first frame in
            each interval of `1 / per_second` seconds, counted from the first frame. 0: none by time.
        scene_change: How different from its predecessor a frame must be to begin a scene, from 0 to 1; 0: none by
            scene. The measure is the mean absolute difference of the two frames at 32 x 32 pixels in RGB, d, reduced to
            min(d, |d - previous d|), so that a pan or a shaking camera begins no scene (after FFmpeg's filter
            `select`, variable `scene`). A cut usually gives 0.1 to 0.5. The first frame of the clip begins a scene.
    """

    per_second: float = 1.0
    scene_change: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_second) and self.per_second >= 0):
            raise UsageError(f"frames a second cannot be {self.per_second}", expected="0 or more")
        if not 0 <= self.scene_change <= 1:
            raise UsageError(f"the change of scene cannot be {self.scene_change}", expected="a number from 0 to 1")


@dataclass(frozen=True)
class ClipFrame:
    """A frame that is taken.

    Attributes:
        name: Its file, such as `clip/frame_000123.jpg`.
        jpeg: The file's bytes.
        fields: `video`, the clip; `frame`, the number from 0; `time`, seconds since the first frame; `scene`, the
            number of the scene within the clip, from 0.
    """

    name: str
    jpeg: bytes
    fields: Mapping[str, Any]


def extract_frames(clip: Path, name: str, sampling: Sampling) -> Iterator[ClipFrame]:
    """Give frames of a clip as `<name>/frame_000123.jpg`: JPEG, quality 95, turned upright as the clip says.

    The number is the frame's, from 0, in the order in which frames are shown and decoded, as CVAT's annotations of a
    clip number them. The same clip gives the same bytes.

    Args:
        clip: A file.
        name: The folder for its frames.
        sampling: Which frames are taken.

    Raises:
        MissingError: There is no such file.
        DataError: It is not a video, has no frames, is cut, damaged or encrypted, or its frames are too large.
    """
    video = f"{name}{clip.suffix}"
    sampler, turner = _Sampler(sampling), _Turner()
    with open_clip(clip) as reading:
        for number, (seconds, frame) in enumerate(reading.frames()):
            if sampler.takes(frame, seconds):
                fields = {"video": video, "frame": number, "time": round(seconds, 6), "scene": sampler.scene}
                yield ClipFrame(f"{name}/frame_{number:06d}.jpg", _encoded(turner.upright(frame), clip), fields)


class _Sampler:
    """Decides for the frames of one clip, in order, which are taken.

    Attributes:
        scene: The number, from 0, of the scene that the last frame is in. Every frame of the clip is compared,
            whichever are taken: at one a second a pan would look like a cut, and a short scene would be missed. That
            takes about a millisecond a frame. If no change of scene is set, one of 0.15 begins a scene.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._interval = -1  # the last one a frame was taken from
        self._before: NDArray[np.int16] | None = None
        self._difference = 0.0
        self.scene = -1

    def takes(self, frame: av.VideoFrame, seconds: float) -> bool:
        """Whether the next frame, shown so many seconds after the first, is taken."""
        in_time, new_scene = self._is_due(seconds), self._begins_scene(frame)
        self.scene += new_scene
        every = not self._sampling.per_second and not self._sampling.scene_change
        return every or in_time or (new_scene and self._sampling.scene_change > 0)

    def _is_due(self, seconds: float) -> bool:
        if not self._sampling.per_second:
            return False
        interval = math.floor((seconds + _ROUNDING) * self._sampling.per_second)
        due = interval > self._interval
        self._interval = max(self._interval, interval)
        return due

    def _begins_scene(self, frame: av.VideoFrame) -> bool:
        small = frame.reformat(_SMALL, _SMALL, "rgb24", interpolation="AREA").to_ndarray().astype(np.int16)
        before, self._before = self._before, small
        if before is None:
            return True
        difference = float(np.abs(small - before).mean()) / 255
        novelty = min(difference, abs(difference - self._difference))
        self._difference = difference
        return novelty >= (self._sampling.scene_change or _USUAL_CHANGE)


class _Turner:
    """Turns and mirrors the frames of one clip as their display matrix says.

    A frame whose side data was read is only freed by the garbage collector, since PyAV links the two to each other. So
    the matrix is read once for each rotation that occurs, mostly once a clip.
    """

    def __init__(self) -> None:
        self._matrices: dict[int, tuple[int, int, int, int]] = {}

    def upright(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The pixels of the upright frame, `(height, width, 3)` in BGR."""
        pixels = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
        if frame.rotation not in self._matrices:
            self._matrices[frame.rotation] = _display_matrix(frame)
        a, b, c, d = self._matrices[frame.rotation]
        if abs(b) > abs(a):
            pixels, a, d = pixels.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d), which map (x, y) to (a x + c y, b x + d y) (ISO/IEC 14496-12, section 8.2.2)."""
    side_data: Any = frame.side_data  # its stubs lag behind
    if SideData.DISPLAYMATRIX not in side_data:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(side_data[SideData.DISPLAYMATRIX], np.int32)[:5].tolist()
    return a, b, c, d


def _encoded(pixels: NDArray[np.uint8], clip: Path) -> bytes:
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise DataError(f"a frame of {pixels.shape[1]} x {pixels.shape[0]} pixels cannot be JPEG", where=clip)
    return bytes(encoded.tobytes())
