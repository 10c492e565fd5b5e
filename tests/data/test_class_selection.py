from __future__ import annotations

from typing import Any

import pytest

from pipeline.data.class_selection import recode
from pipeline.data.coco import Category
from pipeline.errors import DataError, UsageError

SOURCE = (Category(3, "car", "vehicle"), Category(1, "truck", "lorry"), Category(7, "dog", "animal"))


def named(recoding: Any) -> Any:
    return [(category.id, category.name, category.supercategory) for category in recoding.categories]


@pytest.mark.parametrize(
    ("classes", "rename", "drop", "found", "number", "merged"),
    [
        pytest.param((), {}, (), [(1, "car", "vehicle"), (2, "truck", "lorry"), (3, "dog", "animal")],
                     {3: 1, 1: 2, 7: 3}, set(), id="all as they are"),
        pytest.param(("dog", "car"), {}, (), [(1, "dog", "animal"), (2, "car", "vehicle")],
                     {7: 1, 3: 2}, set(), id="some in another order"),
        pytest.param((), {"truck": "car"}, (), [(1, "car", "vehicle"), (2, "dog", "animal")],
                     {3: 1, 1: 1, 7: 2}, {1}, id="into one that is there"),
        pytest.param((), {"car": "truck"}, (), [(1, "truck", "lorry"), (2, "dog", "animal")],
                     {3: 1, 1: 1, 7: 2}, {1}, id="into a later one takes the place of the first and stays itself"),
        pytest.param((), {"car": "pet", "dog": "pet"}, (), [(1, "pet", "vehicle"), (2, "truck", "lorry")],
                     {3: 1, 7: 1, 1: 2}, {1}, id="two into a new one"),
        pytest.param((), {"car": "truck", "truck": "car"}, (),
                     [(1, "truck", "vehicle"), (2, "car", "lorry"), (3, "dog", "animal")],
                     {3: 1, 1: 2, 7: 3}, set(), id="two change names"),
        pytest.param((), {"car": "truck", "truck": "dog"}, (), [(1, "truck", "vehicle"), (2, "dog", "animal")],
                     {3: 1, 1: 2, 7: 2}, {2}, id="chains are not followed"),
        pytest.param((), {"car": None}, ("dog",), [(1, "truck", "lorry")], {1: 1}, set(), id="dropped both ways"),
        pytest.param((), {"car": None}, ("car",), [(1, "truck", "lorry"), (2, "dog", "animal")],
                     {1: 1, 7: 2}, set(), id="dropped twice"),
        pytest.param(("car",), {"truck": "car"}, ("dog",), [(1, "car", "vehicle")], {3: 1, 1: 1}, {1}, id="all three"),
        pytest.param((), {"car": "car"}, (), [(1, "car", "vehicle"), (2, "truck", "lorry"), (3, "dog", "animal")],
                     {3: 1, 1: 2, 7: 3}, set(), id="its own name"),
    ],
)  # fmt: skip
def test_recode(
    classes: tuple[Any, ...],
    rename: dict[Any, Any],
    drop: tuple[Any, ...],
    found: list[Any],
    number: dict[Any, Any],
    merged: Any,
) -> None:
    recoding = recode(SOURCE, classes, rename, drop)
    assert (named(recoding), recoding.number, recoding.merged) == (found, number, merged)


@pytest.mark.parametrize(
    ("classes", "rename", "drop", "kind", "problem"),
    [
        pytest.param(("Truk", "cars", "zebra"), {}, (), UsageError,
                     "no classes 'Truk', 'cars', 'zebra'.*for 'Truk', did you mean 'truck'[?]; "
                     "for 'cars', did you mean 'car'[?]; there are: car, truck, dog", id="all unknown ones"),
        pytest.param(("CAR",), {}, (), UsageError, "no class 'CAR'.*did you mean 'car'[?]", id="another case"),
        pytest.param((), {"cra": "x"}, ("dgo",), UsageError, "no classes 'cra', 'dgo'", id="in rename and drop"),
        pytest.param(("truck",), {"truck": "lorry"}, (), UsageError, "'truck' is called 'lorry'", id="old name wanted"),
        pytest.param(("dog",), {}, ("dog",), UsageError, "'dog' is dropped", id="wanted and dropped"),
        pytest.param(("dog",), {"dog": None}, (), UsageError, "'dog' is dropped", id="wanted and dropped by a map"),
        pytest.param((), {"dog": "cat"}, ("dog",), UsageError, "'dog' is both renamed and dropped", id="contradiction"),
        pytest.param((), {"dog": "cat", "car": "x"}, ("dog", "car"), UsageError,
                     "'car', 'dog' are both renamed and dropped", id="contradictions"),
        pytest.param((), {"dog": ""}, (), UsageError, "new name of 'dog' is empty", id="no new name"),
        pytest.param((), {}, ("dog", "car", "truck"), DataError, "every class is dropped", id="nothing left"),
        pytest.param(("dog", "dog"), {}, (), UsageError, "'dog' is asked for twice", id="twice"),
    ],
)  # fmt: skip
def test_refused(
    classes: tuple[Any, ...], rename: dict[Any, Any], drop: tuple[Any, ...], kind: Any, problem: str
) -> None:
    with pytest.raises(kind, match=f"(?s){problem}"):
        recode(SOURCE, classes, rename, drop)


def test_long_lists_are_cut() -> None:
    many = [Category(i, f"class {i:04d}") for i in range(1, 1001)]
    with pytest.raises(UsageError, match="class 0020 and 980 more") as caught:
        recode(many, ["??"], {}, ())
    assert len(str(caught.value)) < 400
