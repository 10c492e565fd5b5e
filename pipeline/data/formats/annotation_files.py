"""The annotation files in a folder, read without trusting them, and their fields checked.

Errors name a file by its path in the folder.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

from pipeline.data.formats.scalars import Faults
from pipeline.data.images import file_names
from pipeline.data.json_keys import has_json_keys
from pipeline.errors import DataError, MissingError, did_you_mean

_HEAD = 1 << 16  # bytes
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_XML_ENCODING = re.compile(rb"""\s*<\?xml\b[^>]*?\bencoding\s*=\s*["']([A-Za-z][\w.:-]*)["']""")
_CLASS_IDS = re.compile(r"(?:\w*name\w*,\w*name\w*\s+)?/[a-z]/\w+,[^\n]*(?:\n|$)(?!.*,.*,.*,.*,.*,)", re.IGNORECASE)
_XML_ROOT = re.compile(r"<([A-Za-z_][\w.:-]*)[\s/>]")


Candidates = Iterable[tuple[str, str]]  # files, and why each is not of a format; empty where it is


@dataclass(frozen=True)
class AnnotationFiles:
    """Files in a folder, hidden ones excluded."""

    folder: Path
    names: tuple[str, ...]  # sorted POSIX paths relative to it
    named: bool = False  # whether the user named the format, so that weak evidence for it is enough
    pair_by: str = ""  # what names the images of files of their own, where the user says so: see `image_pairing`
    faults: Faults = field(default_factory=Faults)  # of the records read so far
    left_out: Counter[str] = field(default_factory=Counter)  # boxes of no known image, by reason
    notes: list[str] = field(default_factory=list)  # what the user should know of the reading, a sentence each

    @classmethod
    def of(cls, folder: Path, *, named: bool = False, pair_by: str = "") -> AnnotationFiles:
        """List the files in a folder and its subfolders."""
        return cls(folder, tuple(file_names(folder)), named, pair_by)

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
            beside = set(self.class_descriptions())
        return replace(self, names=tuple(sorted({*found, *beside})))

    def class_descriptions(self) -> tuple[str, ...]:
        """The tables that give names for the machine ids, such as `/m/01g317`, of Open Images' classes."""
        return tuple(name for name in self.ending(".csv") if _CLASS_IDS.match(self.head(name)))

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
            data = file.read(_HEAD)
        return data.decode(_encoding(data), "replace")

    def has_json_keys(self, name: str, *keys: str) -> bool:
        """Whether a JSON file has each of these keys somewhere."""
        return has_json_keys(self.folder / name, *keys)

    def text(self, name: str) -> str:
        """The content of a file in UTF-8, or in what its byte order mark says; a `DataError` if it is neither."""
        data = (self.folder / name).read_bytes()
        encoding = _encoding(data)
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            problem = f"the file is not {encoding.removesuffix('-sig').upper()} text: byte {error.start} cannot be read"
            remedy = f"save it as UTF-8, such as by: iconv -f GB18030 -t UTF-8 {PurePosixPath(name).name} > new"
            raise DataError(problem, where=name, remedy=remedy) from error

    def json(self, name: str) -> Any:
        """The content of a JSON file; a `DataError` if it is not JSON, or nested too deep."""
        text = self.text(name)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"the file is not JSON: {error}", where=name, remedy="get the whole file again") from error

    def xml(self, name: str) -> Element:
        """The root of an XML file. Entities are refused: they can take up all memory, or read other files."""
        data = (self.folder / name).read_bytes()
        try:
            root: Element = fromstring(_decoded_xml(data))
        except DefusedXmlException as error:
            problem = "the XML file declares entities, which annotations do not need"
            raise DataError(problem, where=name, expected="XML without a document type") from error
        except (ParseError, ValueError, LookupError) as error:
            declared = _XML_ENCODING.match(data)
            if not declared or declared[1].lower().startswith(b"utf"):
                self.text(name)  # says what to do about another encoding
            remedy = "get the whole file again"
            if isinstance(error, UnicodeError | LookupError):
                remedy = "correct the encoding that its first line declares"
            raise DataError(f"the file is not XML: {error}", where=name, remedy=remedy) from error
        return root

    def xml_documents(self, outermost: str) -> Iterator[tuple[str, Element]]:
        """The XML files with this outermost element; a file without any is a fault."""
        others: list[str] = []
        for name in self.ending(".xml"):
            if self.xml_root(name) not in {"", outermost}:
                others.append(name)
                continue
            root: Element | None = None
            with self.faults.of():
                root = self.xml(name)
            if root is not None and root.tag == outermost:
                yield name, root
        if others:
            self.notes.append(f"left out: {len(others)} XML files without <{outermost}> outermost, such as {others[0]}")

    def xml_root(self, name: str) -> str:
        """The name of an XML file's outermost element, by its first bytes; empty where there is none."""
        found = _XML_ROOT.search(self.head(name))
        return found[1] if found else ""


def _encoding(data: bytes) -> str:
    """The encoding that a text's byte order mark tells, or UTF-8."""
    return next((each for mark, each in _MARKS.items() if data.startswith(mark)), "utf-8")


def _decoded_xml(data: bytes) -> bytes | str:
    """The content of an XML file; as text where its declaration names an encoding that the parser does not know."""
    found = _XML_ENCODING.match(data)
    encoding = found[1].decode("ascii", "replace").lower() if found else ""
    if not found or encoding.startswith(("utf", "us-ascii", "ascii", "iso-8859-1")):
        return data
    # GB18030 holds all of GB2312 and GBK, of which writers take each for the other
    wide = "gb18030" if encoding in {"gb2312", "gbk", "cp936"} else encoding
    return data[: found.start(1)].decode("ascii") + "utf-8" + data[found.end(1) :].decode(wide)
