"""The annotation files in a folder, read without trusting them, and their fields checked.

Errors name a file by its path in the folder.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

from pipeline.data.images import file_names
from pipeline.errors import DataError, MissingError, did_you_mean

_HEAD = 1 << 16  # bytes
_XML_ROOT = re.compile(rb"<([A-Za-z_][\w.:-]*)[\s/>]")


Candidates = Iterable[tuple[str, str]]  # files, and why each is not of a format; empty where it is


@dataclass(frozen=True)
class AnnotationFiles:
    """Files in a folder, hidden ones excluded."""

    folder: Path
    names: tuple[str, ...]  # sorted POSIX paths relative to it
    named: bool = False  # whether the user named the format, so that weak evidence for it is enough

    @classmethod
    def of(cls, folder: Path, *, named: bool = False) -> AnnotationFiles:
        """List the files in a folder and its subfolders."""
        return cls(folder, tuple(file_names(folder)), named)

    def ending(self, *suffixes: str) -> tuple[str, ...]:
        """The files with one of these suffixes, given in lower case."""
        return tuple(name for name in self.names if name.lower().endswith(suffixes))

    def only(self, member: str) -> AnnotationFiles:
        """One file, by its path or the end of it, and the files of other kinds that belong to it."""
        wanted = member.strip("/").removeprefix("./")
        found = [name for name in self.names if name == wanted]
        found = found or [name for name in self.names if name.endswith(f"/{wanted}")]
        # Unpacking may have removed an archive's top folder from the files' paths, but not from the member's.
        found = found or [name for name in self.names if wanted.endswith(f"/{name}")]
        if len(found) != 1:
            problem = f"{len(found)} annotation files match" if found else "there is no annotation file"
            remedy = f"name one file, such as {', '.join(found[:3])}"
            if not found:
                remedy = did_you_mean(wanted, self.names, otherwise="check the folder", most=3, cutoff=0.4)
            raise MissingError(f"{problem} '{member}'", where=self.folder, remedy=remedy)
        beside: set[str] = set()
        if found[0].lower().endswith((".yaml", ".yml")):
            beside = set(self.names).difference(self.ending(".yaml", ".yml"))
        elif found[0].lower().endswith(".csv"):
            beside = {each for each in self.names if "class-descriptions" in each}
        return AnnotationFiles(self.folder, tuple(sorted({*found, *beside})), self.named)

    def xml_candidates(self, outermost: str) -> Candidates:
        """The XML files, which should have this outermost element."""
        for name in self.ending(".xml"):
            root = self.xml_root(name)
            yield name, "" if root == outermost else f"{name} has {f'<{root}>' if root else 'nothing'} outermost"

    def summary(self) -> str:
        """How many files of each suffix there are, for a message."""
        counts = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in self.names)
        return ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "no files at all"

    def head(self, name: str) -> str:
        """The first 64 KiB as text."""
        with (self.folder / name).open("rb") as file:
            return file.read(_HEAD).decode("utf-8-sig", "replace")

    def has_json_keys(self, name: str, *keys: str) -> bool:
        """Whether a JSON file contains each of these strings; it is searched, which is much faster than parsing."""
        with (self.folder / name).open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return all(content.find(f'"{key}"'.encode()) >= 0 for key in keys)

    def text(self, name: str) -> str:
        """The content of a file in UTF-8, with or without a byte order mark; a `DataError` if it is not UTF-8."""
        try:
            return (self.folder / name).read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            problem = f"the file is not UTF-8 text: byte {error.start} cannot be read"
            raise DataError(problem, where=name, remedy="save it as UTF-8") from error

    def json(self, name: str) -> Any:
        """The content of a JSON file; a `DataError` if it is not JSON, or nested too deep."""
        text = self.text(name)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"the file is not JSON: {error}", where=name, remedy="get the whole file again") from error

    def xml(self, name: str) -> Element:
        """The root of an XML file. Entities are refused: they can take up all memory, or read other files."""
        try:
            root: Element = fromstring((self.folder / name).read_bytes())
        except DefusedXmlException as error:
            problem = "the XML file declares entities, which annotations do not need"
            raise DataError(problem, where=name, expected="XML without a document type") from error
        except (ParseError, ValueError, LookupError) as error:
            raise DataError(f"the file is not XML: {error}", where=name, remedy="get the whole file again") from error
        return root

    def xml_root(self, name: str) -> str:
        """The name of an XML file's outermost element, by its first bytes; empty where there is none."""
        with (self.folder / name).open("rb") as file:
            found = _XML_ROOT.search(file.read(_HEAD))
        return found[1].decode() if found else ""


def claim(claims: dict[str, str], image: str, file: str) -> None:
    """Record which annotation file an image has; a `DataError` if it has another one already."""
    other = claims.setdefault(image, file)
    if other != file:
        problem = f"two annotation files are for one image, {image}: {other} and {file}"
        raise DataError(problem, remedy="remove the outdated one, or the one whose own image is absent")


def number(value: Any, what: str, where: str) -> float:
    """A number, given as one or as text; else a `DataError`. NaN and infinity pass, for validation to report."""
    if value.__class__ in (float, int, str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise _unexpected(value, what, "a number", where)


def whole(value: Any, what: str, where: str) -> int:
    """A whole number, such as `640`, or `640.0` from tools that write all numbers alike; else a `DataError`."""
    found = number(value, what, where)
    if math.isfinite(found) and found.is_integer():
        return int(found)
    raise _unexpected(value, what, "a whole number", where)


def label(value: Any, where: str) -> str:
    """The name of a class, without spaces around it; a `DataError` if it is no text, empty, or not encodable."""
    if isinstance(value, str) and value.strip() and is_encodable(value):
        return value.strip()
    raise _unexpected(value, "the class", "a name", where)


def is_encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8: JSON and YAML can hold lone surrogates."""
    return not re.search("[\ud800-\udfff]", text)


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def shown(value: Any) -> str:
    """A value for a message: short, however long it is."""
    for kind, text in ((dict, "an object"), (list, "a list"), (type(None), "absent")):
        if isinstance(value, kind):
            return text
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _unexpected(value: Any, what: str, expected: str, where: str) -> DataError:
    problem = f"{what} is {shown(value)} where {expected} was expected"
    return DataError(problem, where=where, remedy="correct the file")
