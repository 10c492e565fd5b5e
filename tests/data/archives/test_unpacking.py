"""Archives of every kind: the same files come out of each, and the same dangers are refused in each."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shlex
import stat
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from cases import cases
from folders import contents_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.archives import archive_members
from pipeline.data.archives.unpacking import unpack
from pipeline.data.image_names import safe_name
from pipeline.errors import DataError

Members = Iterable[tuple[Any, bytes]]

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "tar.gz": lambda data: gzip.compress(data, mtime=0),
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.compress,
}
KINDS = ("zip", *COMPRESSIONS)
MEMBERS = [("a/b.txt", b"12"), ("c.txt", b"345" * 1000), ("empty.txt", b"")]
NOISE = bytes((i * i * 7919 + i // 3) % 251 for i in range(30_000))


def tarred(members: Members, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of names, or ready headers, and bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def header(name: str = "a.txt", kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def with_size(field: bytes) -> bytes:
    """A header whose size is written so, under a right checksum."""
    data = header()[:124] + field + header()[136:]
    return data[:148] + b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 256) + data[156:]


def pax(record: bytes) -> bytes:
    return header(kind=tarfile.XHDTYPE, size=len(record)) + record.ljust(-(-len(record) // 512) * 512, b"\0")


def packed(folder: Path, kind: str, members: Members, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / f"archive.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a name twice
            for name, data in members:
                archive.writestr(name, data)
    else:
        path.write_bytes(COMPRESSIONS[kind](tarred(members)))
    return path


def check_refused(path: Path, match: str | None = None) -> None:
    """The archive is refused, and nothing but itself is left in its folder."""
    with pytest.raises(DataError, match=match):
        unpack(path, path.parent / "out")
    assert [each for each in path.parent.iterdir() if each != path] == []


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_whole(self, tmp_path: Path, kind: str) -> None:
        junk = [("__MACOSX/a/._b.txt", b"x"), ("a/.DS_Store", b"x"), ("._c.txt", b"x")]
        path = packed(tmp_path, kind, MEMBERS + junk).rename(tmp_path / "no suffix")  # the content tells
        assert unpack(path, tmp_path / "out") == tmp_path / "out"
        assert contents_of(tmp_path / "out") == dict(MEMBERS)
        assert {each.name for each in tmp_path.iterdir()} == {"no suffix", "out"}

    @pytest.mark.parametrize(
        "name",
        ["../evil.txt", "a/../../evil.txt", "/etc/evil.txt", "C:/evil.txt", "a\\..\\e.txt", "../dir/", "\\evil.txt"],
    )
    def test_no_path_leaves_the_folder(self, tmp_path: Path, kind: str, name: str) -> None:
        path = packed(tmp_path, kind, [("fine.txt", b"x"), (name, b"x")])
        check_refused(path, "leads out.*" + repr(name).replace("\\", "\\\\"))

    @pytest.mark.parametrize(
        ("first", "second", "match"),
        [("a.txt", "./a.txt", "twice"), ("a/b.txt", "a//b.txt", "twice"), ("a", "a/b", "at 'a/b'")],
    )
    def test_one_place_for_two_files(self, tmp_path: Path, kind: str, first: str, second: str, match: str) -> None:
        check_refused(packed(tmp_path, kind, [(first, b"x"), (second, b"z")]), match)

    @pytest.mark.parametrize("name", ["C:a.txt", "a\tb.txt", "a\u202fb.txt", "a\u3000b.txt"])
    def test_odd_names(self, tmp_path: Path, kind: str, name: str) -> None:
        path = packed(tmp_path, kind, [(name, b"x")])
        assert contents_of(unpack(path, tmp_path / "out")) == {name: b"x"}

    def test_names_that_no_file_system_takes(self, tmp_path: Path, kind: str) -> None:
        name = "図" * 100 + ".txt"  # 300 bytes, but only 200 units of UTF-16, as on Windows
        path = packed(tmp_path, kind, [(name, b"x")])
        assert contents_of(unpack(path, tmp_path / "out")) == {safe_name(name): b"x"}

    @pytest.mark.parametrize("keep", [0.1, 0.6, 0.95])
    def test_cut(self, tmp_path: Path, kind: str, keep: float) -> None:
        members = [(f"{i}.bin", NOISE[i:]) for i in range(4)]
        path = packed(tmp_path, kind, members)
        data = path.read_bytes()
        if kind != "zip":  # the blocks of zeros at the end may be cut: all files are whole then
            data = COMPRESSIONS[kind](tarred(members)[:-9000])
        path.write_bytes(data[: int(len(data) * keep)])
        check_refused(path, "cut off|early|end-of-stream")

    def test_changed_bytes_are_an_error_or_harmless(self, tmp_path: Path, kind: str) -> None:
        path = packed(tmp_path, kind, [("a.txt", b"some text " * 9), ("b.txt", b"x")])
        data = path.read_bytes()
        for i in range(0, len(data), 150 if kind == "tar" else 15):
            path.write_bytes(data[:i] + bytes([data[i] ^ 0x41]) + data[i + 1 :])
            try:
                unpack(path, tmp_path / f"out{i}")
            except DataError:
                assert not (tmp_path / f"out{i}").exists()

    @pytest.mark.parametrize(
        ("limit", "value", "match"), [("_MAX_FILES", 2, "at most 2"), ("_MAX_BYTES", 2500, "more than 2500 bytes")]
    )
    def test_too_much(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, match: str
    ) -> None:
        monkeypatch.setattr(archive_members, limit, value)
        check_refused(packed(tmp_path, kind, MEMBERS), match)

    def test_too_great_a_ratio(self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Many files, each of them innocent: what has come out is what counts."""
        if kind == "tar":
            pytest.skip("it is not compressed")
        monkeypatch.setattr(archive_members, "_FREE_BYTES", 100_000)
        monkeypatch.setattr(archive_members, "_MAX_RATIO", 2)
        check_refused(packed(tmp_path, kind, [(f"{i}.bin", bytes(30_000)) for i in range(12)]), "more than 100000 ")


