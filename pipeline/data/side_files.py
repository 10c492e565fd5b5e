"""Lists that go with annotations: which images are reserved for the test set, and what classes are to become."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from pipeline.data.class_map import read_class_map
from pipeline.data.error_context import told_of
from pipeline.data.fetch.fetching import fetch
from pipeline.errors import DataError

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
    """Keep the names of the images that are reserved for the test set; those of dropped images are left out.

    Args:
        url: A text file, one file name a line.
        folder: Where the list goes.
        cache: Where downloads are kept.
        known: The names in the folder of images that annotations use.
        files: The images that are there.
        on_disk: Gives the name in the folder of an image called otherwise, by its name in the source or in the
            annotations; or the name itself.
        excluded: Why images are in no set that are there, by their names in the folder.

    Returns:
        How many names are kept.

    Raises:
        MissingError: There is nothing at the URL.
        DataError: It is no text, empty, or names an image that the annotations do not, or one that is excluded.
    """
    found = fetch(url, cache)
    lines = _names(found.path, found.url)
    with told_of(found.url):
        names = sorted({line if line in known else on_disk(line) for line in lines})
    unknown = [name for name in names if name not in known and name not in excluded]
    if unknown:
        near = get_close_matches(unknown[0], known, 1)
        raise DataError(
            f"The test list names {len(unknown)} images that the annotations do not: {first_of(unknown)}",
            where=found.url,
            expected="file names as in the annotations, one a line" + (f", such as {near[0]}" if near else ""),
            remedy="correct the list; a labelling tool's open tasks are taken only where unannotated is 'background'",
        )
    left_out = [name for name in names if name in excluded]
    if left_out:
        why = excluded[left_out[0]]
        same = [name for name in left_out if excluded[name] == why]
        raise DataError(
            f"The test list names {len(same)} images that are excluded, since {why}: {first_of(same)}",
            where=found.url,
            expected="images with boxes, or background",
            remedy="take them off the list or annotate them; or, where nobody annotated them and nothing is on them, "
            "set unannotated to 'background'",
        )
    there = [name for name in names if name in files]
    if there:
        (folder / TEST_LIST).write_text("".join(f"{name}\n" for name in there), encoding="utf-8")
    return len(there)


def read_test_list(folder: Path) -> tuple[str, ...]:
    """The image names that are reserved for the test set; empty where there are none."""
    path = folder / TEST_LIST
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()


def write_class_map(url: str, folder: Path, cache: Path, classes: Collection[str]) -> None:
    """Keep the file that says what classes are to become, after a look at whether it can be read.

    Args:
        url: The file, as `class_map.read_class_map` reads it.
        folder: Where it goes.
        cache: Where downloads are kept.
        classes: What the data set's classes are called.

    Raises:
        MissingError: There is nothing at the URL.
        DataError: It is no mapping, or names a class that the data set does not have.
    """
    found = fetch(url, cache)
    with told_of(found.url, found.path):
        unknown = [name for name in read_class_map(found.path) if name not in classes]
    if unknown:
        near = [each for name in unknown[:5] for each in get_close_matches(name, classes, 1)]
        raise DataError(
            f"The class map names {len(unknown)} classes that the annotations do not have: {first_of(unknown)}",
            where=found.url,
            expected=f"some of {first_of(list(classes))}",
            remedy=f"did you mean {', '.join(dict.fromkeys(near))}?" if near else "correct or remove them",
        )
    path = found.path
    shutil.copyfile(path, folder / (CLASS_MAP + path.suffix.lower()))


def read_class_changes(folder: Path) -> Mapping[str, str | None]:
    """What classes are to become, None for those to be dropped; empty where no file says so."""
    paths = sorted(folder.glob(f"{CLASS_MAP}.*"))
    return read_class_map(paths[0]) if paths else {}


def first_of(names: list[str]) -> str:
    """The first few of many names, for a message."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _names(path: Path, shown: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError("The test list is not a text file", where=shown, expected="a file name a line") from error
    names = sorted({line.strip() for line in lines} - {""})
    if not names:
        raise DataError("The test list is empty", where=shown, remedy="leave the list's URL empty to have none")
    return names
