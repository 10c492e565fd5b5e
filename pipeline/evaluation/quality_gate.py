"""The quality gate: the figures that decide whether a model is released, and their limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.evaluation.gate_limits import EVERY_CLASS, Limit
from pipeline.evaluation.measurement import Measurement
from pipeline.evaluation.reference_names import TITLES
from pipeline.evaluation.references import Reference
from pipeline.metrics.chance import FEWEST_IMAGES, Interval
from pipeline.metrics.named_figures import CLASS_FIGURES, FIGURES

RELEASE_MAP50 = 0.1  # every detector that was trained at all is above it
RELEASE_SEEN_SIMILAR = 0.5  # frames of a fixed camera look alike; but above this, the test measures memory
_NOT_CHOSEN = -1.0
_SHOWN = 3  # limits in a verdict
_EXACT = "share of test images that are training images, byte for byte"
_SIMILAR = "share of other test images that look like training images"
_ROUNDING = 1e-9  # a mean of many quotients that is 0.5 on paper may be 0.49999999999999994
_UNKNOWN = "it is unknown which images the model learned from"


@dataclass(frozen=True)
class Requirement:
    """One figure, None where it is not defined, and its limit, if any. An unknown one neither passes nor fails.

    A difference from another model misses its limit only where all of its interval does.
    """

    meaning: str
    reached: float | None
    minimum: float | None = None
    maximum: float | None = None
    unknown: str = ""  # why the figure is not known
    interval: Interval | None = None
    is_difference: bool = False
    is_quality: bool = False  # whether it tells how good the model is, not whether the test was fair

    @property
    def has_limit(self) -> bool:
        """Whether there is a limit."""
        return self.minimum is not None or self.maximum is not None

    @property
    def passed(self) -> bool | None:
        """None without a limit, or where the figure is unknown."""
        if not self.has_limit or self.unknown:
            return None
        if self.is_difference and self.interval:
            best = _is_within(self.interval.high, minimum=self.minimum)
            return best and _is_within(self.interval.low, maximum=self.maximum)
        return _is_within(self.reached, minimum=self.minimum, maximum=self.maximum)

    @property
    def is_close(self) -> bool:
        """Whether the limit is within the interval, so that other images of this kind could decide otherwise."""
        limits = [limit for limit in (self.minimum, self.maximum) if limit is not None]
        return self.interval is not None and any(self.interval.low < limit < self.interval.high for limit in limits)

    def __str__(self) -> str:
        """The figure and its limit, such as `mAP50 0.92, at least 0.8`."""
        form = "+.4g" if self.is_difference else ".4g"
        figure = "not defined" if self.reached is None else f"{self.reached:{form}}"
        reached = "not known" if self.unknown else figure
        if self.is_difference and self.interval:
            reached += f" ({self.interval.low:+.3f} to {self.interval.high:+.3f})"
        limits = (("at least", self.minimum), ("at most", self.maximum))
        limited = [f"{word} {limit:{form}}" if limit else f"{word} 0" for word, limit in limits if limit is not None]
        return ", ".join([f"{self.meaning} {reached}", *limited])


@dataclass(frozen=True)
class QualityGate:
    """Figures and their limits. The first is mAP50."""

    requirements: tuple[Requirement, ...]

    @property
    def passed(self) -> bool | None:
        """Whether no figure misses its limit; None where none of the model's quality has one, or all are unknown."""
        return False if self.missed else True if self.has_quality_limit else None

    @property
    def has_quality_limit(self) -> bool:
        """Whether a figure of the model's quality has a limit: without one, a model that passes may still be bad."""
        return any(each.is_quality and each.passed is not None for each in self.requirements)

    @property
    def missed(self) -> tuple[Requirement, ...]:
        """What misses its limit."""
        return tuple(each for each in self.requirements if each.passed is False)

    @property
    def unknown(self) -> tuple[Requirement, ...]:
        """What has a limit of the model's quality, and could not be judged."""
        return tuple(each for each in self.requirements if each.has_limit and each.is_quality and each.unknown)

    @property
    def verdict(self) -> str:
        """The decision, and the limits it rests on, in one line."""
        if self.missed:
            return f"the quality gate failed: {'; '.join(map(str, self.missed))}"
        if met := [str(each) for each in self.requirements if each.is_quality and each.passed]:
            more = f"; and {len(met) - _SHOWN} more, see the table of the gate" if met[_SHOWN:] else ""
            return f"the quality gate is passed: {'; '.join(met[:_SHOWN])}{more}"
        others = "; the other limits are met" if any(each.passed for each in self.requirements) else ", nor any other"
        return f"no limit of the model's quality was set{others}"

    @property
    def outcomes(self) -> dict[str, bool | None]:
        """Each limit in words, and whether it is met; None where that is unknown, or decides nothing.

        Without a limit of the model's quality the others decide nothing, for a bad model may meet them.
        """
        met = True if self.has_quality_limit else None
        outcomes: dict[str, bool | None] = {}
        for each in self.requirements:
            if each.has_limit and outcomes.get(str(each)) is not False:  # of two in the same words, the missed one
                outcomes[str(each)] = met if each.passed else each.passed
        return outcomes


