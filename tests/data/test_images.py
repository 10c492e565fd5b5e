"""Sizes from headers are those of the picture that OpenCV shows."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.data.images import UNREADABLE, orientation_of, upright_size


def stored(tmp_path: Path, suffix: Any, orientation: Any) -> Any:
    """A picture of 60 x 40 as stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_size_is_the_one_that_opencv_shows(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = stored(tmp_path, suffix, orientation)
    height, width = cv2.imread(str(path)).shape[:2]
    assert upright_size(path) == (width, height) == ((60, 40) if orientation < 5 else (40, 60))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_of_a_tiff_is_the_one_that_pillow_shows(tmp_path: Path, orientation: int) -> None:
    path = stored(tmp_path, ".tif", orientation)
    with Image.open(path) as picture:
        picture.load()
        assert upright_size(path) == picture.size == ((60, 40) if orientation < 5 else (40, 60))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_is_upright(tmp_path: Path, orientation: int) -> None:
    with Image.open(stored(tmp_path, ".jpg", orientation)) as picture:
        assert orientation_of(picture) == 1


def test_a_broken_exif_block_is_none(tmp_path: Path) -> None:
    picture = Image.new("RGB", (60, 40))
    picture.info["exif"] = b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"
    assert orientation_of(picture) == 1


def test_a_png_is_not_decoded_for_its_size(tmp_path: Path) -> None:
    """One that would break when it is: its pixels are no zlib stream."""
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40)).save(buffer, "PNG")
    data = buffer.getvalue()
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    pixels = b"\xff" * length
    check = zlib.crc32(b"IDAT" + pixels).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data[:start] + pixels + check + data[start + length + 4 :])
    assert upright_size(tmp_path / "a.png") == (60, 40)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"no picture"])
def test_no_header(tmp_path: Path, data: Any) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UNREADABLE):
        upright_size(tmp_path / "a.png")
