from __future__ import annotations

import gzip
import io
import stat
import struct
import warnings
import zipfile

import pytest
import zstandard

from pipeline.data.archives.unpacking import unpack
from pipeline.errors import DataError, MissingError, UsageError


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice
        for name, data in members:
            archive.writestr(name, data)
    return path


def link(name, mode=stat.S_IFLNK):
    info = zipfile.ZipInfo(name)
    info.external_attr = (mode | 0o777) << 16
    return info


def nothing_left(folder, archive):
    return [each for each in folder.iterdir() if each != archive] == []


def test_whole(tmp_path):
    members = [("a/b.txt", "12"), ("./c.txt", "345"), ("empty/", ""), ("__MACOSX/a/._b.txt", "x"), ("a/.DS_Store", "x")]
    found = unpack(zipped(tmp_path / "a.zip", members), tmp_path / "out")
    assert (found.files, found.size) == (("a/b.txt", "c.txt"), 5)
    assert (tmp_path / "out/a/b.txt").read_text() == "12"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.zip", "out"]


def test_backslashes_are_separators(tmp_path):
    members = [("data\\", ""), ("data\\images\\", ""), ("data\\images\\0.jpg", "12"), ("__MACOSX\\._0.jpg", "x")]
    found = unpack(zipped(tmp_path / "a.zip", members), tmp_path / "out")
    assert found.files == ("data/images/0.jpg",)
    assert (tmp_path / "out/data/images/0.jpg").read_text() == "12"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_by_its_separators(tmp_path):
    with pytest.raises(DataError, match="'a/b' twice"):
        unpack(zipped(tmp_path / "a.zip", [("a/b", "1"), ("a\\b", "2")]), tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("../evil.txt", id="up"),
        pytest.param("a/../../evil.txt", id="up from inside"),
        pytest.param("../dir/", id="a folder up"),
        pytest.param("/etc/evil.txt", id="absolute"),
        pytest.param("//host/evil.txt", id="network"),
        pytest.param("C:/evil.txt", id="drive"),
        pytest.param("C:evil.txt", id="drive, relative"),
        pytest.param("a\\..\\..\\evil.txt", id="backslashes"),
        pytest.param("..\\..\\evil.txt", id="up, with backslashes"),
        pytest.param("..\\dir\\", id="a folder up, with backslashes"),
        pytest.param("C:\\evil.txt", id="drive, with a backslash"),
        pytest.param("\\evil.txt", id="absolute, with a backslash"),
        pytest.param("\\\\host\\evil.txt", id="network, with backslashes"),
        pytest.param(link("link"), id="symbolic link"),
        pytest.param(link("pipe", stat.S_IFIFO), id="pipe"),
    ],
)
def test_no_path_leaves_the_folder(tmp_path, name):
    archive = zipped(tmp_path / "a.zip", [("fine.txt", "x"), (name, "/etc/passwd")])
    with pytest.raises(DataError, match=r"leads out|link or device"):
        unpack(archive, tmp_path / "out")
    assert nothing_left(tmp_path, archive)


def test_member_twice(tmp_path):
    archive = zipped(tmp_path / "a.zip", [("a.txt", "x"), ("./a.txt", "y")])
    with pytest.raises(DataError, match="twice"):
        unpack(archive, tmp_path / "out")


def test_file_where_a_folder_is(tmp_path):
    archive = zipped(tmp_path / "a.zip", [("a", "x"), ("a/b", "y")])
    with pytest.raises(DataError):
        unpack(archive, tmp_path / "out")
    assert nothing_left(tmp_path, archive)


