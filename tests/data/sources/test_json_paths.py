from __future__ import annotations

from typing import Any

import pytest
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.sources.json_paths import ABSENT, find, need, suggestion
from pipeline.errors import DataError

DATA = {"data": {"results": [{"id": 1}, {"id": None}], "count": 2}, "next": None}


@cases(
    "path, found",
    {
        "nothing is the thing itself": ("", DATA),
        "dot is the thing itself": (".", DATA),
        "keys": ("data.count", 2),
        "index": ("data.results.0.id", 1),
        "null is there": ("data.results.1.id", None),
        "index too large": ("data.results.2", ABSENT),
        "no index from the end": ("data.results.-1", ABSENT),
        "key of a list": ("data.results.id", ABSENT),
        "key of a number": ("data.count.x", ABSENT),
        "key of null": ("next.x", ABSENT),
    },
)
def test_find(path: str, found: Any) -> None:
    assert find(DATA, path) is found or find(DATA, path) == found


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, max_size=3)
        ),
    )
)
def test_every_place_has_a_path(value: Any) -> None:
    def walk(inside: Any, path: Any) -> None:
        assert find(value, ".".join(path)) is inside
        steps = inside.items() if isinstance(inside, dict) else enumerate(inside) if isinstance(inside, list) else ()
        for step, deeper in steps:
            walk(deeper, [*path, str(step)])

    walk(value, [])


@cases(
    "path, match",
    {
        "near": ("data.result", r"keys at 'data': results, count[\s\S]*did you mean 'data\.results'\?"),
        "at the top": ("Next", r"keys there: data, next[\s\S]*did you mean 'next'\?"),
        "no object": ("data.count.x", r"at 'data\.count', which holds a number[\s\S]*set api\.items"),
        "list too short": ("data.results.7", r"at 'data\.results', which holds a list"),
    },
)
def test_need_says_where_the_path_goes_astray(path: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        need(DATA, path, setting="items", where="page 1")


def test_suggestion() -> None:
    assert suggestion(DATA, "data.resluts") == "did you mean 'data.results'?"
    assert suggestion(DATA, "zzz") == ""
