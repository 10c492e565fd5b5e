"""The images of a source, looked up by the names that annotations use for them.

All names are those of the *source*: where an image was converted or renamed (`a.tif` became `a.tif.png`), annotations
and this index name `a.tif`, and the caller renames afterwards.

Names are compared from their end, folder by folder. Folders that only say what kind of files they hold, such as
`images` and `labels`, do not count. `image_pairing` decides for a whole data set which matches hold.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from PIL.Image import DecompressionBombError

from pipeline.data.coco import unsafe_name
from pipeline.data.formats.scalars import is_encodable
from pipeline.data.image_names import safe_name
from pipeline.data.images import IMAGE_SUFFIXES, UNREADABLE, upright_size
from pipeline.data.parsed import class_folders, subset_named, subset_of
from pipeline.errors import DataError

_SUFFIXES = IMAGE_SUFFIXES | {".heic", ".heif"}  # which no image here has, but annotations of converted ones may
_LEVELS = ((False, False), (False, True)), ((True, False), (True, True))  # without suffixes, without case
_PLACES = frozenset(
    {"images", "image", "imgs", "img", "jpegimages", "labels", "label", "labeltxt", "annotations", "annotation"}
    | {"ann", "anns", "xml", "xmls", "json", "jsons", "txt", "data", "obj_train_data", "obj_valid_data"}
)
_DERIVED = re.compile(r"visuali[sz]ations?$|^segmentation(class|object)|^panoptic|^masks?$", re.IGNORECASE)

Path_ = tuple[str, ...]  # folders that count, and the file name


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


@dataclass(frozen=True, slots=True)
class Match:
    """An image that a name may mean."""

    image: str
    identity: Path_  # the name in comparable form
    strength: int  # how many folders agree, and whether the path is exactly the one that is written
    elsewhere: bool  # whether folders within the source differ
    in_place: bool  # whether folders agree that lead to the source, and are not part of the images' names
    out_of_place: bool  # whether these differ


class _Path:
    """A path from an annotation in a folder `beside`; backslashes are slashes."""

    def __init__(self, name: WrittenName) -> None:
        plain = name.path.replace("\\", "/")
        local = re.sub(r"^(file:/)?/*([A-Za-z]:)?/+", "", plain)
        self.parts: list[str] = []  # without what only means something on the machine that wrote it
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

    def counting(self, *, fold: bool) -> tuple[Path_, Path_]:
        """The folders of the annotation file that count; those of the name that count, and the file name."""
        folders = tuple(each for each in _comparable("/".join(self.folders), fold).split("/") if _counts(each))
        *inside, last = _comparable(self.plain, fold).split("/")
        return folders, (*filter(_counts, inside), last)


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
        self._tables: dict[tuple[bool, bool], tuple[dict[Path_, list[str]], dict[Path_, list[str]]]] = {}

    def match(self, name: WrittenName, *, anywhere: bool = True) -> Match | None:
        r"""The image that an annotation means, or None where it does not exist.

        Tried in this order: in the folder of the annotation file, or one that goes with it (`labels/train/a.json` means
        `images/train/a.jpg`); as written; with leading folders added, or removed. Then the same ignoring case, and,
        where the name has no image's suffix, ignoring the images' suffixes. Backslashes are slashes, and Unicode's
        composed and decomposed letters are the same. Paths from other machines (`C:\data\a.jpg`, `../../a.jpg`) are
        found by their end, and so are, with `anywhere`, images of files with one image each.

        Several images that fit equally are a `DataError`.
        """
        path = _Path(name)
        if not path.parts:
            return None
        has_suffix = PurePosixPath(path.parts[-1]).suffix.lower() in _SUFFIXES
        for stems, fold in _LEVELS[0] if has_suffix else _LEVELS[1] + _LEVELS[0]:
            folders, inside = path.counting(fold=fold)
            written = folders + inside
            free = len(folders) if not name.own else 0
            free = len(written) if path.foreign or (name.own and anywhere) else free
            own, ending = self._table(fold=fold, stems=stems)
            for i in range(len(written)):
                found = own.get(written[i:]) or (ending.get(written[i:]) if i <= free else None) or []
                if found := self._of_the_part(found, name):
                    image, used = self._the_one(found, name, path), 0 if name.own else min(i, len(folders))
                    return self._compared(image, path, written[used:])
        return None

    def resolve(self, path: str, beside: str = "") -> str | None:
        """The image that a name means on its own, or None where it does not exist; see `match`."""
        found = self.match(WrittenName(path, beside))
        return found.image if found else None

    def within(self, path: str) -> list[str]:
        """The images in a folder and its subfolders; none where there is no such folder.

        Leading folders of the path may be missing, or be those of another machine.
        """
        parts = _Path(WrittenName(path)).parts
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
        """The annotation's own name for an image that does not exist; a `DataError` if it leads out of the folder."""
        path = _Path(name)
        if path.outside or unsafe_name(path.plain) or not is_encodable(name.path):
            problem = f"the image's name is not a path within the images folder: {name.path[:200]!r}"
            raise DataError(problem, where=where, remedy="correct the name")
        return path.plain

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
        subset = self.subset_of(_parent(name.path)) or subset_named(name.part) or self.subset_of(name.beside) or by_file
        found = [each for each in found if self._may_be_of(_parent(each), subset)]
        words = _comparable(name.file, True).split("_")
        parts = {_comparable(name.part, True), *("_".join(words[i:]) for i in range(len(words)))}
        for folder in parts & self._folder_names:
            found = [each for each in found if folder in _comparable(each, True).split("/")[:-1]]
        return found

    def _the_one(self, found: list[str], name: WrittenName, path: _Path) -> str:
        """The one of several images that fits best; a `DataError` if several do."""
        if len(found) == 1:
            return found[0]
        beside, written = "/".join((*path.folders, *path.parts)), path.plain
        near = {*path.folders, *path.parts[:-1]}

        def rank(image: str) -> tuple[bool, bool, int, bool]:
            folders = image.split("/")[:-1]
            at = [str(PurePosixPath(image).with_suffix("")), image]
            is_images = any("image" in each.lower() or "img" in each.lower() for each in folders)
            return beside in at, written in at, len(near.intersection(folders)), is_images

        ranks = {image: rank(image) for image in found}
        best = [image for image in found if ranks[image] == max(ranks.values())]
        if len(best) == 1:
            return best[0]
        problem = f"{len(found)} images match '{name.path}': {', '.join(best[:3])}{', …' if len(best) > 3 else ''}"
        raise DataError(
            problem, where="/".join(path.folders), remedy="name images with their folders in the annotations"
        )

    def _compared(self, image: str, path: _Path, used: Path_) -> Match:
        *own, _ = self._counting(image, fold=True)
        place = [each for each in _comparable(self._place, True).split("/") if _counts(each)]
        *folders, last = (_comparable(each, True) for each in used)
        there = place + own
        agree = 0
        while agree < min(len(there), len(folders)) and there[-1 - agree] == folders[-1 - agree]:
            agree += 1
        differ = agree < min(len(there), len(folders))
        exact = image in {path.plain, "/".join((*path.folders, *path.parts))}
        return Match(
            image,
            (*folders, _stem(last)),
            2 * agree + exact,
            elsewhere=differ and agree < len(own),
            in_place=agree > len(own),
            out_of_place=differ and agree == len(own),
        )

    def _counting(self, image: str, *, fold: bool) -> Path_:
        *folders, last = _comparable(image, fold).split("/")
        return (*filter(_counts, folders), last)

    def _table(self, *, fold: bool, stems: bool) -> tuple[dict[Path_, list[str]], dict[Path_, list[str]]]:
        """Images by what counts of their path, and by each ending of it."""
        if (fold, stems) not in self._tables:
            exact, ending = defaultdict[Path_, list[str]](list), defaultdict[Path_, list[str]](list)
            place = tuple(each for each in _comparable(self._place, fold).split("/") if _counts(each))
            for name in self._sorted:
                own = self._counting(name, fold=fold)
                if stems:
                    own = (*own[:-1], PurePosixPath(own[-1]).stem)
                exact[own].append(name)
                for i in range(len(place + own)):
                    ending[(place + own)[i:]].append(name)
            self._tables[fold, stems] = exact, ending
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

    @cached_property
    def _folder_names(self) -> frozenset[str]:
        """The folders that may name a part of the data."""
        names = {part for each in self._folders for part in _comparable(each, True).split("/")}
        return frozenset(filter(_counts, names))

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


def _comparable(path: str, fold: bool) -> str:
    """A path as it is compared: files may have been stored under a safe name, which has `%5C` for a backslash."""
    composed = unicodedata.normalize("NFC", safe_name(path.replace("\\", "/").replace("%5C", "/")))
    return composed.casefold() if fold else composed


def _stem(name: str) -> str:
    """A file name without an image's suffix, for comparison."""
    path = PurePosixPath(name)
    return path.stem if path.suffix in _SUFFIXES else path.name


def _counts(folder: str) -> bool:
    return folder not in {"", "."} and folder.lower() not in _PLACES


def _parent(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[0]
