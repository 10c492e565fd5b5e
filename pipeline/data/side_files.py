"""Lists that go with annotations: the images reserved for the test set, and new names of classes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from pipeline.data.class_selection import read_class_map
from pipeline.data.error_context import located_in
from pipeline.data.fetch.fetching import fetch
from pipeline.errors import DataError, did_you_mean

TEST_LIST = "test_images.txt"
CLASS_MAP = "class_map"


def write_test_list(
    url: str,
    folder: Path,
    cache: Path,
    known: Collection[str],
    files: Collection[str],
    on_disk: Callable[[str], str] = str,
    excluded: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Write the names of the images that are reserved for the test set, without those of dropped images.

    Args:
        url: A text file, one file name a line.
        folder: The folder to write to.
        cache: Where downloads are kept.
        known: The names in the folder of images that annotations use.
        files: The images that exist.
        on_disk: Maps an image's name in the source or in the annotations to that in the folder; other names to
            themselves.
        excluded: The reasons why existing images are in no set, by their names in the folder.

    Returns:
        The number of names written.

    Raises:
        MissingError: There is nothing at the URL.
        DataError: It is no text, empty, or names an image that the annotations do not, or one that is excluded.
    """
    found = fetch(url, cache)
    lines = _names(found.path, found.url)
    with located_in(found.url):
        names = sorted({line if line in known else on_disk(line) for line in lines})
    unknown = [name for name in names if name not in known and name not in excluded]
    if unknown:
        raise DataError(
            f"the test list names {len(unknown)} images that the annotations do not: {first_of(unknown)}",
            where=found.url,
            expected="file names as in the annotations, one a line",
            remedy=did_you_mean(unknown[0], known, otherwise="correct the list;", cutoff=0.6)
            + " a labelling tool's open tasks are taken only if unannotated is 'background'",
        )
    left_out = [name for name in names if name in excluded]
    if left_out:
        why = excluded[left_out[0]]
        same = [name for name in left_out if excluded[name] == why]
        raise DataError(
            f"the test list names {len(same)} images that are excluded, since {why}: {first_of(same)}",
            where=found.url,
            expected="images with boxes, or background",
            remedy="remove them from the list or annotate them; or, if they are background and nobody annotated them, "
            "set unannotated to 'background'",
        )
    there = [name for name in names if name in files]
    if there:
        (folder / TEST_LIST).write_text("".join(f"{name}\n" for name in there), encoding="utf-8")
    return len(there)


def read_test_list(folder: Path) -> tuple[str, ...]:
    """The names of the images that are reserved for the test set."""
    path = folder / TEST_LIST
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()


def write_class_map(url: str, folder: Path, cache: Path, classes: Collection[str]) -> None:
    """Copy the file with the new names of classes, if it can be read.

    Args:
        url: The file, as `class_selection.read_class_map` reads it.
        folder: The folder to copy it to.
        cache: Where downloads are kept.
        classes: The names of the data set's classes.

    Raises:
        MissingError: There is nothing at the URL.
        DataError: It is not a mapping, or names a class that the data set does not have.
    """
    found = fetch(url, cache)
    with located_in(found.url, found.path):
        unknown = [name for name in read_class_map(found.path) if name not in classes]
    if unknown:
        raise DataError(
            f"the class map names {len(unknown)} classes that the annotations do not have: {first_of(unknown)}",
            where=found.url,
            expected=f"some of {first_of(list(classes))}",
            remedy=did_you_mean(unknown[0], classes, otherwise="correct or remove them", cutoff=0.6),
        )
    shutil.copyfile(found.path, folder / (CLASS_MAP + found.path.suffix.lower()))


def read_class_changes(folder: Path) -> Mapping[str, str | None]:
    """The new names of classes, None for those to drop; empty without a file."""
    paths = sorted(folder.glob(f"{CLASS_MAP}.*"))
    return read_class_map(paths[0]) if paths else {}


def first_of(names: list[str]) -> str:
    """The first few of many names, for a message."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _names(path: Path, shown: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError("the test list is not a text file", where=shown, expected="a file name a line") from error
    names = sorted({line.strip() for line in lines} - {""})
    if not names:
        raise DataError("the test list is empty", where=shown, remedy="leave the list's URL empty to have none")
    return names
