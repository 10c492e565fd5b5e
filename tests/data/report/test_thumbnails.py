"""Small pictures: the right part, at the right size, with the boxes at the right place."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.figures import PALETTE
from pipeline.data.report.sample_images import choose_view, draw_thumbnails

ROOM = (260, 180)
NONE = np.zeros((0, 4))


def boxes(*each: Any) -> Any:
    return np.array(each, np.float64).reshape(-1, 4)


def picture(developed: Any) -> Any:
    assert developed.alt == ""
    pixels = cv2.imdecode(np.frombuffer(developed.data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[1::-1] == (developed.width, developed.height)
    return pixels.astype(int)


def near(pixels: Any, colour: Any) -> Any:
    bgr = [int(colour[i : i + 2], 16) for i in (5, 3, 1)]
    return np.abs(pixels - bgr).max(axis=2) < 60


@pytest.fixture
def photo(tmp_path: Path) -> Any:
    """Writes a picture that is green in one box and black elsewhere."""

    def write(name: Any, width: Any, height: Any, box: Any = None, **options: Any) -> Any:
        pixels = np.zeros((height, width, 3), np.uint8)
        if box is not None:
            x, y, across, down = box
            pixels[y : y + down, x : x + across] = (0, 255, 0)
        Image.fromarray(pixels).save(tmp_path / name, **options)
        return name

    return write


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((40, 30, 200, 150), id="large"),
        pytest.param((500, 300, 40, 60), id="small-so-zoomed"),
        pytest.param((2, 3, 30, 20), id="small-in-a-corner"),
        pytest.param((1190, 890, 10, 10), id="small-in-the-other-corner"),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_box_is_drawn_around_its_object(photo: Any, tmp_path: Path, name: str, box: tuple[Any, ...]) -> None:
    """Whatever the zoom and the reduced decoding, the outline runs where the green begins."""
    photo(name, 1200, 900, box)
    (developed,) = draw_thumbnails(tmp_path, [(name, boxes(box), NONE)], room=ROOM)
    pixels = picture(developed)
    rows, columns = np.nonzero(near(pixels, PALETTE[5]))
    green = near(pixels, "#00FF00")
    zoom = min(ROOM[0] / 1200, ROOM[1] / 900)
    assert green.sum() > 0
    seen = np.nonzero(green)
    for outline, inside in ((rows, seen[0]), (columns, seen[1])):
        assert 0 <= inside.min() - outline.min() <= 7
        assert 0 <= outline.max() - inside.max() <= 7
    assert max(developed.width / ROOM[0], developed.height / ROOM[1]) == pytest.approx(1, abs=0.01)
    if max(box[2:]) < 100:
        assert columns.max() - columns.min() > 1.5 * box[2] * zoom


def test_other_boxes_are_fainter(photo: Any, tmp_path: Path) -> None:
    photo("a.png", 260, 180)
    shots = [("a.png", NONE, boxes((20, 20, 100, 100))), ("a.png", boxes((20, 20, 100, 100)), NONE)]
    faint, strong = (picture(each) for each in draw_thumbnails(tmp_path, shots, room=ROOM))
    assert 100 < faint.max() < 200  # grey on black
    assert strong.max() > 250
    assert not near(faint, PALETTE[5]).any()


def test_a_box_outside_of_the_image_is_followed(photo: Any, tmp_path: Path) -> None:
    photo("a.png", 200, 100)
    (developed,) = draw_thumbnails(tmp_path, [("a.png", boxes((180, -20, 40, 40)), NONE)], room=ROOM)
    pixels = picture(developed)
    assert near(pixels, "#EEEEEE")[-1, -1]  # the margin
    assert near(pixels, PALETTE[5]).any(axis=0)[-8:].any()
    assert developed.width / developed.height == pytest.approx(220 / 120, abs=0.02)


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((1e9, 1e9, 1e9, 1e9), id="far-away"),
        pytest.param((-1e30, 0, 2e30, 10), id="endless"),
        pytest.param((float("nan"), 0, 1, 1), id="not-a-number"),
        pytest.param((0, 0, float("inf"), 1), id="infinite"),
        pytest.param((10, 10, -5, -5), id="negative"),
        pytest.param((10, 10, 0, 0), id="a-point"),
    ],
)
def test_unsound_boxes_do_no_harm(photo: Any, tmp_path: Path, box: tuple[Any, ...]) -> None:
    photo("a.png", 200, 100)
    (developed,) = draw_thumbnails(tmp_path, [("a.png", boxes(box), boxes(box))], room=ROOM)
    assert developed.width <= ROOM[0]
    assert developed.height <= ROOM[1]
    picture(developed)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(("width", "height"), [(1600, 800), (800, 800)])
def test_a_picture_is_shown_upright(tmp_path: Path, orientation: int, width: int, height: int) -> None:
    """Boxes are those of the upright picture: the outline must be where the green is then."""
    upright = np.zeros((height, width, 3), np.uint8)
    upright[100:300, 200:700] = (0, 255, 0)
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(upright, turns)).save(tmp_path / "a.jpg", exif=exif)
    (developed,) = draw_thumbnails(tmp_path, [("a.jpg", boxes((200, 100, 500, 200)), NONE)], room=ROOM)
    assert developed.width / developed.height == pytest.approx(width / height, rel=0.02)
    pixels = picture(developed)
    green, outline = np.nonzero(near(pixels, "#00FF00")), np.nonzero(near(pixels, PALETTE[5]))
    for axis in (0, 1):
        assert 0 <= green[axis].min() - outline[axis].min() <= 6
        assert 0 <= outline[axis].max() - green[axis].max() <= 6


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        pytest.param("none.jpg", None, "The file is missing.", id="missing"),
        pytest.param("empty.jpg", b"", "The file is not an image that can be shown.", id="empty"),
        pytest.param("text.jpg", b"hello", "The file is not an image that can be shown.", id="no-picture"),
        pytest.param("../up.jpg", None, "The file is not an image that can be shown.", id="a-path-that-escapes"),
        pytest.param("", None, "The file is not an image that can be shown.", id="no-name"),
    ],
)
def test_what_cannot_be_shown_is_said(tmp_path: Path, name: str, data: bytes | None, problem: str) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "up.jpg")
    if data is not None:
        (tmp_path / "in" / name).write_bytes(data)
    (developed,) = draw_thumbnails(tmp_path / "in", [(name, NONE, NONE)], room=ROOM)
    assert (developed.alt, developed.data) == (problem, b"")


@pytest.mark.parametrize(
    ("side", "problem"),
    [
        pytest.param(8000, "64 megapixels are too many to show.", id="large"),
        pytest.param(50_000, "2500 megapixels are too many to show.", id="bomb"),
    ],
)
def test_a_picture_too_large_to_hold_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, problem: str
) -> None:
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    (developed,) = draw_thumbnails(tmp_path, [("huge.png", NONE, NONE)], room=ROOM)
    assert (developed.alt, developed.data) == (problem, b"")


def test_a_truncated_picture_is_shown_as_far_as_it_goes(photo: Any, tmp_path: Path) -> None:
    photo("a.jpg", 400, 300, (0, 0, 400, 300))
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) - 600])
    (developed,) = draw_thumbnails(tmp_path, [("a.jpg", NONE, NONE)], room=ROOM)
    assert developed.alt in ("", "The file cannot be decoded.")


def test_each_image_is_decoded_once_and_order_is_kept(
    photo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(6):
        photo(f"{i}.png", 100 + 10 * i, 100, (10, 10, 30, 30))
    decoded = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *a: decoded.append(1) or decode(*a))
    shots = [(f"{i % 6}.png", boxes((10, 10, 60, 60)), NONE) for i in range(18)]
    developed = draw_thumbnails(tmp_path, shots, room=ROOM)
    assert len(decoded) == 6
    ratios = [each.width / each.height for each in developed]
    assert ratios == pytest.approx([(100 + 10 * (i % 6)) / 100 for i in range(18)], rel=0.02)


@settings(deadline=None)
@given(
    width=st.integers(1, 9000),
    height=st.integers(1, 9000),
    x=st.floats(0, 0.9),
    y=st.floats(0, 0.9),
    across=st.floats(0.001, 1),
    down=st.floats(0.001, 1),
)
def test_a_view_holds_the_box_and_stays_on_the_image(
    width: Any, height: Any, x: Any, y: Any, across: Any, down: Any
) -> None:
    box = np.array([x * width, y * height, min(across, 1 - x) * width, min(down, 1 - y) * height])
    left, top, right, bottom = choose_view(width, height, box[None])
    slack = 1e-6 * max(width, height)
    assert -slack <= left <= box[0] + slack
    assert -slack <= top <= box[1] + slack
    assert box[0] + box[2] - slack <= right <= width + slack
    assert box[1] + box[3] - slack <= bottom <= height + slack
