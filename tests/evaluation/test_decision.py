"""The decision: what a reader is told to do, and the reasons."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cases import cases
from detections import found
from evaluations import CLEAN, evaluated

from pipeline.evaluation.decision import decide
from pipeline.evaluation.references import ReferenceDetections

BOX = [10, 10, 40, 40]
PASSED = "the quality gate is passed"
SEEN = replace(CLEAN, seen={"1.png": "exact"})
LEARNED = ReferenceDetections([found(n, 1, BOX) for n in range(1, 41)], caution="it learned from 3 test images")


def cats(*images: int) -> list[dict]:
    return [found(image, 1, BOX) for image in images]


FEW, MANY, OTHERS, ALL = cats(*range(1, 16)), cats(*range(1, 31)), cats(*range(3, 35)), cats(*range(1, 41))

DECISIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a limit is missed": (
        {"results": FEW, "others": {"earlier": FEW}},
        "failed", "Do not ship this model: the quality gate failed",
    ),
    "better than the earlier model": (
        {"results": ALL, "others": {"earlier": FEW, "given": ALL}},
        "passed", f"Ship this model: {PASSED}, and the model is better than the earlier model",
    ),
    "no earlier model, better than the given weights": (
        {"results": ALL, "others": {"given": FEW}},
        "passed", f"Ship this model: {PASSED}, and the model is better than the given weights",
    ),
    "nothing to compare with": ({"results": ALL}, "passed", f"Ship this model: {PASSED}"),
    "the same": (
        {"results": ALL, "others": {"earlier": ALL}},
        "passed", f"Ship this model: {PASSED}; its figures equal those of the earlier model",
    ),
    "worse": (
        {"results": MANY, "others": {"earlier": ALL}},
        "open", f"Think twice: {PASSED}, but the model is worse than the earlier model",
    ),
    "too close to call": (
        {"results": OTHERS, "others": {"earlier": MANY}},
        "open", f"Keep the earlier model, or test more images: {PASSED}, but the two models are too close to call",
    ),
    "the earlier model learned from test images": (
        {"results": MANY, "others": {"earlier": LEARNED, "given": FEW}},
        "passed", f"Ship this model: {PASSED}, and the model is better than the given weights",
    ),
    "no limit, too close to call": (
        {"results": OTHERS, "others": {"earlier": MANY}, "gate": {"min_map50": 0.0}},
        "open",
        "Keep the earlier model, or test more images: no limit of the model's quality was set, and the two models are "
        "too close to call",
    ),
    "no limit, better": (
        {"results": ALL, "others": {"earlier": FEW}, "gate": {"min_map50": 0.0}},
        "open",
        "Decide yourself: no limit of the model's quality was set, and the model is better than the earlier model",
    ),
    "it learned from test images": (
        {"results": ALL, "exposure": SEEN, "others": {"earlier": FEW}},
        "open", f"Decide yourself: {PASSED}, but the model has learned from test images",
    ),
}  # fmt: skip


@cases("arguments, outcome, headline", DECISIONS)
def test_the_headline_says_what_to_do(
    coco_file: Callable, arguments: Mapping[str, Any], outcome: str, headline: str
) -> None:
    decision = decide(*_evaluated(coco_file, **{"gate": {"min_map50": 0.5}, **arguments}))
    assert (decision.outcome, decision.headline) == (outcome, headline)


def test_it_says_how_many_images_would_settle_what_is_too_close(coco_file: Callable) -> None:
    decision = decide(*_evaluated(coco_file, OTHERS, others={"earlier": MANY}, draws=500))
    (reason,) = [each for each in decision.reasons if "earlier" in each]
    told = re.fullmatch(
        r"too close to call against the earlier model: mAP \+(0\.\d+) \(95 % interval (-\d\.\d+) to \+(\d\.\d+)\); "
        r"about (\d+) images like these are needed to see such a difference",
        reason,
    )
    assert told
    change, low, high = (float(told[group]) for group in (1, 2, 3))
    expected = 40 * ((high - low) / 2 / change) ** 2  # an interval's width falls with the root of the images
    assert abs(int(told[4]) - expected) < 0.1 * expected


def test_nobody_is_sent_for_images_that_settle_what_does_not_matter(coco_file: Callable) -> None:
    swapped = cats(*range(2, 32))  # another image is found, so the two are hardly different
    others = {"earlier": swapped, "pytorch": OTHERS}
    reasons = decide(*_evaluated(coco_file, MANY, others=others)).reasons
    assert len([each for each in reasons if each.startswith("too close to call against")]) == 2
    assert not [each for each in reasons if "are needed" in each]


def test_images_that_are_all_alike_do_not_tell_how_exact_mAP_is(coco_file: Callable) -> None:  # noqa: N802
    reasons = decide(*_evaluated(coco_file, ALL)).reasons
    assert "40 test images: mAP 1.000; they are too much alike to tell how far chance moves it" in reasons


def test_a_limit_that_could_not_be_judged_is_told(coco_file: Callable) -> None:
    others = {"earlier": "no earlier run has another one"}
    decision = decide(*_evaluated(coco_file, ALL, limits=["mAP >= earlier"], others=others, gate={"min_map50": 0.5}))
    assert decision.headline == f"Ship this model: {PASSED}"
    told = "mAP minus that of the earlier model not known, at least 0: no earlier run has another one"
    assert told in decision.reasons


def test_all_limits_up_to_three_are_named(coco_file: Callable) -> None:
    limits = ["mAP >= 0.1", "AR100 >= 0.2", "mAP75 >= 0.3"]
    for count, more in ((2, ""), (3, "; and 1 more, see the table of the gate")):
        decision = decide(*_evaluated(coco_file, ALL, limits=limits[:count], gate={"min_map50": 0.5}))
        named = "; ".join(f"{limit.split()[0]} 1, at least {limit.split()[2]}" for limit in limits[:2])
        assert decision.reasons[0] == f"the quality gate is passed: mAP50 1, at least 0.5; {named}{more}"


def _evaluated(coco_file: Callable, results: Sequence[dict], **more: Any) -> Any:
    """Forty images with a cat each."""
    truth = coco_file([(image, 1, BOX) for image in range(1, 41)], images=40)
    return evaluated(truth, results, **{"draws": 200, **more})
