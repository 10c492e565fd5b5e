"""What `--over` names: parameters with the values or the range that a sweep tries, checked before the first trial."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yaml import YAMLError

from pipeline.errors import UsageError
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.parameters import NUMBER, Parameter
from pipeline.runtime.project import Project, Values, check_name, read_yaml

EXAMPLE = "--over model_train.epochs=1,5 or --over model_train.learning_rate=1e-4..1e-2"
RANGE = re.compile(rf"{NUMBER}\.\.{NUMBER}")
LOG_FROM = 10.0  # the ratio of a range's ends from which its logarithm is searched evenly

Combination = dict[str, Any]  # `STEP.NAME` to value


@dataclass(frozen=True)
class SweptParameter:
    """A parameter of a step with the values to try, or for a search the lowest and the highest."""

    step: str
    parameter: Parameter
    values: tuple[Any, ...]
    is_range: bool = False

    @property
    def name(self) -> str:
        """`STEP.NAME`."""
        return f"{self.step}.{self.parameter.name}"

    @property
    def is_log(self) -> bool:
        """Whether the ends of a range differ by so much that its logarithm is searched evenly."""
        low, high = self.values
        return bool(low > 0 and high / low >= LOG_FROM)

    @property
    def size(self) -> float:
        """How many values there are; infinite for a range of real numbers."""
        if not self.is_range:
            return len(self.values)
        return self.values[1] - self.values[0] + 1 if self.parameter.type == "int" else math.inf


def parse_over(texts: Sequence[str], steps: Mapping[str, StepNotebook]) -> list[SweptParameter]:
    """The values of `--over`: `STEP.NAME=VALUE,VALUE` or, for a number, `STEP.NAME=LOW..HIGH`.

    Raises:
        UsageError: A name, a type or a value is wrong, by the notebook's declaration.
    """
    swept: dict[str, SweptParameter] = {}
    for text in texts:
        name, sign, typed = text.partition("=")
        step, _, parameter = name.partition(".")
        if not sign or not parameter:
            raise UsageError(f"--over {text}", expected="STEP.NAME=VALUE,VALUE or STEP.NAME=LOW..HIGH", remedy=EXAMPLE)
        check_name("step", step, steps)
        if name in swept:
            raise UsageError(f"{name} is named twice", where="--over", remedy="name all of its values at once")
        swept[name] = _parse(step, steps[step].parameter(parameter), typed)
    return list(swept.values())


def _parse(step: str, parameter: Parameter, text: str) -> SweptParameter:
    if parameter.type in ("int", "float") and (ends := RANGE.fullmatch(text.strip())):
        return _range(step, parameter, *(parameter.check(read_yaml(end), step) for end in ends.groups()))
    try:
        given = text.split(",") if parameter.type == "str" else read_yaml(f"[{text}]")
    except YAMLError as error:
        raise UsageError(
            f"--over {step}.{parameter.name}={text}: {error}", expected="values in YAML's notation, with commas between"
        ) from error
    values = {json.dumps(value): value for value in (parameter.check(each, step) for each in given)}
    if not values:
        raise UsageError(f"--over {step}.{parameter.name}={text}", expected="a value or more", remedy=EXAMPLE)
    return SweptParameter(step, parameter, tuple(values.values()))


def _range(step: str, parameter: Parameter, low: float, high: float) -> SweptParameter:
    name = f"{step}.{parameter.name}"
    if low >= high:
        raise UsageError(f"the range {low}..{high} of {name} is empty", expected="LOW..HIGH", remedy=EXAMPLE)
    if parameter.has_gaps:
        raise UsageError(
            f"{name} takes not every value between {low} and {high}",
            expected=parameter.help,
            remedy=f"name the values: --over {name}={low},{high}",
        )
    return SweptParameter(step, parameter, (low, high), is_range=True)


def combinations(swept: Sequence[SweptParameter]) -> Iterator[Combination]:
    """All combinations of values, the last parameter's changing first."""
    for values in itertools.product(*(each.values for each in swept)):
        yield dict(zip((each.name for each in swept), values, strict=True))


def as_overrides(combination: Combination) -> Values:
    """A combination as `--set` gives it: by step and parameter."""
    overrides: Values = {}
    for name, value in combination.items():
        step, _, parameter = name.partition(".")
        overrides.setdefault(step, {})[parameter] = value
    return overrides


def check_trials(project: Project, swept: Sequence[SweptParameter], trials: int | None) -> None:
    """Refuse a wrong combination before the first trial.

    A search checks each value beside the first values of the others: it may have more combinations than can be checked.
    """
    if trials is None and (ranges := [each.name for each in swept if each.is_range]):
        raise UsageError(
            f"{' and '.join(ranges)}: a range has no end of values",
            expected="the values themselves, or the number of trials to search it with",
            remedy="--trials 20",
        )
    if trials is not None and trials < 1:
        raise UsageError(f"--trials is {trials}", expected="at least 1")
    if trials is None:
        checked = combinations(swept)
    else:
        first = {each.name: each.values[0] for each in swept}
        checked = ({**first, each.name: value} for each in swept for value in each.values)
    for combination in checked:
        project.parameters(as_overrides(combination))
