from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from cases import cases

from pipeline.data.formats.scalars import Faults, RecordError, declared_size, flag, label, number, whole
from pipeline.data.parsed import UNREADABLE
from pipeline.errors import DataError


@pytest.mark.parametrize("value", [None, 0, 0.0, False, "0", "0.0", "false", "No", " ", "", "Unspecified", -1, "-1"])
def test_a_flag_that_is_not_set(value: Any) -> None:
    assert flag(value, "iscrowd", "a.json") == 0


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "1.0", "TRUE", "yes"])
def test_a_flag_that_is_set(value: Any) -> None:
    assert flag(value, "iscrowd", "a.json") == 1


@cases(
    "read, value, said",
    {
        "flag": (flag, "maybe", "x is 'maybe' where 0 or 1"),
        "flag a list": (flag, [1], "x is a list where 0 or 1"),
        "number": (number, "1,5", "x is '1,5' where a number"),
        "number absent": (number, None, "x is absent where a number"),
        "number a truth value": (number, True, "x is True where a number"),
        "half": (whole, 1.5, "x is 1.5 where a whole number"),
        "infinite": (whole, "inf", "x is 'inf' where a whole number"),
        "an object": (whole, {}, "x is an object where a number"),
    },
)
def test_what_is_none_is_the_fault_of_its_record(read: Any, value: Any, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        read(value, "x", "a.json")


def test_names_and_numbers() -> None:
    assert (whole("640", "x", ""), whole(640.0, "x", ""), whole("-7", "x", ""), whole(10**30, "x", "")) == (
        *(640, 640, -7),
        10**30,
    )
    assert (number("5e-1", "x", ""), label(" cat ", "")) == (0.5, "cat")
    with pytest.raises(RecordError, match="class is"):
        label("half \ud83d", "")


@pytest.mark.parametrize("side", [None, "", 0, "0", 0.0])
def test_a_size_without_a_side_is_not_declared(side: Any) -> None:
    assert declared_size(side, 480, "") == declared_size(480, side, "") == (0, 0)


def faulty(count: int, error: type[DataError] = RecordError) -> tuple[Faults, Counter[str]]:
    """Faults of so many boxes of one image."""
    faults, left_out = Faults(), Counter[str]()
    for i in range(count):
        with faults.of(left_out):
            raise error(f"x is {i}", where=f"a.json: annotations[{i}]", remedy="correct the file")
    return faults, left_out


def test_a_few_boxes_that_cannot_be_read_are_left_out() -> None:
    faults, left_out = faulty(2)
    assert left_out == {UNREADABLE: 2}
    assert [each.where for each in faults.settle(6)] == ["a.json: annotations[0]", "a.json: annotations[1]"]
    with pytest.raises(DataError, match="2 faults"):
        faults.settle(5)  # more than a quarter


def test_all_faults_are_one_error() -> None:
    with pytest.raises(DataError) as error:
        faulty(12)[0].settle(0)
    lines = str(error.value).splitlines()
    assert lines[:2] == ["the annotations have 12 faults:", "  a.json: annotations[0]: x is 0"]
    assert lines[10:] == [
        "  a.json: annotations[9]: x is 9",
        "  and 2 more",
        "  where:    a.json",
        "  do:       correct the file",
    ]
    with pytest.raises(DataError, match=r"^x is 0\n"):
        faulty(1)[0].settle(0)


def test_a_fault_that_is_more_than_a_box_ends_the_load() -> None:
    for faults in (faulty(1, DataError)[0], Faults()):
        if not faults.errors:
            with faults.of():
                number("x", "the width", "a.json: images[0]")
        with pytest.raises(DataError):
            faults.settle(1000)


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), Faults().of():
        raise KeyError
