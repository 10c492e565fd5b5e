"""A clip's frames in the order they are shown, all of them or an error.

FFmpeg, through PyAV, goes on over a damaged stretch and stops at a cut without a word. Labels refer to frames by
number, and a lost frame moves them all: here either is an error, as far as it can be told. Few codecs have checksums:
what is damaged and still decodes is told by the file's SHA-256 alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from tqdm import tqdm

from pipeline.data.sources.file_sorting import CLIP_SUFFIXES
from pipeline.data.sources.video_container import damaged_at, missing_bytes
from pipeline.errors import DataError, MissingError

MAX_PIXELS = 50_000_000  # of a frame: 8K has 33 million
EXPECTED = f"a video file: {', '.join(sorted(CLIP_SUFFIXES))}"
_SLACK = 1.0  # seconds by which a clip may end before its declared end
# Only these demuxers and local files: a playlist named .mp4 would else open whatever path or URL it holds.
_OPEN_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
    "protocol_whitelist": "file",
    "max_pixels": str(MAX_PIXELS),
}
_DECODER_OPTIONS = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}  # explode: no guess at damaged frames


@contextmanager
def open_clip(clip: Path) -> Iterator[Reading]:
    """Open a clip to read its frames within this context.

    Raises:
        MissingError: There is no such file.
        DataError: It is no video, is cut, or its frames are too large.
    """
    if not clip.is_file():
        raise MissingError("There is no such clip", where=clip)
    missing = missing_bytes(clip)
    if missing:
        raise DataError(
            f"The clip is cut: {missing} of its {clip.stat().st_size + missing} bytes are missing",
            where=clip,
            remedy="get it again, whole",
        )
    damaged = damaged_at(clip)
    if damaged >= 0:
        raise DataError(f"The clip is damaged at byte {damaged}", where=clip, remedy="get it again, whole")
    try:
        container = av.open(str(clip.resolve()), options=_OPEN_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        problem = f"The file cannot be read as a video: {error.strerror}"
        raise DataError(problem, where=clip, expected=EXPECTED, remedy="get it again, whole") from None
    with container:
        yield Reading(clip, container, _video_stream(container, clip))


class Reading:
    """One pass through a clip's frames, which ends in an error unless all of them came.

    Attributes:
        decoded: Frames so far.
        end: Seconds from the first frame to the end of the last one so far.
    """

    def __init__(self, clip: Path, container: InputContainer, stream: VideoStream) -> None:
        self._clip, self._container, self._stream = clip, container, stream
        self._first: float | None = None
        self._longest_gap = 0.0
        self.decoded = 0
        self.end = 0.0

    def frames(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Each frame with its time in seconds since the first.

        Raises:
            DataError: The clip is damaged, cut or encrypted, or has no frame.
        """
        options: dict[str, Any] = {"unit": "frame", "mininterval": 0.5, "ascii": True}
        with tqdm(desc=self._clip.name[:40], total=self._stream.frames or None, **options) as bar:
            for packet in self._container.demux(self._stream):
                if packet.is_corrupt:
                    raise self._broken("the file ends within a frame")
                if packet.has_sidedata("encryption_info"):
                    raise DataError("The clip is encrypted", where=self._clip, expected="a clip without protection")
                for frame in self._decoded(packet):
                    if frame.is_corrupt:
                        raise self._broken("a frame is damaged")
                    yield self._timed(frame), frame
                    bar.update()
        self._check_end()

    def _decoded(self, packet: av.Packet[VideoStream]) -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except av.FFmpegError as error:
            raise self._broken(error.strerror or type(error).__name__) from None

    def _timed(self, frame: av.VideoFrame) -> float:
        if frame.width * frame.height > MAX_PIXELS:
            raise _too_large(frame.width, frame.height, self._clip)
        rate = self._stream.average_rate
        tick = frame.time_base or Fraction(0)
        time = self.decoded / float(rate or 25) if frame.pts is None else float(frame.pts * tick)
        self._first = time if self._first is None else self._first
        seconds = max(0.0, time - self._first)
        self._longest_gap = max(self._longest_gap, seconds - self.end)
        self.end = seconds + float((frame.duration or 0) * tick)
        self.decoded += 1
        return seconds

    def _check_end(self) -> None:
        if not self.decoded:
            raise DataError("The clip has no frame", where=self._clip, expected=EXPECTED)
        declared = _declared_seconds(self._container, self._stream)
        if declared - (self._first or 0.0) - self.end > max(_SLACK, self._longest_gap):
            raise self._broken(f"it should last {declared:.1f} s")

    def _broken(self, why: str) -> DataError:
        return DataError(
            f"The clip is cut or damaged after {self.end:.2f} s (frame {self.decoded}): {why}",
            where=self._clip,
            expected="a clip that can be decoded to its end",
            remedy="get it again, whole; or write what can be read anew: ffmpeg -i OLD -c:v libx264 -crf 12 NEW.mp4",
        )


def _video_stream(container: InputContainer, clip: Path) -> VideoStream:
    """The first stream of moving pictures, ready to decode; a cover picture is none."""
    covers = av.stream.Disposition.attached_pic
    streams = [each for each in container.streams.video if not each.disposition & covers]
    if not streams:
        raise DataError("There is no video stream in the file", where=clip, expected=EXPECTED)
    stream = streams[0]
    decoder = stream.codec_context
    if decoder is None:
        raise DataError(
            "There is no decoder for the clip", where=clip, expected="H.264, H.265, VP9, MPEG-4 or the like"
        )
    if not decoder.width:  # as FFmpeg leaves it where it meets more than it was allowed
        raise DataError(f"The clip's frames are of unknown size, or over {MAX_PIXELS} pixels", where=clip)
    if decoder.width * decoder.height > MAX_PIXELS:
        raise _too_large(decoder.width, decoder.height, clip)
    decoder.options = _DECODER_OPTIONS
    stream.thread_type = "AUTO"
    return stream


def _too_large(width: int, height: int, clip: Path) -> DataError:
    problem = f"The clip's frames have {width} x {height} pixels"
    return DataError(problem, where=clip, expected=f"at most {MAX_PIXELS} pixels")


def _declared_seconds(container: InputContainer, stream: VideoStream) -> float:
    """How long the pictures should last; 0 where the clip does not say, or only with the sound."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")  # Matroska's, of one track
    minutes, _, seconds = rest.partition(":")
    if seconds:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return (container.duration or 0) / av.time_base if len(container.streams) == 1 else 0.0
