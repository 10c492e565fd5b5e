"""What passes, and what does not."""

from types import MappingProxyType

import pytest

from pipeline.data.learned_images import SeenImage
from pipeline.errors import UsageError
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.quality_gate import check_limits, judge, least_map50, most_similar

RIGHT = ({"image_id": 0, "category_id": 1, "bbox": [8, 8, 32, 32], "score": 0.9},)
NO_OBJECT = MappingProxyType({"categories": ("owl",)})


def exposure(exact=0, similar=0, images=4, learned: int | None = 9) -> Exposure:
    seen = [SeenImage(f"{number}.png", "exact" if number < exact else "similar") for number in range(exact + similar)]
    return Exposure(images, learned, tuple(seen), (), (), (), None)


@pytest.fixture
def judged(write_dataset):
    """Judge a model that finds one of two objects, mAP50 0.5, or as told."""

    def run(results=RIGHT, known=None, categories=("bright", "dark"), **limits):
        metrics = evaluate(write_dataset([250, 60], categories), results)
        return judge(metrics, known or exposure(), **({"min_map50": -1.0} | limits))

    return run


@pytest.mark.parametrize(
    ("arguments", "passed", "missed"),
    [
        pytest.param({}, True, [], id="as it comes"),
        pytest.param({"min_map50": 0.5}, True, [], id="at the bar"),
        pytest.param({"min_map50": 0.51}, False, ["mAP50"], id="below the bar"),
        pytest.param({"strict": True}, True, [], id="a release"),
        pytest.param({"results": (), "strict": True}, False, ["mAP50", "detections"], id="nothing found, a release"),
        pytest.param({"results": ()}, False, ["detections"], id="nothing found"),
        pytest.param({"results": (), "allow_no_detections": True}, True, [], id="nothing found, as allowed"),
        pytest.param({"results": (), **NO_OBJECT}, True, [], id="nothing to find, and nothing found"),
        pytest.param({"min_map50": 0.1, **NO_OBJECT}, False, ["mAP50"], id="no mAP50"),
        pytest.param({"known": exposure(exact=1)}, False, ["seen_exact_share"], id="any exact image"),
        pytest.param({"known": exposure(exact=1), "max_seen_exact": 0.25}, True, [], id="as many as allowed"),
        pytest.param({"known": exposure(exact=2), "max_seen_exact": 0.25}, False, ["seen_exact_share"], id="one more"),
        pytest.param({"known": exposure(exact=4), "max_seen_exact": 1.0}, True, [], id="no limit"),
        pytest.param({"known": exposure(similar=3)}, True, [], id="similar images"),
        pytest.param({"known": exposure(similar=2), "strict": True}, True, [], id="half of them similar, a release"),
        pytest.param(
            {"known": exposure(similar=3), "strict": True}, False, ["seen_similar_share"], id="most similar, a release"
        ),
        pytest.param(
            {"known": exposure(similar=3), "strict": True, "max_seen_similar": 1.0}, True, [], id="as chosen, a release"
        ),
        pytest.param({"known": exposure(similar=4)}, False, ["unseen_images"], id="the training set, re-encoded"),
        pytest.param(
            {"known": exposure(2, 2), "max_seen_exact": 0.5}, False, ["unseen_images"], id="nothing left unseen"
        ),
        pytest.param({"known": exposure(2, 2), "max_seen_exact": 1.0}, True, [], id="nothing left unseen, as allowed"),
        pytest.param(
            {"known": exposure(1, 2), "max_seen_similar": 0.25}, False, ["seen_exact_share", "seen_similar_share"],
            id="similar images, limited",
        ),
        pytest.param({"known": exposure(learned=None), "strict": True}, True, [], id="nobody knows"),
    ],
)  # fmt: skip
def test_what_passes(judged, arguments, passed, missed) -> None:
    gate = judged(**arguments)
    assert gate.passed is passed
    assert [one.metric for one in gate.requirements if one.passed is False] == missed


