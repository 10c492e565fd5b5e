"""A clip's frames in the order in which they are shown: all of them, or an error.

FFmpeg, used through PyAV, continues after a damaged stretch and stops at a cut without an error. Annotations refer to
frames by number, and a lost frame shifts them all, so both are errors here, as far as they can be detected. Few codecs
have checksums: only the file's SHA-256 detects damage that still decodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from tqdm import tqdm

from pipeline.errors import DataError, MissingError

MAX_PIXELS = 50_000_000  # of a frame: 8K has 33 million
_EXPECTED = "a video file: .mp4, .avi, .mkv, .mov, .m4v or .webm"
_WHOLE = "get it again, whole"
_SLACK = 1.0  # seconds by which a clip may end before its declared end
# Only these demuxers and local files: otherwise a playlist named .mp4 opens whatever path or URL it holds.
_OPEN_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
    "protocol_whitelist": "file",
    "max_pixels": str(MAX_PIXELS),
}
_DECODER_OPTIONS = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}  # explode: no guess at damaged frames
_EBML_HEADER, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_IN_SEGMENT = frozenset(  # RFC 9559, section 5.1
    {_CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF}
)
_IN_CLUSTER = frozenset({0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF})  # and the deprecated


@contextmanager
def open_clip(clip: Path) -> Iterator[Reading]:
    """Open a clip to read its frames within this context.

    Raises:
        MissingError: There is no such file.
        DataError: It is not a video, is cut, or its frames are too large.
    """
    if not clip.is_file():
        raise MissingError("the clip is missing", where=clip)
    problem = _matroska_problem(clip)
    if problem:
        raise DataError(f"the clip is {problem}", where=clip, remedy=_WHOLE)
    try:
        container = av.open(str(clip.resolve()), options=_OPEN_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        problem = f"the file cannot be read as a video: {error.strerror}"
        raise DataError(problem, where=clip, expected=_EXPECTED, remedy=_WHOLE) from None
    with container:
        yield Reading(clip, container, _video_stream(container, clip))


class Reading:
    """One pass through a clip's frames, which ends in an error unless it gives all of them.

    Attributes:
        decoded: Number of frames so far.
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
                    raise DataError("the clip is encrypted", where=self._clip, expected="a clip without protection")
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
            raise DataError("the clip has no frame", where=self._clip, expected=_EXPECTED, remedy=_WHOLE)
        declared = _declared_seconds(self._container, self._stream)
        if declared - (self._first or 0.0) - self.end > max(_SLACK, self._longest_gap):
            raise self._broken(f"it should last {declared:.1f} s")

    def _broken(self, why: str) -> DataError:
        return DataError(
            f"the clip is cut or damaged after {self.end:.2f} s (frame {self.decoded}): {why}",
            where=self._clip,
            expected="a clip that can be decoded to its end",
            remedy=f"{_WHOLE}; or encode the readable part anew: ffmpeg -i OLD -c:v libx264 -crf 12 NEW.mp4",
        )


def _video_stream(container: InputContainer, clip: Path) -> VideoStream:
    """The first video stream, ready to decode; a cover image does not count."""
    covers = av.stream.Disposition.attached_pic
    streams = [each for each in container.streams.video if not each.disposition & covers]
    if not streams:
        raise DataError("the file has no video stream", where=clip, expected=_EXPECTED, remedy=_WHOLE)
    stream = streams[0]
    decoder = stream.codec_context
    if decoder is None:
        expected = "H.264, H.265, VP9, MPEG-4 or the like"
        raise DataError("there is no decoder for the clip", where=clip, expected=expected, remedy=_WHOLE)
    if not decoder.width:  # as FFmpeg leaves it where it meets more than it was allowed
        raise DataError(
            f"the clip's frames are of unknown size, or over {MAX_PIXELS} pixels", where=clip, remedy=_WHOLE
        )
    if decoder.width * decoder.height > MAX_PIXELS:
        raise _too_large(decoder.width, decoder.height, clip)
    decoder.options = _DECODER_OPTIONS
    stream.thread_type = "AUTO"
    return stream


def _too_large(width: int, height: int, clip: Path) -> DataError:
    problem = f"the clip's frames have {width} x {height} pixels"
    return DataError(problem, where=clip, expected=f"at most {MAX_PIXELS} pixels")


def _declared_seconds(container: InputContainer, stream: VideoStream) -> float:
    """How long the video should last; 0 if the clip does not say, or only says it with the sound."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")  # Matroska's, of one track
    minutes, _, seconds = rest.partition(":")
    if seconds:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return (container.duration or 0) / av.time_base if len(container.streams) == 1 else 0.0


def _matroska_problem(clip: Path) -> str:
    """What is wrong with the elements of a Matroska or WebM file (RFC 8794, sections 5 and 6); empty if nothing is.

    From an error on, FFmpeg silently looks for the next cluster, and the frames between are lost. Other containers
    have an index of their frames, from which FFmpeg itself detects missing ones.
    """
    size = clip.stat().st_size
    with clip.open("rb") as file:
        header = _element(file, 0)
        if header is None or header[0] != _EBML_HEADER or header[2] < 0:
            return ""
        segment = _element(file, header[1] + header[2])
        if segment is None or segment[0] != _SEGMENT:
            return ""
        _, start, length = segment
        end = start + length if length >= 0 else size
        if end > size:
            return f"cut: {end - size} of its {end} bytes are missing"
        damaged = _first_wrong(file, start, end, _IN_SEGMENT)
        return f"damaged at byte {damaged}" if damaged >= 0 else ""


def _first_wrong(file: BinaryIO, position: int, end: int, known: frozenset[int]) -> int:
    """The position of the first element that is unknown or too long; -1 if there is none."""
    while position < end:
        element = _element(file, position)
        if element is None or element[0] not in known:
            return position
        identifier, start, length = element
        if length < 0:  # unknown: a live recording
            return -1
        if start + length > end:
            return position
        inside = _first_wrong(file, start, start + length, _IN_CLUSTER) if identifier == _CLUSTER else -1
        if inside >= 0:
            return inside
        position = start + length
    return -1


def _element(file: BinaryIO, position: int) -> tuple[int, int, int] | None:
    """An element's identifier, the start of its content, and its length, -1 if unknown; None if there is no element.

    Both numbers have a variable size: the leading zeros of the first byte give the number of bytes that follow.
    """
    file.seek(position)
    header = file.read(12)
    first = 8 - header[0].bit_length() + 1 if header and header[0] else 0
    if not 1 <= first <= 4 or len(header) <= first or not header[first]:
        return None
    more = 8 - header[first].bit_length() + 1
    size = header[first : first + more]
    if len(size) < more:
        return None
    length = int.from_bytes(size, "big") & ((1 << 7 * more) - 1)
    unknown = length == (1 << 7 * more) - 1
    return int.from_bytes(header[:first], "big"), position + first + more, -1 if unknown else length
