"""Which image an annotation means: decided with all annotations of the data set at hand."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from hypothesis import event, given, settings
from hypothesis import strategies as st

from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.image_pairing import Reference, pair
from pipeline.data.formats.scalars import Faults
from pipeline.data.formats.written_names import WrittenPath
from pipeline.errors import DataError

NOWHERE = Path("nowhere")


def in_table(*paths: str, part: str = "") -> list[Reference]:
    return [Reference(path, "boxes.csv", part=part) for path in paths]


def of_files(**names: str) -> list[Reference]:
    """Files of their own, `Annotations/NAME.xml`; the names in them."""
    return [Reference(written, f"Annotations/{file}.xml", own=True) for file, written in names.items()]


def in_folder(folder: str, *names: str) -> list[Reference]:
    """Files of their own in a folder, and the bare names in them."""
    return [Reference(f"{name}.jpg", f"{folder}/{name}.xml", own=True) for name in names]


def of_labels(*files: str) -> list[Reference]:
    return [Reference("", file, own=True) for file in files]


def paired(references: list[Reference], images: list[str], place: str = "", pair_by: str = "") -> list[str | None]:
    """The images meant; None for those that do not exist."""
    return [name if name in images else None for name in names(references, images, place, pair_by)]


def names(references: list[Reference], images: list[str], place: str = "", pair_by: str = "") -> list[str]:
    faults = Faults()
    found = pair(references, ImageIndex(NOWHERE, images, place=place), faults, pair_by=pair_by)
    faults.settle(0)
    return found


TEST = ("0.jpg", "Test"), ("1.jpg", "Test")
IMG = ["images/0.jpg", "images/1.jpg", "images/2.jpg"]


@cases(
    "references, images, place, found",
    {
        "one of two folders is given": (
            in_table("train/0.jpg", "train/1.jpg", "test/0.jpg", "test/1.jpg"),
            ["0.jpg", "1.jpg"],
            "pictures/train",
            ["0.jpg", "1.jpg", None, None],
        ),
        "a label of another folder": (
            of_labels("labels/clipA/1.txt", "labels/clipB/2.txt"),
            ["images/clipA/1.jpg", "images/clipA/2.jpg"],
            "",
            ["images/clipA/1.jpg", None],
        ),
        "an absolute path of another folder": (
            in_table("/home/me/clipA/1.jpg", "/home/me/clipB/2.jpg"),
            ["clipA/1.jpg", "clipA/2.jpg"],
            "",
            ["clipA/1.jpg", None],
        ),
        "paths of another machine, where no folder agrees": (
            in_table("C:\\old\\1.jpg", "C:\\old\\2.jpg"),
            ["new/1.jpg", "new/2.jpg"],
            "",
            ["new/1.jpg", "new/2.jpg"],
        ),
        "Label Studio's uploads": (
            in_table("..\\..\\media\\upload\\4\\1.jpg"),
            ["images/1.jpg"],
            "folder",
            ["images/1.jpg"],
        ),
        "folders put into one": (
            in_table("train/1.jpg", "test/2.jpg"),
            ["images/1.jpg", "images/2.jpg"],
            "",
            [
                "images/1.jpg",
                "images/2.jpg",
            ],
        ),
        "a bare name, of an image that is named in full": (
            in_table("clips/a/1.jpg", "1.jpg"),
            ["clips/a/1.jpg"],
            "",
            ["clips/a/1.jpg", None],
        ),
        "a bare name elsewhere": (in_table("1.jpg"), ["clips/a/1.jpg"], "", ["clips/a/1.jpg"]),
        "the part of the data": (
            [*in_table("0.jpg", part="Night"), *in_table("0.jpg", part="Day")],
            ["images/Day/0.jpg", "images/Night/0.jpg"],
            "",
            ["images/Night/0.jpg", "images/Day/0.jpg"],
        ),
        "the part by the file's name": (
            [Reference("0.jpg", "instances_Night.json"), Reference("0.jpg", "instances_Test.json")],
            ["images/Night/0.jpg", "images/Test/0.jpg"],
            "",
            ["images/Night/0.jpg", "images/Test/0.jpg"],
        ),
        "absent in its part": (
            [Reference("0.jpg", "instances_Train.json"), Reference("0.jpg", "instances_Test.json")],
            ["images/Train/0.jpg", "images/Test/1.jpg"],
            "",
            ["images/Train/0.jpg", None],
        ),
        "the name in the file, where its own name is another": (of_files(x="0.jpg", y="1.jpg"), IMG, "", IMG[:2]),
        "the file's own name, where its content is outdated": (of_files(**{"0": "x.jpg", "1": "y"}), IMG, "", IMG[:2]),
        "one name in all files": (of_files(**{"0": "0.jpg", "1": "0.jpg", "2": "0.jpg"}), IMG, "", IMG),
        "names shifted beyond the last": (of_files(**{"0": "1.jpg", "1": "2.jpg", "2": "3.jpg"}), IMG, "", IMG),
        "files named after others": (of_files(**{"1": "0.jpg", "2": "1.jpg", "3": "2.jpg"}), IMG, "", IMG),
        "files of a folder that is not given": (
            [*in_folder("clipA", "1", "2"), *in_folder("clipB", "1", "3")],
            ["1.jpg", "2.jpg", "3.jpg"],
            "pictures/clipA",
            ["1.jpg", "2.jpg", None, None],
        ),
        "one name in all files, and an image is absent": (
            of_files(**{"0": "0.jpg", "1": "0.jpg", "2": "0.jpg"}),
            IMG[:2],
            "",
            [*IMG[:2], None],
        ),
        "the name in the file, where its own name fits several": (
            of_files(**{"0": "a/0.jpg", "1": "b/0.jpg"}),
            ["a/0.jpg", "b/0.jpg"],
            "",
            ["a/0.jpg", "b/0.jpg"],
        ),
        "the part, though the name exists without it": (
            [Reference("0.jpg", "instances_Train.json")],
            ["0.jpg", "Train/0.jpg"],
            "",
            ["Train/0.jpg"],
        ),
        "the path, though the file's name is that of another folder": (
            [Reference("b/0.jpg", "exam_a.json"), Reference("a/0.jpg", "exam_a.json")],
            ["a/0.jpg", "b/0.jpg"],
            "",
            ["b/0.jpg", "a/0.jpg"],
        ),
        "CVAT's images of a project, in the same folder": (
            [*in_table("0.jpg", part="Train"), *in_table("1.jpg", part="Test")],
            ["images/0.jpg", "images/1.jpg"],
            "",
            ["images/0.jpg", "images/1.jpg"],
        ),
        "the part that is given, of several": (
            [*in_table("0.jpg", part="Train"), *in_table("0.jpg", "1.jpg", part="Test")],
            ["0.jpg", "1.jpg"],
            "pictures/Train",
            ["0.jpg", None, None],
        ),
        "the part that is given, by the files' names": (
            [Reference(name, f"instances_{part}.json") for name, part in (("0.jpg", "Train"), *TEST)],
            ["0.jpg", "1.jpg"],
            "pictures/Train",
            ["0.jpg", None, None],
        ),
        "the part that is given, by the files' folders": (
            [Reference(name, f"{part}/boxes.csv") for name, part in (("0.jpg", "Train"), *TEST)],
            ["0.jpg", "1.jpg"],
            "pictures/Train",
            ["0.jpg", None, None],
        ),
        "parts that were put into a folder that is called as one": (
            [*in_table("0.jpg", part="Train"), *in_table("1.jpg", part="Test")],
            ["0.jpg", "1.jpg"],
            "my/test",
            ["0.jpg", "1.jpg"],
        ),
        "decomposed letters": (in_table("M\u00fcll.jpg"), ["Mu\u0308ll.jpg"], "", ["Mu\u0308ll.jpg"]),
        "the picture, not its visualisation": (
            of_files(**{"0": "0.jpg"}),
            ["JPEGImages/0.jpg", "AnnotationsVisualization/0.jpg"],
            "",
            ["JPEGImages/0.jpg"],
        ),
    },
)
def test_an_image_is_told_by_all_names(
    references: list[Reference], images: list[str], place: str, found: list[str | None]
) -> None:
    assert paired(references, images, place) == found
    for rows in list(permutations(range(len(references))))[:6]:
        assert paired([references[row] for row in rows], images, place) == [found[row] for row in rows]


SHIFTED = of_files(**{"0": "1.jpg", "1": "2.jpg", "2": "0.jpg"})


@cases(
    "references, images, said",
    {
        "two names for one image": (in_table("train/0.jpg", "test/0.jpg"), ["0.jpg"], "two names are for one image"),
        "two names for one image, which one is exactly": (
            in_table("0.jpg", "a/0.jpg"),
            ["0.jpg"],
            "two names are for one",
        ),
        "several images": (in_table("0.jpg"), ["a/0.jpg", "b/0.jpg"], "2 images match '0.jpg'"),
        "two files for one image": (of_labels("new/0.txt", "old/0.txt"), ["0.jpg"], "new/0.txt and old/0.txt"),
        "names in a circle": (SHIFTED, IMG, "3 of 3 annotation files.*set pair_by to file_name.*content"),
        "out of the folder": (in_table("../../etc/passwd"), IMG, "not a path within the images folder"),
    },
)
def test_what_cannot_be_told_is_refused(references: list[Reference], images: list[str], said: str) -> None:
    with pytest.raises(DataError, match=f"(?s){said}"):
        paired(references, images)


@pytest.mark.parametrize(("pair_by", "found"), [("file_name", IMG), ("content", [*IMG[1:], IMG[0]])])
def test_the_user_decides(pair_by: str, found: list[str]) -> None:
    assert paired(SHIFTED, IMG, pair_by=pair_by) == found


@cases(
    "references, images, pair_by, found",
    {
        "of other folders": (
            [*in_folder("clipA", "1"), *in_folder("clipB/xml", "1"), *in_folder("clipC", "1")],
            ["clipA/1.jpg"],
            "",
            ["clipA/1.jpg", "clipB/1.jpg", "clipC/1.jpg"],
        ),
        "in the folder of annotations": (of_files(a="a.jpg"), ["b.jpg"], "", ["a.jpg"]),
        "by the file's name": (of_files(**{"0": "0.jpg", "9": "0.jpg"}), IMG, "file_name", [IMG[0], "Annotations/9"]),
        "of labels": (
            of_labels("labels/a/1.txt", "labels/b/1.txt"),
            ["images/a/1.jpg"],
            "",
            ["images/a/1.jpg", "labels/b/1"],
        ),
    },
)
def test_an_absent_image_has_a_name_of_its_own(
    references: list[Reference], images: list[str], pair_by: str, found: list[str]
) -> None:
    """So that its boxes are not those of an image that is there, nor of another absent one."""
    assert names(references, images, pair_by=pair_by) == found


def test_sizes_decide(tmp_path: Path, write_picture: Any) -> None:
    for i in range(3):
        write_picture(tmp_path / IMG[i], 60 + i, 40)
    references = [Reference(each.path, each.file, own=True, size=(60 + i, 40)) for i, each in enumerate(SHIFTED)]
    assert pair(references, ImageIndex(tmp_path, IMG), Faults()) == IMG


FOLDERS = ["", "a/", "b/", "a/b/", "train/", "test/", "A/"]
PATHS = st.builds("{}{}".format, st.sampled_from(FOLDERS), st.sampled_from(["0.jpg", "1.jpg", "2.jpg"]))
ELSEWHERE = st.builds("{}{}".format, st.sampled_from(["C:\\q\\", "/r/a/", "../", "images/"]), PATHS)
PLACES = st.sampled_from(["", "a", "pictures/train"])


@st.composite
def references(draw: st.DrawFn) -> list[Reference]:
    """Rows of a table, labels, files of their own that name images or not, or several files of records."""
    paths = draw(st.lists(PATHS | ELSEWHERE, unique=True, max_size=5))
    files = draw(st.lists(PATHS, unique=True, min_size=len(paths), max_size=len(paths) + 1))
    kind = draw(st.sampled_from(["table", "labels", "own", "records"]))
    if kind == "table":
        return in_table(*paths)
    if kind == "labels":
        return of_labels(*(f"labels/{file.replace('.jpg', '.txt')}" for file in files))
    if kind == "own":
        pairs = zip(paths, files, strict=False)
        return [Reference(path, f"{file.replace('.jpg', '.xml')}", own=True) for path, file in pairs]
    parts = draw(st.lists(st.sampled_from(["", "Train", "Test"]), min_size=len(paths), max_size=len(paths)))
    return [Reference(path, f"instances_{part}.json", part=part) for path, part in zip(paths, parts, strict=True)]


@settings(max_examples=150, deadline=None)
@given(st.lists(PATHS, unique=True, min_size=1, max_size=5), references(), PLACES, st.randoms())
def test_the_order_changes_nothing_and_no_image_has_two_names(
    images: list[str], given_: list[Reference], place: str, random: Any
) -> None:
    def outcome(rows: list[Reference]) -> dict[Reference, str] | str:
        try:
            return dict(zip(rows, names(rows, images, place), strict=True))
        except DataError:
            return "refused"

    found = outcome(given_)
    assert outcome(random.sample(given_, len(given_))) == found
    if found == "refused":
        return
    assert isinstance(found, dict)
    event("paired")
    named: dict[str, set[object]] = {}
    for reference, image in found.items():
        told = reference.file if reference.own else WrittenPath(reference.by_content).keys(fold=True)[1]
        named.setdefault(image, set()).add(told)
        if not reference.own and not reference.part and reference.path in images:
            assert image == reference.path
    assert all(len(each) == 1 for image, each in named.items() if image in images)
