"""A search among values and ranges: Optuna's TPE sampler, in memory.

Nothing of a search is stored. With the same seed and the same results it asks for the same values again, so a repeated
sweep finds the runs of its trials, and goes on where they end.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.cli.swept_parameters import Combination, SweptParameter
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SEED = 0
REPEATS = 200  # times in a row that known values are asked for, before a search ends early
DIGITS = 3  # of a real number: more would change no result, and are hard to read and to type

log = logging.getLogger(__name__)


def check_optuna() -> None:
    """Refuse a search where Optuna is missing."""
    try:
        import optuna  # noqa: F401  # slow to import, and needed by a search alone
    except ImportError as error:
        raise UsageError(
            "--trials needs Optuna, which is not installed",
            expected="the extra 'sweep' of this project",
            remedy="pip install -e '.[sweep]'; or leave out --trials, and every combination is tried",
        ) from error


def search(swept: Sequence[SweptParameter], trials: int, run: Callable[[Combination], float | None]) -> None:
    """Run as many trials as asked for, each with other values, by what the trials before came to.

    Args:
        swept: The parameters.
        trials: How many, at most as many as there are combinations.
        run: Runs a trial and returns what is to be as high as possible; None where it failed.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=SEED))
    spaces = {each.name: _space(each) for each in swept}
    known: dict[str, float | None] = {}
    repeats = 0
    while len(known) < trials and repeats < REPEATS:
        asked = study.ask(spaces)
        combination = {each.name: _value(each, asked.params[each.name]) for each in swept}
        key = json.dumps(combination)
        repeats = repeats + 1 if key in known else 0
        if key not in known:
            known[key] = run(combination)
        result = known[key]
        study.tell(asked, result, None if result is not None else optuna.trial.TrialState.FAIL)
    if len(known) < trials:
        log.info("the search ends after %d trials: it asks for no other values", len(known))


def _space(each: SweptParameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not each.is_range:  # by their places: Optuna takes no lists and tables
        return CategoricalDistribution(range(len(each.values)))
    low, high = each.values
    kind = IntDistribution if each.parameter.type == "int" else FloatDistribution
    return kind(low, high, log=each.is_log)


def _value(each: SweptParameter, asked: Any) -> Any:
    """What a trial takes for an asked value."""
    if not each.is_range:
        return each.values[asked]
    if each.parameter.type == "int":
        return asked
    low, high = each.values
    return min(max(float(f"{asked:.{DIGITS}g}"), low), high)
