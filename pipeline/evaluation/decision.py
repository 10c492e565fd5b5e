"""What a reader must know first: whether to ship the model, and why."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.evaluation.measurement import Measurement
from pipeline.evaluation.quality_gate import QualityGate
from pipeline.evaluation.reference_names import EARLIER, GIVEN, PYTORCH
from pipeline.evaluation.references import Reference
from pipeline.metrics.paired import BETTER, CLOSE, SAME, WORSE, Difference, PairedFigures

WANTED = 0.02
"""A difference of mAP that matters to users: how many images would show it is told."""

SHIP, REFUSE, OPEN = "passed", "failed", "open"

_SHOWN = 3  # missed limits
_SMALL = 0.005  # differences of mAP for which nobody collects images
_WORDS = {BETTER: "better than", WORSE: "worse than", CLOSE: "too close to call against", SAME: "the same as"}


@dataclass(frozen=True)
class Decision:
    """The outcome, `open` where a person must decide; a headline, and the reasons for it."""

    outcome: str
    headline: str
    reasons: tuple[str, ...]


def decide(measured: Measurement, gate: QualityGate) -> Decision:
    """Decide by the gate; then by the earlier model, or without one by the given weights.

    A model that was tested on images that it learned from is left to a person, and no other that learned from them
    counts.
    """
    compared = [(each, each.paired) for each in measured.references if each.paired]
    fair = {each.name: (each.title, paired) for each, paired in compared if not each.caution}
    other, paired = fair.get(EARLIER) or fair.get(GIVEN) or ("", None)
    difference = paired.figures.get("mAP") if paired else None
    verdict = difference.verdict if difference else ""
    reasons = [f"limit missed: {each}" for each in gate.missed[:_SHOWN]] or [gate.verdict]
    if more := len(gate.missed) - _SHOWN if gate.missed[_SHOWN:] else 0:
        reasons.append(f"and {more} more limits are missed, see the table of the gate")
    reasons += [f"{each}: {each.unknown}" for each in gate.unknown[:_SHOWN]]
    reasons.append(_precision(measured, paired if verdict != SAME else None))
    exposure = measured.exposure
    if exposure.exact:
        reasons.append(f"{exposure.exact} of {exposure.images} test images are training images, byte for byte")
    reasons += [line for each, found in compared if (line := _comparison(each, found, measured.metrics.images))]
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
        link = "but" if gate.has_quality_limit else "and"
        return OPEN, f"Keep the {other}, or test more images: {state}, {link} the two models are too close to call"
    better = f", and the model is better than the {other}" if verdict == BETTER else ""
    same = f"; its figures equal those of the {other}" if verdict and not better else ""
    if gate.has_quality_limit:
        return SHIP, f"Ship this model: {state}{better or same}"
    return OPEN, f"Decide yourself: {state}{better or same}"


def _comparison(reference: Reference, paired: PairedFigures, images: int) -> str:
    difference = paired.figures.get("mAP")
    if difference is None:
        return ""
    caution = f"; but {reference.caution}" if reference.caution else ""
    change = "" if difference.verdict == SAME else f": mAP {_change(difference)}"
    settled = ""
    if difference.verdict == CLOSE and reference.name != PYTORCH:
        needed = paired.images_for(abs(difference.change)) if abs(difference.change) >= _SMALL else None
        if needed and needed > images:
            settled = f"; about {needed} images like these are needed to see such a difference"
    return f"{_WORDS[difference.verdict]} the {reference.title}{change}{settled}{caution}"


def _change(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return f"{difference.change:+.3f}, on too few images to tell"
    return f"{difference.change:+.3f} (95 % interval {difference.low:+.3f} to {difference.high:+.3f})"


def _precision(measured: Measurement, paired: PairedFigures | None) -> str:
    """How exact mAP is on so many images, and how many would show a difference of `WANTED`."""
    metrics, chance = measured.metrics, measured.chance
    interval, images = chance.figures["map"], f"{metrics.images} test images"
    if interval is None or metrics.map is None:
        return f"{images}, too few with objects to tell how far chance moves the figures"
    if interval.half_width == 0:
        return f"{images}: mAP {metrics.map:.3f}; they are too much alike to tell how far chance moves it"
    known = f"{images}: mAP {metrics.map:.3f} (95 % interval {interval.low:.3f} to {interval.high:.3f})"
    # a difference of two models that are not yet known has at least the width of one
    needed = paired.images_for(WANTED) if paired else chance.images_for(WANTED)
    if needed is None:
        return known
    if needed <= metrics.images:
        return f"{known}; a difference of {WANTED:g} can be seen"
    return f"{known}; to see a difference of {WANTED:g} takes about {needed} images"
