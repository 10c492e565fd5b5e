from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from cases import cases

from pipeline.data.formats.cvat_frames import find_clips
from pipeline.data.formats.image_index import ImageIndex
from pipeline.errors import DataError


def task(frames: int, mode: str = "", source: str = "", start: int = 0, step: int = 1, tag: str = "task") -> str:
    fields = {"id": 5, "size": frames, "mode": mode, "start_frame": start, "stop_frame": start + (frames - 1) * step}
    fields |= {"frame_filter": f"step={step}" if step > 1 else ""} | ({"source": source} if source else {})
    return f"<{tag}>{''.join(f'<{key}>{value}</{key}>' for key, value in fields.items())}</{tag}>"


def numbered(*numbers: int) -> list[str]:
    return [f"images/frame_{number:06d}.jpg" for number in numbers]


def frames(described: str, names: Sequence[str], **options: Any) -> dict[int, str]:
    """The images of the only task by frame."""
    root = fromstring(f"<annotations><meta>{described}</meta><track/></annotations>")
    (clip,) = find_clips(root, "a.xml", ImageIndex(Path("nowhere"), names), **options).values()
    return dict(clip.frames)


VIDEO, IMAGES = {"mode": "interpolation", "source": "street.mp4"}, {"mode": "annotation"}
NAMED = ["images/IMG_1.jpg", "images/IMG_2.jpg", "images/IMG_3.jpg"]


@cases(
    "described, names, numbers",
    {
        "a video": (task(3, **VIDEO), numbered(0, 1, 2), [0, 1, 2]),
        "frames of a video left out": (task(9, **VIDEO), numbered(0, 4, 8), [0, 4, 8]),
        "every fifth frame of a video": (task(3, **VIDEO, step=5), numbered(0, 5, 10), [0, 5, 10]),
        "a video from a frame on": (task(3, **VIDEO, start=7), numbered(7, 8, 9), [7, 8, 9]),
        "a part of a video": (task(2, **VIDEO), [f"street/frame_{i:06d}.jpg" for i in range(4)], [0, 1, 2, 3]),
        "a job": (task(3, **VIDEO, tag="job"), numbered(0, 1, 2), [0, 1, 2]),
        "images named as frames": (task(3, **IMAGES), numbered(0, 1, 2), [0, 1, 2]),
        "images by their order": (task(3, **IMAGES), NAMED, [0, 1, 2]),
        "images from a frame on": (task(3, **IMAGES, start=4), NAMED, [4, 5, 6]),
        "images filtered": (task(3, **IMAGES, step=2), NAMED, [0, 2, 4]),
    },
)
def test_the_frames_of_a_task(described: str, names: list[str], numbers: list[int]) -> None:
    assert frames(described, names) == dict(zip(numbers, names, strict=True))


ORDER = "or set pair_by to order"


@cases(
    "described, names, said",
    {
        "names are other frame numbers": (task(3, **IMAGES), numbered(0, 5, 10), f"3 frames.*3 images.*{ORDER}"),
        "counted from 1": (task(3, **IMAGES), numbered(1, 2, 3), ORDER),
        "an image is absent": (task(4, **IMAGES), NAMED, "4 frames, and here are 3 images"),
        "an image too many": (task(2, **IMAGES), NAMED, "2 frames, and here are 3 images"),
        "no order is certain": (task(3, **IMAGES), ["images/9.jpg", "images/10.jpg", "images/11.jpg"], "3 images"),
        "positions in a filtered video": (task(3, **VIDEO, step=5), numbered(0, 1, 2), ORDER),
        "an unknown filter": (task(3, **VIDEO).replace("<frame_filter>", "<frame_filter>x"), NAMED, "filter is 'x'"),
    },
)
def test_what_cannot_be_told_is_refused(described: str, names: list[str], said: str) -> None:
    with pytest.raises(DataError, match=f"(?s){said}"):
        frames(described, names)


def test_the_user_says_that_the_order_counts() -> None:
    names = numbered(0, 5, 10)
    assert frames(task(3, **IMAGES), names, pair_by="order") == dict(enumerate(names))
