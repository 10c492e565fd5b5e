"""The images of a source, found by the names that annotations use for them.

All names are those of the *source*: where an image was converted (`a.tif` became `a.tif.png`), annotations and this
index name `a.tif`, and the caller renames afterwards.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from PIL.Image import DecompressionBombError

from pipeline.data.coco import unsafe_name
from pipeline.data.formats.annotation_files import is_encodable, whole
from pipeline.data.images import IMAGE_SUFFIXES, UNREADABLE, upright_size
from pipeline.data.parsed import class_folders, subset_of
from pipeline.errors import DataError

_SUFFIXES = IMAGE_SUFFIXES | {".heic", ".heif"}  # which no image here has, but annotations of converted ones may
_MANY = 20  # images of one name, such as frames of many clips, from which each look-up compares only some


class _WrittenPath:
    """A path from an annotation in a folder `beside`; backslashes are slashes."""

    def __init__(self, path: str, beside: str = "") -> None:
        plain = path.replace("\\", "/")
        local = re.sub(r"^(file:/)?/*([A-Za-z]:)?/+|^[A-Za-z]:", "", plain)
        self.parts: list[str] = []  # without what only means something on the machine that wrote it
        self.folders = [part for part in beside.split("/") if part not in {"", "."}]  # that it is relative to
        self.outside = False  # whether it leads out of the annotations' folder
        for part in local.split("/"):
            if part == "..":
                above = self.parts or self.folders
                self.outside |= not above
                del above[-1:]
            elif part not in {"", "."}:
                self.parts.append(part)
        self.foreign = self.outside or local != plain  # of another machine, so that only its end may match


class ImageIndex:
    """The images of a source, from the names of files in a folder; `renamed` has the names of converted ones there."""

    def __init__(self, folder: Path, names: Iterable[str], renamed: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._renamed = dict(renamed or {})
        source = {new: old for old, new in self._renamed.items()}
        self.names = frozenset(source.get(name, name) for name in names)
        self.unreadable: list[str] = []  # images whose size was asked for, and whose header could not be read
        self._sizes: dict[str, tuple[int, int]] = {}
        self._tables: dict[tuple[bool, bool], dict[str, list[str]]] = {}

    def resolve(self, name: str, beside: str = "") -> str | None:
        r"""The image that an annotation means, or None where it does not exist.

        Tried in this order: in the folder of the annotation file; in folders of that name elsewhere
        (`labels/train/a.json` means `images/train/a.jpg`); as written; with leading folders added, or removed. Then the
        same ignoring case, and, where the name has no image's suffix, ignoring the images' suffixes. Backslashes are
        slashes. Paths from other machines (`C:\data\a.jpg`, `../../a.jpg`) are found by their end.

        `beside` is the annotation file's folder, relative to its root. Several images that fit are a `DataError`.
        """
        path = _WrittenPath(name, beside)
        if not path.parts:
            return None
        has_suffix = PurePosixPath(path.parts[-1]).suffix.lower() in _SUFFIXES
        for stems, fold in ((False, False), (False, True), (True, False), (True, True))[: 2 if has_suffix else 4]:
            found = _find(self._table(fold=fold, stems=stems), path, fold=fold)
            if len(path.parts) == 1:
                found = [each for each in found if self._may_be_of(each.rpartition("/")[0], beside)]
            if found:
                return _the_one(found, name, path.folders)
        return None

    def in_folder(self, stem: str, folder: str) -> str | None:
        """The image of a name without suffix in a folder, or in the one folder whose path ends so."""
        found = _ending_in(self._table(stems=True), f"{folder}/{stem}")
        return _the_one(found, stem, folder.split("/")) if found else None

    def within(self, path: str) -> list[str]:
        """The images in a folder and its subfolders; none where there is no such folder.

        Leading folders of the path may be missing, or be those of another machine.
        """
        parts = _WrittenPath(path).parts
        if not parts:
            return self._sorted
        for tail in _endings("/".join(parts)):
            if self.subset_of(tail) != self.subset_of(path):
                break  # `test/images` must not match `images`
            ending = [each for each in self._folders if each.endswith(f"/{tail}") and self._may_be_of(each, path)]
            found = [tail] if tail in self._folders else ending
            if len(found) == 1:
                return [each for each in self._sorted if each.startswith(f"{found[0]}/")]
        return []

    def subset_of(self, path: str) -> str:
        """The subset that a path names; folders of classes called `train` or `test` do not count."""
        return subset_of(path, self._class_folders)

    def name_of(self, name: str, where: str, beside: str = "") -> str:
        """The image that an annotation means, or the annotation's own name for it where it does not exist."""
        found = self.resolve(name, beside)
        if found is not None:
            return found
        path = _WrittenPath(name, beside)
        plain = "/".join(path.parts)
        if path.outside or unsafe_name(plain) or not is_encodable(name):
            problem = f"the image's name is not a path within the images folder: {name[:200]!r}"
            raise DataError(problem, where=where, remedy="correct the name")
        return plain

    def image_of(self, file: str, named: str) -> str:
        """The image of an annotation file: that named in it, or else that of the file's own name, as by `name_of`."""
        beside, own = PurePosixPath(file).parent.as_posix(), PurePosixPath(file).stem
        return self.resolve(named, beside) or self.resolve(own, beside) or self.name_of(named or own, file, beside)

    def size(self, name: str) -> tuple[int, int]:
        """Width and height of the upright image in pixels, from the file's header.

        `(0, 0)` where the image is absent or its header broken: validation drops such an image.
        """
        if name not in self._sizes:
            self._sizes[name] = 0, 0
            try:
                if name in self.names:
                    self._sizes[name] = upright_size(self.folder / self._renamed.get(name, name))
            except (*UNREADABLE, DecompressionBombError):
                self.unreadable.append(name)
        return self._sizes[name]

    def declared_size(self, name: str, width: Any, height: Any, where: str) -> tuple[int, int]:
        """An image's size as its annotation declares it; the file's where a side is absent, empty or 0."""
        if not width or not height:
            return self.size(name)
        size = whole(width, "the image's width", where), whole(height, "the image's height", where)
        if min(size) < 0:
            raise DataError(f"the image's size is {size[0]}x{size[1]}", where=where, remedy="correct the file")
        return size if all(size) else self.size(name)

    def _may_be_of(self, folder: str, path: str) -> bool:
        """Whether a folder is of no other subset than a path: `labels/train` means no image in `images/val`."""
        subset = self.subset_of(path)
        return not subset or self.subset_of(folder) in {"", subset}

    def _table(self, *, fold: bool = False, stems: bool = False) -> dict[str, list[str]]:
        """Images by their path after a slash, by each ending of it, and by each folder, two slashes and their name.

        So a look-up takes as many steps as a path has folders.
        """
        if (fold, stems) not in self._tables:
            table: dict[str, list[str]] = defaultdict(list)
            for name in self._sorted:
                path = name.casefold() if fold else name
                path = PurePosixPath(path).with_suffix("").as_posix() if stems else path
                last = path.rpartition("/")[2]
                for key in (f"/{path}", *_endings(path), *(f"{each}//{last}" for each in set(name.split("/")[:-1]))):
                    table[key].append(name)
            self._tables[fold, stems] = table
        return self._tables[fold, stems]

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.names)

    @cached_property
    def _class_folders(self) -> frozenset[str]:
        return class_folders(self.names)

    @cached_property
    def _folders(self) -> frozenset[str]:
        return frozenset(each.as_posix() for name in self.names for each in PurePosixPath(name).parents if each.name)


