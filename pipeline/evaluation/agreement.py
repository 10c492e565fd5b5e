"""Whether a running service still gives the predictions that were recorded when it was packed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import StepError
from pipeline.evaluation.client import Detection, DetectionClient


@dataclass(frozen=True)
class TestImageCheck:
    """How the service's answer for its packed test image compares with the recorded one.

    Attributes:
        agrees: Whether every detection has its counterpart within the tolerances.
        max_box_difference_px: Largest difference of a coordinate between counterparts, in pixels.
        max_score_difference: Largest difference of a score between counterparts.
        detections: Number of detections in the service's answer.
        recorded: Number of recorded detections.
        unmatched: Detections without a counterpart, on either side.
    """

    __test__ = False  # pytest would collect a class of this name

    agrees: bool
    max_box_difference_px: float
    max_score_difference: float
    detections: int
    recorded: int
    unmatched: int

    def require(self) -> TestImageCheck:
        """The check itself, if it agrees.

        Raises:
            StepError: It does not: what is served is not what was packed.
        """
        if not self.agrees:
            raise StepError(
                f"the service no longer finds in its test image what was recorded when it was packed: {self.unmatched} "
                f"of {self.recorded} detections differ",
                where="test_data, test_result",
                expected="the same boxes and scores",
                remedy="pack again with the versions that serve: model_pack --force",
            )
        return self


def check_test_image(url: str, *, box_tolerance_px: float = 0.05, score_tolerance: float = 1e-3) -> TestImageCheck:
    """Ask the service for its test image, have it predict that image, and compare with the recorded predictions.

    The same graph on another processor may differ in the last digits, hence the tolerances; they are far below what
    a changed preprocessing, weight file or class order does. Detections whose score is within the tolerance of the
    threshold may be on one side only.

    Args:
        url: Address of the service.
        box_tolerance_px: Largest allowed difference of a coordinate, in pixels.
        score_tolerance: Largest allowed difference of a score.

    Raises:
        StepError: The service refused, broke down, or gave a malformed answer.
    """
    with DetectionClient(url) as client:
        threshold = client.least_score()  # the one that the test result is recorded at
        recorded = client.test_result()["detections"]
        found = client.predict([client.test_image()], score_threshold=threshold)[0][0]["detections"]
    pairs, alone = _pair(recorded, found)
    box = max((_box_difference(a, b) for a, b in pairs), default=0.0)
    score = max((abs(a["score"] - b["score"]) for a, b in pairs), default=0.0)
    unmatched = sum(one["score"] > threshold + score_tolerance for one in alone)
    agrees = box <= box_tolerance_px and score <= score_tolerance and unmatched == 0
    return TestImageCheck(agrees, box, score, len(found), len(recorded), unmatched)


def _pair(
    recorded: list[Detection], found: list[Detection]
) -> tuple[list[tuple[Detection, Detection]], list[Detection]]:
    """Pair each recorded detection with the nearest one of its label: near-equal scores may change the order."""
    free, pairs, alone = list(found), [], []
    for one in recorded:
        candidates = [other for other in free if other["label"] == one["label"]]
        if not candidates:
            alone.append(one)
            continue
        nearest = min(candidates, key=lambda other: _box_difference(one, other) + abs(one["score"] - other["score"]))
        free.remove(nearest)
        pairs.append((one, nearest))
    return pairs, alone + free


def _box_difference(one: Detection, other: Detection) -> float:
    return float(np.abs(np.subtract(one["box"], other["box"])).max())