def judge(
    measured: Measurement,
    limits: Sequence[Limit] = (),
    *,
    min_map50: float,
    max_seen_exact: float,
    max_seen_similar: float,
    allow_no_detections: bool,
    release: bool,
) -> QualityGate:
    """Compare the figures with their limits.

    `min_map50` is the least mAP50; 0 is no limit; -1 is 0.1 for a release, and no limit otherwise. `max_seen_exact` is
    the greatest share of exact copies of training images; 1 is no limit, even if every image was seen.
    `max_seen_similar` is that of other images seen; -1 is 0.5 for a release, and no limit otherwise. With
    `allow_no_detections` a model passes that finds nothing in a test set with objects. `limits` are further ones.
    """
    if min_map50 == _NOT_CHOSEN:
        min_map50 = RELEASE_MAP50 if release else 0.0
    if max_seen_similar == _NOT_CHOSEN:
        max_seen_similar = RELEASE_SEEN_SIMILAR if release else 1.0
    metrics, exposure = measured.metrics, measured.exposure
    must_find = metrics.objects > 0 and not allow_no_detections
    total, unknown = exposure.images, "" if exposure.learned is not None else _UNKNOWN
    most_exact, most_similar = (each if each < 1 else None for each in (max_seen_exact, max_seen_similar))
    seen = exposure.exact / total, exposure.similar / total, total - len(exposure.seen)
    exact, similar, unseen = (None, None, None) if unknown else seen
    return QualityGate(
        (
            Requirement(
                "mAP50", metrics.map50, min_map50 or None, interval=measured.chance.figures["map50"], is_quality=True
            ),
            Requirement("detections in the test set", metrics.detections, 1 if must_find else None),
            Requirement(_EXACT, exact, None, most_exact, unknown),
            Requirement(_SIMILAR, similar, None, most_similar, unknown),
            Requirement("unseen test images", unseen, None if most_exact is None else 1, None, unknown),
            *(each for limit in limits for each in _required(limit, measured)),
        )
    )


def _required(limit: Limit, measured: Measurement) -> Iterator[Requirement]:
    """What a limit requires: one figure, or that of each class with objects."""
    bounds: tuple[float | None, float | None] = (limit.value, None) if limit.is_minimum else (None, limit.value)
    metrics, chance = measured.metrics, measured.chance
    of = {each.name: each for each in measured.references}.get(limit.reference)
    if not limit.label:
        figure = FIGURES[limit.figure]
        if limit.reference:
            yield _difference(figure.name, "", of, limit)
        else:
            reached, interval = getattr(metrics, figure.attribute), chance.figures[figure.attribute]
            yield Requirement(figure.name, reached, *bounds, interval=interval, is_quality=True)
        return
    for each, interval in zip(metrics.classes, chance.class_ap, strict=True):
        if each.name == limit.label or (limit.label == EVERY_CLASS and each.ground_truth):
            if limit.reference:
                yield _difference("AP", each.name, of, limit)
            else:
                reached = getattr(each, CLASS_FIGURES[limit.figure])
                own = interval if limit.figure == "AP" else None
                yield Requirement(f"{limit.figure} of {each.name}", reached, *bounds, interval=own, is_quality=True)


def _difference(figure: str, label: str, reference: Reference | None, limit: Limit) -> Requirement:
    """A figure against that of another model; without it, or on too few images, nothing is known."""
    meaning = f"{figure}{f' of {label}' if label else ''} minus that of the {TITLES[limit.reference]}"
    bounds: tuple[float | None, float | None] = (limit.value, None) if limit.is_minimum else (None, limit.value)
    if reference is None or reference.paired is None:
        absence = reference.absence if reference else "it was not measured"
        return Requirement(meaning, None, *bounds, unknown=absence, is_difference=True, is_quality=True)
    found = (reference.paired.class_ap if label else reference.paired.figures).get(label or figure)
    if found is None or found.low is None or found.high is None:
        few = f"fewer than {FEWEST_IMAGES} images tell nothing" if found else "the figure is not defined for both"
        change = found.change if found else None
        return Requirement(meaning, change, *bounds, unknown=few, is_difference=True, is_quality=True)
    interval = Interval(found.low, found.high)
    return Requirement(meaning, found.change, *bounds, interval=interval, is_difference=True, is_quality=True)


def _is_within(value: float | None, *, minimum: float | None = None, maximum: float | None = None) -> bool:
    """Whether a figure is within its limits; one that is not defined is below every minimum, and above no maximum."""
    if value is None:
        return minimum is None
    above = minimum is None or value >= minimum - _ROUNDING
    return above and (maximum is None or value <= maximum + _ROUNDING)
