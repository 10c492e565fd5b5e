"""Frames of a clip as JPEG files, in a stream: memory does not grow with the clip's length.

FFmpeg, used through PyAV, continues after a damaged stretch and stops at a cut without an error. Annotations refer to
frames by number, and a lost frame shifts them all, so both are errors here, as far as they can be detected. Few codecs
have checksums: only the file's SHA-256 detects damage that still decodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.video.stream import VideoStream
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.errors import DataError, UsageError

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
_ROUNDING = 0.001  # seconds: Matroska keeps times in whole milliseconds
_USUAL_CHANGE = 0.15  # where scenes are only counted
_SMALL = 32  # pixels: the side of frames that are compared


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a clip are taken: those due by time or by scene; every one if both are 0.

    The difference of a frame from its predecessor is the mean absolute one at 32 x 32 pixels in RGB, d, reduced to
    min(d, |d - previous d|), so that a pan or a shaking camera begins no scene (after FFmpeg's filter `select`,
    variable `scene`). A cut usually gives 0.1 to 0.5. The first frame of the clip begins a scene.
    """

    per_second: float = 1.0  # the first frame in each interval of `1 / per_second` s by time stamps; 0: none by time
    scene_change: float = 0.0  # the difference, from 0 to 1, with which a frame begins a scene; 0: none by scene

    def __post_init__(self) -> None:
        if not (0 <= self.per_second < math.inf and 0 <= self.scene_change <= 1):
            problem = f"frames cannot be sampled at {self.per_second} a second and at changes of {self.scene_change}"
            raise UsageError(problem, expected="0 or more a second, and a change from 0 to 1")