class TestBombs:
    @pytest.mark.parametrize(
        ("limits", "problem"),
        [
            pytest.param({}, "more than", id="ratio, by default"),
            pytest.param({"max_ratio": 1e9, "max_bytes": 1 << 20}, "more than 1048576 bytes", id="bytes"),
            pytest.param({"max_files": 1}, "2 files", id="files"),
        ],
    )
    def test_capped(self, tmp_path, limits, problem):
        archive = zipped(tmp_path / "a.zip", [("zeros", bytes(20_000_000)), ("b", "x")])
        with pytest.raises(DataError, match=problem):
            unpack(archive, tmp_path / "out", **limits)
        assert nothing_left(tmp_path, archive)

    def test_headers_are_not_believed(self, tmp_path):
        """A member that says it is small: the bytes that come out are what counts."""
        archive = zipped(tmp_path / "a.zip", [("zeros", bytes(20_000_000))])
        data = archive.read_bytes().replace(struct.pack("<I", 20_000_000), struct.pack("<I", 100))
        archive.write_bytes(data)
        with pytest.raises(DataError):
            unpack(archive, tmp_path / "out")
        assert nothing_left(tmp_path, archive)

    def test_overlapping_members(self, tmp_path):
        """Many names for one stretch of bytes: https://www.bamsoftware.com/hacks/zipbomb/."""
        archive = zipped(tmp_path / "a.zip", [(f"{i:04d}", bytes(300_000)) for i in range(100)])
        with zipfile.ZipFile(archive) as opened:
            offsets = [info.header_offset for info in opened.infolist()]
        data = archive.read_bytes()
        for offset in offsets[1:]:
            data = data.replace(struct.pack("<I", offset) + b"00", struct.pack("<I", 0) + b"00")
        archive.write_bytes(data)
        with pytest.raises(DataError):
            unpack(archive, tmp_path / "out")


class TestBroken:
    @pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
    def test_truncated(self, tmp_path, keep):
        archive = zipped(tmp_path / "a.zip", [(f"{i}.txt", f"{i}" * 5000) for i in range(20)])
        data = archive.read_bytes()
        archive.write_bytes(data[: int(len(data) * keep)])
        with pytest.raises(DataError, match="cut off"):
            unpack(archive, tmp_path / "out")
        assert nothing_left(tmp_path, archive)

    def test_any_byte_changed_is_an_error_or_harmless(self, tmp_path):
        archive = zipped(tmp_path / "a.zip", [("a.txt", "some text " * 9), ("b.txt", "x")])
        data = archive.read_bytes()
        for i in range(len(data)):
            archive.write_bytes(data[:i] + bytes([data[i] ^ 0x41]) + data[i + 1 :])
            try:
                unpack(archive, tmp_path / f"out{i}")
            except DataError:
                assert not (tmp_path / f"out{i}").exists()

    def test_corrupt_bytes(self, tmp_path):
        archive = zipped(tmp_path / "a.zip", [("a.txt", "x" * 100)], zipfile.ZIP_STORED)
        archive.write_bytes(archive.read_bytes().replace(b"x" * 100, b"x" * 50 + b"y" * 50))
        with pytest.raises(DataError, match="CRC"):
            unpack(archive, tmp_path / "out")
        assert nothing_left(tmp_path, archive)

    def test_encrypted(self, tmp_path):
        archive = zipped(tmp_path / "a.zip", [("a.txt", "x")])
        data = bytearray(archive.read_bytes())
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # general purpose flag, bit 0
            data[data.index(signature) + offset] |= 1
        archive.write_bytes(data)
        with pytest.raises(DataError, match="encrypted"):
            unpack(archive, tmp_path / "out")

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            pytest.param(b"", "empty", id="nothing"),
            pytest.param(b"hello", "not an archive", id="text"),
            pytest.param(b"\n<!DOCTYPE html>", "web page", id="web page"),
            pytest.param(b"7z\xbc\xaf\x27\x1c" + bytes(600), "7z archives cannot be read[\\s\\S]*tar.zst", id="7z"),
            pytest.param(b"Rar!\x1a\x07\x01\x00" + bytes(600), "rar archives cannot be read", id="rar"),
            pytest.param(gzip.compress(b"{}"), "early", id="gz of a small file"),
            pytest.param(gzip.compress(b"{} " * 1000), "no tar archive", id="gz of a file"),
            pytest.param(zstandard.compress(b"{} " * 1000), "no tar archive", id="zst of a file"),
        ],
    )
    def test_something_else(self, tmp_path, data, problem):
        (tmp_path / "a.zip").write_bytes(data)
        with pytest.raises(DataError, match=problem):
            unpack(tmp_path / "a.zip", tmp_path / "out")

    def test_absent(self, tmp_path):
        with pytest.raises(MissingError):
            unpack(tmp_path / "a.zip", tmp_path / "out")

    def test_target_in_use(self, tmp_path):
        with pytest.raises(UsageError, match="not empty"):
            unpack(zipped(tmp_path / "a.zip", [("a", "x")]), tmp_path)

    def test_nested_archive_is_just_a_file(self, tmp_path):
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as opened:
            opened.writestr("../x", "x")
        found = unpack(zipped(tmp_path / "a.zip", [("inner.zip", inner.getvalue())]), tmp_path / "out")
        assert found.files == ("inner.zip",)
