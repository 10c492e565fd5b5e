"""Which models pass, and which do not."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest
from cases import cases
from detections import found

from pipeline.data.report.inline_images import Gallery
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.quality_gate import QualityGate, judge

RIGHT = (found(1, 1),)
DEFAULTS = MappingProxyType(
    {"min_map50": -1.0, "max_seen_exact": 0.0, "max_seen_similar": -1.0, "allow_no_detections": False, "release": False}
)
NO_OBJECT = MappingProxyType({"categories": ("owl",)})


def exposure(exact: int = 0, similar: int = 0, images: int = 4, learned: int | None = 9) -> Exposure:
    seen = {f"{number}.png": "exact" if number < exact else "similar" for number in range(exact + similar)}
    return Exposure(images, learned, seen, Gallery({}), (), (), None)


@pytest.fixture
def judged(write_dataset: Callable) -> Callable[..., QualityGate]:
    """Judge a model that finds one of two objects, mAP50 0.5, with the notebook's defaults or other limits."""

    def run(
        results: tuple = RIGHT,
        known: Exposure | None = None,
        categories: tuple[str, ...] = ("bright", "dark"),
        **limits: Any,
    ) -> QualityGate:
        metrics = evaluate(write_dataset([250, 60], categories), results)
        return judge(metrics, known or exposure(), **(DEFAULTS | limits))

    return run


CASES: dict[str, tuple[dict, bool | None, list[str], str]] = {
    "as it comes": ({}, True, [], "No limit for mAP50 was set; the other limits are met"),
    "at the bar": ({"min_map50": 0.5}, True, [], "Quality gate passed: mAP50 0.5, at least 0.5"),
    "below the bar": ({"min_map50": 0.51}, False, ["mAP50"], "Quality gate failed: mAP50 0.5, at least 0.51"),
    "a release": ({"release": True}, True, [], ""),
    "nothing found, a release": ({"results": (), "release": True}, False, ["mAP50", "detections"], ""),
    "nothing found": ({"results": ()}, False, ["detections"], ""),
    "nothing found, as allowed": ({"results": (), "allow_no_detections": True}, True, [], ""),
    "nothing to find, and nothing found": ({"results": (), **NO_OBJECT}, True, [], ""),
    "no mAP50": (
        {"min_map50": 0.1, **NO_OBJECT}, False, ["mAP50"], "Quality gate failed: mAP50 not defined, at least 0.1",
    ),
    "any exact image": ({"known": exposure(exact=1)}, False, ["seen_exact_share"], ""),
    "as many as allowed": ({"known": exposure(exact=1), "max_seen_exact": 0.25}, True, [], ""),
    "one more": ({"known": exposure(exact=2), "max_seen_exact": 0.25}, False, ["seen_exact_share"], ""),
    "no limit": ({"known": exposure(exact=4), "max_seen_exact": 1.0}, True, [], ""),
    "similar images": ({"known": exposure(similar=3)}, True, [], ""),
    "half similar, a release": ({"known": exposure(similar=2), "release": True}, True, [], ""),
    "most similar, a release": ({"known": exposure(similar=3), "release": True}, False, ["seen_similar_share"], ""),
    "chosen, a release": ({"known": exposure(similar=3), "release": True, "max_seen_similar": 1.0}, True, [], ""),
    "the training set, re-encoded": ({"known": exposure(similar=4)}, False, ["unseen_images"], ""),
    "nothing left unseen": ({"known": exposure(2, 2), "max_seen_exact": 0.5}, False, ["unseen_images"], ""),
    "nothing left unseen, as allowed": ({"known": exposure(2, 2), "max_seen_exact": 1.0}, True, [], ""),
    "similar images, limited": (
        {"known": exposure(1, 2), "max_seen_similar": 0.25}, False, ["seen_exact_share", "seen_similar_share"], "",
    ),
    "no limit at all": (
        {"allow_no_detections": True, "max_seen_exact": 1.0}, None, [], "No limit for mAP50 was set, nor any other",
    ),
    "nobody knows": ({"known": exposure(learned=None), "release": True}, True, [], ""),
    "nothing found, nothing left unseen": (
        {"results": (), "known": exposure(similar=4)}, False, ["detections", "unseen_images"],
        "Quality gate failed: detections in the test set 0, at least 1; unseen test images 0, at least 1",
    ),
}  # fmt: skip


@cases("arguments, passed, missed, verdict", CASES)
def test_what_passes(judged: Callable, arguments: dict, passed: bool | None, missed: list[str], verdict: str) -> None:
    gate = judged(**arguments)
    assert gate.passed is passed
    assert [each.metric for each in gate.requirements if each.passed is False] == missed
    assert gate.verdict == (verdict or gate.verdict)
    assert gate.has_quality_limit is ("min_map50" in arguments or "release" in arguments)


def test_what_is_unknown_is_not_held_against_its_limit(judged: Callable) -> None:
    gate = judged(known=exposure(learned=None), max_seen_similar=0.5)
    unknown = {each.metric: (each.reached, each.has_limit, each.passed) for each in gate.requirements[2:]}
    assert unknown == dict.fromkeys(("seen_exact_share", "seen_similar_share", "unseen_images"), (None, True, None))
    assert (gate.minimum, gate.maximum) == ({"detections": 1}, {})


def test_every_limit_is_of_a_figure(judged: Callable) -> None:
    gate = judged(min_map50=0.8, max_seen_similar=0.5, known=exposure(1, 1))
    shares = {"seen_exact_share": 0.25, "seen_similar_share": 0.25}
    assert gate.reached == pytest.approx({"mAP50": 0.5, "detections": 1, **shares, "unseen_images": 2})
    assert gate.minimum == {"mAP50": 0.8, "detections": 1, "unseen_images": 1}
    assert gate.maximum == {"seen_exact_share": 0.0, "seen_similar_share": 0.5}