def _ending_in(table: Mapping[str, list[str]], tail: str) -> list[str]:
    """The images of that path, or else those whose path ends in it."""
    return table.get(f"/{tail}") or table.get(tail) or []


def _find(table: Mapping[str, list[str]], path: _WrittenPath, *, fold: bool) -> list[str]:
    """The images a path may mean: beside its annotation file, as written, with folders added, or removed."""
    written = "/".join((*path.folders, *path.parts))
    for i, tail in enumerate(_endings(written.casefold() if fold else written)):
        shortened = i > len(path.folders) and not path.foreign
        found = table.get(f"/{tail}", []) if shortened else _ending_in(table, tail)
        if len(found) > _MANY:
            groups = [table.get(f"{each}//{tail.rpartition('/')[2]}", []) for each in path.folders]
            near = min(filter(None, groups), key=len, default=found)
            found = [each for each in near if each in found] or found
        if found:
            return found
    return []


def _endings(path: str) -> list[str]:
    """`a/b/c`, `b/c`, `c`."""
    parts = path.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


def _the_one(found: list[str], name: str, folders: list[str]) -> str:
    """Of several images, the one that shares most folders with the annotation file."""
    if len(found) == 1:
        return found[0]
    near = set(folders)
    shared = [len(near.intersection(each.split("/")[:-1])) for each in found]
    best = [each for each, count in zip(found, shared, strict=True) if count == max(shared)]
    if len(best) == 1:
        return best[0]
    problem = f"{len(found)} images match '{name}': {', '.join(best[:3])}{', …' if len(best) > 3 else ''}"
    raise DataError(problem, where="/".join(folders), remedy="name images with their folders in the annotations")
