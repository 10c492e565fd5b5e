"""CVAT's own XML, "CVAT for images 1.1" and "CVAT for video 1.1": the boxes around shapes.

Reference: https://docs.cvat.ai/docs/dataset_management/formats/xml_format/. Coordinates are pixels; rotations are
clockwise, in degrees. Classes come in the order of `<meta>`. Of the attributes only `is_crowd` is read.

In "CVAT for video" an object is a track of shapes over the frames of a clip. A frame is an image named
`<clip>/frame_000123.jpg`; the clip is the video's file name without suffix. Only frames that exist count. Frames before
the task's `start_frame` or after its `stop_frame`, which nobody annotated, count only if an object is on them. Between
two shapes of a track the box moves in a straight line, as CVAT shows it, until a shape that is `outside`; after the
last shape there is none. (CVAT's own export lists every frame.)
"""

from __future__ import annotations

import logging
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from pipeline.data.boxes import Point, ellipse_hull, hull, rotated_box
from pipeline.data.coco import Box, CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Candidates, label, number, whole
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import ParsedBox, ParsedImage, subset_named, to_coco
from pipeline.errors import DataError

log = logging.getLogger(__name__)

LOOKS_FOR = "an XML file with <annotations> outermost"
_FRAME = re.compile(r"(?:(.*)/)?frame_(\d+)\.[^./]+")
_MAYBE_FLAT = frozenset({"polyline", "points", "skeleton"})  # shapes that may have no area
_SHAPES = frozenset({"box", "polygon", "ellipse", "mask", "cuboid"}) | _MAYBE_FLAT

_Keyframe = tuple[int, bool, ParsedBox | None]  # its number, whether the object is outside, its box if it has an area


@dataclass(frozen=True, slots=True)
class _Clip:
    """A video: name without suffix, size of its frames, names of those that exist, and the task's first and last."""

    name: str
    size: tuple[int, int]
    frames: Mapping[int, str]
    subset: str
    first: int = 0
    last: float = float("inf")


