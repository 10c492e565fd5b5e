"""The names of images as annotations write them, in a form in which they can be compared.

Backslashes are slashes, and Unicode's composed and decomposed letters are the same. Folders that only say what kind of
files they hold, such as `images` and `labels`, do not count.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.data.image_names import safe_name
from pipeline.data.images import IMAGE_SUFFIXES

_SUFFIXES = IMAGE_SUFFIXES | {".heic", ".heif"}  # which no image here has, but annotations of converted ones may
_PLACES = frozenset(
    {"images", "image", "imgs", "img", "jpegimages", "labels", "label", "labeltxt", "annotations", "annotation"}
    | {"ann", "anns", "xml", "xmls", "json", "jsons", "txt", "data", "obj_train_data", "obj_valid_data"}
)

Key = tuple[str, ...]  # folders that count, and the file name


@dataclass(frozen=True, slots=True)
class WrittenName:
    """The name of an image in an annotation.

    `beside` is the folder of the annotation file, `file` its name without suffix where that may name a part of the
    data, and `part` the part as the annotation names it. The folder of a file that is `own`, with one image, counts as
    if it were written.
    """

    path: str
    beside: str = ""
    part: str = ""
    file: str = ""
    own: bool = False


class WrittenPath:
    """The path in a name, without what only means something on the machine that wrote it."""

    def __init__(self, name: WrittenName) -> None:
        plain = name.path.replace("\\", "/")
        local = re.sub(r"^(file:/)?/*([A-Za-z]:)?/+", "", plain)
        self.parts: list[str] = []
        self.folders = [part for part in name.beside.split("/") if part not in {"", "."}]  # that it is relative to
        self.outside = False  # whether it leads out of the annotations' folder
        for part in local.split("/"):
            if part == "..":
                above = self.parts or self.folders
                self.outside |= not above
                del above[-1:]
            elif part not in {"", "."}:
                self.parts.append(part)
        self.foreign = self.outside or local != plain  # of another machine, so that only its end may match
        self.plain = "/".join(self.parts)
        self.beside = "/".join((*self.folders, *self.parts))
        self.exact = {self.beside} if name.own else {self.plain, self.beside}

    @property
    def has_suffix(self) -> bool:
        """Whether the name has an image's suffix."""
        return PurePosixPath(self.plain).suffix.lower() in _SUFFIXES

    def keys(self, *, fold: bool) -> tuple[Key, Key]:
        """The folders of the annotation file that count; those of the name that count, and the file name."""
        return key("/".join((*self.folders, "")), fold=fold)[:-1], key(self.plain, fold=fold)


def key(path: str, *, fold: bool) -> Key:
    """The folders of a path that count, and its last part."""
    *folders, last = comparable(path, fold=fold).split("/")
    return (*filter(counts, folders), last)


def comparable(path: str, *, fold: bool) -> str:
    """A path as it is compared: files may have been stored under a safe name, which has `%5C` for a backslash."""
    composed = unicodedata.normalize("NFC", safe_name(path.replace("\\", "/").replace("%5C", "/")))
    return composed.casefold() if fold else composed


def stem(name: str) -> str:
    """A file name without an image's suffix, in lower case."""
    path = PurePosixPath(name.casefold())
    return path.stem if path.suffix in _SUFFIXES else path.name


def counts(folder: str) -> bool:
    """Whether a folder tells images apart."""
    return folder not in {"", "."} and folder.lower() not in _PLACES


def parent(path: str) -> str:
    """The folder of a path."""
    return path.replace("\\", "/").rpartition("/")[0]
