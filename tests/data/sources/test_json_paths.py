from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.sources.json_paths import ABSENT, find, need, suggestion
from pipeline.errors import DataError

DATA = {"data": {"results": [{"id": 1}, {"id": None}], "count": 2}, "next": None}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        pytest.param("", DATA, id="nothing is the thing itself"),
        pytest.param(".", DATA, id="dot is the thing itself"),
        pytest.param("data.count", 2, id="keys"),
        pytest.param("data.results.0.id", 1, id="index"),
        pytest.param("data.results.1.id", None, id="null is there"),
        pytest.param("data.results.2", ABSENT, id="index too large"),
        pytest.param("data.results.-1", ABSENT, id="no index from the end"),
        pytest.param("data.results.id", ABSENT, id="key of a list"),
        pytest.param("data.count.x", ABSENT, id="key of a number"),
        pytest.param("next.x", ABSENT, id="key of null"),
    ],
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
    def walk(inside, path):
        assert find(value, ".".join(path)) is inside
        steps = inside.items() if isinstance(inside, dict) else enumerate(inside) if isinstance(inside, list) else ()
        for step, deeper in steps:
            walk(deeper, [*path, str(step)])

    walk(value, [])


@pytest.mark.parametrize(
    ("path", "match"),
    [
        pytest.param("data.result", r"keys at 'data': results, count[\s\S]*did you mean 'data\.results'\?", id="near"),
        pytest.param("Next", r"keys there: data, next[\s\S]*did you mean 'next'\?", id="at the top"),
        pytest.param("data.count.x", r"at 'data\.count', which holds a number[\s\S]*set api\.items", id="no object"),
        pytest.param("data.results.7", r"at 'data\.results', which holds a list", id="list too short"),
    ],
)
def test_need_says_where_the_path_goes_astray(path: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        need(DATA, path, setting="items", where="page 1")


def test_suggestion() -> None:
    assert suggestion(DATA, "data.resluts") == "did you mean 'data.results'?"
    assert suggestion(DATA, "zzz") == ""
