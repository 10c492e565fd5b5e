"""Which models pass, and which do not."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest
from cases import cases
from detections import found
from evaluations import evaluated

from pipeline.data.report.inline_images import Gallery
from pipeline.errors import UsageError
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.gate_limits import read_limits
from pipeline.evaluation.quality_gate import QualityGate, Requirement, judge
from pipeline.metrics.chance import Interval
from pipeline.metrics.ground_truth import GroundTruth

NAMES = {
    "detections": "detections in the test set",
    "unseen_images": "unseen test images",
    "seen_exact_share": "share of test images that are training images, byte for byte",
    "seen_similar_share": "share of other test images that look like training images",
}
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
        truth = write_dataset([250, 60], categories)
        return judge(evaluated(truth, results, exposure=known or exposure())[0], **(DEFAULTS | limits))

    return run


CASES: dict[str, tuple[dict, bool | None, list[str], str]] = {
    "as it comes": ({}, True, [], "no limit of the model's quality was set; the other limits are met"),
    "at the bar": ({"min_map50": 0.5}, True, [], "the quality gate is passed: mAP50 0.5, at least 0.5"),
    "below the bar": ({"min_map50": 0.51}, False, ["mAP50"], "the quality gate failed: mAP50 0.5, at least 0.51"),
    "a release": ({"release": True}, True, [], ""),
    "nothing found, a release": ({"results": (), "release": True}, False, ["mAP50", "detections"], ""),
    "nothing found": ({"results": ()}, False, ["detections"], ""),
    "nothing found, as allowed": ({"results": (), "allow_no_detections": True}, True, [], ""),
    "nothing to find, and nothing found": ({"results": (), **NO_OBJECT}, True, [], ""),
    "no mAP50": (
        {"min_map50": 0.1, **NO_OBJECT}, False, ["mAP50"], "the quality gate failed: mAP50 not defined, at least 0.1",
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
        {"allow_no_detections": True, "max_seen_exact": 1.0}, None, [],
        "no limit of the model's quality was set, nor any other",
    ),
    "nobody knows": ({"known": exposure(learned=None), "release": True}, True, [], ""),
    "nothing found, nothing left unseen": (
        {"results": (), "known": exposure(similar=4)}, False, ["detections", "unseen_images"],
        "the quality gate failed: detections in the test set 0, at least 1; unseen test images 0, at least 1",
    ),
}  # fmt: skip


@cases("arguments, passed, missed, verdict", CASES)
def test_what_passes(judged: Callable, arguments: dict, passed: bool | None, missed: list[str], verdict: str) -> None:
    gate = judged(**arguments)
    limited = bool({"min_map50", "release"} & arguments.keys())
    assert gate.passed is (passed if limited or passed is False else None)
    assert None not in gate.outcomes.values() or not limited or gate.requirements[2].unknown
    assert [each.meaning for each in gate.missed] == [NAMES.get(name, name) for name in missed]
    assert gate.verdict == (verdict or gate.verdict)
    assert gate.has_quality_limit is ("min_map50" in arguments or "release" in arguments)


def test_what_is_unknown_is_not_held_against_its_limit(judged: Callable) -> None:
    gate = judged(known=exposure(learned=None), max_seen_similar=0.5)
    unknown = [(each.reached, each.has_limit, each.passed) for each in gate.requirements[2:]]
    assert unknown == [(None, True, None)] * 3
    assert list(gate.outcomes.values()) == [None, None, None, None], "and without a limit of quality nothing passes"
    limited = judged(known=exposure(learned=None), min_map50=0.1)
    assert list(limited.outcomes.values()) == [True, True, None, None]
    assert [text.endswith("not known, at most 0") for text in gate.outcomes][1] is True


WITHIN: dict[str, tuple[float | None, float | None, float | None, bool]] = {
    "at the minimum": (0.5, 0.5, None, True),
    "below the minimum by rounding": (0.49999999999999994, 0.5, None, True),
    "below the minimum": (0.4999, 0.5, None, False),
    "above the maximum by rounding": (0.1 + 0.2, None, 0.3, True),
    "above the maximum": (0.3001, None, 0.3, False),
    "between both": (0.5, 0.4, 0.6, True),
    "not defined, with a minimum": (None, 0.0, None, False),
    "not defined, with a maximum": (None, None, 0.0, True),
    "not a number": (float("nan"), 0.0, None, False),
}


@cases("reached, minimum, maximum, passed", WITHIN)
def test_a_figure_is_compared_with_its_limits(
    reached: float | None, minimum: float | None, maximum: float | None, passed: bool
) -> None:
    assert Requirement("score", reached, minimum, maximum).passed is passed


DIFFERENCES: dict[str, tuple[tuple[float, float], float | None, float | None, bool, bool]] = {
    "clearly above": ((0.01, 0.05), 0.0, None, True, False),
    "worse, but not beyond chance": ((-0.05, 0.01), 0.0, None, True, True),
    "worse beyond chance": ((-0.05, -0.01), 0.0, None, False, False),
    "worse beyond chance, by less than is allowed": ((-0.05, -0.01), -0.02, None, True, True),
    "worse beyond chance, by more than is allowed": ((-0.05, -0.03), -0.02, None, False, False),
    "more false positives beyond chance": ((0.1, 0.3), None, 0.0, False, False),
    "more false positives, but not beyond chance": ((-0.1, 0.3), None, 0.0, True, True),
}


@cases("interval, minimum, maximum, passed, is_close", DIFFERENCES)
def test_a_difference_misses_its_limit_only_beyond_chance(
    interval: tuple[float, float], minimum: float | None, maximum: float | None, passed: bool, is_close: bool
) -> None:
    change = sum(interval) / 2
    found = Requirement("mAP", change, minimum, maximum, interval=Interval(*interval), is_difference=True)
    assert (found.passed, found.is_close) == (passed, is_close)


# --- limits of a config ----------------------------------------------------------------------------------------------


BOX = [10, 10, 40, 40]


@pytest.fixture
def forty(coco_file: Callable) -> GroundTruth:
    """Forty images with a cat each; in ten of them there is a dog, too."""
    dogs = [(image, 2, [100, 100, 40, 40]) for image in range(1, 11)]
    return coco_file([(image, 1, BOX) for image in range(1, 41)] + dogs, images=40)


def detected(cats: int, dogs: int) -> list[dict]:
    return [found(image, 1, BOX) for image in range(1, cats + 1)] + [
        found(image, 2, [100, 100, 40, 40]) for image in range(1, dogs + 1)
    ]


LIMITS: dict[str, tuple[list[str], bool | None, list[str]]] = {
    "a figure": (["mAP50 >= 0.5"], True, []),
    "missed": (["mAP >= 0.9"], False, ["mAP"]),
    "a most": (["fp_per_image <= 0"], True, []),
    "of a class": (["AP[dog] >= 0.5", "AP50[cat] >= 0.5"], False, ["AP of dog"]),
    "of each class that has objects": (["AP[*] >= 0.6"], False, ["AP of dog"]),
    "not worse than the given weights": (["mAP >= given"], True, []),
    "not worse than the earlier model": (["mAP >= earlier"], False, ["mAP minus that of the earlier model"]),
    "not much worse than the earlier model": (["mAP >= earlier - 0.6"], True, []),
    "each class against the earlier model": (
        ["AP[*] >= earlier - 0.02"],
        False,
        ["AP of dog minus that of the earlier model"],
    ),
    "against what there is not": (["mAP >= pytorch"], None, []),
    "spaces": (["  AP [ cat ]>=given-.5 "], True, []),
}


@cases("limits, passed, missed", LIMITS)
def test_limits_of_a_config(forty: GroundTruth, limits: list[str], passed: bool | None, missed: list[str]) -> None:
    others = {"given": detected(30, 3), "earlier": detected(35, 10), "pytorch": "it was not asked for"}
    gate = evaluated(forty, detected(35, 4), limits=limits, others=others, draws=200)[1]
    assert (gate.passed, [each.meaning for each in gate.missed]) == (passed, missed)
    assert gate.has_quality_limit is (passed is not None)


def test_the_reason_is_told_why_a_limit_decides_nothing(forty: GroundTruth) -> None:
    others = {"given": "the model was trained from scratch"}
    gate = evaluated(forty, detected(35, 4), limits=["mAP >= given"], others=others)[1]
    assert gate.requirements[-1].unknown == "the model was trained from scratch"
    assert list(gate.outcomes.items()) == [("mAP minus that of the given weights not known, at least 0", None)]


def test_of_limits_in_the_same_words_the_missed_one_is_recorded() -> None:
    same = [Requirement("mAP", 0.50001, 0.500001), Requirement("mAP", 0.50001, 0.500014)]
    for requirements in (same, same[::-1]):
        gate = QualityGate(tuple(requirements))
        assert (gate.passed, gate.outcomes) == (False, {"mAP 0.5, at least 0.5": False})


WRONG: dict[str, tuple[str, str]] = {
    "no limit": ("mAP", "'mAP' is no limit"),
    "one equals sign": ("mAP = 0.5", "FIGURE >= NUMBER"),
    "no such figure": ("map50 >= 0.5", "did you mean 'mAP50'?"),
    "a class's figure without its class": ("AP >= 0.5", "there is no figure 'AP'"),
    "no such class": ("AP[catt] >= 0.5", "did you mean 'cat'?"),
    "no such figure of a class": ("mAP[cat] >= 0.5", "one of AP, AP50, AR100"),
    "no such reference": ("mAP >= earlyer", "did you mean 'earlier'?"),
    "a class's other figure against a model": ("AP50[cat] >= given", "AP of a class"),
}


@cases("text, said", WRONG)
def test_a_wrong_limit_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_limits([text], ["cat", "dog"])
    assert said in str(caught.value)