def extract_frames(clip: Path, name: str, sampling: Sampling) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Give frames of a clip as `<name>/frame_000123.jpg`: JPEG, quality 95, turned upright as the clip says.

    The number is the frame's, from 0, in the order in which frames are shown, as in CVAT's annotations of a clip. The
    same clip gives the same bytes. With each frame come the fields `video`, the clip; `frame`, the number; `time`,
    seconds since the first frame; and `scene`, the number of the scene within the clip, from 0.

    Raises:
        DataError: It is not a video, has no frames, is cut, damaged or encrypted, or its frames are too large.
    """
    _check_matroska(clip)
    try:
        container = av.open(str(clip.resolve()), options=_OPEN_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        problem = f"the file cannot be read as a video: {error.strerror}"
        raise DataError(problem, where=clip, expected=_EXPECTED, remedy=_WHOLE) from None
    per_second, scene_change = sampling.per_second, sampling.scene_change
    matrices: dict[int, tuple[int, int, int, int]] = {}
    before: NDArray[np.int16] | None = None
    interval, scene, difference = -1, -1, 0.0
    with container:
        for number, (seconds, frame) in enumerate(_frames(clip, container)):
            # every frame is compared, whichever are taken: at one a second a pan would look like a cut
            small = frame.reformat(_SMALL, _SMALL, "rgb24", interpolation="AREA").to_ndarray().astype(np.int16)
            last, difference = difference, 0.0 if before is None else float(np.abs(small - before).mean()) / 255
            novelty = min(difference, abs(difference - last))
            begins_scene = before is None or novelty >= (scene_change or _USUAL_CHANGE)
            before, scene = small, scene + begins_scene
            due = math.floor((seconds + _ROUNDING) * per_second)
            is_due, interval = due > interval and per_second > 0, max(due, interval)
            if is_due or (begins_scene and scene_change > 0) or not (per_second or scene_change):
                fields = {"video": f"{name}{clip.suffix}", "frame": number, "time": round(seconds, 6), "scene": scene}
                encoded = cv2.imencode(".jpg", _upright(frame, matrices), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
                yield f"{name}/frame_{number:06d}.jpg", encoded.tobytes(), fields


def _frames(clip: Path, container: InputContainer) -> Iterator[tuple[float, av.VideoFrame]]:
    """Each frame with its time in seconds since the first: all of them, or an error."""
    stream = _video_stream(container, clip)
    decoded, first, end, longest_gap = 0, 0.0, 0.0, 0.0

    def broken(why: str) -> DataError:
        return DataError(
            f"the clip is cut or damaged after {end:.2f} s (frame {decoded}): {why}",
            where=clip,
            remedy=f"{_WHOLE}; or encode the readable part anew: ffmpeg -i OLD -c:v libx264 -crf 12 NEW.mp4",
        )

    for packet in tqdm(container.demux(stream), clip.name[:40], unit="packet", mininterval=0.5, ascii=True):
        if packet.is_corrupt:
            raise broken("the file ends within a frame")
        if packet.has_sidedata("encryption_info"):
            raise DataError("the clip is encrypted", where=clip)
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            raise broken(error.strerror or type(error).__name__) from None
        for frame in frames:
            if frame.is_corrupt:
                raise broken("a frame is damaged")
            tick = frame.time_base or Fraction(0)
            time = decoded / float(stream.average_rate or 25) if frame.pts is None else float(frame.pts * tick)
            first = first if decoded else time
            seconds = max(0.0, time - first)
            longest_gap = max(longest_gap, seconds - end)
            end = seconds + float((frame.duration or 0) * tick)
            decoded += 1
            yield seconds, frame
    if not decoded:
        raise DataError("the clip has no frame", where=clip, expected=_EXPECTED, remedy=_WHOLE)
    declared = 0.0  # the container's duration may be that of its sound
    if stream.duration and stream.time_base:
        declared = float(stream.duration * stream.time_base)
    elif len(container.streams) == 1:
        declared = (container.duration or 0) / av.time_base
    if declared - first - end > max(_SLACK, longest_gap):
        raise broken(f"it should last {declared:.1f} s")


def _upright(frame: av.VideoFrame, matrices: dict[int, tuple[int, int, int, int]]) -> NDArray[np.uint8]:
    """The pixels `(height, width, 3)` in BGR of a frame, turned and mirrored as its display matrix says.

    A frame whose side data was read is only freed by the garbage collector, since PyAV links the two to each other. So
    the matrix is read once for each rotation that occurs, mostly once a clip, and kept in `matrices`.
    """
    pixels = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    if frame.rotation not in matrices:
        side_data: Any = frame.side_data  # its stubs lag behind
        matrix = side_data.get(SideData.DISPLAYMATRIX)
        a, b, _, c, d = (1, 0, 0, 0, 1) if matrix is None else np.frombuffer(matrix, np.int32)[:5].tolist()
        matrices[frame.rotation] = a, b, c, d
    a, b, c, d = matrices[frame.rotation]  # (x, y) to (a x + c y, b x + d y) (ISO/IEC 14496-12, section 8.2.2)
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _video_stream(container: InputContainer, clip: Path) -> VideoStream:
    """The first video stream, ready to decode; a cover image does not count."""
    covers = av.stream.Disposition.attached_pic
    stream = next((each for each in container.streams.video if not each.disposition & covers), None)
    if stream is None:
        raise DataError("the file has no video stream", where=clip, expected=_EXPECTED, remedy=_WHOLE)
    decoder = stream.codec_context
    # a width of 0 is what FFmpeg leaves where it meets more pixels than it was allowed
    if decoder is None or not 0 < decoder.width * decoder.height <= MAX_PIXELS:
        problem = f"there is no decoder for the clip's frames, or they are over {MAX_PIXELS} pixels"
        raise DataError(problem, where=clip, expected="H.264, H.265, VP9, MPEG-4 or the like", remedy=_WHOLE)
    decoder.options = _DECODER_OPTIONS
    stream.thread_type = "AUTO"
    return stream


def _check_matroska(clip: Path) -> None:
    """Check the chain of elements of a Matroska or WebM file (RFC 8794, sections 5 and 6).

    From an error on, FFmpeg silently looks for the next cluster, and the frames between are lost. Other containers
    have an index of their frames, from which FFmpeg itself detects missing ones.
    """
    with clip.open("rb") as file:
        if _number(file, is_identifier=True) != _EBML_HEADER:
            return
        file.seek(_number(file), 1)
        identifier, length = _number(file, is_identifier=True), _number(file)
        end, size = file.tell() + length, clip.stat().st_size
        if identifier != _SEGMENT or length < 0:  # of unknown length: a live recording
            return
        damaged = size if end > size else _first_wrong(file, end, _IN_SEGMENT)
        if damaged >= 0:
            raise DataError(f"the clip is cut or damaged at byte {damaged}", where=clip, remedy=_WHOLE)


def _first_wrong(file: BinaryIO, end: int, known: frozenset[int]) -> int:
    """The position of the first element that is unknown or too long; -1 if there is none."""
    while (position := file.tell()) < end:
        identifier, length = _number(file, is_identifier=True), _number(file)
        inside = file.tell() + length
        if identifier not in known or inside > end:
            return position
        if length < 0:
            return -1
        if identifier == _CLUSTER and (wrong := _first_wrong(file, inside, _IN_CLUSTER)) >= 0:
            return wrong
        file.seek(inside)
    return -1


def _number(file: BinaryIO, *, is_identifier: bool = False) -> int:
    """A number of 1 to 8 bytes, as many as the first has leading zeros, and one; -1 for an unknown length."""
    first = file.read(1)
    more = 8 - first[0].bit_length() if first else 0
    number = int.from_bytes(first + file.read(more), "big")
    ones = (1 << 7 * (more + 1)) - 1
    return number if is_identifier else -1 if number & ones == ones else number & ones
