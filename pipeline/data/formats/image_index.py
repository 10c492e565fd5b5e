"""The images of a source, looked up by the names that annotations use for them.

All names are those of the *source*: where an image was converted or renamed (`a.tif` became `a.tif.png`), annotations
and this index name `a.tif`, and the caller renames afterwards.

Names are compared from their end, folder by folder: see `written_names`. `image_pairing` decides for a whole data set
which matches hold.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from PIL.Image import DecompressionBombError

from pipeline.data.coco import unsafe_name
from pipeline.data.formats.scalars import is_encodable
from pipeline.data.formats.written_names import (
    Key,
    WrittenName,
    WrittenPath,
    comparable,
    counts,
    key,
    parent,
    stem,
)
from pipeline.data.images import UNREADABLE, upright_size
from pipeline.data.parsed import class_folders, subset_named, subset_of
from pipeline.errors import DataError

_LEVELS = ((False, False), (False, True)), ((True, False), (True, True))  # without suffixes, without case
_DERIVED = re.compile(r"visuali[sz]ations?$|^segmentation(class|object)|^panoptic|^masks?$", re.IGNORECASE)
_NAME_FOLDERS = "name images with their folders in the annotations"

_Table = Mapping[Key, list[str]]


@dataclass(frozen=True, slots=True)
class Match:
    """An image that a name may mean."""

    image: str
    identity: Key  # the name in comparable form
    agreeing: int  # how many folders agree
    exact: bool  # whether the path is the one that is written
    elsewhere: bool  # whether folders within the source differ
    in_place: bool  # whether folders agree that lead to the source, and are not part of the images' names
    out_of_place: bool  # whether these differ
    of_the_place: bool | None  # whether the annotation's part of the data is that folder; None where it names none


class ImageIndex:
    """The images of a source, from the names of files in a folder.

    `renamed` has the names of converted ones there, and `place` the folders that lead to them, as far as known.
    """

    def __init__(
        self, folder: Path, names: Iterable[str], renamed: Mapping[str, str] | None = None, place: str = ""
    ) -> None:
        self.folder = folder
        self._renamed = dict(renamed or {})
        self._place = place
        source = {new: old for old, new in self._renamed.items()}
        named = {source.get(name, name) for name in names}
        self.derived = _derived(named)  # pictures of annotations, which are no images of the data set
        self.names = frozenset(named) - self.derived
        self.unreadable: list[str] = []  # images whose size was asked for, and whose header could not be read
        self._subset_of: dict[str, str] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._tables: dict[tuple[bool, bool], tuple[_Table, _Table]] = {}

    def match(self, name: WrittenName, *, anywhere: bool = True) -> Match | None:
        r"""The image that an annotation means, or None where it does not exist.

        Tried in this order: in the folder of the annotation file, or one that goes with it (`labels/train/a.json` means
        `images/train/a.jpg`); as written; with leading folders added, or removed. Then the same ignoring case, and,
        where the name has no image's suffix, ignoring the images' suffixes. Backslashes are slashes, and Unicode's
        composed and decomposed letters are the same. Paths from other machines (`C:\data\a.jpg`, `../../a.jpg`) are
        found by their end, and so are, with `anywhere`, images of files with one image each.

        Several images that fit equally are a `DataError`.
        """
        path = WrittenPath(name)
        if not path.parts:
            return None
        for without_suffix, fold in _LEVELS[0] if path.has_suffix else _LEVELS[1] + _LEVELS[0]:
            folders, inside = path.keys(fold=fold)
            written = folders + inside
            free = len(folders) if not name.own else 0  # how many folders the images' names may lack
            free = len(written) if path.foreign or (name.own and anywhere) else free
            whole, ending = self._table(fold=fold, without_suffix=without_suffix)
            for i in range(len(written)):
                for table in (whole, ending) if i <= free else (whole,):
                    if found := self._of_the_part(table.get(written[i:], []), name):
                        used = 0 if name.own else min(i, len(folders))
                        return self._compared(self._the_one(found, name, path), name, path, written[used:])
        exact = min(path.exact & self.names, default="")  # of another part, as far as the annotation file's name tells
        folders, inside = path.keys(fold=True)
        used_key = folders + inside if exact == path.beside else inside
        return self._compared(exact, name, path, used_key) if exact else None

    def resolve(self, path: str, beside: str = "") -> str | None:
        """The image that a name means on its own, or None where it does not exist; see `match`."""
        found = self.match(WrittenName(path, beside))
        return found.image if found else None

    def has_stem(self, file: str) -> bool:
        """Whether an image has the name of a file, but for folders and suffixes."""
        return PurePosixPath(file).stem in self._stems

    def within(self, path: str) -> list[str]:
        """The images in a folder and its subfolders; none where there is no such folder.

        Leading folders of the path may be missing, or be those of another machine.
        """
        parts = WrittenPath(WrittenName(path)).parts
        if not parts:
            return self._sorted
        for i in range(len(parts)):
            tail = "/".join(parts[i:])
            if self.subset_of(tail) != self.subset_of(path):
                break  # `test/images` must not match `images`
            subset = self.subset_of(path)
            ending = [each for each in self._folders if each.endswith(f"/{tail}") and self._may_be_of(each, subset)]
            found = [tail] if tail in self._folders else ending
            if len(found) == 1:
                return [each for each in self._sorted if each.startswith(f"{found[0]}/")]
        return []

    def subset_of(self, path: str) -> str:
        """The subset that a path names; folders of classes called `train` or `test` do not count."""
        if path not in self._subset_of:
            self._subset_of[path] = subset_of(path, self._class_folders)
        return self._subset_of[path]

    def name_when_absent(self, name: WrittenName, where: str) -> str:
        """The annotation's own name for an image that does not exist, which is never that of another image.

        It includes the folders of a file of its own. One that leads out of the folder is a `DataError`.
        """
        path = WrittenPath(name)
        if path.outside or unsafe_name(path.plain) or not is_encodable(name.path):
            problem = f"the image's name is not a path within the images folder: {name.path[:200]!r}"
            raise DataError(problem, where=where, remedy="correct the name")
        folders = path.folders if name.own and not path.foreign else ()
        own = "/".join((*filter(counts, folders), path.plain))
        if own in self.names:  # it is the image of this name in another part of the data
            own = f"{name.part or '/'.join(path.folders) or name.file}/{own}"
        if own in self.names or unsafe_name(own):
            problem = f"'{name.path}' may be the image of that name, or one that is absent"
            raise DataError(problem, where=where, remedy=_NAME_FOLDERS)
        return own

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

    def _may_be_of(self, folder: str, subset: str) -> bool:
        """Whether a folder is of no other subset: `labels/train` means no image in `images/val`."""
        return not subset or self.subset_of(folder) in {"", subset}

    def _of_the_part(self, found: list[str], name: WrittenName) -> list[str]:
        """Those of the images that are in no other part of the data than the name."""
        by_file = self.subset_of(name.file)
        by_file = by_file if by_file in self._subsets else ""
        subset = self.subset_of(parent(name.path)) or subset_named(name.part) or self.subset_of(name.beside) or by_file
        found = [each for each in found if self._may_be_of(parent(each), subset)]
        words = comparable(name.file, fold=True).split("_")
        parts = {comparable(name.part, fold=True), *("_".join(words[i:]) for i in range(len(words)))}
        for folder in parts & self._folder_names:
            found = [each for each in found if folder in comparable(each, fold=True).split("/")[:-1]]
        return found

    def _the_one(self, found: list[str], name: WrittenName, path: WrittenPath) -> str:
        """The one of several images that fits best; a `DataError` if several do."""
        if len(found) == 1:
            return found[0]
        near = {*path.folders, *path.parts[:-1]}

        def rank(image: str) -> tuple[bool, bool, int, bool]:
            folders = image.split("/")[:-1]
            at = {str(PurePosixPath(image).with_suffix("")), image}
            is_images = any("image" in each.lower() or "img" in each.lower() for each in folders)
            return path.beside in at, path.plain in at, len(near.intersection(folders)), is_images

        ranks = {image: rank(image) for image in found}
        best = [image for image in found if ranks[image] == max(ranks.values())]
        if len(best) == 1:
            return best[0]
        problem = f"{len(found)} images match '{name.path}': {', '.join(best[:3])}{', …' if len(best) > 3 else ''}"
        raise DataError(problem, where="/".join(path.folders), remedy=_NAME_FOLDERS)

    def _compared(self, image: str, name: WrittenName, path: WrittenPath, used: Key) -> Match:
        own = key(image, fold=True)[:-1]
        there = self._place_key(fold=True) + own
        *folders, last = (each.casefold() for each in used)
        both = min(len(there), len(folders))
        agree = next((i for i in range(both) if there[-1 - i] != folders[-1 - i]), both)
        return Match(
            image,
            (*folders, stem(last)),
            agree,
            image in path.exact,
            elsewhere=agree < min(both, len(own)),
            in_place=agree > len(own),
            out_of_place=agree == len(own) < both,
            of_the_place=None if own or name.own else self._is_of_the_place(name),
        )

    def _is_of_the_place(self, name: WrittenName) -> bool | None:
        """Whether the part that an annotation names is the folder that leads to the source, such as `train`."""
        beside = key(f"{name.beside}/", fold=True)[:-1]
        words = comparable(name.part, fold=True), *beside[-1:]
        parts = {subset_of(name.file), *words, *map(subset_named, words)} - {""}
        place = self._place_key(fold=True)[-1:]
        return not parts.isdisjoint((*place, *map(subset_named, place))) if parts else None

    def _table(self, *, fold: bool, without_suffix: bool) -> tuple[_Table, _Table]:
        """Images by what counts of their path, and by each ending of it."""
        if (fold, without_suffix) not in self._tables:
            whole, ending = defaultdict[Key, list[str]](list), defaultdict[Key, list[str]](list)
            place = self._place_key(fold=fold)
            for name in self._sorted:
                own = key(name, fold=fold)
                if without_suffix:
                    own = (*own[:-1], PurePosixPath(own[-1]).stem)
                whole[own].append(name)
                for i in range(len(place + own)):
                    ending[(place + own)[i:]].append(name)
            self._tables[fold, without_suffix] = whole, ending
        return self._tables[fold, without_suffix]

    def _place_key(self, *, fold: bool) -> Key:
        """The folders that lead to the source, as far as they count."""
        return key(f"{self._place}/", fold=fold)[:-1]

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.names)

    @cached_property
    def _stems(self) -> frozenset[str]:
        return frozenset(PurePosixPath(name).stem for name in self.names)

    @cached_property
    def _class_folders(self) -> frozenset[str]:
        return class_folders(self.names)

    @cached_property
    def _folders(self) -> frozenset[str]:
        return frozenset(each.as_posix() for name in self.names for each in PurePosixPath(name).parents if each.name)

    @cached_property
    def _folder_names(self) -> frozenset[str]:
        """The folders that may name a part of the data."""
        names = {part for each in self._folders for part in comparable(each, fold=True).split("/")}
        return frozenset(filter(counts, names))

    @cached_property
    def _subsets(self) -> frozenset[str]:
        return frozenset(map(self.subset_of, self._folders))


def _derived(names: Iterable[str]) -> frozenset[str]:
    """Images in folders of visualisations and masks, where images of the same names are elsewhere."""
    found, others = set[str](), set[str]()
    for name in names:
        folders = PurePosixPath(name).parts[:-1]
        (found if any(map(_DERIVED.search, folders)) else others).add(name)
    stems = {PurePosixPath(name).stem for name in others}
    return frozenset(name for name in found if PurePosixPath(name).stem in stems)
