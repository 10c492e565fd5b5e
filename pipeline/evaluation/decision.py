"""What a reader must know first: whether to ship the model, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluation.chance import Chance
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.metrics import DetectionMetrics
from pipeline.evaluation.paired import BETTER, CLOSE, SAME, WORSE, Difference, PairedFigures
from pipeline.evaluation.quality_gate import QualityGate
from pipeline.evaluation.references import Reference

WANTED = 0.02
"""A difference of mAP that matters to users: how many images would show it is told."""

SHIP, REFUSE, OPEN = "passed", "failed", "open"

_WORDS = {BETTER: "better than", WORSE: "worse than", CLOSE: "too close to call against", SAME: "the same as"}


@dataclass(frozen=True)
class Decision:
    """The outcome, `open` where a person must decide; a headline, and the reasons for it."""

    outcome: str
    headline: str
    reasons: tuple[str, ...]


def decide(
    metrics: DetectionMetrics, chance: Chance, gate: QualityGate, references: Sequence[Reference], exposure: Exposure
) -> Decision:
    """Decide by the gate; then by the earlier model, or without one by the given weights.

    A model that was tested on images that it learned from is left to a person.
    """
    compared = {each.name: (each.title, each.paired) for each in references if each.paired}
    other, paired = compared.get("earlier") or compared.get("given") or ("", None)
    difference = paired.figures.get("mAP") if paired else None
    verdict = difference.verdict if difference else ""
    reasons = [f"missed: {each}" for each in gate.missed] or [gate.verdict]
    if exposure.exact:
        reasons.append(f"{exposure.exact} of {exposure.images} test images are training images, byte for byte")
    reasons += [line for title, each in compared.values() if (line := _comparison(title, each))]
    reasons.append(_precision(metrics, chance, paired))
    outcome, headline = _headline(gate, other, verdict, is_seen=bool(exposure.exact))
    return Decision(outcome, headline, tuple(reasons))


def _headline(gate: QualityGate, other: str, verdict: str, *, is_seen: bool) -> tuple[str, str]:
    if gate.missed:
        return REFUSE, "Do not ship this model: the quality gate failed"
    state = "the quality gate is passed" if gate.has_quality_limit else "no limit of the model's quality was set"
    if is_seen:
        return OPEN, f"Decide yourself: {state}, but the model has learned from test images"
    if verdict == WORSE:
        return OPEN, f"Think twice: {state}, but the model is worse than the {other}"
    if verdict == CLOSE:
        return OPEN, f"Too close to call: {state}; better or worse than the {other} is not known"
    better = f", and the model is better than the {other}" if verdict == BETTER else ""
    same = f"; the figures are those of the {other}" if verdict and not better else ""
    if gate.has_quality_limit:
        return SHIP, f"Ship this model: {state}{better or same}"
    return OPEN, f"Decide yourself: {state}{better or same}"


def _comparison(title: str, paired: PairedFigures) -> str:
    difference = paired.figures.get("mAP")
    return f"{_WORDS[difference.verdict]} the {title}: mAP {_change(difference)}" if difference else ""


def _change(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return f"{difference.change:+.3f}, on too few images to tell"
    return f"{difference.change:+.3f} (95 % interval {difference.low:+.3f} to {difference.high:+.3f})"


def _precision(metrics: DetectionMetrics, chance: Chance, paired: PairedFigures | None) -> str:
    """How exact mAP is on so many images, and how many would show a difference of `WANTED`."""
    interval, images = chance.figures["map"], f"{metrics.images} test images"
    if interval is None or metrics.map is None:
        return f"{images}, too few with objects to tell how far chance moves the figures"
    known = f"{images}: mAP {metrics.map:.3f} ± {interval.half_width:.3f}"
    # a difference of two models that are not yet known has at least the width of one
    needed = paired.images_for(WANTED) if paired else chance.images_for(WANTED)
    if needed is None:
        return known
    if needed <= metrics.images:
        return f"{known}; a difference of {WANTED:g} can be seen"
    return f"{known}; to see a difference of {WANTED:g} takes about {needed}"
