"""Formats and pixel types: what stays, what is converted and into which pixels, and what is refused unread."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases
from pictures import exif_of, png_chunk, png_of_16_bits, png_start
from PIL import Image, ImageOps

from pipeline.data.image_conversion import UnreadableError, convert, detect_format
from pipeline.serving.decoding import decode

SMOOTH = np.stack(np.meshgrid(np.arange(48) * 5, np.arange(32) * 7), -1).astype(np.uint8)
RGB = np.dstack([SMOOTH, np.full((32, 48), 90, np.uint8)])
ORIENTATION = 0x0112
BLACK, WHITE = [0] * 3, [255] * 3


def saved(path: Any, pixels: Any, form: Any, **options: Any) -> Any:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, form, **options)
    return path


def pixels_of(data: bytes) -> np.ndarray:
    """As training and serving decode them, which would apply an orientation left in the file."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


class TestDetectFormat:
    @pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
    @pytest.mark.parametrize("name", ["a.jpg", "a.gif", "a"])
    def test_stays(self, tmp_path: Path, form: str, name: str) -> None:
        found = detect_format(saved(tmp_path / name, RGB, form), named_as_image=name != "a")
        assert (found.name, found.stays, found.problem) == (form, True, "")
        suffix = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}[form]
        assert found.suffix_for(name) == ("" if name == "a.jpg" else suffix)

    @cases(
        "name, data",
        {
            "empty": ("a.jpg", b""),
            "web page": ("a.jpg", b"<!DOCTYPE html>"),
            "broken header": ("a.tif", b"II*\0" + b"\xff" * 40),
            "a program, which is never run": ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        },
    )
    def test_no_image(self, tmp_path: Path, name: str, data: Any) -> None:
        (tmp_path / name).write_bytes(data)
        assert detect_format(tmp_path / name, named_as_image=True).name == ""

    @pytest.mark.parametrize("name", ["a.png", "a.tif", "a"])
    def test_bomb_is_not_decoded(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(png_start(50_000, 50_000, 1) + png_chunk(b"IDAT", b""))
        found = detect_format(tmp_path / name, named_as_image=name != "a")
        assert found.problem == "2500 megapixels are too many"

    def test_too_many_pixels_to_convert(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.tif", Image.new("1", (8000, 8000)), "TIFF", compression="group4")
        assert detect_format(path, named_as_image=True).problem == "8000 x 8000 pixels are more than 50 megapixels"


class TestConvert:
    @pytest.mark.parametrize("form", ["TIFF", "GIF", "PPM", "TGA", "ICO", "PCX", "SGI", "QOI", "DDS"])
    def test_lossless_becomes_png(self, tmp_path: Path, form: str) -> None:
        path = saved(tmp_path / "a.xyz", RGB, form, **({"sizes": [(48, 32)]} if form == "ICO" else {}))
        found, made = detect_format(path, named_as_image=True), convert(path)
        assert (found.name, found.stays) == (form, False)
        assert (made.suffix, made.orientation, made.notes) == (".png", 1, ())
        near = 5 if form == "GIF" else 0  # 256 colours
        assert np.abs(pixels_of(made.data).astype(int) - RGB).mean() <= near

    @pytest.mark.parametrize("form", ["JPEG2000", "AVIF"])
    def test_lossy_becomes_jpeg(self, tmp_path: Path, form: str) -> None:
        path = saved(tmp_path / "a.xyz", RGB, form)
        assert not detect_format(path, named_as_image=True).stays
        made = convert(path)
        assert made.suffix == ".jpg"
        assert np.abs(pixels_of(made.data).astype(int) - RGB).mean() < 3

    def test_same_bytes_and_nothing_else_in_the_file(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0132] = "2026:01:01 00:00:00"
        path = saved(tmp_path / "a.tif", RGB, "TIFF", exif=exif, dpi=(72, 72), icc_profile=b"x" * 200)
        made = convert(path)
        assert convert(path).data == made.data
        with Image.open(io.BytesIO(made.data)) as image:
            assert (image.mode, image.info, dict(image.getexif())) == ("RGB", {}, {})

    @pytest.mark.parametrize("orientation", range(1, 9))
    @cases(
        "form, options",
        {
            "tiff": ("TIFF", {}),
            "tiff by libtiff": ("TIFF", {"compression": "tiff_lzw"}),
            "avif": ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
        },
    )
    def test_orientation_is_applied_once(self, tmp_path: Path, form: str, options: Any, orientation: int) -> None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        path = saved(tmp_path / "a.xyz", RGB, form, exif=exif, **options)
        exif[ORIENTATION] = orientation  # which saving AVIF takes away
        reference = io.BytesIO()
        Image.fromarray(RGB).save(reference, "PNG", exif=exif)
        with Image.open(reference) as image:
            upright = np.asarray(ImageOps.exif_transpose(image))
        made = convert(path)
        assert made.orientation == orientation
        assert pixels_of(made.data).shape == upright.shape
        assert np.abs(pixels_of(made.data).astype(int) - upright).mean() < (3 if form == "AVIF" else 0.001)

    @pytest.mark.parametrize("orientation", [0, 9, 99])
    def test_senseless_orientation(self, tmp_path: Path, orientation: int) -> None:
        made = convert(saved(tmp_path / "a.tif", RGB, "TIFF", exif=exif_of(orientation)))
        assert made.orientation == 1
        assert (pixels_of(made.data) == RGB).all()


def grey_of(path: Any) -> np.ndarray:
    made = pixels_of(convert(path).data)
    assert (made == made[..., :1]).all()
    return made[..., 0]


class TestPixelTypes:
    RAMP = np.tile(np.arange(256, dtype=np.uint16), (4, 1))

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_16_bits(self, tmp_path: Path, order: Any) -> None:
        values = (self.RAMP * 257).astype(f"{order}u2")
        image = Image.frombytes("I;16B" if order == ">" else "I;16", (256, 4), values.tobytes())
        assert (grey_of(saved(tmp_path / "a.tif", image, "TIFF")) == self.RAMP).all()

    @cases(
        "greatest, grey, bits",
        {
            "black": (0, 0, 0),
            "a mask": (1, 1, 8),
            "8 bits": (255, 255, 8),
            "10 bits": (1023, 255, 10),
            "dark 12 bits": (1024, 64, 12),
            "12 bits": (4095, 255, 12),
            "14 bits": (16383, 255, 14),
            "dark 16 bits": (16384, 64, 0),
        },
    )
    @pytest.mark.parametrize("kind", [np.uint16, np.int16])
    def test_16_bits_that_use_few_of_them(self, tmp_path: Path, kind: str, greatest: Any, grey: Any, bits: Any) -> None:
        """Cameras' 12 bits would be black by the type's range; that a picture was brightened is said."""
        assert cv2.imwrite(str(tmp_path / "a.tif"), np.array([[0, greatest]], kind))
        if kind is np.int16 and greatest == 16384:
            grey = 128
        assert grey_of(tmp_path / "a.tif").tolist() == [[0, grey]]
        of_bits = 16 if kind is np.uint16 else 15
        said = (f"its values fill {bits} of {of_bits} bits: scaled by {bits}",) if bits else ()
        assert convert(tmp_path / "a.tif").notes == said

    @pytest.mark.parametrize("shape", ["grey", "colour"])
    def test_16_bits_of_other_files(self, tmp_path: Path, shape: str) -> None:
        values = self.RAMP * 257
        if shape == "grey":
            (tmp_path / "a.xyz").write_bytes(b"P5 256 4 65535\n" + values.astype(">u2").tobytes())
        else:
            assert cv2.imwrite(str(tmp_path / "a.tif"), np.repeat(values[..., None], 3, 2))
            (tmp_path / "a.tif").rename(tmp_path / "a.xyz")
        assert (grey_of(tmp_path / "a.xyz") == self.RAMP).all()

    @pytest.mark.parametrize("greatest", [0, 1, 255, 1023, 4095, 60000])
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("has_alpha", [False, True])
    @pytest.mark.parametrize("orientation", [1, 6])
    def test_png_of_16_bits_gets_the_pixels_of_the_service(
        self, greatest: int, channels: int, has_alpha: bool, orientation: int
    ) -> None:
        values = np.random.default_rng(0).integers(0, greatest + 1, (9, 5, channels))
        data = png_of_16_bits(values, has_alpha=has_alpha, orientation=orientation)
        found, made = detect_format(data, named_as_image=True), convert(data)
        assert (found.is_deep, found.stays, made.suffix, made.orientation) == (True, False, ".png", orientation)
        assert not detect_format(made.data, named_as_image=True).is_deep
        assert (decode(made.data) == decode(data)).all()
        assert ("scaled" in made.notes[0], len(made.notes)) == (True, 1)

    @cases(
        "greatest, grey, bits",
        {
            "8 bits": (255, 255, 8),
            "12 bits": (4095, 255, 12),
            "dark 12 bits": (1024, 64, 12),
            "16 bits": (65535, 255, 0),
        },
    )
    @pytest.mark.parametrize("form", ["TIFF", "TIFF with alpha", "PPM"])
    def test_16_bits_a_colour(self, tmp_path: Path, form: str, greatest: int, grey: int, bits: int) -> None:
        values = np.zeros((4, 3, 4 if "alpha" in form else 3), np.uint16)
        values[1, 2], values[..., 3:] = greatest, 65535
        path = tmp_path / ("a.ppm" if form == "PPM" else "a.tif")
        assert cv2.imwrite(str(path), values)
        expected = np.zeros((4, 3))
        expected[1, 2] = grey
        assert (grey_of(path) == expected).all()
        assert convert(path).notes == ((f"its values fill {bits} of 16 bits: scaled by {bits}",) if bits else ())

    @pytest.mark.parametrize("greatest", [1000, 4000, 60000])
    def test_jpeg_2000_of_16_bits_a_colour(self, tmp_path: Path, greatest: int) -> None:
        values = np.dstack([np.full((32, 32), each * greatest, np.float64) for each in (0.25, 0.5, 1)]).astype(
            np.uint16
        )
        assert cv2.imwrite(str(tmp_path / "a.jp2"), values)
        most = {1000: 1023, 4000: 4095}.get(greatest, 65535)
        expected = np.median(values, (0, 1))[::-1] * 255 / most
        assert np.abs(np.median(pixels_of(convert(tmp_path / "a.jp2").data), (0, 1)) - expected).max() <= 2

    @pytest.mark.parametrize("bits", [31, 32])
    def test_32_bits(self, tmp_path: Path, bits: int) -> None:
        values = (self.RAMP.astype(np.int64) * (2**bits // 256)).astype(np.uint32)
        path = saved(tmp_path / "a.tif", Image.fromarray(values.view(np.int32)), "TIFF")
        if bits == 32:
            signed, unsigned = (struct.pack("<HHIH", 339, 3, 1, kind) for kind in (2, 1))  # SampleFormat, TIFF 6.0, 19
            assert signed in path.read_bytes()
            path.write_bytes(path.read_bytes().replace(signed, unsigned))
        assert np.abs(grey_of(path).astype(int) - self.RAMP).max() <= 1

    def test_signed_16_bits(self, tmp_path: Path) -> None:
        values = np.array([[-32768, -1, 0, 16384, 32767]], np.int16)
        assert cv2.imwrite(str(tmp_path / "a.tif"), values)
        assert grey_of(tmp_path / "a.tif").tolist() == [[0, 0, 0, 128, 255]]

    def test_zero_that_is_white(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.tif", Image.fromarray(self.RAMP * 257), "TIFF")
        black, white = (struct.pack("<HHIH", 262, 3, 1, kind) for kind in (1, 0))  # Photometric, TIFF 6.0, section 8
        assert black in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(black, white))
        assert (grey_of(path) == self.RAMP[:, ::-1]).all()

    @cases(
        "values, grey",
        {
            "zero to one": ([0, 0.5, 1], [0, 128, 255]),
            "within zero to one": ([0.25, 0.5, 0.75], [64, 128, 191]),
            "own range": ([-2, 0, 2], [0, 128, 255]),
            "not finite": ([np.nan, 0.5, np.inf], [0, 128, 255]),
            "one value": ([7, 7, 7], [0, 0, 0]),
            "nothing finite": ([np.nan] * 3, [0, 0, 0]),
        },
    )
    def test_floats(self, tmp_path: Path, values: Any, grey: Any) -> None:
        assert grey_of(saved(tmp_path / "a.tif", np.array([values], np.float32), "TIFF")).tolist() == [grey]

    @cases(
        "pixels, mode, form, options, expected",
        {
            "palette": ([0, 1], "P", "GIF", {}, [[10, 20, 30], [200, 100, 50]]),
            "palette with a transparent colour": ([0, 1], "P", "GIF", {"transparency": 0}, [WHITE, [200, 100, 50]]),
            "RGBA": ([(0, 0, 0, 0), (0, 0, 0, 255), (0, 0, 0, 128)], "RGBA", "TIFF", {}, [WHITE, BLACK, [127] * 3]),
            "LA": ([(0, 0), (0, 255), (0, 128)], "LA", "TIFF", {}, [WHITE, BLACK, [127] * 3]),
            "CMYK": ([(0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 0, 0)], "CMYK", "TIFF", {}, [WHITE, BLACK, [0, 255, 255]]),
        },
    )
    def test_other_colours_and_transparency_laid_on_white(
        self, tmp_path: Path, pixels: list[Any], mode: str, form: str, options: dict[str, int], expected: list[Any]
    ) -> None:
        image = Image.new(mode, (len(pixels), 1))
        if mode == "P":
            image.putpalette([10, 20, 30, 200, 100, 50])
        image.putdata(pixels)
        made = pixels_of(convert(saved(tmp_path / "a.xyz", image, form, **options)).data)
        assert np.abs(made[0].astype(int) - expected).max() <= 1

    @pytest.mark.parametrize("form", ["GIF", "TIFF", "AVIF"])
    def test_first_of_many_frames(self, tmp_path: Path, form: str) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
        made = convert(saved(tmp_path / "a.xyz", frames[0], form, save_all=True, append_images=frames[1:]))
        assert made.notes == ("only the first of its frames is taken",)
        assert np.abs(pixels_of(made.data).astype(int) - [255, 0, 0]).max() < 12


class TestBroken:
    @pytest.mark.parametrize("form", ["TIFF", "GIF", "JPEG2000", "AVIF", "PPM", "TGA", "QOI"])
    @pytest.mark.parametrize("keep", [0.3, 0.7])
    def test_cut(self, tmp_path: Path, form: str, keep: Any) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        path = saved(tmp_path / "a.xyz", noise, form)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
        with pytest.raises(UnreadableError, match="decoded"):
            convert(path)

    @pytest.mark.parametrize("form", ["TIFF", "GIF", "ICO", "TGA", "PCX", "SGI", "DDS", "JPEG2000", "AVIF"])
    def test_any_bytes_changed_is_an_error_or_a_picture(self, tmp_path: Path, form: str) -> None:
        path = saved(tmp_path / "a.xyz", RGB[:8, :8], form)
        data = path.read_bytes()
        random = np.random.default_rng(0)
        for _ in range(60):
            changed = bytearray(data)
            for position in random.integers(0, min(len(data), 200), 3):
                changed[position] = random.integers(256)
            path.write_bytes(changed)
            if detect_format(path, named_as_image=True).problem or not detect_format(path, named_as_image=True).name:
                continue
            with contextlib.suppress(UnreadableError):
                convert(path)
