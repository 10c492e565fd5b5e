from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pipeline.detection.resuming import _remove_drafts, layout, read_state, write_state
from pipeline.errors import DataError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there yet" / "state.pth"
    write_state(path, {"a": torch.arange(3), "b": [1, 2.5, "c", None, True]})
    write_state(path, {"a": torch.arange(4), "b": [1, 2.5, "c", None, True]})
    state = read_state(path)
    assert state["a"].tolist() == [0, 1, 2, 3]
    assert state["b"] == [1, 2.5, "c", None, True]
    assert list(path.parent.iterdir()) == [path]


def test_several_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state.pth"
    write_state(path, {"values": torch.full((20_000,), 0)})

    def write(number: int) -> None:
        write_state(path, {"values": torch.full((20_000,), number)})

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, number) for number in range(20)]
        while not all(writer.done() for writer in writers):
            assert len(read_state(path)["values"].unique()) == 1
        for writer in writers:
            writer.result()
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "state.pth"
    write_state(path, {"a": 1})
    with pytest.raises(Exception, match="pickle"):
        write_state(path, {"a": lambda: 1})
    assert read_state(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_drafts_are_removed_and_no_others(tmp_path: Path) -> None:
    for name in ("state.pth", ".state.pth.1.tmp", ".other.pth.1.tmp", "notes"):
        (tmp_path / name).touch()
    _remove_drafts(tmp_path / "state.pth")
    _remove_drafts(tmp_path / "absent" / "state.pth")
    assert {path.name for path in tmp_path.iterdir()} == {"state.pth", ".other.pth.1.tmp", "notes"}


def test_any_damage_is_found_or_harmless(tmp_path: Path) -> None:
    """A byte changed anywhere: torch alone would take most of these for weights."""
    path, expected = tmp_path / "state.pth", {"a": torch.arange(300), "b": 0.25}
    write_state(path, expected)
    whole = path.read_bytes()
    chance = random.Random(0)
    found = 0
    for _ in range(200):
        content = bytearray(whole)
        content[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        try:
            state = read_state(path)
        except DataError:
            found += 1
        else:
            assert torch.equal(state["a"], expected["a"])
            assert state["b"] == expected["b"]
    assert found > 100


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_cut_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "state.pth"
    write_state(path, {"a": torch.arange(300)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match="cannot be read"):
        read_state(path)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param({"a": torch.zeros(2)}, {"a": torch.ones(2)}, True, id="other values"),
        pytest.param({"a": torch.zeros(2)}, {"a": torch.zeros(3)}, False, id="another shape"),
        pytest.param({"a": torch.zeros(2)}, {"a": torch.zeros(2).long()}, False, id="another type of tensor"),
        pytest.param({"a": torch.zeros(2)}, {"b": torch.zeros(2)}, False, id="another name"),
        pytest.param([{"a": 1.0}], [{"a": 2.0}], True, id="other numbers"),
        pytest.param([{"a": 1.0}], [{"a": None}], False, id="another type"),
        pytest.param([1, 2], [1], False, id="another length"),
        pytest.param((1, 2), [3, 4], True, id="a tuple that came back as a list"),
    ],
)
def test_layout(one: object, other: object, same: bool) -> None:
    assert (layout(one) == layout(other)) is same
