"""Image files to pixels: headers without decoding, and the pixels mmcv would give."""

from __future__ import annotations

import contextlib
import io
import time
import unittest.mock
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases as table
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pictures import exif_of, picture, png_chunk, png_of_16_bits
from PIL import Image

from pipeline.errors import DataError
from pipeline.serving import decoding
from pipeline.serving.decoding import decode, read_header

RNG = np.random.default_rng(0)
PHOTO = cv2.resize(RNG.integers(0, 255, (30, 40, 3), dtype=np.uint8), (157, 101))


def save(image: Any, image_format: Any, **options: Any) -> Any:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def with_orientation(orientation: Any, image_format: Any = "JPEG") -> Any:
    return save(Image.fromarray(PHOTO), image_format, exif=exif_of(orientation))


FILES = {
    "jpeg": save(Image.fromarray(PHOTO), "JPEG"),
    "jpeg_progressive": save(Image.fromarray(PHOTO), "JPEG", progressive=True),
    "jpeg_grey": save(Image.fromarray(PHOTO).convert("L"), "JPEG"),
    "jpeg_cmyk": save(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"),
    "jpeg_thumbnail_in_app1": save(
        Image.fromarray(PHOTO), "JPEG", exif=b"Exif\0\0" + save(Image.new("RGB", (8, 8)), "JPEG")
    ),
    "jpeg_trailing_bytes": save(Image.fromarray(PHOTO), "JPEG") + b"trailer" * 20,
    **{f"jpeg_exif_{n}": with_orientation(n) for n in range(1, 9)},
    "png": save(Image.fromarray(PHOTO), "PNG"),
    "png_exif_6": with_orientation(6, "PNG"),
    "png_grey": save(Image.fromarray(PHOTO).convert("L"), "PNG"),
    "png_bilevel": save(Image.fromarray(PHOTO).convert("1"), "PNG"),
    "png_rgba": save(Image.fromarray(np.dstack([PHOTO, PHOTO[..., 0]])), "PNG"),
    "png_grey_alpha": save(Image.fromarray(PHOTO).convert("LA"), "PNG"),
    "png_palette": save(Image.fromarray(PHOTO).convert("P"), "PNG"),
    "png_palette_transparent": save(Image.fromarray(PHOTO).convert("P"), "PNG", transparency=3),
    "png_16_bit": cv2.imencode(".png", PHOTO.astype(np.uint16) * 257 + 3)[1].tobytes(),
    "png_16_bit_grey": cv2.imencode(".png", PHOTO[..., 0].astype(np.uint16) * 255)[1].tobytes(),
    "png_interlaced_one_pixel": save(Image.new("RGB", (1, 1), "red"), "PNG"),
    "webp_lossy": save(Image.fromarray(PHOTO), "WEBP"),
    "webp_lossless": save(Image.fromarray(PHOTO), "WEBP", lossless=True),
    "webp_alpha": save(Image.fromarray(np.dstack([PHOTO, PHOTO[..., 0]])), "WEBP"),
    "webp_exif_6": with_orientation(6, "WEBP"),
    "webp_animated": save(
        Image.fromarray(PHOTO), "WEBP", save_all=True, append_images=[Image.fromarray(255 - PHOTO)], duration=100
    ),
    "bmp": save(Image.fromarray(PHOTO), "BMP"),
    "bmp_grey": save(Image.fromarray(PHOTO).convert("L"), "BMP"),
    "bmp_palette": save(Image.fromarray(PHOTO).convert("P"), "BMP"),
}
cases = [pytest.param(data, id=name) for name, data in FILES.items()]


@pytest.mark.parametrize("data", [each for each in cases if "16_bit" not in str(each.id)])
def test_pixels_are_those_of_mmcv(data: Any) -> None:
    mmcv = pytest.importorskip("mmcv")
    expected = mmcv.imfrombytes(data, flag="color", backend="cv2")
    pixels = decode(data)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@table(
    "greatest, least",
    {
        "a mask": (1, 8),
        "8 bits": (255, 8),
        "dark 10 bits": (256, 10),
        "10 bits": (1023, 10),
        "12 bits": (4095, 12),
        "14 bits": (16383, 14),
        "dark 16 bits": (16384, 16),
        "16 bits": (65535, 16),
        "black": (0, 16),
    },
)
@pytest.mark.parametrize("colours", ["grey", "grey and alpha", "RGB", "RGBA"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_16_bits_are_scaled_by_those_in_use_upright_and_without_alpha(
    greatest: int, least: int, colours: str, orientation: int
) -> None:
    values = (RNG.random((5, 7, 1 if "grey" in colours else 3)) * greatest).astype(np.uint16)
    values[0, 0] = greatest
    data = png_of_16_bits(values, has_alpha="A" in colours or "alpha" in colours, orientation=orientation)
    expected = np.rint(values.astype(np.float64) * 255 / (2**least - 1)).astype(np.uint8)[..., ::-1]
    expected = {1: expected, 3: expected[::-1, ::-1], 6: expected[::-1].transpose(1, 0, 2)}[orientation]
    np.testing.assert_array_equal(decode(data), np.broadcast_to(expected, (*expected.shape[:2], 3)))
    assert read_header(data).is_deep


@pytest.mark.parametrize("data", [each for each in cases if "16_bit" not in str(each.id)])
def test_other_files_are_decoded_once_and_are_not_scaled(data: Any) -> None:
    assert not read_header(data).is_deep
    with unittest.mock.patch.object(cv2, "imdecode", wraps=cv2.imdecode) as imdecode:
        decode(data)
    assert [call.args[1] for call in imdecode.call_args_list] == [cv2.IMREAD_COLOR]


@pytest.mark.parametrize("data", cases)
def test_header_agrees_with_pillow(data: Any) -> None:
    with Image.open(io.BytesIO(data)) as image:
        expected = (image.format.upper(), *image.size)
    header = read_header(data)
    assert (header.format.upper(), header.width, header.height) == expected


@given(width=st.integers(1, 900), height=st.integers(1, 900), suffix=st.sampled_from([".jpg", ".png", ".webp", ".bmp"]))
@settings(max_examples=60, deadline=None)
def test_header_gives_the_size_of_any_file(width: Any, height: Any, suffix: Any) -> None:
    header = read_header(cv2.imencode(suffix, np.zeros((height, width, 3), np.uint8))[1].tobytes())
    assert (header.width, header.height) == (width, height)


@given(data=st.sampled_from(sorted(FILES)), cut=st.floats(0, 1, exclude_max=True))
@example(data="jpeg", cut=1 - 1e-9)
@example(data="png", cut=1 - 1e-9)
@example(data="webp_lossy", cut=1 - 1e-9)
@example(data="bmp", cut=1 - 1e-9)
@settings(max_examples=150, deadline=None)
def test_a_truncated_file_is_refused(data: Any, cut: Any) -> None:
    whole = FILES[data].removesuffix(b"trailer" * 20)
    with pytest.raises(DataError):
        decode(whole[: int(len(whole) * cut)])


@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBPVP8 ", b"BM"])
)
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_give_only_data_errors(data: Any, start: Any) -> None:
    with contextlib.suppress(DataError), unittest.mock.patch.object(decoding, "MAX_PIXELS", 1_000_000):
        decode(start + data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "not an image", id="empty"),
        pytest.param(b"hello, this is text", "not an image", id="text"),
        pytest.param(save(Image.fromarray(PHOTO), "GIF"), "not an image", id="gif"),
        pytest.param(save(Image.fromarray(PHOTO), "TIFF"), "not an image", id="tiff"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image", id="svg"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "ends before", id="png signature alone"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IDAT", b"0" * 13), "does not begin", id="png without header"),
        pytest.param(b"\xff\xd8\xff\xd9", "no frame header", id="jpeg without frame"),
        pytest.param(b"BM" + bytes(60), "claims 0 x 0", id="bmp of zeros"),
    ],
)
def test_what_is_no_image_is_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode(data)


def test_a_huge_picture_in_a_small_file_is_refused_undecoded(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(bomb) < 250_000
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"169\.0 megapixels"):
        decode(bomb)


def test_the_pixel_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 157 * 101)
    assert decode(FILES["png"]).shape == PHOTO.shape
    monkeypatch.setattr(decoding, "MAX_PIXELS", 157 * 101 - 1)
    with pytest.raises(DataError, match="megapixels"):
        decode(FILES["png"])


def test_a_chunk_that_claims_to_be_longer_than_its_file_takes_no_memory() -> None:
    data = picture("PNG")
    started = time.monotonic()
    with pytest.raises(DataError, match="truncated or broken"):
        decode(data[:33] + b"\xf0" + data[34:])  # the first byte of a length: 4 GB, which OpenCV would allocate
    assert time.monotonic() - started < 0.5
