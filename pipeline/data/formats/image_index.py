"""Which images there are, found by the names that annotations use for them.

All names that go in or come out are those of the *source*: where an image had to be converted (`a.tif` became
`a.tif.png`), annotations and this index speak of `a.tif`, and the caller renames afterwards.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath

from PIL.Image import DecompressionBombError

from pipeline.data.coco import unsafe_name
from pipeline.data.formats.field_values import is_writable
from pipeline.data.formats.path_endings import PathEndings, WrittenPath
from pipeline.data.image_headers import UNREADABLE, upright_size
from pipeline.data.image_names import IMAGE_SUFFIXES
from pipeline.data.subset_names import class_folders, subset_of
from pipeline.errors import DataError

_SUFFIXES = IMAGE_SUFFIXES | {".heic", ".heif"}  # which no image here has, but annotations of converted ones may
_MANY = 20


class ImageIndex:
    """The images of a source.

    Attributes:
        folder: Where the files lie.
        names: The images, by their names in the source.
        unreadable: Those whose size was asked for and whose header could not be read.
    """

    def __init__(self, folder: Path, names: Iterable[str], renamed: Mapping[str, str] | None = None) -> None:
        """Index images.

        Args:
            folder: Where the files lie.
            names: The files, as POSIX paths relative to the folder.
            renamed: Name in the source to name in the folder, of images that were converted.
        """
        self.folder = folder
        self._renamed = dict(renamed or {})
        source = {new: old for old, new in self._renamed.items()}
        self.names = frozenset(source.get(name, name) for name in names)
        self.unreadable: list[str] = []
        self._sizes: dict[str, tuple[int, int]] = {}

    def resolve(self, name: str, beside: str = "") -> str | None:
        r"""The image that an annotation means, or None where it is not there.

        Tried in this order: in the folder of the annotation file, exactly; in folders of that name elsewhere
        (`labels/train/a.json` means `images/train/a.jpg`); exactly; with leading folders added, or taken away. Then
        all that again in upper or lower case, and, where the name has no image's suffix, by the name without one.
        Backslashes are slashes. Paths from other machines (`C:\data\a.jpg`, `../../a.jpg`) are found by their end.

        Args:
            name: As the annotation has it.
            beside: The folder of the annotation file, relative to its root.

        Raises:
            DataError: Several images fit equally well; names them.
        """
        path = WrittenPath.of(name, beside)
        if not path.parts:
            return None
        for endings in self._ways(path.parts[-1]):
            found = self._nearby(endings.find(path), path)
            if len(path.parts) == 1:
                found = [each for each in found if self._may_be_of(_folder(each), beside)]
            if found:
                return _the_one(found, name, path.folders)
        return None

    def in_folder(self, stem: str, folder: str) -> str | None:
        """The image of a name without suffix that lies in a folder, or in the one folder whose path ends so.

        Raises:
            DataError: Several do.
        """
        found = self._stems.exactly(f"{folder}/{stem}")
        return _the_one(found, stem, tuple(folder.split("/"))) if found else None

    def within(self, path: str) -> list[str]:
        """The images in the folder that a path means, and in its folders; none where there is no such folder.

        Leading folders may be missing, or be those of another machine.
        """
        parts = WrittenPath.of(path).parts
        if not parts:
            return list(self._sorted)
        for i in range(len(parts)):
            tail = "/".join(parts[i:])
            if self.subset_of(tail) != self.subset_of(path):
                break  # `images` is no place to look for `test/images`
            found = self._folders.get(tail, [])
            found = [tail] if tail in found else [each for each in found if self._may_be_of(each, path)]
            if len(found) == 1:
                return self._in_folder(found[0])
        return []

    def subset_of(self, path: str) -> str:
        """The subset that a path speaks of, folders of classes called `train` or `test` not counted."""
        return subset_of(path, self._class_folders)

    def name_of(self, name: str, where: str, beside: str = "") -> str:
        """The image that an annotation means, or the annotation's own name for it where it is not there.

        Raises:
            DataError: Several images fit, or the name leads out of the images' folder or cannot be written.
        """
        found = self.resolve(name, beside)
        if found is not None:
            return found
        path = WrittenPath.of(name, beside)
        if path.outside or unsafe_name("/".join(path.parts)) or not is_writable(name):
            raise DataError(
                f"The image's name is none within the images folder: {name[:200]!r}",
                where=where,
                expected="a path within the images folder",
                remedy="correct the name there",
            )
        return "/".join(path.parts)

    def size(self, name: str) -> tuple[int, int]:
        """Width and height of the upright picture from the file's header, decoding no pixel.

        `(0, 0)` where the image is absent or its header broken: validation drops such an image, and loading goes on.
        """
        if name not in self._sizes:
            self._sizes[name] = self._measured(name) if name in self.names else (0, 0)
        return self._sizes[name]

    def _measured(self, name: str) -> tuple[int, int]:
        try:
            return upright_size(self.folder / self._renamed.get(name, name))
        except (*UNREADABLE, DecompressionBombError):
            self.unreadable.append(name)
            return 0, 0

    def _ways(self, last: str) -> Iterable[PathEndings]:
        yield self._as_is
        yield self._folded
        if PurePosixPath(last).suffix.lower() not in _SUFFIXES:
            yield self._stems
            yield self._folded_stems

    def _in_folder(self, folder: str) -> list[str]:
        end = chr(ord("/") + 1)
        return self._sorted[bisect_left(self._sorted, f"{folder}/") : bisect_left(self._sorted, folder + end)]

    def _may_be_of(self, folder: str, path: str) -> bool:
        """Whether a folder is of no other subset than a path is: `labels/train` speaks of no image in `images/val`."""
        subset = self.subset_of(path)
        return not subset or self.subset_of(folder) in {"", subset}

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.names)

    @cached_property
    def _class_folders(self) -> frozenset[str]:
        return class_folders(self.names)

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        """Folders by each ending of their paths."""
        table: dict[str, list[str]] = {}
        for folder in sorted({folder for name in self.names for folder in PurePosixPath(name).parents if folder.name}):
            for i in range(len(folder.parts)):
                table.setdefault("/".join(folder.parts[i:]), []).append(folder.as_posix())
        return table

    def _nearby(self, found: list[str], path: WrittenPath) -> list[str]:
        """Of very many images, those in a folder of the annotation file's, for the folder that fewest are in.

        Frames of hundreds of clips have the same names: comparing each with all would take hours.
        """
        if len(found) <= _MANY:
            return found
        last = path.parts[-1].casefold()
        groups = []
        for folder in path.folders:
            inside = self._by_folder.get((folder, last)) or self._by_folder.get((folder, _stem(last)), [])
            groups.append([each for each in inside if found[bisect_left(found, each) % len(found)] == each])
        return min(filter(None, groups), key=len, default=found)

    @cached_property
    def _by_folder(self) -> dict[tuple[str, str], list[str]]:
        """Images by each of their folders' names and their own name without suffix, in lower case."""
        table: dict[tuple[str, str], list[str]] = {}
        for name in self._sorted:
            *folders, last = name.split("/")
            for folder in dict.fromkeys(folders):
                table.setdefault((folder, _stem(last).casefold()), []).append(name)
        return table

    @cached_property
    def _as_is(self) -> PathEndings:
        return PathEndings(self.names)

    @cached_property
    def _folded(self) -> PathEndings:
        return PathEndings(self.names, fold=True)

    @cached_property
    def _stems(self) -> PathEndings:
        return PathEndings(self.names, stems=True)

    @cached_property
    def _folded_stems(self) -> PathEndings:
        return PathEndings(self.names, fold=True, stems=True)


def _stem(last: str) -> str:
    return last.rpartition(".")[0] or last


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _the_one(found: list[str], name: str, folders: tuple[str, ...]) -> str:
    """Of several images, the one that shares most folders with the annotation file."""
    if len(found) == 1:
        return found[0]
    near = set(folders)
    shared = [len(near.intersection(each.split("/")[:-1])) for each in found]
    most = max(shared)
    best = [each for each, count in zip(found, shared, strict=True) if count == most]
    if len(best) == 1:
        return best[0]
    raise DataError(
        f"{len(found)} images may be meant by '{name}': {', '.join(best[:3])}{', …' if len(best) > 3 else ''}",
        where="/".join(folders),
        expected="names that only one image fits",
        remedy="name images with their folders in the annotations",
    )
