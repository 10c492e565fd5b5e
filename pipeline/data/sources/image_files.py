"""One image file of a source: identified, converted where needed, and written under a free name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.data.fetch.http_client import is_web_page
from pipeline.data.image_conversion import UnreadableError, convert, detect_format
from pipeline.data.images import is_image_name
from pipeline.errors import DataError

Transfer = Literal["copy", "link", "move"]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that was written, or the problem with it.

    Attributes:
        problem: Why it was not written; empty if it was.
        name: Its name in the source, with the suffix that was added to it if the image was not converted.
        file: Its name in the folder.
        orientation: EXIF orientation of a converted image, which has been applied.
        notes: What the conversion left out or changed.
    """

    problem: str = ""
    name: str = ""
    file: str = ""
    orientation: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The folder that a source's images go to; may be used from several threads.

    Attributes:
        path: The folder.
        names: The names of all images of the source, if they are known: no converted image takes one of them.
        transfer: How to bring files here; `link` copies where the file system cannot link.
        keep_unreadable: Whether to keep files that are named as images and cannot be identified as such.
    """

    path: Path
    names: Collection[str] = ()
    transfer: Transfer = "copy"
    keep_unreadable: bool = False

    def store(self, name: str, content: bytes | Path, where: str = "") -> StoredImage:
        """Write an image, converted if the service would refuse it.

        Args:
            name: Its path below the folder; a suffix is added where the format needs one.
            content: The file or its bytes.
            where: Its place in the source, for messages.

        Raises:
            DataError: The name is that of another image, or the file cannot be written.
        """
        found = detect_format(content, named_as_image=is_image_name(name))
        if found.problem or not (found.name or self.keep_unreadable):
            return StoredImage(found.problem or unreadable_reason(content))
        if found.stays:
            file = self._free_name(name, found.suffix_for(name))
            self._write(file, content, where)
            return StoredImage(name=name if self.keep_unreadable else file, file=file)
        try:
            made = convert(content)
        except UnreadableError as error:
            return StoredImage(str(error))
        file = self._free_name(name, made.suffix)
        self._write(file, made.data, where)
        return StoredImage("", name, file, made.orientation, made.notes)

    def _free_name(self, name: str, suffix: str) -> str:
        """The name with the suffix added, and with a number where another image of the source has that name."""
        if not suffix:
            return name
        numbered = (f"{name}{f'.{number}' if number > 1 else ''}{suffix}" for number in range(1, len(self.names) + 2))
        return next(each for each in numbered if each not in self.names)

    def _write(self, file: str, content: bytes | Path, where: str) -> None:
        target = self.path / file
        if target.exists() or any(parent.is_file() for parent in target.parents):
            problem = f"the name '{file}' is that of another image, or inside one's"
            raise DataError(problem, where=where, remedy="give each image its own name")
        if isinstance(content, Path):
            place_file(content, target, self.transfer)
        else:
            with _writing(target):
                target.write_bytes(content)


def place_file(source: Path, target: Path, transfer: Transfer) -> None:
    """Copy, move or link a file to its place, whose folders are made.

    Raises:
        DataError: It cannot be written.
    """
    with _writing(target):
        if transfer == "move":
            source.replace(target)
            return
        if transfer == "link":
            try:
                os.link(source, target)
            except OSError:  # another file system, or one without links
                pass
            else:
                return
        shutil.copyfile(source, target)


def unreadable_reason(content: bytes | Path) -> str:
    """Why a file cannot be identified as an image, as far as its first bytes tell."""
    if isinstance(content, bytes):
        start = content[:1024]
    else:
        with content.open("rb") as file:
            start = file.read(1024)
    if is_web_page(start):
        return "a web page came instead of an image: the URL may want a login"
    return "it is no image that can be read" if start else "the file is empty"


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        problem = f"the file cannot be written: {error.strerror or error}"
        raise DataError(problem, where=target.name, remedy="make room on the disk") from error
