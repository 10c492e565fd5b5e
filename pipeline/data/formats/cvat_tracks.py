"""CVAT for video: an object is a track of shapes over the frames of a clip.

A frame is an image of the name `<clip>/frame_000123.jpg`, clip being the video's file name without suffix. Only frames
that are there count; those before the task's `start_frame` or after its `stop_frame`, which nobody annotated, only if
an object is in them. Between two shapes of a track the box moves in a straight line, as CVAT shows it, until a shape
that is `outside`; after the last shape there is none. (CVAT's own export lists every frame.)
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from pipeline.data.formats.cvat_shapes import KINDS, read_shape
from pipeline.data.formats.field_values import whole
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import ParsedBox, ParsedImage
from pipeline.data.subset_names import subset_named
from pipeline.errors import DataError

_FRAME = re.compile(r"(?:(.*)/)?frame_(\d+)\.[^./]+")


@dataclass(frozen=True, slots=True)
class _Clip:
    """A video: its name without suffix, the size of its frames, and those that are there, in order by number."""

    name: str
    size: tuple[int, int]
    frames: dict[int, str]
    present: tuple[int, ...]
    subset: str
    first: int = 0
    last: int | None = None  # of the frames that the task is about

    def has(self, frame: int) -> bool:
        """Whether a frame is one that the task is about."""
        return frame >= self.first and (self.last is None or frame <= self.last)


@dataclass(frozen=True, slots=True)
class _Shape:
    frame: int
    outside: bool
    mark: ParsedBox | None


def read_tracks(root: Element, file: str, images: ImageIndex, without_area: Counter[str]) -> list[ParsedImage]:
    """The frames that are there of the clips in an annotation file, with the objects of all tracks.

    Args:
        root: `<annotations>`.
        file: Its name.
        images: Which frames there are.
        without_area: Counts the shapes left out.

    Raises:
        DataError: The file does not name its video, and there are several, or none of the frames is there.
    """
    clips = _clips(root, file, images)
    marks: dict[str, list[ParsedBox]] = defaultdict(list)
    lost: set[str] = set()
    for i, track in enumerate(root.findall("track"), 1):
        where = f"{file}: track {track.get('id', i)}"
        clip = clips.get(track.get("task_id", "")) or next(iter(clips.values()))
        for frame, mark in _positions(_shapes(track, where, without_area), clip.present):
            if mark is None:
                lost.add(clip.frames[frame])
            else:
                marks[clip.frames[frame]].append(mark)
    return [
        ParsedImage(
            name,
            *(clip.size if all(clip.size) else images.size(name)),
            marks.get(name, ()),
            clip.subset,
            unusable=name in lost,
        )
        for clip in clips.values()
        for number, name in clip.frames.items()
        if clip.has(number) or name in marks or name in lost
    ]


def _clips(root: Element, file: str, images: ImageIndex) -> dict[str, _Clip]:
    """The clips by their task's id; a file of one task has one."""
    by_folder: dict[str, dict[int, str]] = defaultdict(dict)
    for name in sorted(images.names):
        found = _FRAME.fullmatch(name)
        if found:
            by_folder[found[1] or ""].setdefault(int(found[2]), name)
    parts = [each for each in root.iterfind("meta//*") if each.find("source") is not None]
    parts = parts or [each for each in root.findall("meta") if each.find("source") is not None]
    if not parts:
        return {"": _only_clip(by_folder, file, images)}
    clips: dict[str, _Clip] = {}
    for each in parts:
        name = PurePosixPath((each.findtext("source") or "").replace("\\", "/")).stem
        frames = _frames(name, by_folder, alone=len(parts) == 1)
        texts = (each.findtext(f"original_size/{side}") or 0 for side in ("width", "height"))
        width, height = (whole(text, "original_size", file) for text in texts)
        subset = subset_named(each.findtext("subset") or "")
        first, last = (whole(each.findtext(tag) or -1, tag, file) for tag in ("start_frame", "stop_frame"))
        limits = max(0, first), last if last >= 0 else None
        clip = _Clip(name, (width, height), frames, tuple(sorted(frames)), subset, *limits)
        clips.setdefault(each.findtext("id") or "", clip)
    if not any(clip.frames for clip in clips.values()):
        names = ", ".join(clip.name for clip in clips.values())
        raise DataError(
            f"None of the frames of {names} is among the images",
            where=file,
            expected=f"images {next(iter(clips.values())).name}/frame_000000.jpg and on",
            remedy="load the video as images, or images named so",
        )
    return clips


def _only_clip(by_folder: dict[str, dict[int, str]], file: str, images: ImageIndex) -> _Clip:
    """The one clip that all images are of: tracks that do not say of which can be of no other."""
    if len(by_folder) != 1 or sum(map(len, by_folder.values())) != len(images.names):
        raise DataError(
            "The tracks do not say of which video",
            where=file,
            expected="<meta> with a <source>, or the frames of one clip and no other images",
            remedy="load that video alone, or add the source to the file",
        )
    [(folder, frames)] = by_folder.items()
    return _Clip(PurePosixPath(folder).name, (0, 0), frames, tuple(sorted(frames)), "")


def _frames(clip: str, by_folder: dict[str, dict[int, str]], *, alone: bool) -> dict[int, str]:
    """The frames in the clip's folder, or in the only folder of frames where there is one clip."""
    folders = [folder for folder in by_folder if f"/{folder}".endswith(f"/{clip}")]
    folders = folders or (list(by_folder) if alone and len(by_folder) == 1 else [])
    if len(folders) > 1:
        problem = f"{len(folders)} folders may have the frames of '{clip}': {', '.join(folders[:3])}"
        raise DataError(problem, expected="one", remedy="load one video of that name at a time")
    return by_folder[folders[0]] if folders else {}


def _shapes(track: Element, where: str, without_area: Counter[str]) -> list[_Shape]:
    shapes: dict[int, _Shape] = {}
    for each in track:
        if each.tag not in KINDS:
            continue
        frame = whole(each.get("frame"), "frame", where)
        at = f"{where}, frame {frame}"
        outside = each.get("outside") == "1"
        mark = read_shape(each, track.get("label", ""), at)
        if mark is None and not outside:
            without_area[each.tag] += 1
        shapes[frame] = _Shape(frame, outside, mark)
    return [shapes[frame] for frame in sorted(shapes)]


def _positions(shapes: Sequence[_Shape], present: Sequence[int]) -> Iterator[tuple[int, ParsedBox | None]]:
    """Where the object is on each of the frames that are there; None where its shape has no area."""
    for shape, following in zip(shapes, [*shapes[1:], None], strict=True):
        if shape.outside:
            continue
        last = following.frame - 1 if following else shape.frame
        for frame in present[bisect_left(present, shape.frame) : bisect_right(present, last)]:
            if frame == shape.frame or shape.mark is None:
                yield frame, shape.mark
            elif following:
                yield frame, _between(shape.mark, following, (frame - shape.frame) / (following.frame - shape.frame))


def _between(mark: ParsedBox, following: _Shape, part: float) -> ParsedBox:
    end = following.mark.bbox if following.mark else mark.bbox
    x, y, width, height = (old + (new - old) * part for old, new in zip(mark.bbox, end, strict=True))
    return replace(mark, bbox=(x, y, width, height), segmentation=None, area=None)
