"""Names, headers and facts of image files, against what OpenCV and Pillow make of them."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import exif_of, png_chunk, png_start
from PIL import Image as Picture

from pipeline.data.images import (
    MAX_PIXELS,
    UNREADABLE,
    BrokenFileError,
    ImageFacts,
    decode_whole,
    inspect,
    orientation_of,
    upright_size,
)
from pipeline.errors import DataError
from pipeline.serving.decoding import read_header
from pipeline.serving.image_fingerprint import FINGERPRINT_BYTES


def turned(path: Path, orientation: int, size: tuple[int, int] = (60, 40), **options: Any) -> Path:
    """A picture that EXIF says to turn; of that size as stored."""
    shades = np.random.default_rng(1).integers(0, 255, (4, 6, 3), np.uint8)
    pixels = cv2.resize(shades, size, interpolation=cv2.INTER_CUBIC)
    Picture.fromarray(pixels).save(path, exif=exif_of(orientation), **options)
    return path


class TestHeaders:
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_size_of_a_tiff_is_that_of_the_png_it_becomes(self, tmp_path: Path, orientation: int) -> None:
        path = turned(tmp_path / "a.tif", orientation)
        assert upright_size(path) == ((60, 40) if orientation < 5 else (40, 60))

    def test_with_broken_exif_it_is_upright(self) -> None:
        picture = Picture.new("RGB", (60, 40))
        picture.info["exif"] = b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"
        assert orientation_of(picture) == 1

    def test_a_png_is_not_decoded_for_its_size(self, tmp_path: Path) -> None:
        """One that would break when it is: its pixels are no zlib stream."""
        pixels = png_chunk(b"IDAT", b"\xff" * 99) + png_chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(png_start(60, 40) + pixels)
        assert upright_size(tmp_path / "a.png") == (60, 40)

    @pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"no picture"])
    def test_no_header(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(UNREADABLE):
            upright_size(tmp_path / "a.png")


def by_pillow(mode: str = "RGB", kind: str = "JPEG", size: tuple[int, int] = (320, 240), **options: Any) -> bytes:
    """Smooth patches and a little grain, as in a photograph."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 255, (size[1] // 20, size[0] // 20, 3), np.uint8)
    pixels = cv2.resize(patches, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
    file = io.BytesIO()
    scene = np.clip(pixels + rng.integers(-9, 10, pixels.shape), 0, 255).astype(np.uint8)
    Picture.fromarray(scene[..., ::-1]).convert(mode).save(file, kind, **options)
    return file.getvalue()


JPEG = by_pillow(quality=90)
PROGRESSIVE = by_pillow(quality=90, progressive=True)
CMYK = by_pillow("CMYK", quality=90)
PNG = by_pillow(kind="PNG")
WEBP = by_pillow(kind="WEBP", quality=80)
BMP = by_pillow(kind="BMP")
KINDS = {"jpeg": JPEG, "progressive": PROGRESSIVE, "cmyk": CMYK, "png": PNG, "webp": WEBP, "bmp": BMP}


def overwritten(data: bytes, share: float, with_: bytes, start: int = 0) -> bytes:
    """Some bytes in the middle replaced."""
    at = start + round((len(data) - start) * share)
    return data[:at] + with_ + data[at + len(with_) :]


def damaged(jpeg: bytes, share: float = 0.5, with_: bytes = bytes(900)) -> bytes:
    """Some bytes of a JPEG's pixels replaced."""
    start = jpeg.index(b"\xff\xda")
    return overwritten(jpeg, share, with_, start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big"))


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def before_end(jpeg: bytes, more: bytes) -> bytes:
    return jpeg[:-2] + more + jpeg[-2:]


def with_strays(jpeg: bytes) -> bytes:
    """Some bytes after the first segment of its header."""
    end = 4 + int.from_bytes(jpeg[4:6], "big")
    return jpeg[:end] + b"\x00\x12\x00" + jpeg[end:]


def decoded(data: bytes) -> Any:
    return decode_whole(data, read_header(data))


WHOLE = {
    **KINDS,
    "grey jpeg": by_pillow("L", quality=90),
    "jpeg smaller than the reduced size": by_pillow(quality=90, size=(40, 20)),
    "long and flat jpeg": by_pillow(quality=90, size=(3000, 40)),
    "jpeg with something behind it": JPEG + b"\0" * 77 + b"a video",
    "two jpegs, as in MPO": JPEG + JPEG,
    "jpeg with fill bytes": JPEG[:2] + b"\xff\xff\xff" + JPEG[2:],
    "jpeg with stray bytes in its header": with_strays(JPEG),
    "cmyk jpeg with stray bytes": with_strays(CMYK),
    "jpeg with strays, and padding before its end": before_end(with_strays(JPEG), bytes(200)),
    "jpeg with two bytes left over": before_end(JPEG, b"\x00\x11"),
    "jpeg with eight bytes left over": before_end(JPEG, bytes(range(1, 9))),
    "jpeg with padding before its end": before_end(JPEG, bytes(200)),
    "palette png": by_pillow("P", "PNG"),
    "png of one bit": by_pillow("1", "PNG"),
    "png with something behind it": PNG + b"more",
    "png with a note of a wrong checksum": PNG[:33] + b"\0\0\0\x05tEXthello\0\0\0\0" + PNG[33:],
    "lossless webp": by_pillow(kind="WEBP", lossless=True),
    "palette bmp": by_pillow("P", "BMP"),
}
BROKEN: dict[str, tuple[bytes, str]] = {
    **{
        f"{name} cut at {share:.0%}": (cut(data, share), "corrupt" if name == "bmp" else "truncated")
        for name, data in KINDS.items()
        for share in (0.3, 0.99)
    },
    "jpeg without its last byte": (JPEG[:-1], "truncated"),
    "png without its last chunk": (PNG[:-12], "truncated"),
    "jpeg with zeroes in the middle": (damaged(JPEG), "corrupt"),
    "jpeg with zeroes near the start": (damaged(JPEG, 0.05), "corrupt"),
    "progressive jpeg with zeroes in the middle": (damaged(PROGRESSIVE), "corrupt"),
    "cmyk jpeg with zeroes in the middle": (damaged(CMYK), "corrupt"),
    "zeroes in the middle, and stray bytes in the header": (damaged(with_strays(JPEG)), "corrupt"),
    "jpeg cut, and stray bytes in the header": (cut(with_strays(JPEG), 0.5), "truncated"),
    "jpeg with noise in the middle": (damaged(JPEG, 0.5, np.random.default_rng(1).bytes(512)), "corrupt"),
    "jpeg with a marker that there is not": (damaged(JPEG, 0.5, b"\xff\x05"), "corrupt"),
    "jpeg with nine bytes left over": (before_end(JPEG, bytes(range(1, 10))), "corrupt"),
    "jpeg with bytes missing": (JPEG[:2000] + JPEG[2600:], "corrupt"),
    "png with a wrong byte": (overwritten(PNG, 0.5, b"\x55"), "corrupt"),
    "bmp of a depth that there is not": (BMP[:28] + b"\x07\x00" + BMP[30:], "corrupt"),
}


class TestDecoding:
    @pytest.mark.parametrize("name", WHOLE)
    def test_whole(self, name: str) -> None:
        """What is whole is what OpenCV makes of it, at a fraction of the size."""
        data = WHOLE[name]
        found, expected = decoded(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert (found.shape[2], found.dtype) == (3, np.uint8)
        small = (12, 8) if expected.shape[0] > 20 else (4, 4)
        reduced = [cv2.resize(each, small, interpolation=cv2.INTER_AREA).astype(int) for each in (found, expected)]
        assert np.abs(reduced[0] - reduced[1]).mean() < 4

    @pytest.mark.parametrize("name", BROKEN)
    def test_broken(self, name: str) -> None:
        data, kind = BROKEN[name]
        with pytest.raises(BrokenFileError, match=r"\w") as caught:
            decoded(data)
        assert caught.value.args[0] == kind

    def test_opencv_shows_a_damaged_photograph_without_a_word(self) -> None:
        """What simplejpeg is for: were OpenCV to refuse it, simplejpeg could go."""
        assert cv2.imdecode(np.frombuffer(damaged(JPEG), np.uint8), cv2.IMREAD_COLOR) is not None
        with pytest.raises(ValueError, match="Corrupt JPEG data"):
            simplejpeg.decode_jpeg(damaged(JPEG))

    def test_a_large_jpeg_is_decoded_to_a_fraction(self) -> None:
        assert decoded(by_pillow(quality=90, size=(1600, 1200))).shape == (150, 200, 3)

    @pytest.mark.parametrize("data", [PNG, WEBP, BMP])
    def test_header_and_pixels_that_disagree(self, data: bytes) -> None:
        header = read_header(data)
        with pytest.raises(BrokenFileError, match="disagree about its size"):
            decode_whole(data, replace(header, height=header.height - 1))

    @settings(max_examples=150, deadline=None)
    @given(
        st.sampled_from([JPEG, PROGRESSIVE, PNG, WEBP, BMP]),
        st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=40)), min_size=1, max_size=3),
    )
    def test_what_is_whole_opencv_decodes_to_the_same_size(
        self, data: bytes, places: list[tuple[float, bytes]]
    ) -> None:
        """Whatever is done to a file: it is refused, or OpenCV gives a picture of the size that was told."""
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
    @given(st.sampled_from(list(KINDS.values())), st.floats(0, 0.999))
    def test_every_cut_is_found(self, data: bytes, share: float) -> None:
        with pytest.raises((BrokenFileError, DataError)):
            decoded(cut(data, share))


