"""Archives of every kind: the same files come out of each, and the same dangers are refused in each."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import resource
import signal
import stat
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import zstandard
from folders import contents_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.archives.unpacking import unpack
from pipeline.errors import DataError

COMPRESSIONS = {
    "tar": lambda data: data,
    "tar.gz": lambda data: gzip.compress(data, mtime=0),
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.compress,
}
KINDS = ("zip", *COMPRESSIONS)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
ODD_TYPES = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "pipe": tarfile.FIFOTYPE,
}
MEMBERS = [("a/b.txt", b"12"), ("c.txt", b"345" * 1000), ("empty.txt", b"")]


def tarred(members, form=tarfile.PAX_FORMAT):
    """A tar archive of names, or ready headers, and bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def header(name="a.txt", kind=tarfile.REGTYPE, size=0):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def packed(folder: Path, kind: str, members) -> Path:
    path = folder / f"archive.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members:
                archive.writestr(name, data)
    else:
        path.write_bytes(COMPRESSIONS[kind](tarred(members)))
    return path


def nothing_left(folder, archive):
    return [each for each in folder.iterdir() if each != archive] == []


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_whole(self, tmp_path, kind):
        junk = [("__MACOSX/a/._b.txt", b"x"), ("a/.DS_Store", b"x"), ("._c.txt", b"x")]
        path = packed(tmp_path, kind, MEMBERS + junk)
        path = path.rename(tmp_path / "no suffix")  # the content tells
        found = unpack(path, tmp_path / "out")
        assert contents_of(tmp_path / "out") == dict(MEMBERS)
        assert (found.files, found.size) == (("a/b.txt", "c.txt", "empty.txt"), 3002)

    @pytest.mark.parametrize(
        "name", ["../evil.txt", "a/../../evil.txt", "/etc/evil.txt", "C:/evil.txt", "a\\..\\e.txt"]
    )
    def test_no_path_leaves_the_folder(self, tmp_path, kind, name):
        path = packed(tmp_path, kind, [("fine.txt", b"x"), (name, b"x")])
        with pytest.raises(DataError, match="leads out") as caught:
            unpack(path, tmp_path / "out")
        assert repr(name) in str(caught.value)
        assert nothing_left(tmp_path, path)

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    @pytest.mark.parametrize("name", ["a.txt", "./a.txt", "a//b.txt"])
    def test_duplicate(self, tmp_path, kind, name):
        first = "a/b.txt" if "//" in name else "a.txt"
        path = packed(tmp_path, kind, [(first, b"x"), (name, b"z")])
        with pytest.raises(DataError, match="twice"):
            unpack(path, tmp_path / "out")
        assert nothing_left(tmp_path, path)

    def test_file_where_a_folder_is(self, tmp_path, kind):
        path = packed(tmp_path, kind, [("a", b"x"), ("a/b", b"y")])
        with pytest.raises(DataError, match="at 'a/b'"):
            unpack(path, tmp_path / "out")
        assert nothing_left(tmp_path, path)

    @pytest.mark.parametrize("keep", [0.2, 0.6, 0.95])
    def test_cut(self, tmp_path, kind, keep):
        noise = bytes((i * i * 7919 + i // 3) % 251 for i in range(30_000))
        path = packed(tmp_path, kind, [(f"{i}.bin", noise[i:]) for i in range(4)])
        data = path.read_bytes()
        if kind != "zip":  # the blocks of nothing at the end may be cut: all files are whole then
            data = COMPRESSIONS[kind](tarred([(f"{i}.bin", noise[i:]) for i in range(4)])[:-9000])
        path.write_bytes(data[: int(len(data) * keep)])
        with pytest.raises(DataError, match=r"cut off|early|end-of-stream"):
            unpack(path, tmp_path / "out")
        assert nothing_left(tmp_path, path)

    def test_any_bytes_changed_is_an_error_or_harmless(self, tmp_path, kind):
        path = packed(tmp_path, kind, [("a.txt", b"some text " * 9), ("b.txt", b"x")])
        data = path.read_bytes()
        for i in range(0, len(data), max(1, len(data) // 150)):
            path.write_bytes(data[:i] + bytes([data[i] ^ 0x41]) + data[i + 1 :])
            try:
                unpack(path, tmp_path / f"out{i}")
            except DataError:
                assert not (tmp_path / f"out{i}").exists()

    def test_too_many_files(self, tmp_path, kind):
        path = packed(tmp_path, kind, MEMBERS)
        with pytest.raises(DataError, match="at most 2"):
            unpack(path, tmp_path / "out", max_files=2)
        assert nothing_left(tmp_path, path)

    def test_bytes_capped(self, tmp_path, kind):
        path = packed(tmp_path, kind, MEMBERS)
        with pytest.raises(DataError, match="more than 2500 bytes"):
            unpack(path, tmp_path / "out", max_bytes=2500)
        assert nothing_left(tmp_path, path)

    def test_no_room_on_the_disk(self, tmp_path, kind):
        """Here the system refuses to let a file grow: the message speaks of the disk, not of the archive."""
        path = packed(tmp_path, kind, [("a.bin", bytes(range(256)) * 4000)])
        limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(DataError, match=r"at 'a\.bin'[\s\S]*room on the disk"):
                unpack(path, tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert nothing_left(tmp_path, path)


def ten_gigabytes(path: Path, kind: str) -> None:
    """An archive of 10 GB of zeros that is itself small and quickly made: compressed pieces are repeated."""
    total = 10 * 2**30
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            piece = zlib_zeros(2**24)
            info = zipfile.ZipInfo("zeros")
            archive.start_dir = archive.fp.tell()
            info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, total
            info.compress_size, info.CRC, info.header_offset = len(piece) * (total >> 24) + 2, 0, 0
            archive.fp.write(info.FileHeader(zip64=True))
            for _ in range(total >> 24):
                archive.fp.write(piece)
            archive.fp.write(b"\x03\x00")
            archive.start_dir = archive.fp.tell()
            archive.filelist.append(info)
            archive.NameToInfo["zeros"] = info
            archive._didModify = True
        return
    block = header("zeros", size=total)
    with path.open("wb") as file:
        if kind == "tar.gz":
            piece = gzip.compress(bytes(2**24), 1)
            file.write(gzip.compress(block))
        else:
            piece = zstandard.compress(bytes(2**24))
            file.write(zstandard.compress(block))
        for _ in range(total >> 24):
            file.write(piece)


def zlib_zeros(size: int) -> bytes:
    """A piece of a deflate stream that stands for zeros, and can be followed by another."""
    import zlib

    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return packer.compress(bytes(size)) + packer.flush(zlib.Z_FULL_FLUSH)


class TestBombs:
    @pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.zst"])
    def test_ten_gigabytes(self, tmp_path, kind):
        path = tmp_path / "bomb"
        ten_gigabytes(path, kind)
        assert path.stat().st_size < 100 << 20
        started = time.monotonic()
        with pytest.raises(DataError, match="unpacks to more than"):
            unpack(path, tmp_path / "out")
        assert time.monotonic() - started < 5  # all of it would take a minute
        assert nothing_left(tmp_path, path)

    @pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "tar.zst", "tar.bz2"])
    def test_what_headers_do_not_announce(self, tmp_path, kind):
        """Many files of a few megabytes, each of them innocent: what has come out is what stops it."""
        path = packed(tmp_path, kind, [(f"{i}.bin", bytes(3_000_000)) for i in range(12)])
        with pytest.raises(DataError, match="unpacks to more than 16777216 bytes"):
            unpack(path, tmp_path / "out")
        assert nothing_left(tmp_path, path)

    def test_window_of_a_terabyte(self, tmp_path):
        """zstd's header may ask for a window of any size."""
        descriptor = bytes([31 << 3])  # 2 ** 41 bytes: RFC 8878, 3.1.1.1.2
        frame = b"\x28\xb5\x2f\xfd" + b"\x00" + descriptor + b"\x01\x00\x00"
        (tmp_path / "a.tar.zst").write_bytes(frame)
        with pytest.raises(DataError, match=r"memory|window"):
            unpack(tmp_path / "a.tar.zst", tmp_path / "out")

    @pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
    def test_header_of_gigabytes(self, tmp_path, kind):
        path = tmp_path / "a.tar.gz"
        with gzip.open(path, "wb", 1) as file:
            file.write(header(kind=kind, size=1 << 33))
            for _ in range(64):
                file.write(bytes(1 << 20))
        tracemalloc.start()
        with pytest.raises(DataError, match="header of 8589934592 bytes"):
            unpack(path, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20 << 20

    def test_headers_without_end(self, tmp_path):
        """Additional headers only, one after the other, never a file."""
        path = tmp_path / "a.tar.gz"
        path.write_bytes(gzip.compress(header(kind=tarfile.XHDTYPE, size=0) * 50_000))
        with pytest.raises(DataError, match="unpacks to more than"):
            unpack(path, tmp_path / "out")


class TestTar:
    @pytest.mark.parametrize("form", FORMATS)
    def test_formats(self, tmp_path, form):
        long = "/".join(["a rather long folder name"] * 5)
        name = f"{long}/b.txt" if form != "ustar" else "f" * 90 + "/" + "g" * 90
        other = "ä" * 60 + ".txt"
        path = tmp_path / "a.tar"
        members = [(name, b"1"), ("plain.txt", b"2" * 513), (other if form != "ustar" else "ä.txt", b"3")]
        path.write_bytes(tarred([("./", b"")][:0] + members, FORMATS[form]))
        unpack(path, tmp_path / "out")
        assert contents_of(tmp_path / "out") == dict(members)

    def test_packed_from_within_a_folder(self, tmp_path):
        """As `tar -C folder .` writes it."""
        (tmp_path / "in/a").mkdir(parents=True)
        (tmp_path / "in/a/b.txt").write_text("x")
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.add(tmp_path / "in", ".")
        assert unpack(tmp_path / "a.tar", tmp_path / "out").files == ("a/b.txt",)

    @pytest.mark.parametrize("kind", COMPRESSIONS)
    @pytest.mark.parametrize("odd", ODD_TYPES)
    def test_links_and_devices(self, tmp_path, kind, odd):
        info = tarfile.TarInfo("odd")
        info.type, info.linkname = ODD_TYPES[odd], "/etc/passwd"
        path = packed(tmp_path, kind, [("fine.txt", b"x"), (info, b"")])
        with pytest.raises(DataError, match=r"link or device.*'odd'"):
            unpack(path, tmp_path / "out")
        assert nothing_left(tmp_path, path)

    def test_write_through_a_link(self, tmp_path):
        """First a link that leads out, then a file below it."""
        info = tarfile.TarInfo("a")
        info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path)
        path = packed(tmp_path, "tar", [(info, b""), ("a/evil.txt", b"x")])
        with pytest.raises(DataError, match="link or device"):
            unpack(path, tmp_path / "out")
        assert nothing_left(tmp_path, path)

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(header()[:124] + b"\xff" * 12 + header()[136:], id="negative size"),
            pytest.param(header()[:124] + b"99999999999\0" + header()[136:], id="size that is no octal number"),
            pytest.param(header(kind=tarfile.GNUTYPE_SPARSE) + bytes(1024), id="file with holes"),
            pytest.param(header(kind=b"Z") + bytes(1024), id="unknown kind"),
            pytest.param(header(size=1 << 60), id="an exabyte"),
            pytest.param(header("a", size=10) + b"0123456789" + bytes(502) + b"x" * 512, id="rubbish after a file"),
            pytest.param(header(kind=tarfile.XHDTYPE, size=9) + b"999 a=b\nx" + bytes(503), id="pax length too large"),
            pytest.param(header(kind=tarfile.XHDTYPE, size=9) + b"0 a=bbbb\n" + bytes(503), id="pax length of nothing"),
            pytest.param(
                header(kind=tarfile.XHDTYPE, size=13) + b"13 path=../x\n" + bytes(499) + header() + bytes(1024),
                id="pax path",
            ),
            pytest.param(
                header(kind=tarfile.XHDTYPE, size=11) + b"11 size=-5\n" + bytes(501) + header(), id="pax size"
            ),
        ],
    )
    def test_broken_headers(self, tmp_path, data):
        if data[124:136] != header()[124:136]:
            total = sum(data[:148]) + sum(data[156:512]) + 256
            data = data[:148] + b"%06o\0 " % total + data[156:]
        path = tmp_path / "a.tar"
        path.write_bytes(data)
        with pytest.raises(DataError):
            unpack(path, tmp_path / "out")
        assert nothing_left(tmp_path, path)

    def test_end_missing(self, tmp_path):
        """Cut between two files: nothing but the end's own mark tells."""
        path = tmp_path / "a.tar"
        path.write_bytes(header("a", size=10) + b"0123456789" + bytes(502))
        with pytest.raises(DataError, match="early"):
            unpack(path, tmp_path / "out")

    def test_wrong_checksum_at_the_end(self, tmp_path):
        path = packed(tmp_path, "tar.gz", MEMBERS)
        data = path.read_bytes()
        path.write_bytes(data[:-8] + bytes(4) + data[-4:])
        with pytest.raises(DataError, match="CRC"):
            unpack(path, tmp_path / "out")
        assert nothing_left(tmp_path, path)

    def test_several_streams_in_one_file(self, tmp_path):
        """As pigz, pbzip2 and `xz --block-size` write them."""
        data = tarred(MEMBERS)
        for kind, compress in COMPRESSIONS.items():
            path = tmp_path / f"a.{kind}"
            path.write_bytes(compress(data[:700]) + compress(data[700:]))
            unpack(path, tmp_path / kind)
            assert contents_of(tmp_path / kind) == dict(MEMBERS)

    def test_a_zip_at_the_end_does_not_make_it_one(self, tmp_path):
        inner = packed(tmp_path, "zip", [("inside.txt", b"x")])
        path = packed(tmp_path, "tar", [("inner.zip", inner.read_bytes())])
        assert unpack(path, tmp_path / "out").files == ("inner.zip",)


def test_encrypted_zip_names_the_item(tmp_path):
    path = packed(tmp_path, "zip", [("fine.txt", b"x"), ("secret/b.txt", b"x")])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # general purpose flag, bit 0
        data[data.rindex(signature) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"encrypted: 'secret/b\.txt'"):
        unpack(path, tmp_path / "out")
    assert nothing_left(tmp_path, path)


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_zip_with_a_link_or_device(tmp_path, mode):
    info = zipfile.ZipInfo("odd")
    info.external_attr = (mode | 0o777) << 16
    path = packed(tmp_path, "zip", [(info, b"/etc/passwd")])
    with pytest.raises(DataError, match="link or device"):
        unpack(path, tmp_path / "out")


PARTS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\:\0", exclude_categories=("C", "Z")), min_size=1, max_size=12
)
NAMES = st.lists(PARTS.filter(lambda part: not part.startswith(".") and part != "__MACOSX"), min_size=1, max_size=4)
TREES = st.dictionaries(NAMES.map("/".join), st.binary(max_size=1500), min_size=1, max_size=8)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_any_tree_survives_every_kind(tmp_path_factory, tree):
    folders = {"/".join(name.split("/")[:depth]) for name in tree for depth in range(1, name.count("/") + 1)}
    tree = {name: data for name, data in tree.items() if name not in folders}
    place = tmp_path_factory.mktemp("trees")
    for kind in KINDS:
        found = unpack(packed(place, kind, tree.items()), place / kind)
        assert contents_of(place / kind) == tree
        assert found.size == sum(map(len, tree.values()))
