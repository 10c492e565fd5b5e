"""What `--over` may say, and the combinations that it stands for."""

from __future__ import annotations

from typing import Any

import pytest
from cases import cases

from pipeline.cli.swept_parameters import SweptParameter, as_overrides, combinations, parse_over
from pipeline.runtime.notebook import read_steps

PARAMETERS = """\
text: str = "hello"  # what to write
names: list[str] = []  # some names
act: str = "go"  # what to do; one of go, stay
side: int = 64  # in pixels; a multiple of 32; at least 32
times: int = 1  # how often; at least 1
rate: float = 0.0  # how fast; from 0 to 1
loud: bool = False  # in capital letters"""
IMPORT_CHECK = "from pipeline.data.split.division import check_division"
CHECK = "check_division(mode, train, held)"
ALLOWED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "texts": ("text=a,b c,", ("a", "b c", "")),
    "texts that YAML reads otherwise": ("text=no,1,~", ("no", "1", "~")),
    "one value": ("times=3", (3,)),
    "a value twice": ("times=3,4,3", (3, 4)),
    "a whole number for a real one": ("rate=1,0.5", (1.0, 0.5)),
    "an exponent": ("rate=1e-3,1e-2", (0.001, 0.01)),
    "truth": ("loud=true,false", (True, False)),
    "lists": ("names=[a, b],[]", (["a", "b"], [])),
    "a range of a text is a text": ("text=1..5", ("1..5",)),
}
RANGES: dict[str, tuple[str, tuple[float, float], bool, float]] = {
    "whole numbers": ("times=1..5", (1, 5), False, 5),
    "whole numbers far apart": ("times=1..64", (1, 64), True, 64),
    "real numbers": ("rate=0.2..0.8", (0.2, 0.8), False, float("inf")),
    "real numbers far apart": ("rate=1e-4..1e-2", (1e-4, 1e-2), True, float("inf")),
    "from zero, which has no logarithm": ("rate=0..1", (0.0, 1.0), False, float("inf")),
}
REFUSED = {
    "no step": (["times=1,2"], "STEP.NAME=VALUE,VALUE"),
    "no value": (["work.times"], "STEP.NAME=VALUE,VALUE"),
    "an unknown step": (["wrok.times=1"], "did you mean 'work'?"),
    "an unknown parameter": (["work.tmes=1"], "did you mean 'times'?"),
    "the same parameter again": (["work.times=1", "work.times=2"], "named twice"),
    "another type": (["work.times=1,two"], "work.times is 'two'"),
    "nothing for a number": (["work.times="], "a value or more"),
    "no YAML": (["work.times=1,[2"], "YAML"),
    "not one of the choices": (["work.act=go,stya"], "did you mean 'stay'?"),
    "beyond a bound": (["work.times=0,1"], "at least 1"),
    "not a multiple": (["work.side=64,65"], "a multiple of 32"),
    "a range without a number of trials": (["work.times=1..5"], "--trials 20"),
    "a password": (["work.text=https://me:secret@host/,b"], "holds a password"),
}
REFUSED_SEARCHES = {
    "a range beyond a bound": ("work.rate=0.5..2", "2", "from 0 to 1"),
    "a range of another type": ("work.times=1..2.5", "2", "work.times is 2.5"),
    "a range with gaps": ("work.side=64..128", "2", "--over work.side=64,128"),
    "a range that is empty": ("work.times=5..1", "2", "is empty"),
    "a value beyond a bound": ("work.times=1,0", "2", "at least 1"),
    "no trials": ("work.times=1,2", "0", "at least 1"),
}


@pytest.fixture
def project(toy: Any) -> Any:
    for name in ("first", "second", "third"):
        (toy.root / "steps" / f"{name}.ipynb").unlink()
    cells = [("md", "# work"), ("", "from pipeline.runtime.step import Step"), ("parameters", PARAMETERS)]
    cells += [("interface", 'step = Step.open("work", reads=[], writes=["made"])'), ("", "step.commit(metrics={})")]
    toy.notebook("work", cells)
    (toy.root / "configs" / "demo.yaml").write_text("name: toy\n")
    return toy


def parsed(project: Any, *texts: str) -> list[SweptParameter]:
    return parse_over([f"work.{text}" for text in texts], read_steps(project.root / "steps"))


@cases("text, values", ALLOWED)
def test_values_are_read_by_their_type(project: Any, text: str, values: tuple[Any, ...]) -> None:
    (swept,) = parsed(project, text)
    assert (swept.values, swept.is_range) == (values, False)
    assert list(map(type, swept.values)) == list(map(type, values))


@cases("text, ends, is_log, size", RANGES)
def test_ranges_have_ends_and_a_scale(
    project: Any, text: str, ends: tuple[float, float], is_log: bool, size: float
) -> None:
    (swept,) = parsed(project, text)
    assert (swept.values, swept.is_range, swept.is_log, swept.size) == (ends, True, is_log, size)


@cases("over, message", REFUSED)
def test_what_is_wrong_is_refused_before_the_first_trial(project: Any, over: list[str], message: str) -> None:
    project.look("sweep", "configs/demo.yaml", *(f"--over={text}" for text in over)).fails(message, code=2)
    assert not (project.root / ".store").exists()


@cases("over, trials, message", REFUSED_SEARCHES)
def test_a_wrong_search_is_refused_before_the_first_trial(project: Any, over: str, trials: str, message: str) -> None:
    outcome = project.look("sweep", "configs/demo.yaml", f"--over={over}", "--trials", trials)
    outcome.fails(message, code=2)
    assert not (project.root / ".store").exists()


def test_a_wrong_config_is_refused(project: Any) -> None:
    project.look("sweep", "configs/dmo.yaml", "--over=work.times=1").fails("did you mean", code=2)


def test_values_that_are_only_wrong_together_are_refused(project: Any) -> None:
    """A check of the interface cell is made for the whole grid."""
    cells = [("md", "# split"), ("", f"{IMPORT_CHECK}\nfrom pipeline.runtime.step import Step")]
    cells += [("parameters", 'mode: str = "balanced"  # how\ntrain: float = 0.7  # one\nheld: float = 0.1  # other')]
    cells += [("interface", f'{CHECK}\nstep = Step.open("split", reads=["made"], writes=["parts"])')]
    project.notebook("split", [*cells, ("", "step.commit(metrics={})")])
    over = ["--over=split.train=0.5,0.8", "--over=split.held=0.1,0.4"]
    project.look("sweep", "configs/demo.yaml", *over).fails("train_share 0.8 and eval_share 0.4 are no shares", code=2)
    assert not (project.root / ".store").exists()


def test_a_grid_has_every_combination_once_the_last_changing_first(project: Any) -> None:
    swept = parsed(project, "text=a,b", "times=1,2", "loud=true")
    found = [tuple(each.values()) for each in combinations(swept)]
    assert found == [("a", 1, True), ("a", 2, True), ("b", 1, True), ("b", 2, True)]
    first = next(combinations(swept))
    assert as_overrides(first) == {"work": {"text": "a", "times": 1, "loud": True}}
