"""Which frames of a clip are taken: so many a second, the first of each scene, or every one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError

_ROUNDING = 0.001  # seconds: Matroska keeps times in whole milliseconds
_USUAL_CHANGE = 0.15  # where scenes are only counted
_SMALL = 32  # pixels: what is left of a frame where scenes are compared


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames are taken; where both are set, a frame is taken when either says so; where both are 0, every one.

    Attributes:
        per_second: Frames a second, by the clip's own time stamps, so that a variable frame rate does no harm: the
            first frame in each interval of `1 / per_second` seconds, counted from the first frame. 0: none by time.
        scene_change: How unlike the frame before a frame must be to open a scene, from 0 to 1; 0: none by scene. The
            measure is the mean absolute difference of the two frames, at 32 x 32 pixels in RGB, less what is not new:
            min(difference, |difference - the one before|), so that a pan or a shaking camera opens no scene
            (after FFmpeg's filter `select`, variable `scene`). A cut between two shots mostly gives 0.1 to 0.5.
            The first frame of the clip opens one.
    """

    per_second: float = 1.0
    scene_change: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_second) and self.per_second >= 0):
            raise UsageError(f"Frames a second cannot be {self.per_second}", expected="0 or more")
        if not 0 <= self.scene_change <= 1:
            raise UsageError(f"The change of scene cannot be {self.scene_change}", expected="a number from 0 to 1")


class Sampler:
    """Goes through the frames of one clip, in order, and says of each whether it is taken.

    Attributes:
        scene: The number, from 0, of the scene that the last frame is in. Every frame of the clip is compared,
            whichever are taken: at one a second a pan would look like a cut, and a short scene would be missed. That
            takes a millisecond or so a frame. Where no change of scene is set, one of 0.15 opens a scene.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._interval = -1  # the last one a frame was taken from
        self._before: NDArray[np.int16] | None = None
        self._difference = 0.0
        self.scene = -1

    def takes(self, frame: av.VideoFrame, seconds: float) -> bool:
        """Whether the next frame is taken, shown so many seconds after the first."""
        in_time, new_scene = self._is_due(seconds), self._opens_scene(frame)
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

    def _opens_scene(self, frame: av.VideoFrame) -> bool:
        small = frame.reformat(_SMALL, _SMALL, "rgb24", interpolation="AREA").to_ndarray().astype(np.int16)
        before, self._before = self._before, small
        if before is None:
            return True
        difference = float(np.abs(small - before).mean()) / 255
        novelty = min(difference, abs(difference - self._difference))
        self._difference = difference
        return novelty >= (self._sampling.scene_change or _USUAL_CHANGE)
