"""CVAT's own XML, "CVAT for images 1.1" and "CVAT for video 1.1": the boxes around shapes.

Reference: https://docs.cvat.ai/docs/dataset_management/formats/xml_format/. Coordinates are pixels; rotations are
clockwise, in degrees. Classes come in the order of `<meta>`. Of the attributes only `is_crowd` is read.

In "CVAT for video" an object is a track of shapes over the frames of a task; `cvat_frames` says which image is which
frame. Only frames that exist count. Frames before the task's `start_frame` or after its `stop_frame`, which nobody
annotated, count only if an object is on them. Between two shapes of a track the box moves in a straight line, as CVAT
shows it, until a shape that is `outside`; after the last shape there is none. (CVAT's own export lists every frame.)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from pipeline.data.boxes import Point, between_corners, ellipse_hull, hull, rotated_box
from pipeline.data.coco import Box, CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Candidates
from pipeline.data.formats.assembly import Record, assemble
from pipeline.data.formats.cvat_frames import find_clips
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.image_pairing import Reference
from pipeline.data.formats.scalars import RecordError, declared_size, flag, label, number, whole
from pipeline.data.parsed import NO_AREA, ParsedBox, ParsedImage, subset_named
from pipeline.errors import DataError

LOOKS_FOR = "an XML file with <annotations> outermost"
_MAYBE_FLAT = frozenset({"polyline", "points", "skeleton"})  # shapes that may have no area
_SHAPES = frozenset({"box", "polygon", "ellipse", "mask", "cuboid"}) | _MAYBE_FLAT

_Keyframe = tuple[int, bool, ParsedBox | None]  # its number, whether the object is outside, its box if it has an area


def candidates(files: AnnotationFiles) -> Candidates:
    """The XML files."""
    return files.xml_candidates("annotations")


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read images and tracks, without shapes that have no area."""
    labels: dict[str, None] = {}
    found: list[Record] = []
    for file, root in files.xml_documents("annotations"):
        for each in root.iterfind("meta//labels/label"):
            name = (each.findtext("name") or "").strip()
            if name and not each.findtext("parent"):  # a label with a parent is of a skeleton's points
                labels[name] = None
        found += _images(root, file, files)
        if root.find("track") is not None:
            found += _tracked_images(root, file, files, images)
    return assemble(found, files, images, tuple(labels))


def _images(root: Element, file: str, files: AnnotationFiles) -> Iterator[Record]:
    """The images of a file. A tag is about a whole image, and no shape."""
    for i, node in enumerate(root.findall("image"), 1):
        written, boxes, left_out = (node.get("name") or "").strip(), list[ParsedBox](), Counter[str]()
        where = f"{file}: image {written[:100] or i}"
        for each in (each for each in node if each.tag in _SHAPES):
            with files.faults.of(left_out):
                box = _read_shape(each, each.get("label", ""), where)
                boxes += [box] if box else []
                left_out[NO_AREA] += box is None
        with files.faults.of():
            if not written:
                raise DataError("an image has no name", where=where, expected="its path")
            size, part = declared_size(node.get("width"), node.get("height"), where), node.get("subset") or ""
            reference = Reference(written, file, part=part, where=where, size=size)
            yield Record(reference, ParsedImage("", 0, 0, boxes, subset_named(part), left_out=+left_out))


def _read_shape(shape: Element, name: str, where: str) -> ParsedBox | None:
    """A shape as a box of a class; None where it has no area, such as a single point."""
    name = label(name, where)
    flags = [each.text for each in shape.findall("attribute") if each.get("name") == "is_crowd"]
    crowd = max((flag(text, "is_crowd", where) for text in flags), default=0)
    if shape.tag == "polygon":
        return ParsedBox.around(name, _points(shape, where), crowd, where)
    box = _box(shape, where)
    return None if shape.tag in _MAYBE_FLAT and min(box[2:]) <= 0 else ParsedBox(name, box, crowd, source=where)


def _box(shape: Element, where: str) -> Box:
    def values(*keys: str) -> list[float]:
        return [number(shape.get(key), f"{key} of a {shape.tag}", where) for key in keys]

    rotation = number(shape.get("rotation") or "0", "rotation", where)
    if shape.tag == "box":
        left, top, right, bottom = values("xtl", "ytl", "xbr", "ybr")
        box = between_corners(left, top, right, bottom)
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
        raise RecordError(problem, where=where, expected='points="x,y;x,y;…"', remedy="export it again")
    return [(number(x.strip(), "a point's x", where), number(y.strip(), "a point's y", where)) for x, y in texts]


def _tracked_images(root: Element, file: str, files: AnnotationFiles, images: ImageIndex) -> Iterator[Record]:
    clips = find_clips(root, file, images, pair_by=files.pair_by)
    boxes: dict[str, list[ParsedBox]] = defaultdict(list)
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    for i, track in enumerate(root.findall("track"), 1):
        clip = clips.get(track.get("task_id", "")) or next(iter(clips.values()))
        keyframes = _keyframes(track, f"{file}: track {track.get('id', i)}", files)
        for frame, box in _positions(keyframes, list(clip.frames)):
            name = clip.frames[frame]
            if box is None:
                left_out[name][NO_AREA] += 1
            else:
                boxes[name].append(box)
    for clip in clips.values():
        for frame, name in clip.frames.items():
            if clip.first <= frame <= clip.last or name in boxes or name in left_out:
                size = clip.size if min(clip.size) > 0 else (0, 0)
                reference = Reference(name, "", where=f"{file}: frame {frame}", size=size)
                image = ParsedImage("", 0, 0, boxes.get(name, ()), clip.subset, left_out=left_out.get(name, {}))
                yield Record(reference, image)


def _keyframes(track: Element, where: str, files: AnnotationFiles) -> list[_Keyframe]:
    keyframes: dict[int, _Keyframe] = {}
    for each in track:
        if each.tag in _SHAPES:
            with files.faults.of():
                frame, outside = whole(each.get("frame"), "frame", where), each.get("outside") == "1"
                box = _read_shape(each, track.get("label", ""), f"{where}, frame {frame}")
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
                yield frame, ParsedBox(box.label, (x, y, width, height), box.iscrowd, source=box.source)