def test_without_any_limit_nothing_is_passed(judged) -> None:
    gate = judged(min_map50=0, allow_no_detections=True, max_seen_exact=1.0)
    assert gate.passed is None
    assert (gate.minimum, gate.maximum) == ({}, {})
    assert not any(one.has_limit for one in gate.requirements)


def test_what_is_unknown_is_not_held_against_its_limit(judged) -> None:
    gate = judged(known=exposure(learned=None), max_seen_similar=0.5)
    unknown = {one.metric: (one.reached, one.has_limit, one.passed) for one in gate.requirements[2:]}
    assert unknown == dict.fromkeys(("seen_exact_share", "seen_similar_share", "unseen_images"), (None, True, None))
    assert gate.minimum == {"detections": 1}


@pytest.mark.parametrize(
    ("arguments", "verdict", "examined"),
    [
        pytest.param({"min_map50": 0.5}, "Quality gate passed: mAP50 0.5, at least 0.5", True, id="passed"),
        pytest.param({"strict": True}, "Quality gate passed: mAP50 0.5, at least 0.1", True, id="passed, a release"),
        pytest.param({}, "No limit for mAP50 was set; the other limits are met", False, id="mAP50 is not held"),
        pytest.param(
            {"allow_no_detections": True, "max_seen_exact": 1.0}, "No limit for mAP50 was set, nor any other", False,
            id="nothing is held",
        ),
        pytest.param({"min_map50": 0.8}, "Quality gate failed: mAP50 0.5, at least 0.8", True, id="failed"),
        pytest.param(
            {"results": (), "known": exposure(similar=4)},
            "Quality gate failed: detections in the test set 0, at least 1; unseen test images 0, at least 1",
            False, id="failed, and mAP50 is not held",
        ),
        pytest.param(
            {"min_map50": 0.1, **NO_OBJECT}, "Quality gate failed: mAP50 not defined, at least 0.1", True, id="no mAP50"
        ),
    ],
)  # fmt: skip
def test_the_verdict_names_what_was_held(judged, arguments, verdict, examined) -> None:
    gate = judged(**arguments)
    assert (gate.verdict, gate.examined) == (verdict, examined)


def test_every_limit_is_of_a_figure(judged) -> None:
    gate = judged(min_map50=0.8, max_seen_similar=0.5, known=exposure(1, 1))
    shares = {"seen_exact_share": 0.25, "seen_similar_share": 0.25}
    assert gate.reached == pytest.approx({"mAP50": 0.5, "detections": 1, **shares, "unseen_images": 2})
    assert gate.minimum == {"mAP50": 0.8, "detections": 1, "unseen_images": 1}
    assert gate.maximum == {"seen_exact_share": 0.0, "seen_similar_share": 0.5}


@pytest.mark.parametrize(
    ("asked", "strict", "expected"),
    [
        (-1.0, True, 0.1),
        (-1.0, False, 0.0),
        (0.0, True, 0.0),
        (0.5, True, 0.5),
        (0.8, False, 0.8),
        (1.0, False, 1.0),
    ],
)
def test_the_bar(asked: float, strict: bool, expected: float) -> None:
    assert least_map50(asked, strict=strict) == expected


@pytest.mark.parametrize(
    ("asked", "strict", "expected"),
    [(-1.0, True, 0.5), (-1.0, False, 1.0), (0.0, False, 0.0), (0.2, True, 0.2), (1.0, True, 1.0)],
)
def test_the_share_that_may_look_alike(asked: float, strict: bool, expected: float) -> None:
    assert most_similar(asked, strict=strict) == expected


@pytest.mark.parametrize(
    "limits",
    [{"min_map50": -0.1}, {"min_map50": 1.1}, {"min_map50": 60}, {"max_seen_exact": -1.0}, {"max_seen_similar": 50}],
)
def test_nonsense_is_refused(judged, limits) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        judged(**limits)
    with pytest.raises(UsageError, match="between 0 and 1"):
        check_limits(**({"min_map50": -1.0, "max_seen_exact": 0.0, "max_seen_similar": -1.0} | limits))
