"""The annotation files in a folder, opened without trusting them; errors name a file by its path in the folder."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

from pipeline.errors import DataError, MissingError

_HEAD = 1 << 16
_XML_ROOT = re.compile(rb"<([A-Za-z_][\w.:-]*)[\s/>]")


@dataclass(frozen=True, slots=True)
class Recognition:
    """Whether a format found itself: the first file that is of it, or why what comes near it is not."""

    found: str = ""
    why_not: str = ""


def claim(claims: dict[str, str], image: str, file: str) -> None:
    """Note that an annotation file is of an image, of which no other one may be.

    Raises:
        DataError: Another one is.
    """
    other = claims.setdefault(image, file)
    if other != file:
        raise DataError(
            f"Two annotation files are of one image, {image}: {other} and {file}",
            expected="one for each image",
            remedy="remove the one that is out of date, or the one whose own image is absent",
        )


@dataclass(frozen=True)
class AnnotationFiles:
    """Files in a folder, as sorted POSIX paths relative to it; hidden ones are none of them.

    Attributes:
        folder: Where they lie.
        names: Their paths.
        named: Whether the caller named the format, so that weak evidence for it is enough.
    """

    folder: Path
    names: tuple[str, ...]
    named: bool = False

    @classmethod
    def of(cls, folder: Path, *, named: bool = False) -> AnnotationFiles:
        """The files in a folder and in its folders."""
        names = []
        for root, folders, files in os.walk(folder):
            folders[:] = [each for each in folders if not each.startswith(".") and each != "__MACOSX"]
            inside = Path(root).relative_to(folder)
            names += [(inside / each).as_posix() for each in files if not each.startswith(".")]
        return cls(folder, tuple(sorted(names)), named)

    def ending(self, *suffixes: str) -> tuple[str, ...]:
        """Those with one of the suffixes, given in lower case."""
        return tuple(name for name in self.names if name.lower().endswith(suffixes))

    def only(self, member: str) -> AnnotationFiles:
        """The one file that a member's name means, and those of other kinds that go with it.

        Args:
            member: A path, or the end of one that no other file has.

        Raises:
            MissingError: No file is meant, or several are; names them or the nearest.
        """
        name = self._meant(member)
        suffix = PurePosixPath(name).suffix.lower()
        beside: Iterable[str] = ()
        if suffix in {".yaml", ".yml"}:
            beside = (each for each in self.names if PurePosixPath(each).suffix.lower() not in {".yaml", ".yml"})
        elif suffix == ".csv":
            beside = (each for each in self.names if "class-descriptions" in each)
        return AnnotationFiles(self.folder, tuple(sorted({name, *beside})), self.named)

    def _meant(self, member: str) -> str:
        wanted = member.strip("/").removeprefix("./")
        if wanted in self.names:
            return wanted
        ending = [name for name in self.names if name.endswith(f"/{wanted}")]
        # The folder at the top of an archive may have been taken away from the files, but not from the member's name.
        ending = ending or [name for name in self.names if wanted.endswith(f"/{name}")]
        if len(ending) == 1:
            return ending[0]
        same = [name for name in self.names if PurePosixPath(name).name == PurePosixPath(wanted).name]
        kind = [name for name in self.names if PurePosixPath(name).suffix == PurePosixPath(wanted).suffix]
        near = (ending or same or get_close_matches(wanted, self.names, 3, 0.4) or kind)[:3]
        problem = f"{len(ending)} annotation files are meant by" if ending else "There is no annotation file"
        there = f"such as {', '.join(near)}" if near else f"none of the {len(self.names)} files is like it"
        raise MissingError(f"{problem} '{member}'", where=self.folder, remedy=f"name the one meant: {there}")

    def summary(self) -> str:
        """How many files of which suffixes there are, for a message."""
        if not self.names:
            return "no files at all"
        counts = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in self.names)
        return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda each: (-each[1], each)))

    def head(self, name: str) -> bytes:
        """The first 64 KiB."""
        with (self.folder / name).open("rb") as file:
            return file.read(_HEAD)

    def has_json_keys(self, name: str, *keys: str) -> bool:
        """Whether each of the texts stands in a JSON file as a string of its own: a scan, much faster than parsing."""
        with (self.folder / name).open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return all(content.find(f'"{key}"'.encode()) >= 0 for key in keys)

    def text(self, name: str) -> str:
        """The content of a text file in UTF-8, with or without a byte order mark.

        Raises:
            DataError: It is not in UTF-8.
        """
        try:
            return (self.folder / name).read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            problem = f"The file is not UTF-8 text: byte {error.start} cannot be read"
            raise DataError(problem, where=name, remedy="save it as UTF-8") from error

    def json(self, name: str) -> Any:
        """The content of a JSON file.

        Raises:
            DataError: It is no JSON, or nested too deep.
        """
        try:
            return json.loads(self.text(name))
        except (ValueError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"The file is not JSON: {error}", where=name, remedy="get it again, whole") from error

    def xml(self, name: str) -> Element:
        """The root of an XML file; entities, which can blow up or read other files, are refused.

        Raises:
            DataError: It is no XML, or declares entities.
        """
        try:
            root: Element = fromstring((self.folder / name).read_bytes())
        except (ParseError, ValueError, LookupError) as error:
            if isinstance(error, DefusedXmlException):
                problem = "The XML file declares entities, which annotations have no need of"
                raise DataError(problem, where=name, expected="XML without a document type") from error
            problem = f"The file is not XML: {error}"
            raise DataError(problem, where=name, remedy="get it again, whole") from error
        return root

    def xml_root(self, name: str) -> str:
        """The name of an XML file's outermost element by its first bytes; empty where there is none."""
        found = _XML_ROOT.search(self.head(name))
        return found[1].decode() if found else ""
