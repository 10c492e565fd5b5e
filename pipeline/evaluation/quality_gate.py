"""The quality gate: what a model must reach, and how it must have been examined, to be released."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.metrics import DetectionMetrics

STRICT_MAP50 = 0.1  # a detector that was trained at all is above it
STRICT_SEEN_SIMILAR = 0.5  # frames of a fixed camera look alike; but where most are known, memory is what is measured
_MAP50 = "mAP50"
_NOT_CHOSEN = -1.0
_ROUNDING = 1e-9  # a mean of many quotients that is 0.5 on paper may be 0.49999999999999994


@dataclass(frozen=True)
class Requirement:
    """One figure and its limit.

    Attributes:
        metric: The figure's name among the metrics.
        meaning: The figure in words.
        reached: Its value; None where it is not defined.
        minimum: The least value that passes; None without such a limit.
        maximum: The greatest value that passes; None without such a limit.
        may_be_unknown: Whether a figure that is not defined is not held against `minimum`, instead of missing it.
    """

    metric: str
    meaning: str
    reached: float | None
    minimum: float | None = None
    maximum: float | None = None
    may_be_unknown: bool = False

    @property
    def has_limit(self) -> bool:
        """Whether there is a limit."""
        return self.minimum is not None or self.maximum is not None

    @property
    def passed(self) -> bool | None:
        """Whether the figure is within its limit; None without a limit, or where the figure is unknown."""
        if self.minimum is not None and not (self.reached is None and self.may_be_unknown):
            return self.reached is not None and self.reached >= self.minimum - _ROUNDING
        if self.maximum is not None and self.reached is not None:
            return self.reached <= self.maximum + _ROUNDING
        return None

    def __str__(self) -> str:
        """The figure and its limit, such as `mAP50 0.92, at least 0.8`."""
        reached = "not defined" if self.reached is None else f"{self.reached:.4g}"
        limits = (("at least", self.minimum), ("at most", self.maximum))
        return ", ".join([f"{self.meaning} {reached}", *(f"{word} {at:.4g}" for word, at in limits if at is not None)])


@dataclass(frozen=True)
class Gate:
    """What was asked for and what was reached."""

    requirements: tuple[Requirement, ...]

    @property
    def passed(self) -> bool | None:
        """Whether nothing misses its limit; None where nothing was held against one."""
        verdicts = [one.passed for one in self.requirements if one.passed is not None]
        return all(verdicts) if verdicts else None

    @property
    def examined(self) -> bool:
        """Whether mAP50 had a limit: without one, what passes need not be any good."""
        return any(one.metric == _MAP50 and one.has_limit for one in self.requirements)

    @property
    def verdict(self) -> str:
        """What was decided, and by which limits, in one line."""
        missed = [str(one) for one in self.requirements if one.passed is False]
        if missed:
            return f"Quality gate failed: {'; '.join(missed)}"
        if self.examined:
            return f"Quality gate passed: {next(str(one) for one in self.requirements if one.metric == _MAP50)}"
        return "No limit for mAP50 was set" + ("; the other limits are met" if self.passed else ", nor any other")

    @property
    def reached(self) -> dict[str, float | None]:
        """Each figure by its name."""
        return {one.metric: one.reached for one in self.requirements}

    @property
    def minimum(self) -> dict[str, float]:
        """The least value of each figure that has such a limit."""
        return {
            one.metric: one.minimum
            for one in self.requirements
            if one.minimum is not None and one.passed is not None  # what is unknown is not held against it
        }

    @property
    def maximum(self) -> dict[str, float]:
        """The greatest value of each figure that has such a limit."""
        return {one.metric: one.maximum for one in self.requirements if one.maximum is not None}


def judge(
    metrics: DetectionMetrics,
    exposure: Exposure,
    *,
    min_map50: float,
    strict: bool = False,
    allow_no_detections: bool = False,
    max_seen_exact: float = 0.0,
    max_seen_similar: float = _NOT_CHOSEN,
) -> Gate:
    """Hold the figures against their limits.

    Args:
        metrics: Of the test set.
        exposure: How far the model knows the test set.
        min_map50: The least mAP50, see `least_map50`.
        strict: Whether a limit that was not chosen is that for a release.
        allow_no_detections: Whether a model passes that finds nothing in a test set with objects.
        max_seen_exact: Greatest share of test images that may be byte for byte among those learned from; 1: no limit,
            and no image need be left that the model has not seen.
        max_seen_similar: Greatest share of other test images that may look like one of those, see `most_similar`.

    Raises:
        UsageError: A limit makes no sense.
    """
    check_limits(min_map50=min_map50, max_seen_exact=max_seen_exact, max_seen_similar=max_seen_similar)
    similar = most_similar(max_seen_similar, strict=strict)
    least = least_map50(min_map50, strict=strict)
    must_find = metrics.objects > 0 and not allow_no_detections
    return Gate(
        (
            Requirement(_MAP50, "mAP50", metrics.map50, minimum=least or None),
            Requirement(
                "detections", "detections in the test set", metrics.detections, minimum=1 if must_find else None
            ),
            Requirement(
                "seen_exact_share",
                "share of test images byte for byte among those learned from",
                exposure.exact_share,
                maximum=max_seen_exact if max_seen_exact < 1 else None,
            ),
            Requirement(
                "seen_similar_share",
                "share of other test images that look like one learned from",
                exposure.similar_share,
                maximum=similar if similar < 1 else None,
            ),
            Requirement(
                "unseen_images",
                "unseen test images",
                exposure.unseen_images,
                minimum=1 if max_seen_exact < 1 else None,
                may_be_unknown=True,
            ),
        )
    )


def check_limits(*, min_map50: float, max_seen_exact: float, max_seen_similar: float) -> None:
    """Refuse limits that make no sense, before anything is measured; see `judge`.

    Raises:
        UsageError: One does not.
    """
    least_map50(min_map50, strict=True)
    most_similar(max_seen_similar, strict=True)
    if not 0 <= max_seen_exact <= 1:
        raise UsageError(f"max_seen_exact is {max_seen_exact}", expected="a share of the test images, between 0 and 1")


def least_map50(min_map50: float, *, strict: bool) -> float:
    """The least mAP50 that passes, 0 for no limit.

    Args:
        min_map50: Between 0 and 1; 0 for no limit; -1 for 0.1 where `strict`, else for no limit.
        strict: Whether this is for a release.

    Raises:
        UsageError: It is none of these.
    """
    if min_map50 == _NOT_CHOSEN:
        return STRICT_MAP50 if strict else 0.0
    if not 0 <= min_map50 <= 1:
        raise UsageError(f"min_map50 is {min_map50}", expected="a mAP50 between 0 and 1, or -1 for the default")
    return min_map50


def most_similar(max_seen_similar: float, *, strict: bool) -> float:
    """The greatest share of test images that may look like one learned from, 1 for no limit.

    Args:
        max_seen_similar: Between 0 and 1; 1 for no limit; -1 for 0.5 where `strict`, else for no limit.
        strict: Whether this is for a release.

    Raises:
        UsageError: It is none of these.
    """
    if max_seen_similar == _NOT_CHOSEN:
        return STRICT_SEEN_SIMILAR if strict else 1.0
    if not 0 <= max_seen_similar <= 1:
        raise UsageError(
            f"max_seen_similar is {max_seen_similar}",
            expected="a share of the test images, between 0 and 1, or -1 for the default",
        )
    return max_seen_similar
