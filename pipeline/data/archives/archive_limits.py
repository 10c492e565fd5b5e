"""What an archive may hold: regular files under names that stay inside the folder, and not more than is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.data.coco import unsafe_name
from pipeline.errors import DataError

MAX_BYTES = 1 << 36  # 64 GiB: COCO's largest archive, train2017.zip, unpacks to 18 GiB
MAX_FILES = 1_000_000
MAX_RATIO = 200.0  # bytes out per byte of archive; pictures stay near 1, annotation files near 10, bombs near 1000
FREE_BYTES = 1 << 24  # allowed whatever the ratio: a small archive does no harm, and a blank picture packs well
CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A regular file in an archive: its checked name, its declared size, and its bytes, read before the next one's."""

    name: str
    size: int
    chunks: Callable[[], Iterator[bytes]]


class Allowance:
    """Counts what really comes out of an archive; what its headers promise is only asked to refuse it sooner."""

    def __init__(self, archive: Path, max_bytes: int, max_files: int, max_ratio: float) -> None:
        self._archive, self._max_files = archive, max_files
        self._limit = min(max_bytes, max(FREE_BYTES, int(archive.stat().st_size * max_ratio)))
        self._left = self._limit
        self._names: set[str] = set()

    def take(self, size: int, item: str = "") -> None:
        """Count bytes that came out, of the item named where it is known.

        Raises:
            DataError: They are more than is allowed.
        """
        self._left -= size
        self.expect(0, item)

    def expect(self, size: int, item: str = "") -> None:
        """Refuse what is announced, mostly by the item named, where it is more than may still come.

        Raises:
            DataError: It is.
        """
        if size > self._left or self._left < 0:
            raise DataError(
                f"The archive unpacks to more than {self._limit} bytes{f', {item!r} among it' if item else ''}",
                where=self._archive,
                expected="an archive of pictures or annotations, which grow little",
                remedy="unpack it yourself, if it is to be trusted, and name the folder",
            )

    def count(self, files: int) -> None:
        """Refuse an archive with so many files.

        Raises:
            DataError: They are more than is allowed.
        """
        if files > self._max_files:
            raise DataError(
                f"The archive holds {files} files, or more", where=self._archive, expected=f"at most {self._max_files}"
            )

    def admit(self, name: str) -> str:
        """The name of a file in its plain form, once.

        Raises:
            DataError: There has been one of that name.
        """
        plain = str(PurePosixPath(name))
        if plain in self._names:
            raise DataError(f"The archive holds '{plain}' twice", where=self._archive)
        self._names.add(plain)
        return plain


def check_name(name: str, archive: Path, written: str = "") -> None:
    """Refuse a member's name that leads out of the folder it is unpacked into.

    Args:
        name: The name, as it is to be used.
        archive: Stands for the archive in messages.
        written: The name as it stands in the archive, where that is another.

    Raises:
        DataError: It does.
    """
    if unsafe_name(name):
        raise DataError(
            f"The archive has a file that leads out of the folder: {written or name!r}",
            where=archive,
            expected="plain files under relative names",
        )


def no_plain_file(name: str, archive: Path) -> DataError:
    """The error for a member that is a link, a device or the like."""
    return DataError(
        f"The archive has a link or device where files were expected: {name!r}",
        where=archive,
        expected="plain files under relative names",
        remedy="pack it again with the files themselves: tar --dereference, or zip without -y",
    )


def is_junk(name: str) -> bool:
    """Whether a file is there only because macOS packed the archive."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or bool(parts and (parts[-1] == ".DS_Store" or parts[-1].startswith("._")))