def candidates(files: AnnotationFiles) -> Candidates:
    """The XML files."""
    return files.xml_candidates("annotations")


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read images and tracks. Shapes without an area are skipped; the log counts them."""
    labels: dict[str, None] = {}
    found: list[ParsedImage] = []
    without_area = Counter[str]()
    for file in files.ending(".xml"):
        if files.xml_root(file) != "annotations":
            continue
        root = files.xml(file)
        for each in root.iterfind("meta//labels/label"):
            name = (each.findtext("name") or "").strip()
            if name and not each.findtext("parent"):  # a label with a parent is of a skeleton's points
                labels[name] = None
        found += _images(root, file, images, without_area)
        if root.find("track") is not None:
            found += _tracked_images(root, file, images, without_area)
    if without_area:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(without_area.items()))
        log.info("skipped shapes without an area: %s", kinds)
    return to_coco(found, tuple(labels))


def _images(root: Element, file: str, images: ImageIndex, without_area: Counter[str]) -> Iterator[ParsedImage]:
    for i, node in enumerate(root.findall("image"), 1):
        written = (node.get("name") or "").strip()
        if not written:
            raise DataError("an image has no name", where=f"{file}: image {i}", expected="its path")
        where = f"{file}: image {written[:100]}"
        boxes = [(each.tag, _read_shape(each, each.get("label", ""), where)) for each in node if each.tag in _SHAPES]
        flat = [tag for tag, box in boxes if box is None]
        without_area.update(flat + ["tag"] * len(node.findall("tag")))  # which is about the whole image
        name = images.name_of(written, where, PurePosixPath(file).parent.as_posix())
        subset = subset_named(node.get("subset") or "") or images.subset_of(PurePosixPath(written).parent.as_posix())
        size = images.declared_size(name, node.get("width"), node.get("height"), where)
        yield ParsedImage(name, *size, [box for _, box in boxes if box], subset, unusable=bool(flat))


def _read_shape(shape: Element, name: str, where: str) -> ParsedBox | None:
    """A shape as a box of a class; None where it has no area, such as a single point."""
    name = label(name, where)
    flags = [each.text for each in shape.findall("attribute") if each.get("name") == "is_crowd"]
    crowd = int(any((text or "").strip().lower() in {"true", "1"} for text in flags))
    if shape.tag == "polygon":
        return ParsedBox.around(name, _points(shape, where), crowd)
    box = _box(shape, where)
    return None if shape.tag in _MAYBE_FLAT and min(box[2:]) <= 0 else ParsedBox(name, box, crowd)


def _box(shape: Element, where: str) -> Box:
    def values(*keys: str) -> list[float]:
        return [number(shape.get(key), f"{key} of a {shape.tag}", where) for key in keys]

    rotation = number(shape.get("rotation") or "0", "rotation", where)
    if shape.tag == "box":
        left, top, right, bottom = values("xtl", "ytl", "xbr", "ybr")
        box = (left, top, right - left, bottom - top)
        return hull(rotated_box(box, rotation)) if rotation else box
    if shape.tag == "mask":
        left, top, width, height = values("left", "top", "width", "height")
        return left, top, width, height
    if shape.tag == "ellipse":
        x, y, across, down = values("cx", "cy", "rx", "ry")
        return ellipse_hull((x, y), (across, down), rotation)
    if shape.tag == "cuboid":
        ends = [key[1:] for key in shape.attrib if key[0] == "x" and f"y{key[1:]}" in shape.attrib]
        return hull(list(zip(values(*(f"x{end}" for end in ends)), values(*(f"y{end}" for end in ends)), strict=True)))
    if shape.tag == "skeleton":
        parts = [each for each in shape.findall("points") if each.get("outside") != "1"]
        return hull([point for each in parts for point in _points(each, where)]) if parts else (0, 0, 0, 0)
    return hull(_points(shape, where))


def _points(shape: Element, where: str) -> list[Point]:
    texts = [each.split(",") for each in shape.get("points", "").split(";") if each.strip()]
    if not texts or any(len(each) != 2 for each in texts):
        problem = f"a {shape.tag} has no points"
        raise DataError(problem, where=where, expected='points="x,y;x,y;…"', remedy="export it again")
    return [(number(x.strip(), "a point's x", where), number(y.strip(), "a point's y", where)) for x, y in texts]


def _tracked_images(root: Element, file: str, images: ImageIndex, without_area: Counter[str]) -> list[ParsedImage]:
    clips = _clips(root, file, images)
    boxes: dict[str, list[ParsedBox]] = defaultdict(list)
    unusable: set[str] = set()
    for i, track in enumerate(root.findall("track"), 1):
        clip = clips.get(track.get("task_id", "")) or next(iter(clips.values()))
        keyframes = _keyframes(track, f"{file}: track {track.get('id', i)}", without_area)
        for frame, box in _positions(keyframes, list(clip.frames)):
            name = clip.frames[frame]
            if box is None:
                unusable.add(name)
            else:
                boxes[name].append(box)
    found = []
    for clip in clips.values():
        for frame, name in clip.frames.items():
            if clip.first <= frame <= clip.last or name in boxes or name in unusable:
                size = clip.size if min(clip.size) > 0 else images.size(name)
                found.append(ParsedImage(name, *size, boxes.get(name, ()), clip.subset, unusable=name in unusable))
    return found


def _clips(root: Element, file: str, images: ImageIndex) -> dict[str, _Clip]:
    """The clips by their task's id; a file of one task has one."""
    by_folder: dict[str, dict[int, str]] = defaultdict(dict)
    found = filter(None, map(_FRAME.fullmatch, images.names))
    for frame, folder, image in sorted((int(each[2]), each[1] or "", each[0]) for each in found):
        by_folder[folder].setdefault(frame, image)
    parts = [each for each in root.iterfind("meta//*") if each.find("source") is not None]
    parts = parts or [each for each in root.findall("meta") if each.find("source") is not None]
    if not parts:  # the clip that all images belong to
        if len(by_folder) != 1 or sum(map(len, by_folder.values())) != len(images.names):
            problem, expected = "the file does not name the video of its tracks", "<meta> with a <source>"
            raise DataError(problem, where=file, expected=expected, remedy="load that video alone, or add the source")
        [(folder, frames)] = by_folder.items()
        return {"": _Clip(PurePosixPath(folder).name, (0, 0), frames, "")}
    clips: dict[str, _Clip] = {}
    for each in parts:
        name = PurePosixPath((each.findtext("source") or "").replace("\\", "/")).stem
        folders = [folder for folder in by_folder if f"/{folder}".endswith(f"/{name}")]
        if not folders and len(parts) == len(by_folder) == 1:
            folders = list(by_folder)
        if len(folders) > 1:
            problem = f"{len(folders)} folders may have the frames of '{name}': {', '.join(folders[:3])}"
            raise DataError(problem, expected="one", remedy="load one video of that name at a time")
        frames = by_folder[folders[0]] if folders else {}
        tags = ("original_size/width", "original_size/height", "start_frame", "stop_frame")
        width, height, first, last = (whole(each.findtext(tag) or -1, tag, file) for tag in tags)
        subset = subset_named(each.findtext("subset") or "")
        clip = _Clip(name, (width, height), frames, subset, first, last if last >= 0 else float("inf"))
        clips.setdefault(each.findtext("id") or "", clip)
    if not any(clip.frames for clip in clips.values()):
        problem = f"no frame of {', '.join(clip.name for clip in clips.values())} is among the images"
        expected = f"images {next(iter(clips.values())).name}/frame_000000.jpg and so on"
        raise DataError(problem, where=file, expected=expected, remedy="load the video, or name the images so")
    return clips


def _keyframes(track: Element, where: str, without_area: Counter[str]) -> list[_Keyframe]:
    keyframes: dict[int, _Keyframe] = {}
    for each in track:
        if each.tag in _SHAPES:
            frame, outside = whole(each.get("frame"), "frame", where), each.get("outside") == "1"
            box = _read_shape(each, track.get("label", ""), f"{where}, frame {frame}")
            if box is None and not outside:
                without_area[each.tag] += 1
            keyframes[frame] = frame, outside, box
    return [keyframes[frame] for frame in sorted(keyframes)]


def _positions(keyframes: Sequence[_Keyframe], present: Sequence[int]) -> Iterator[tuple[int, ParsedBox | None]]:
    """The object's box on each existing frame; None where its shape has no area."""
    for (start, outside, box), following in zip(keyframes, [*keyframes[1:], None], strict=True):
        if outside:
            continue
        last = following[0] - 1 if following else start
        for frame in present[bisect_left(present, start) : bisect_right(present, last)]:
            if box is None or following is None or frame == start:
                yield frame, box
            else:
                fraction = (frame - start) / (following[0] - start)
                pairs = zip(box.bbox, (following[2] or box).bbox, strict=True)
                x, y, width, height = (old + (new - old) * fraction for old, new in pairs)
                yield frame, ParsedBox(box.label, (x, y, width, height), box.iscrowd)