def write_png(path: Path, width: int, height: int) -> None:
    """A black picture of one bit a pixel, written by rows: no picture is held."""
    deflate = zlib.compressobj(9)
    rows = bytes(1 + (width + 7) // 8) * 1000
    body = b"".join(deflate.compress(rows) for _ in range(height // 1000)) + deflate.flush()
    path.write_bytes(png_start(width, height, 1) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b""))


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files that say they hold 2.5 gigapixels."""
    folder = tmp_path_factory.mktemp("bombs")
    write_png(folder / "bomb.png", 50_000, 50_000)
    at = JPEG.index(b"\xff\xc0") + 5
    (folder / "bomb.jpg").write_bytes(JPEG[:at] + struct.pack(">HH", 50_000, 50_000) + JPEG[at + 4 :])
    return folder


class TestFacts:
    def test_each_kind(self, tmp_path: Path, bombs: Path) -> None:
        files = {
            "whole.jpg": (JPEG, ""),
            "cut.jpg": (JPEG[:-2000], "truncated"),
            "cut.png": (PNG[:-2000], "truncated"),
            "stub.jpg": (JPEG[:30], "undecodable"),
            "broken.jpg": (damaged(JPEG), "corrupt"),
            "empty.jpg": (b"", "empty"),
            "text.jpg": (b"hello", "undecodable"),
            "a.tif": (by_pillow(kind="TIFF"), "undecodable"),
            **{path.name: (path.read_bytes(), "refused") for path in bombs.iterdir()},
        }
        for name, (data, _) in files.items():
            (tmp_path / name).write_bytes(data)
        (tmp_path / "folder.jpg").mkdir()
        with (tmp_path / "heavy.jpg").open("wb") as file:
            file.truncate(1 << 33)
        kinds = {name: kind for name, (_, kind) in files.items()}
        kinds |= {"folder.jpg": "undecodable", "gone.jpg": "missing", "heavy.jpg": "refused"}
        facts = inspect(tmp_path, list(kinds))
        assert {name: fact.kind for name, fact in facts.items()} == kinds
        for fact in facts.values():
            assert bool(fact.kind) == bool(fact.problem) == (fact.width == 0) == (fact.fingerprint == b"")
        assert "not an image file of a known format (JPEG, PNG, WebP, BMP)" in facts["a.tif"].problem
        assert "2500 megapixels are more than 50" in facts["bomb.png"].problem
        assert "8192 MiB are more than 31" in facts["heavy.jpg"].problem
        assert facts["heavy.jpg"].digest == "", "it is not read"

    @pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
    @pytest.mark.parametrize("orientation", range(10))
    def test_turned_as_opencv_turns(self, tmp_path: Path, kind: str, orientation: int) -> None:
        """The size and the fingerprint are those of the picture that training and serving get."""
        path = turned(tmp_path / f"a.{kind}", orientation, (96, 64), quality=95)
        pixels = cv2.imread(str(path))
        cv2.imwrite(str(tmp_path / "upright.png"), pixels)
        found, upright = inspect(tmp_path, [path.name, "upright.png"]).values()
        assert (found.width, found.height) == upright_size(path) == pixels.shape[1::-1]
        assert found.orientation == (orientation if 1 <= orientation <= 8 else 1)
        prints = [np.frombuffer(each.fingerprint, np.uint8).astype(int) for each in (found, upright)]
        assert len(prints[0]) == FINGERPRINT_BYTES
        assert np.abs(prints[0] - prints[1]).max() <= 4

    @pytest.mark.parametrize("kind", ["jpg", "webp"])
    def test_orientation_that_only_xmp_tells(self, tmp_path: Path, kind: str) -> None:
        """Pillow would turn such a picture; OpenCV, and so training and serving, do not."""
        path = tmp_path / f"a.{kind}"
        xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
        Picture.new("RGB", (60, 40)).save(path, xmp=xmp)
        assert cv2.imread(str(path)).shape[:2] == (40, 60)
        assert inspect(tmp_path, [path.name])[path.name] == ImageFacts(60, 40)


_MEASURE = """
import resource, sys
from pathlib import Path
from pipeline.data.images import inspect
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
facts = inspect(Path(sys.argv[1]), sorted(path.name for path in Path(sys.argv[1]).iterdir()))
print({fact.kind for fact in facts.values()}, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def measured(folder: Path) -> tuple[str, int]:
    command = [sys.executable, "-c", _MEASURE, str(folder)]
    kinds, grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rsplit(maxsplit=1)
    return kinds, int(grown) * (1 if sys.platform == "darwin" else 1024)


def test_a_bomb_takes_no_memory(bombs: Path) -> None:
    kinds, grown = measured(bombs)
    assert kinds == "{'refused'}"
    assert grown < 30e6


@pytest.mark.slow
def test_large_pictures_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    """Each takes 150 MB."""
    assert MAX_PIXELS > 7000 * 7000
    for number in range(6):
        write_png(tmp_path / f"{number}.png", 7000, 7000)
    kinds, grown = measured(tmp_path)
    assert kinds == "{''}"
    assert grown < 350e6
