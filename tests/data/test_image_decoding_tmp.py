from __future__ import annotations

import io
import zlib
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from pipeline.data.images import BrokenFileError, decode_whole
from pipeline.errors import DataError
from pipeline.serving.decoding import read_header


def scene(width: Any = 320, height: Any = 240, seed: Any = 0) -> Any:
    """Smooth patches and a little grain, as in a photograph."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 255, (height // 20, width // 20, 3), np.uint8)
    pixels = cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(pixels + rng.integers(-9, 10, pixels.shape), 0, 255).astype(np.uint8)


def by_pillow(mode: Any = "RGB", kind: Any = "JPEG", size: Any = (320, 240), **options: Any) -> Any:
    file = io.BytesIO()
    Picture.fromarray(scene(*size)[..., ::-1]).convert(mode).save(file, kind, **options)
    return file.getvalue()


JPEG = by_pillow(quality=90)
PROGRESSIVE = by_pillow(quality=90, progressive=True)
CMYK = by_pillow("CMYK", quality=90)
PNG = by_pillow(kind="PNG")
WEBP = by_pillow(kind="WEBP", quality=80)
BMP = by_pillow(kind="BMP")


def at_pixels(jpeg: Any) -> Any:
    start = jpeg.index(b"\xff\xda")
    return start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")


def overwritten(data: Any, share: Any, with_: Any, start: Any = 0) -> Any:
    """Some bytes in the middle replaced."""
    at = start + round((len(data) - start) * share)
    return data[:at] + with_ + data[at + len(with_) :]


def damaged(jpeg: Any, share: Any = 0.5) -> Any:
    return overwritten(jpeg, share, bytes(900), at_pixels(jpeg))


def cut(data: Any, share: Any) -> Any:
    return data[: int(len(data) * share)]


def stray(jpeg: Any) -> Any:
    end = 4 + int.from_bytes(jpeg[4:6], "big")  # of the first segment
    return jpeg[:end] + b"\x00\x12\x00" + jpeg[end:]


def look(data: Any) -> Any:
    return decode_whole(data, read_header(data))


WHOLE = [
    pytest.param(JPEG, id="jpeg"),
    pytest.param(by_pillow("L", quality=90), id="grey jpeg"),
    pytest.param(CMYK, id="cmyk jpeg"),
    pytest.param(PROGRESSIVE, id="progressive jpeg"),
    pytest.param(by_pillow(quality=90, size=(40, 20)), id="jpeg smaller than the reduced size"),
    pytest.param(by_pillow(quality=90, size=(3000, 40)), id="long and flat jpeg"),
    pytest.param(JPEG + b"\0" * 77 + b"a video", id="jpeg with something behind it"),
    pytest.param(JPEG + JPEG, id="two jpegs, as in MPO"),
    pytest.param(JPEG[:2] + b"\xff\xff\xff" + JPEG[2:], id="jpeg with fill bytes"),
    pytest.param(JPEG[:-2] + b"\x00\x11" + JPEG[-2:], id="jpeg with two bytes left over"),
    pytest.param(JPEG[:-2] + bytes(range(1, 9)) + JPEG[-2:], id="jpeg with eight bytes left over"),
    pytest.param(JPEG[:-2] + bytes(200) + JPEG[-2:], id="jpeg with padding before its end"),
    pytest.param(PNG, id="png"),
    pytest.param(by_pillow("P", "PNG"), id="palette png"),
    pytest.param(by_pillow("1", "PNG"), id="png of one bit"),
    pytest.param(PNG + b"more", id="png with something behind it"),
    pytest.param(WEBP, id="webp"),
    pytest.param(by_pillow(kind="WEBP", lossless=True), id="lossless webp"),
    pytest.param(BMP, id="bmp"),
    pytest.param(by_pillow("P", "BMP"), id="palette bmp"),
]


@pytest.mark.parametrize("data", WHOLE)
def test_whole(data: Any) -> None:
    """What is whole is what OpenCV makes of it, at a fraction of the size."""
    found, expected = look(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert found.shape[2] == 3
    assert found.dtype == np.uint8
    small = (12, 8) if expected.shape[0] > 20 else (4, 4)
    reduced = [cv2.resize(each, small, interpolation=cv2.INTER_AREA).astype(int) for each in (found, expected)]
    assert np.abs(reduced[0] - reduced[1]).mean() < 4


KINDS = {"jpeg": JPEG, "progressive": PROGRESSIVE, "cmyk": CMYK, "png": PNG, "webp": WEBP, "bmp": BMP}
BROKEN = [
    *(
        pytest.param(cut(data, share), "corrupt" if name == "bmp" else "truncated", id=f"{name} cut at {share:.0%}")
        for name, data in KINDS.items()
        for share in (0.3, 0.7, 0.99)
    ),
    pytest.param(JPEG[:-1], "truncated", id="jpeg without its last byte"),
    pytest.param(PNG[:-12], "truncated", id="png without its last chunk"),
    pytest.param(damaged(JPEG), "corrupt", id="jpeg with zeroes in the middle"),
    pytest.param(damaged(JPEG, 0.05), "corrupt", id="jpeg with zeroes near the start"),
    pytest.param(damaged(PROGRESSIVE), "corrupt", id="progressive jpeg with zeroes in the middle"),
    pytest.param(damaged(CMYK), "corrupt", id="cmyk jpeg with zeroes in the middle"),
    pytest.param(stray(JPEG), "corrupt", id="jpeg with stray bytes in its header"),
    pytest.param(overwritten(JPEG, 0.5, np.random.default_rng(1).bytes(512), at_pixels(JPEG)), "corrupt", id="noise"),
    pytest.param(JPEG[:-2] + bytes(range(1, 10)) + JPEG[-2:], "corrupt", id="jpeg with nine bytes left over"),
    pytest.param(overwritten(JPEG, 0.5, b"\xff\x05", at_pixels(JPEG)), "corrupt", id="a marker that there is not"),
    pytest.param(JPEG[:2000] + JPEG[2600:], "corrupt", id="jpeg with bytes missing"),
    pytest.param(overwritten(PNG, 0.5, b"\x55"), "corrupt", id="png with a wrong byte"),
    pytest.param(BMP[:28] + b"\x07\x00" + BMP[30:], "corrupt", id="bmp of a depth that there is not"),
]


@pytest.mark.parametrize(("data", "kind"), BROKEN)
def test_broken(data: Any, kind: str) -> None:
    with pytest.raises(BrokenFileError) as caught:
        look(data)
    assert caught.value.kind == kind
    assert str(caught.value)


def test_opencv_shows_a_damaged_photograph_without_a_word() -> None:
    """What this module is for: were OpenCV to refuse it, simplejpeg could go."""
    assert cv2.imdecode(np.frombuffer(damaged(JPEG), np.uint8), cv2.IMREAD_COLOR) is not None
    with pytest.raises(ValueError, match="Corrupt JPEG data"):
        simplejpeg.decode_jpeg(damaged(JPEG))


def test_a_large_jpeg_is_decoded_to_a_fraction() -> None:
    assert look(by_pillow(quality=90, size=(1600, 1200))).shape == (150, 200, 3)


@pytest.mark.parametrize("data", [PNG, WEBP, BMP])
def test_header_and_pixels_that_disagree(data: Any) -> None:
    header = read_header(data)
    with pytest.raises(BrokenFileError, match="disagree about its size"):
        decode_whole(data, replace(header, height=header.height - 1))


def test_header_that_lies_about_the_size() -> None:
    """A canvas larger than the picture on it, as only the extended WebP format has."""
    chunk = WEBP[12:]
    canvas = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + (399).to_bytes(3, "little") + (299).to_bytes(3, "little")
    body = b"WEBP" + canvas + chunk
    with pytest.raises(BrokenFileError):
        look(b"RIFF" + len(body).to_bytes(4, "little") + body)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([JPEG, PROGRESSIVE, PNG, WEBP, BMP]),
    st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=40)), min_size=1, max_size=3),
)
def test_what_is_whole_opencv_decodes_to_the_same_size(data: Any, places: Any) -> None:
    """Whatever is done to a file: it is refused, or training and serving get a picture of the size that was told."""
    for share, bytes_ in places:
        data = overwritten(data, share, bytes_)
    try:
        header = read_header(data)
        if header.pixels > 1e6:
            return
        decode_whole(data, header)
    except (BrokenFileError, DataError):
        return
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert pixels is not None
    assert pixels.shape[:2] == (header.height, header.width)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([JPEG, PROGRESSIVE, CMYK, PNG, WEBP, BMP]), st.floats(0, 0.999))
def test_every_cut_is_found(data: Any, share: Any) -> None:
    with pytest.raises((BrokenFileError, DataError)):
        look(cut(data, share))


def test_the_checksum_of_a_note_is_no_matter() -> None:
    note = b"tEXtComment\0hello"
    chunk = len(note[4:]).to_bytes(4, "big") + note + (zlib.crc32(note) ^ 1).to_bytes(4, "big")
    assert look(PNG[:33] + chunk + PNG[33:]).shape == (240, 320, 3)
