"""Which image is which frame of a task in "CVAT for video 1.1".

The frames of a task are numbered `start_frame`, `start_frame + step`, and so on, `size` of them. In a task of a video
(`<mode>interpolation`) these are the video's own numbers, and an image is named `<clip>/frame_000123.jpg` after its
own; the clip is the video's file name without suffix. In a task of images (`<mode>annotation`) they are positions in
CVAT's order of the files, so that all of them must be here. That order is not in the file; it is that of the names
unless the user chose another. Where the names are frame numbers that differ from the positions, the user decides.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.image_pairing import BY_ORDER
from pipeline.data.formats.scalars import whole
from pipeline.data.parsed import subset_named
from pipeline.errors import DataError

log = logging.getLogger(__name__)

_FRAME = re.compile(r"(?:.*/)?frame_(\d+)\.[^./]+")
_STEP = re.compile(r"\s*step\s*=\s*(\d+)\s*")
_ENDLESS = float("inf")

Frames = Mapping[int, str]  # images by frame number, in the order of the numbers


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of a task that exist, their size as declared, and the first and last frame that was annotated."""

    size: tuple[int, int]
    frames: Frames
    subset: str
    first: int = 0
    last: float = _ENDLESS


@dataclass(frozen=True, slots=True)
class _Task:
    """What a file says of a task; what it does not say is -1 or empty."""

    id: str
    name: str  # of the video, without suffix
    mode: str
    frames: int  # how many
    size: tuple[int, int]
    first: int
    last: int
    step: int
    subset: str

    @property
    def numbers(self) -> range | None:
        """The numbers of the frames; None if they are not said."""
        first, step = max(self.first, 0), self.step
        if self.frames > 0:
            return range(first, first + self.frames * step, step)
        return range(first, self.last + 1, step) if self.last >= 0 else None


def find_clips(root: Element, file: str, images: ImageIndex, *, pair_by: str = "") -> dict[str, Clip]:
    """The clips of a file by their task's id; a file of one task has one.

    With `pair_by="order"` the frames are positions, whatever the images are called.

    Raises:
        DataError: It cannot be told which images are the frames of a task, or none of its frames is here.
    """
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in sorted(images.names):
        by_folder[PurePosixPath(name).parent.as_posix().removeprefix(".")].append(name)
    tasks = _tasks(root, file)
    clips: dict[str, Clip] = {}
    for task in tasks:
        names = _names_of(task, by_folder, file, alone=len(tasks) == 1)
        frames = _numbered(task, names, file, by_order=pair_by == BY_ORDER)
        last = task.last if task.last >= 0 else _ENDLESS
        clips.setdefault(task.id, Clip(task.size, frames, task.subset, task.first, last))
    if not any(clip.frames for clip in clips.values()):
        problem = f"no frame of {', '.join(task.name or 'the task' for task in tasks)} is among the images"
        expected = f"images {tasks[0].name or 'CLIP'}/frame_000000.jpg and so on"
        raise DataError(problem, where=file, expected=expected, remedy="load the video, or name the images so")
    return clips


def _tasks(root: Element, file: str) -> list[_Task]:
    found = [each for each in root.iter("task") if each.find("id") is not None or each.find("source") is not None]
    found = found or [each for each in root.iterfind("meta//*") if each.find("source") is not None]
    found = found or root.findall("meta") or [root]
    top = root.find("meta")
    source = (top.findtext("source") or "") if top is not None else ""  # of a single task, outside of it
    return [_task(each, file, source if len(found) == 1 else "") for each in found]


def _task(node: Element, file: str, source: str) -> _Task:
    name = PurePosixPath((node.findtext("source") or source).replace("\\", "/")).stem
    tags = ("size", "original_size/width", "original_size/height", "start_frame", "stop_frame")
    frames, width, height, first, last = (whole(node.findtext(tag) or -1, f"<{tag}>", file) for tag in tags)
    written = node.findtext("frame_filter") or ""
    step = _STEP.fullmatch(written)
    if written.strip() and not step:
        raise DataError(f"the frame filter is '{written}'", where=file, expected="step=N, or nothing")
    subset = subset_named(node.findtext("subset") or "")
    mode = (node.findtext("mode") or "").strip()
    return _Task(
        *(node.findtext("id") or "", name, mode, frames, (width, height), first, last),
        max(int(step[1]), 1) if step else 1,
        subset,
    )


def _names_of(task: _Task, by_folder: Mapping[str, list[str]], file: str, *, alone: bool) -> list[str]:
    """The images of a task: those in the folder of its video, or in the only folder there is."""
    folders = [folder for folder in by_folder if task.name and f"/{folder}".endswith(f"/{task.name}")]
    if not folders and alone and len(by_folder) == 1:
        folders = list(by_folder)
    if not folders and alone and not task.name:
        problem, expected = "the file does not name the video of its tracks", "<meta> with a <source>"
        raise DataError(problem, where=file, expected=expected, remedy="load that video alone, or add the source")
    if len(folders) > 1:
        problem = f"{len(folders)} folders may have the frames of '{task.name}': {', '.join(folders[:3])}"
        raise DataError(problem, where=file, expected="one", remedy="load one video of that name at a time")
    return by_folder[folders[0]] if folders else []


def _numbered(task: _Task, names: Sequence[str], file: str, *, by_order: bool) -> Frames:
    """The images by frame number: that in their names, or their position."""
    matches = {name: _FRAME.fullmatch(name) for name in names}
    by_name: dict[int, str] = {}
    for name, match in matches.items():
        if match:
            by_name.setdefault(int(match[1]), name)
    by_name = dict(sorted(by_name.items()))
    numbers = task.numbers
    if task.mode == "annotation":
        fits = list(by_name) == list(numbers or ()) and len(by_name) == len(names)
    else:
        in_clip = bool(task.name) and PurePosixPath(names[0] if names else "").parent.name == task.name
        fits = in_clip or numbers is None or by_name.keys() <= set(numbers) or by_name.keys() >= set(numbers)
    if not names or (fits and not by_order):
        return by_name
    natural = sorted(
        names, key=lambda name: [int(each) if each.isdigit() else each for each in re.split(r"(\d+)", name)]
    )
    in_order = numbers is not None and len(numbers) == len(names) and list(names) == natural
    if numbers is not None and in_order and (by_order or len(by_name) < len(names)):
        log.info("the frames of %s are the images in the order of their names", file)
        return dict(zip(numbers, names, strict=True))
    count = f"{len(numbers)} frames" if numbers is not None else "frames of an unknown number"
    remedy = "export the task from CVAT as 'CVAT for images'"
    if in_order:
        remedy += f", or set pair_by to {BY_ORDER} if the task has the images in the order of their names"
    raise DataError(
        f"it cannot be told which image is which frame: the task has {count}, and here are {len(names)} images: "
        + f"{', '.join(names[:2])}, …",
        where=file,
        expected="images named after the task's frames",
        remedy=remedy,
    )