class TestBombs:
    @pytest.mark.parametrize("kind", KINDS)
    def test_announced_size_is_refused(self, tmp_path: Path, kind: str) -> None:
        path = packed(tmp_path, kind, [("zeros", bytes(10))])
        if kind == "zip":
            path.write_bytes(path.read_bytes().replace(struct.pack("<I", 10), struct.pack("<I", 1 << 31)))
        else:
            path.write_bytes(COMPRESSIONS[kind](header("zeros", size=10 << 30) + bytes(10_240)))
        check_refused(path, "unpacks to more than 16777216 bytes, with 'zeros'")

    def test_announced_size_is_not_believed(self, tmp_path: Path) -> None:
        path = packed(tmp_path, "zip", [("zeros", bytes(20_000_000))])
        path.write_bytes(path.read_bytes().replace(struct.pack("<I", 20_000_000), struct.pack("<I", 100)))
        check_refused(path, "cannot be unpacked at 'zeros'")

    def test_overlapping_members_of_a_zip(self, tmp_path: Path) -> None:
        """Many names for one stretch of bytes: https://www.bamsoftware.com/hacks/zipbomb/."""
        path = packed(tmp_path, "zip", [(f"{i:04d}", bytes(300_000)) for i in range(100)])
        with zipfile.ZipFile(path) as opened:
            offsets = [info.header_offset for info in opened.infolist()]
        data = path.read_bytes()
        for offset in offsets[1:]:
            data = data.replace(struct.pack("<I", offset) + b"00", struct.pack("<I", 0) + b"00")
        path.write_bytes(data)
        check_refused(path)

    def test_window_of_a_terabyte(self, tmp_path: Path) -> None:
        """zstd's header may ask for a window of any size: here 2 ** 41 bytes (RFC 8878, 3.1.1.1.2)."""
        path = tmp_path / "a.tar.zst"
        path.write_bytes(b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([31 << 3]) + b"\x01\x00\x00")
        check_refused(path, r"memory|window")

    @pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
    def test_header_of_gigabytes(self, tmp_path: Path, kind: bytes) -> None:
        path = tmp_path / "a.tar.gz"
        path.write_bytes(gzip.compress(header(kind=kind, size=1 << 33) + bytes(24 << 20), 1))
        tracemalloc.start()
        check_refused(path, "header of 8589935104 bytes")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20 << 20

    @cases(
        "data",
        {
            "additional headers without end": header(kind=tarfile.XHDTYPE) * 5000,
            "a number that tarfile searches for hours": pax(b"9" * 1_000_000) + header() + bytes(1024),
            "a list of holes without end": pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n")
            + header()
            + b"9999999\n"
            + b"1\n" * 900_000,
        },
    )
    def test_headers_without_end(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "a.tar.gz"
        path.write_bytes(gzip.compress(data))
        check_refused(path, "header")


class TestTar:
    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_formats(self, tmp_path: Path, form: int) -> None:
        ustar = form == tarfile.USTAR_FORMAT
        name = "f" * 90 + "/" + "g" * 90 if ustar else "/".join(["a rather long folder name"] * 5) + "/b.txt"
        members = [(name, b"1"), ("plain.txt", b"2" * 513), ("ä.txt" if ustar else "ä" * 60 + ".txt", b"3")]
        (tmp_path / "a.tar").write_bytes(tarred(members, form))
        assert contents_of(unpack(tmp_path / "a.tar", tmp_path / "out")) == dict(members)

    def test_names_of_old_systems_and_entries_that_are_no_files(self, tmp_path: Path) -> None:
        """A name in Latin-1, a volume's label, and the folder itself, as `tar -C folder .` writes it."""
        info = tarfile.TarInfo("./ä.txt")
        old = info.tobuf(tarfile.GNU_FORMAT, encoding="latin-1")
        (tmp_path / "a.tar").write_bytes(header("label", b"V") + header(".", tarfile.DIRTYPE) + old + bytes(1024))
        assert contents_of(unpack(tmp_path / "a.tar", tmp_path / "out")) == {"ä.txt": b""}

    @cases(
        "data",
        {
            "negative size": with_size(b"\xff" * 12),
            "size that is no octal number": with_size(b"99999999999\0"),
            "file with holes": header(kind=tarfile.GNUTYPE_SPARSE) + bytes(1024),
            "rubbish after a file": header("a", size=10) + b"0123456789" + bytes(502) + b"x" * 512,
            "pax length too large": pax(b"999 a=b\nx"),
            "pax path": pax(b"13 path=../x\n") + header() + bytes(1024),
            "pax size": pax(b"11 size=-5\n") + header(),
            "back to the first file": header() + with_size(b"\xff" * 10 + b"\0\0") + bytes(1024),
            "pax file with holes": pax(b"20 GNU.sparse.size=1\n") + header() + bytes(1024),
            "no end's mark": header("a", size=10) + b"0123456789" + bytes(502),
        },
    )
    def test_broken_headers(self, tmp_path: Path, data: bytes) -> None:
        for kind in ("tar", "tar.gz"):
            (tmp_path / kind).mkdir()
            (tmp_path / kind / "a").write_bytes(COMPRESSIONS[kind](data))
            check_refused(tmp_path / kind / "a")

    def test_wrong_checksum_at_the_end(self, tmp_path: Path) -> None:
        data = packed(tmp_path, "tar.gz", MEMBERS).read_bytes()
        (tmp_path / "archive.tar.gz").write_bytes(data[:-8] + bytes(4) + data[-4:])
        check_refused(tmp_path / "archive.tar.gz", "CRC")

    def test_several_streams_in_one_file(self, tmp_path: Path) -> None:
        """As pigz, pbzip2 and `xz --block-size` write them."""
        data = tarred(MEMBERS)
        for kind, compress in COMPRESSIONS.items():
            path = tmp_path / f"a.{kind}"
            path.write_bytes(compress(data[:700]) + compress(data[700:]))
            assert contents_of(unpack(path, tmp_path / kind)) == dict(MEMBERS)


class TestZip:
    def test_backslashes_are_separators(self, tmp_path: Path) -> None:
        names = ("a\\", "a\\b\\", "a\\b\\0.jpg", "__MACOSX\\._0.jpg")
        path = packed(tmp_path, "zip", [(name, b"12" if "b\\0" in name else b"") for name in names])
        assert contents_of(unpack(path, tmp_path / "out")) == {"a/b/0.jpg": b"12"}
        path = packed(tmp_path, "zip", [("a/b", b"1"), ("a\\b", b"2")])
        with pytest.raises(DataError, match="'a/b' twice"):
            unpack(path, tmp_path / "twice")

    def test_encrypted(self, tmp_path: Path) -> None:
        path = packed(tmp_path, "zip", [("fine.txt", b"x"), ("secret/b.txt", b"x")])
        data = bytearray(path.read_bytes())
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # general purpose flag, bit 0
            data[data.rindex(signature) + offset] |= 1
        path.write_bytes(data)
        check_refused(path, r"encrypted: 'secret/b\.txt'")


def in_code_page(folder: Path, kind: str, page: str, members: Members) -> Path:
    """An archive whose names are bytes in a code page, without a word of it, as old systems write it."""
    path = folder / f"archive.{kind}"
    if kind == "tar":
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding=page) as archive:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path
    names = [(name.encode(page), data) for name, data in members]
    # zipfile writes no other code page than its own, so that names of their length stand for them
    stand_ins = [f"{i:{len(raw)}d}".replace(" ", "x") for i, (raw, _) in enumerate(names)]
    with zipfile.ZipFile(path, "w") as packing:
        for stand_in, (_, data) in zip(stand_ins, names, strict=True):
            packing.writestr(stand_in, data)
    content = path.read_bytes()
    for stand_in, (raw, _) in zip(stand_ins, names, strict=True):
        content = content.replace(stand_in.encode(), raw)
    path.write_bytes(content)
    return path


