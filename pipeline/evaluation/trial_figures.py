"""The figures of several trials side by side: the best first, and which of them no other beats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TrialFigures:
    """What one trial came to; None for what was not measured."""

    number: int
    values: Mapping[str, str]  # the parameters in which trials differ, by a short name
    run: str = ""
    gate: str = ""  # the outcome of the quality gate
    problem: str = ""  # why the trial failed
    map: float | None = None
    map_low: float | None = None  # the ends of the 95 % interval
    map_high: float | None = None
    latency_p50_ms: float | None = None  # of the requests of the evaluation
    latency_p95_ms: float | None = None
    train_seconds: float | None = None
    is_train_longer: bool = False  # a killed attempt took a time that nobody recorded
    test_set: str = ""  # digest
    test_images: int = 0
    hardware: str = ""  # that the service was measured on

    @property
    def label(self) -> str:
        """The values alone, such as `yolox-nano, 5`."""
        return ", ".join(self.values.values())

    @property
    def is_measured(self) -> bool:
        """Whether it has both figures."""
        return self.map is not None and self.latency_p50_ms is not None

    @property
    def training(self) -> str:
        """The time of the training: `41s`, `12m 05s` or `3h 20m`; with a plus where it took longer than that."""
        if self.train_seconds is None:
            return "-"
        minutes, seconds = divmod(round(self.train_seconds), 60)
        hours, rest = divmod(minutes, 60)
        text = f"{hours}h {rest:02}m" if hours else f"{minutes}m {seconds:02}s" if minutes else f"{seconds}s"
        return f"{text}+" if self.is_train_longer else text


def test_sets(trials: Sequence[TrialFigures]) -> list[str]:
    """The test sets of measured trials, that of most trials first."""
    return [name for name, _ in Counter(each.test_set for each in trials if each.is_measured).most_common()]


def ranked(trials: Sequence[TrialFigures]) -> list[TrialFigures]:
    """Trials by test set, since figures of different images cannot be ranked; then by mAP, the failed ones last."""
    places = {name: place for place, name in enumerate(test_sets(trials))}

    def place(trial: TrialFigures) -> tuple[int, float, int]:
        return places.get(trial.test_set, len(places)), -1.0 if trial.map is None else -trial.map, trial.number

    return [*sorted((each for each in trials if each.is_measured), key=place)] + [
        each for each in trials if not each.is_measured
    ]


def pareto_front(trials: Sequence[TrialFigures]) -> set[int]:
    """The numbers of the trials that no other trial on the same test set dominates.

    A trial dominates another if its mAP is not lower and its median latency not higher, and one of them is better.
    """
    measured = [
        (each.number, each.test_set, each.map, each.latency_p50_ms)
        for each in trials
        if each.map is not None and each.latency_p50_ms is not None
    ]
    return {
        number
        for number, test_set, value, latency in measured
        if not any(
            other_set == test_set
            and other_value >= value
            and other_latency <= latency
            and (other_value, other_latency) != (value, latency)
            for _, other_set, other_value, other_latency in measured
        )
    }
