"""The quality gate: the figures that decide whether a model is released, and their limits."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.metrics import DetectionMetrics
from pipeline.limits import is_within

RELEASE_MAP50 = 0.1  # every detector that was trained at all is above it
RELEASE_SEEN_SIMILAR = 0.5  # frames of a fixed camera look alike; but above this, the test measures memory
_NOT_CHOSEN = -1.0
_EXACT = "share of test images that are training images, byte for byte"
_SIMILAR = "share of other test images that look like training images"


@dataclass(frozen=True)
class Requirement:
    """One figure, None where it is not defined, and its limit, if any. An unknown one neither passes nor fails."""

    metric: str
    meaning: str
    reached: float | None
    minimum: float | None = None
    maximum: float | None = None
    is_known: bool = True

    @property
    def has_limit(self) -> bool:
        """Whether there is a limit."""
        return self.minimum is not None or self.maximum is not None

    @property
    def passed(self) -> bool | None:
        """None without a limit, or where the figure is unknown."""
        decides = self.has_limit and self.is_known
        return is_within(self.reached, minimum=self.minimum, maximum=self.maximum) if decides else None

    def __str__(self) -> str:
        """The figure and its limit, such as `mAP50 0.92, at least 0.8`."""
        reached = "not defined" if self.reached is None else f"{self.reached:.4g}"
        limits = (("at least", self.minimum), ("at most", self.maximum))
        return ", ".join([f"{self.meaning} {reached}", *(f"{word} {at:.4g}" for word, at in limits if at is not None)])


@dataclass(frozen=True)
class QualityGate:
    """Figures and their limits; `reached`, `minimum` and `maximum` are by the figure's name. The first is mAP50."""

    requirements: tuple[Requirement, ...]

    @property
    def passed(self) -> bool | None:
        """Whether no figure misses its limit; None where none has a limit, or all that have are unknown."""
        verdicts = [each.passed for each in self.requirements if each.passed is not None]
        return all(verdicts) if verdicts else None

    @property
    def has_quality_limit(self) -> bool:
        """Whether mAP50 has a limit: without one, a model that passes may still be bad."""
        return self.requirements[0].has_limit

    @property
    def verdict(self) -> str:
        """The decision, and the limits it rests on, in one line."""
        missed = [str(each) for each in self.requirements if each.passed is False]
        if missed:
            return f"Quality gate failed: {'; '.join(missed)}"
        if self.has_quality_limit:
            return f"Quality gate passed: {self.requirements[0]}"
        return "No limit for mAP50 was set" + ("; the other limits are met" if self.passed else ", nor any other")

    @property
    def reached(self) -> dict[str, float | None]:
        """Each figure."""
        return {each.metric: each.reached for each in self.requirements}

    @property
    def minimum(self) -> dict[str, float]:
        """The least values that pass, of the figures that are known."""
        return {each.metric: each.minimum for each in self.requirements if each.is_known and each.minimum is not None}

    @property
    def maximum(self) -> dict[str, float]:
        """The greatest values that pass, of the figures that are known."""
        return {each.metric: each.maximum for each in self.requirements if each.is_known and each.maximum is not None}


def judge(
    metrics: DetectionMetrics,
    exposure: Exposure,
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
    `allow_no_detections` a model passes that finds nothing in a test set with objects.
    """
    if min_map50 == _NOT_CHOSEN:
        min_map50 = RELEASE_MAP50 if release else 0.0
    if max_seen_similar == _NOT_CHOSEN:
        max_seen_similar = RELEASE_SEEN_SIMILAR if release else 1.0
    must_find = metrics.objects > 0 and not allow_no_detections
    known, total = exposure.learned is not None, exposure.images
    most_exact, most_similar = (each if each < 1 else None for each in (max_seen_exact, max_seen_similar))
    seen = exposure.exact / total, exposure.similar / total, total - len(exposure.seen)
    exact, similar, unseen = seen if known else (None, None, None)
    return QualityGate(
        (
            Requirement("mAP50", "mAP50", metrics.map50, min_map50 or None),
            Requirement("detections", "detections in the test set", metrics.detections, 1 if must_find else None),
            Requirement("seen_exact_share", _EXACT, exact, None, most_exact, known),
            Requirement("seen_similar_share", _SIMILAR, similar, None, most_similar, known),
            Requirement("unseen_images", "unseen test images", unseen, None if most_exact is None else 1, None, known),
        )
    )