class TestCodePages:
    @cases(
        "page, stem",
        {
            "Chinese": ("gbk", "图片"),
            "Chinese that could be Korean": ("gbk", "车辆检测"),
            "Taiwan": ("big5", "測試"),
            "Japanese": ("cp932", "表示テスト"),
            "Korean": ("cp949", "사진"),
            "Russian": ("cp866", "фото"),
            "Russian, Windows": ("cp1251", "ФОТО"),
            "German": ("cp437", "Müller"),
            "Danish": ("cp850", "Øl"),
            "Danish, Windows": ("cp1252", "Øl"),
            "UTF-8": ("utf-8", "Řeka"),
        },
    )
    @pytest.mark.parametrize("escaped", [True, False])
    @pytest.mark.parametrize("kind", ["zip", "tar"])
    def test_annotations_that_hold_the_names_decide(
        self, tmp_path: Path, kind: str, page: str, stem: str, escaped: bool
    ) -> None:
        text = json.dumps({"images": [f"{stem}{i}.jpg" for i in range(3)]}, ensure_ascii=escaped).encode()
        members = [("a.json", text), *((f"images/{stem}{i}.jpg", b"x") for i in range(3))]
        said: list[str] = []
        path = in_code_page(tmp_path, kind, page, members)
        assert contents_of(unpack(path, tmp_path / "out", say=said.append)) == dict(members)
        assert len(said) == (page not in {"utf-8", "cp437" if kind == "zip" else "cp1252"})

    @cases(
        "page, names",
        {
            "Chinese that could be UTF-8": ("gbk", ["图片1"]),
            "Chinese": ("gbk", ["训练集", "车辆检测", "新建文件夹"]),
            "Japanese": ("cp932", ["写真", "ねこ"]),
            "backslash in a letter": ("cp932", ["新しい表示", "ソース"]),
            "Russian": ("cp866", ["Новая папка", "кошка"]),
            "Russian, Windows": ("cp1251", ["Новая папка", "кошка"]),
            "western": ("cp437", ["Müller", "café", "été", "BÄR"]),
            "western, Windows": ("cp1252", ["Straße", "ação"]),
            "UTF-8": ("utf-8", ["фото", "Žluťoučký", "Ελλάδα"]),
            "UTF-8 of three bytes": ("utf-8", ["图片"]),
        },
    )
    @pytest.mark.parametrize("kind", ["zip", "tar"])
    def test_names_that_fit_one_code_page(self, tmp_path: Path, kind: str, page: str, names: list[str]) -> None:
        members = [(f"{name}/0.txt", b"x") for name in names]
        path = in_code_page(tmp_path, kind, page, members)
        assert contents_of(unpack(path, tmp_path / "out")) == dict(members)

    @cases(
        "page, name, likely",
        {
            "Korean that could be Chinese": ("cp949", "사진", "gbk, cp949"),
            "no code page": ("koi8-r", "Фото", "cp1251, cp866"),
        },
    )
    @pytest.mark.parametrize("kind", ["zip", "tar"])
    def test_refused_with_a_command_that_works(
        self, tmp_path: Path, kind: str, page: str, name: str, likely: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = in_code_page(tmp_path, kind, page, [(f"{name}.txt", b"x")])
        with pytest.raises(DataError, match="does not say how its names are encoded") as caught:
            unpack(path, tmp_path / "out")
        assert likely in caught.value.remedy
        assert not (tmp_path / "out").exists()
        command = caught.value.remedy.partition("such as ")[2].removesuffix(", and name the folder")
        words = [page if word in {"gbk", "cp949"} else word for word in shlex.split(command)]
        words = [word.replace("'gbk'", f"'{page}'") for word in words]
        monkeypatch.chdir(tmp_path)
        assert subprocess.run([sys.executable, *words[1:]], check=False).returncode == 0
        assert contents_of(tmp_path / "FOLDER") == {f"{name}.txt": b"x"}

    def test_name_in_utf_8_beside_that_in_a_code_page(self, tmp_path: Path) -> None:
        """As 7-Zip and WinRAR write it."""
        raw = "사진.txt".encode("cp949")
        path = in_code_page(tmp_path, "zip", "cp949", [("사진.txt", b"x")])
        field = b"\x01" + struct.pack("<I", zlib.crc32(raw)) + "사진.txt".encode()
        content = path.read_bytes()
        start = content.index(b"PK\x01\x02")
        extra = struct.pack("<HH", 0x7075, len(field)) + field
        central = bytearray(content[start : start + 46 + len(raw)])
        central[30:32] = struct.pack("<H", len(extra))
        end = bytearray(content[start + len(central) :])
        end[12:16] = struct.pack("<I", len(central) + len(extra))
        path.write_bytes(content[:start] + central + extra + end)
        assert contents_of(unpack(path, tmp_path / "out")) == {"사진.txt": b"x"}


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip(tmp_path: Path, mode: int) -> None:
    info = zipfile.ZipInfo("odd")
    info.external_attr = (mode | 0o777) << 16
    check_refused(packed(tmp_path, "zip", [(info, b"/etc/passwd")]), "link or device.*'odd'")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("odd")
    info.type, info.linkname = kind, "/etc/passwd"
    check_refused(packed(tmp_path, "tar", [("fine.txt", b"x"), (info, b"")]), "link or device.*'odd'")


@cases(
    "data, problem",
    {
        "nothing": (b"", "empty"),
        "text": (b"hello", "not an archive"),
        "web page": (b"\n<!DOCTYPE html>", "web page"),
        "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(600), "7z archives cannot be read[\\s\\S]*tar.zst"),
        "rar": (b"Rar!\x1a\x07\x01\x00" + bytes(600), "rar archives cannot be read"),
        "gz of a small file": (gzip.compress(b"{}"), "early"),
        "gz of a file": (gzip.compress(b"{} " * 1000), "no tar archive"),
        "zst of a file": (zstandard.compress(b"{} " * 1000), "no tar archive"),
    },
)
def test_something_else(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    check_refused(tmp_path / "a.zip", problem)


PARTS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\:\0", exclude_categories=("C", "Z")), min_size=1, max_size=12
)
NAMES = st.lists(PARTS.filter(lambda part: not part.startswith(".") and part != "__MACOSX"), min_size=1, max_size=4)
TREES = st.dictionaries(NAMES.map("/".join), st.binary(max_size=1500), min_size=1, max_size=8)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_any_tree_survives_every_kind(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes]) -> None:
    folders = {"/".join(name.split("/")[:depth]) for name in tree for depth in range(1, name.count("/") + 1)}
    tree = {name: data for name, data in tree.items() if name not in folders}
    place = tmp_path_factory.mktemp("trees")
    for kind in KINDS:
        assert contents_of(unpack(packed(place, kind, tree.items()), place / kind)) == tree
