from __future__ import annotations

import json
import math
from typing import Any

import pytest
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.coco import Image
from pipeline.data.groups import read_ties
from pipeline.errors import UsageError


def pictures(**fields: Any) -> Any:
    return [Image(i, name, 9, 9, extra) for i, (name, extra) in enumerate(fields.items(), 1)]


def grouped(images: Any, groups: Any, group_by: Any) -> Any:
    ties = read_ties(images, groups, group_by)
    found = ties.groups(range(len(images)))
    return {ties.key(images, rows): {images[row].file_name for row in rows} for rows in found}


def test_values_of_any_kind() -> None:
    """Equal values tie, whatever they are, except those that say nothing."""
    values = [1, "1", [1, 2], [1, 2], {"x": 1, "y": 2}, {"y": 2, "x": 1}, None, None, "", "", math.nan, math.nan]
    images = pictures(**{f"{i:02d}": {"at": value} for i, value in enumerate(values)})
    tied = [["00"], ["01"], ["02", "03"], ["04", "05"], *([f"{i:02d}"] for i in range(6, 12))]
    assert sorted(map(sorted, grouped(images, {}, "at").values())) == tied


def test_a_scene_is_one_of_its_video() -> None:
    images = pictures(a={"video": "v", "scene": 1}, b={"video": "w", "scene": 1}, c={"video": "v", "scene": 1},
                      d={"video": "v", "scene": 2}, e={"scene": 1}, f={"scene": 1}, g={"video": "v"})  # fmt: skip
    assert sorted(map(sorted, grouped(images, {}, "scene").values())) == [["a", "c"], ["b"], ["d"], ["e", "f"], ["g"]]


@cases(
    "fields, problem",
    {
        "near miss": ({"video": "v", "frame": 1}, "did you mean 'video'[?] there are: frame, video"),
        "one without values is none": ({"scene": 3, "vdeo": None}, "there are: scene"),
        "no fields": ({}, "leave group_by empty"),
    },
)
def test_unknown_field(fields: dict[Any, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=f"(?s)no image has a field 'vdeo'.*{problem}"):
        read_ties(pictures(a=fields), {}, "vdeo")


labels = st.lists(st.tuples(st.sampled_from(["", "x", "y", "z"]), st.sampled_from([None, 1, 2, 3])), max_size=12)


@settings(deadline=None)
@given(labels)
def test_closure_against_plain_search(labels: Any) -> None:
    """The same groups as following every tie until nothing is added, whatever the order of the images."""
    images = [Image(i, f"{i:02d}", 9, 9, {"at": value, "any": 1}) for i, (_, value) in enumerate(labels)]
    keys = {image.file_name: key for image, (key, _) in zip(images, labels, strict=True)}
    field = "at" if any(value for _, value in labels) else ""
    groups = [{row} for row in range(len(labels))]
    for one, (key, value) in enumerate(labels):
        tied = {i for i, other in enumerate(labels) if i == one or (key and key == other[0])}
        tied |= {i for i, other in enumerate(labels) if field and value and value == other[1]}
        joined = [group for group in groups if group & tied]
        groups = [group for group in groups if not group & tied] + [set().union(*joined)]
    expected = {frozenset(images[row].file_name for row in group) for group in groups}
    found = grouped(images, keys, field)
    assert set(map(frozenset, found.values())) == expected
    assert grouped(images[::-1], keys, field) == found
    for key, names in found.items():
        values = sorted(json.dumps(images[int(name)].extra["at"]) for name in names if images[int(name)].extra["at"])
        assert key == (f"at\0{values[0]}" if field and values else min(names))


def test_long_chains_are_quick() -> None:
    """Thirty thousand images, each tied to the next one, in the worst order."""
    count = 30_000
    images = [Image(i, f"{i}", 9, 9, {"pair": (i + 1) // 2}) for i in range(count)]
    ties = read_ties(images, {str(i): f"g{i // 2}" for i in range(count)}, "pair")
    assert len(ties.groups(range(count))) == 1
    assert len(ties.groups(range(count)[::-1])) == 1
