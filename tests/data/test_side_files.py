from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cases import cases

from pipeline.data.side_files import read_class_changes, read_test_list, write_class_map, write_test_list
from pipeline.errors import DataError, MissingError, UsageError

NAMES = {"1.png", "2.png", "3.png"}


def test_a_test_list_over_http(server: Any, tmp_path: Path) -> None:
    url = server.serve("names.txt", b"\n3.png\r\n 1.png \n3.png\n")
    assert write_test_list(url, tmp_path, tmp_path / "cache", NAMES, NAMES) == 2
    assert (tmp_path / "test_images.txt").read_text() == "1.png\n3.png\n"
    assert read_test_list(tmp_path) == ("1.png", "3.png")


def test_names_of_dropped_images_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("1.png\n2.png\n")
    assert write_test_list(str(tmp_path / "list"), tmp_path, tmp_path, NAMES, NAMES - {"1.png"}) == 1
    assert read_test_list(tmp_path) == ("2.png",)


@pytest.mark.parametrize(
    ("content", "problem"), [(b"4.png\n1.png", "names 1 images"), (b"\n", "empty"), (b"\xff\xfe1", "not a text")]
)
def test_a_wrong_test_list(tmp_path: Path, content: Any, problem: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        write_test_list(str(tmp_path / "list.txt"), tmp_path / "out", tmp_path, NAMES, NAMES)


def test_names_of_excluded_images_are_told_from_unknown_ones(tmp_path: Path) -> None:
    why = {"2.png": "nobody annotated them", "3.png": "nothing drawn on them can be used as a box"}
    for names, problem in (
        ("1.png\n2.png\n3.png", "names 1 images that are excluded, since nobody annotated them: 2.png"),
        ("3.png", "names 1 images that are excluded, since nothing drawn on them can be used as a box: 3.png"),
        ("2.png\n4.png", "names 1 images that the annotations do not: 4.png"),
    ):
        (tmp_path / "list.txt").write_text(names)
        with pytest.raises(DataError, match=problem):
            write_test_list(str(tmp_path / "list.txt"), tmp_path, tmp_path, {"1.png"}, NAMES, excluded=why)


def test_nothing_is_there(tmp_path: Path) -> None:
    assert read_test_list(tmp_path) == ()
    assert read_class_changes(tmp_path) == {}


@cases(
    "name, text",
    {
        "CSV": ("a.csv", "from,to\ncar,vehicle\ndog,\n"),
        "YAML": ("a.YAML", "car: vehicle\ndog: null\n"),
        "JSON": ("a.json", '{"car": "vehicle", "dog": null}'),
    },
)
def test_a_class_map_goes_with_the_annotations(tmp_path: Path, server: Any, name: str, text: str) -> None:
    (tmp_path / "out").mkdir()
    write_class_map(server.serve(name, text.encode()), tmp_path / "out", tmp_path / "cache", ("car", "dog"))
    assert read_class_changes(tmp_path / "out") == {"car": "vehicle", "dog": None}


@cases(
    "name, text, error",
    {
        "not there": ("none.csv", None, MissingError),
        "another header": ("a.csv", "old,new\n", DataError),
        "a spreadsheet": ("a.ods", "", UsageError),
        "an unknown class": ("a.csv", "from,to\ncat,x\ncar,y\n", DataError),
    },
)
def test_a_wrong_class_map_is_not_kept(tmp_path: Path, name: str, text: str, error: type[Exception]) -> None:
    (tmp_path / "out").mkdir()
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=r"mapping file|no such file|names 1 classes.*: cat"):
        write_class_map(str(tmp_path / name), tmp_path / "out", tmp_path, ("car", "dog"))
    assert not list((tmp_path / "out").iterdir())


def test_names_may_be_those_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfa/1\n2.png\n1.png\n")
    given = {"a/1": "1.png", "2.png": "3.png"}
    assert write_test_list(str(tmp_path / "list"), tmp_path, tmp_path, NAMES, NAMES, lambda name: given[name]) == 2
    assert read_test_list(tmp_path) == ("1.png", "2.png"), "a name in the folder is taken as it is"
