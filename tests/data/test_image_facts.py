from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Picture

from pipeline.data.fingerprints import FINGERPRINT_BYTES, group_similar
from pipeline.data.images import MAX_PIXELS, ImageFacts, inspect


def write_png(path: Any, width: Any, height: Any) -> Any:
    """A black picture of one bit a pixel, written by rows: no picture is held."""
    deflate = zlib.compressobj(9)
    rows = bytes(1 + (width + 7) // 8) * 1000
    body = b"".join(deflate.compress(rows) for _ in range(height // 1000)) + deflate.flush()

    def chunk(kind: Any, data: Any) -> Any:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def write_jpeg_bomb(path: Any, side: Any) -> None:
    """A small JPEG that says it is large."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", side, side)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Small files that say they hold 2.5 gigapixels."""
    folder = tmp_path_factory.mktemp("bombs")
    write_png(folder / "bomb.png", 50_000, 50_000)
    write_jpeg_bomb(folder / "bomb.jpg", 50_000)
    return folder


class TestKinds:
    def test_each(self, tmp_path: Path, write_picture: Any, bombs: Any) -> None:
        for name in ("whole.jpg", "cut.jpg", "broken.jpg", "cut.png", "a.tif"):
            write_picture(tmp_path / name, 200, 150)
        for name in ("cut.jpg", "cut.png"):
            path = tmp_path / name
            path.write_bytes(path.read_bytes()[:-2000])
        data = (tmp_path / "broken.jpg").read_bytes()
        (tmp_path / "broken.jpg").write_bytes(data[: len(data) // 2] + data[len(data) // 2 + 999 :])
        (tmp_path / "stub.jpg").write_bytes(data[:30])
        (tmp_path / "empty.jpg").touch()
        (tmp_path / "text.jpg").write_text("hello")
        (tmp_path / "folder.jpg").mkdir()
        for path in bombs.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        names = sorted([*(path.name for path in tmp_path.iterdir()), "gone.jpg"])
        facts = inspect(tmp_path, names)
        assert list(facts) == names
        assert {name: fact.kind for name, fact in facts.items()} == {
            "whole.jpg": "",
            "cut.jpg": "truncated",
            "cut.png": "truncated",
            "stub.jpg": "undecodable",
            "broken.jpg": "corrupt",
            "empty.jpg": "empty",
            "text.jpg": "undecodable",
            "folder.jpg": "undecodable",
            "gone.jpg": "missing",
            "a.tif": "undecodable",
            "bomb.png": "refused",
            "bomb.jpg": "refused",
        }
        for fact in facts.values():
            assert bool(fact.kind) == bool(fact.problem) == (fact.width == 0) == (fact.fingerprint == b"")
        assert "not an image file of a known format (JPEG, PNG, WebP, BMP)" in facts["a.tif"].problem
        assert "2500 megapixels are more than 50" in facts["bomb.png"].problem

    def test_too_heavy_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "a.jpg").open("wb") as file:
            file.truncate(1 << 33)
        (fact,) = inspect(tmp_path, ["a.jpg"]).values()
        assert (fact.kind, fact.digest) == ("refused", "")
        assert "8192 MiB are more than 31" in fact.problem


class TestFacts:
    def test_digest_is_of_the_bytes(self, tmp_path: Path, write_picture: Any) -> None:
        write_picture(tmp_path / "a.jpg", 60, 40)
        (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
        (tmp_path / "c.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + b"more")
        facts = inspect(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
        assert facts["a.jpg"].digest == hashlib.sha256((tmp_path / "a.jpg").read_bytes()).hexdigest()
        assert facts["a.jpg"].digest == facts["b.jpg"].digest != facts["c.jpg"].digest
        assert facts["a.jpg"].fingerprint == facts["b.jpg"].fingerprint == facts["c.jpg"].fingerprint

    def test_more_files_than_a_thread_takes(self, tmp_path: Path, write_picture: Any) -> None:
        for number in range(50):
            write_picture(tmp_path / f"{number}.png", 20 + number, 40)
        names = [f"{number}.png" for number in range(50)]
        facts = inspect(tmp_path, names)
        assert [facts[name].width for name in names] == list(range(20, 70))

    def test_none(self, tmp_path: Path) -> None:
        assert inspect(tmp_path, []) == {}

    def test_equal_facts(self) -> None:
        """What a rule compares is what it names; a digest is not a size."""
        assert ImageFacts(60, 40) == ImageFacts(60, 40, digest="ab", fingerprint=b"x")
        assert ImageFacts(60, 40) != ImageFacts(40, 60)

    @pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
    @pytest.mark.parametrize("orientation", range(10))
    def test_turned_as_opencv_turns(self, tmp_path: Path, kind: str, orientation: int) -> None:
        """The size and the look are those of the picture that training and serving get."""
        shades = np.random.default_rng(1).integers(0, 255, (4, 6, 3), np.uint8)
        stored = Picture.fromarray(cv2.resize(shades, (96, 64), interpolation=cv2.INTER_CUBIC))
        exif = Picture.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"a.{kind}"
        stored.save(path, exif=exif, quality=95)
        decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        cv2.imwrite(str(tmp_path / "upright.png"), decoded)
        facts = inspect(tmp_path, [path.name, "upright.png"])
        found, upright = facts[path.name], facts["upright.png"]
        assert (found.width, found.height) == (decoded.shape[1], decoded.shape[0])
        assert found.stored_size == (96, 64)
        assert found.orientation == (orientation if 1 <= orientation <= 8 else 1)
        looks = [np.frombuffer(each.fingerprint, np.uint8).astype(int) for each in (found, upright)]
        assert len(looks[0]) == FINGERPRINT_BYTES
        assert np.abs(looks[0] - looks[1]).max() <= 4

    @pytest.mark.parametrize("kind", ["jpg", "webp"])
    def test_orientation_that_only_xmp_tells(self, tmp_path: Path, kind: str) -> None:
        """Pillow would turn such a picture; OpenCV, and so training and serving, do not."""
        path = tmp_path / f"a.{kind}"
        told = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
        Picture.new("RGB", (60, 40)).save(path, xmp=told)
        assert cv2.imread(str(path)).shape[:2] == (40, 60)
        assert inspect(tmp_path, [path.name])[path.name] == ImageFacts(60, 40)

    def test_exif_that_is_no_exif(self, tmp_path: Path) -> None:
        data = cv2.imencode(".jpg", np.zeros((40, 60, 3), np.uint8))[1].tobytes()
        block = b"Exif\0\0MM\0*\xff\xff\xff\xff"
        (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:])
        assert inspect(tmp_path, ["a.jpg"])["a.jpg"] == ImageFacts(60, 40)


class TestPhotographs:
    def test_all_are_whole_and_none_like_another(self, tmp_path: Path, real_data: Any) -> None:
        with zipfile.ZipFile(real_data / "val2017.zip") as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
            archive.extractall(tmp_path, names)
        facts = inspect(tmp_path, names)
        assert {fact.kind for fact in facts.values()} == {""}
        assert group_similar([fact.fingerprint for fact in facts.values()]) == list(range(len(names)))
        for name in names[::10]:
            height, width = cv2.imread(str(tmp_path / name)).shape[:2]
            assert (facts[name].width, facts[name].height) == (width, height)

    def test_with_a_thumbnail_inside(self, tmp_path: Path) -> None:
        """A photograph as a phone writes it, of 12 megapixels with a second JPEG in its EXIF."""
        shades = np.random.default_rng(1).integers(0, 255, (12, 16, 3), np.uint8)
        photograph = Picture.fromarray(cv2.resize(shades, (4000, 3000), interpolation=cv2.INTER_CUBIC))
        thumbnail = io.BytesIO()
        photograph.resize((160, 120)).save(thumbnail, "JPEG")
        exif = Picture.Exif()
        exif[0x0112] = 6
        first = exif.tobytes()
        photograph.save(tmp_path / "a.jpg", exif=first + thumbnail.getvalue(), quality=80)
        fact = inspect(tmp_path, ["a.jpg"])["a.jpg"]
        assert fact == ImageFacts(3000, 4000, 6)
        assert fact.fingerprint


_MEASURE = """
import resource, sys
from pathlib import Path
from pipeline.data.images import inspect
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
facts = inspect(Path(sys.argv[1]), sorted(path.name for path in Path(sys.argv[1]).iterdir()))
print({fact.kind for fact in facts.values()}, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def measured(folder: Any) -> tuple[Any, ...]:
    command = [sys.executable, "-c", _MEASURE, str(folder)]
    kinds, grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rsplit(maxsplit=1)
    return kinds, int(grown) * (1 if sys.platform == "darwin" else 1024)


def test_a_bomb_takes_no_memory(bombs: Any) -> None:
    assert all(path.stat().st_size < 1e6 for path in bombs.iterdir())
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
