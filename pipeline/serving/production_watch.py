"""Looks at each image that the service predicts: whether it is worth keeping, and how far the traffic has drifted.

**Uncertain.** The uncertainty of an image is the mean binary entropy, in bits, of the scores of its detections from
half the service's threshold on: 1 where all scores are 0.5, and 0 where all are 1 or there is no detection. Entropy
for choosing what to label is in Settles, Active learning literature survey (2009); the mean over the detections of an
image is one of the aggregations in Brust et al., Active learning for deep object detection (2019).

**Unusual.** An image is unusual where it is farther from the training images than 95 % of these are from one another;
see `training_reference`.

Of both, the images are kept that are above 95 % of the last 1,000, so that a drift does not fill the place with
all that comes, and nothing has to be tuned. Among the first images, one is kept that is above all before.

**Drift.** For each of some properties, the population stability index of the last 500 images against the training
images, in ten ranges that hold a tenth of the training images each: the sum of (a - e) ln(a / e) over the shares a
and e. 0 is no difference, and above 0.2 is commonly read as a shift (Siddiqi, Credit risk scorecards, 2006).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.serving.api_types import DetectedObject
from pipeline.serving.decoding import read_header
from pipeline.serving.image_fingerprint import fingerprint_of
from pipeline.serving.predictor import Detections
from pipeline.serving.preprocessing import Letterboxed
from pipeline.serving.sample_places import SUFFIXES, open_place
from pipeline.serving.sample_writer import SampleWriter
from pipeline.serving.samples import Reason, Sample
from pipeline.serving.service_metrics import ServiceMetrics
from pipeline.serving.settings import Settings
from pipeline.serving.training_reference import BINS, PROPERTIES, Comparison, TrainingReference, read_reference

log = logging.getLogger(__name__)

KEPT_SHARE = 0.05
"""The share of images that is kept for each reason."""
RECENT_IMAGES = 1000
DRIFT_IMAGES = 500
LEAST_DRIFT_IMAGES = 100
"""Before so many have come, there is no drift to tell of."""
COMPARED_EVERY = 8
"""Without samples, one of so many images is compared with the training images, which costs a tenth of a millisecond."""

_TOLD_EVERY = 10  # compared images
_THUMBNAIL = 64  # pixels of a side from which the fingerprint is made, or up to twice as many
_COMPLAINT_SECONDS = 300.0


@dataclass(frozen=True)
class Model:
    """What a sample tells of the model."""

    name: str  # and version
    run: str
    classes: tuple[str, ...]
    score_threshold: float


class ProductionWatch:
    """Used by several threads. Without a writer, no image is kept.

    Args:
        model: The model.
        reference: Its training images, where they are known.
        writer: Keeps samples.
        random_share: The share of all images that is kept at random.
        metrics: Are told of the drift.
    """

    def __init__(
        self,
        model: Model,
        reference: TrainingReference | None,
        writer: SampleWriter | None,
        random_share: float,
        metrics: ServiceMetrics,
    ) -> None:
        self._model, self._reference, self._writer = model, reference, writer
        self._random_share, self._metrics = random_share, metrics
        self._lock = Lock()
        self._uncertainties, self._distances = Recent(RECENT_IMAGES), Recent(RECENT_IMAGES)
        self._best_scores = Recent(DRIFT_IMAGES)
        self._drift = Drift(reference.shares) if reference else None
        self._seen = 0
        self._complained = float("-inf")

    def see(self, data: bytes, image: Letterboxed, detections: Detections) -> None:
        """Look at a predicted image and its file. It never raises, and returns within a fraction of a millisecond."""
        try:
            self._see(data, image, detections)
        except Exception:
            now = time.monotonic()
            if now - self._complained > _COMPLAINT_SECONDS:  # a request is answered all the same
                self._complained = now
                log.exception("an image could not be looked at")

    def close(self) -> None:
        """Write the samples that wait."""
        if self._writer:
            self._writer.close()

    def _see(self, data: bytes, image: Letterboxed, detections: Detections) -> None:
        uncertainty = uncertainty_of(detections.scores, self._model.score_threshold)
        with self._lock:
            self._seen += 1
            is_compared = self._writer is not None or self._seen % COMPARED_EVERY == 0
        comparison = None
        if self._reference and is_compared:
            comparison = self._reference.compare(fingerprint_of_letterboxed(image))
        with self._lock:
            self._best_scores.add(float(detections.scores[0]) if len(detections.scores) else 0.0)
            self._update(comparison)
            if self._writer is None:
                return
            ranks: dict[Reason, float] = {"uncertain": self._uncertainties.rank(uncertainty) if uncertainty else 0.0}
            self._uncertainties.add(uncertainty)
            if comparison and self._reference:
                is_unusual = comparison.distance > self._reference.unusual
                ranks["unusual"] = self._distances.rank(comparison.distance) if is_unusual else 0.0
                self._distances.add(comparison.distance)
        reasons = [reason for reason, rank in ranks.items() if rank > 1 - KEPT_SHARE]
        if random.random() < self._random_share:  # noqa: S311
            reasons.append("random")
        if reasons:
            self._keep(data, detections, tuple(reasons), max(ranks.values()), uncertainty, comparison)

    def _update(self, comparison: Comparison | None) -> None:
        if comparison and self._drift:
            self._drift.add(comparison.bins)
        if self._seen % _TOLD_EVERY == 0:
            self._metrics.drifted(self._best_scores.mean, self._drift.indices() if self._drift else {})

    def _keep(
        self,
        data: bytes,
        detections: Detections,
        reasons: tuple[Reason, ...],
        interest: float,
        uncertainty: float,
        comparison: Comparison | None,
    ) -> None:
        assert self._writer is not None  # noqa: S101  # nothing is kept without one
        model, now, size = self._model, datetime.now(UTC).replace(microsecond=0), len(data)

        def sample(name: str) -> Sample:
            found = detections.to_json(model.classes)["detections"]
            return Sample(
                image=name,
                file_bytes=size,
                width=detections.width,
                height=detections.height,
                time=now,
                reasons=reasons,
                interest=round(interest, 4),
                uncertainty=round(uncertainty, 4),
                distance=None if comparison is None else round(comparison.distance, 4),
                model=model.name,
                run=model.run,
                classes=model.classes,
                score_threshold=model.score_threshold,
                detections=tuple(DetectedObject(**each) for each in found),
            )

        self._writer.offer(sample, data, SUFFIXES[read_header(data).format])


class Recent:
    """The last values of something."""

    def __init__(self, size: int) -> None:
        self._values = np.zeros(size, np.float32)
        self._count = 0

    def add(self, value: float) -> None:
        """Add a value, in place of the oldest where there are enough."""
        self._values[self._count % len(self._values)] = value
        self._count += 1

    def rank(self, value: float) -> float:
        """The share of the values that are below one; 0 where there is no value."""
        known = self._values[: self._count]
        return float(np.count_nonzero(known < np.float32(value))) / len(known) if len(known) else 0.0

    @property
    def mean(self) -> float:
        """The mean value; 0 where there is none."""
        return float(self._values[: self._count].mean()) if self._count else 0.0


class Drift:
    """The population stability index of the last images, for each of the `PROPERTIES`.

    `expected` are the shares of the training images in each range, `(len(PROPERTIES), BINS)`.
    """

    def __init__(self, expected: NDArray[np.float64]) -> None:
        self._expected = expected
        self._bins = np.zeros((DRIFT_IMAGES, len(PROPERTIES)), np.int8)
        self._count = 0

    def add(self, bins: Sequence[int]) -> None:
        """Add an image by the ranges that it falls into."""
        self._bins[self._count % DRIFT_IMAGES] = bins
        self._count += 1

    def indices(self) -> dict[str, float]:
        """The index of each property; empty before there are enough images."""
        if self._count < LEAST_DRIFT_IMAGES:
            return {}
        known = self._bins[: self._count]
        least = 0.5 / len(known)  # for a range without images, whose logarithm there is none of
        expected = np.maximum(self._expected, least)
        counts = np.stack([np.bincount(column, minlength=BINS) for column in known.T])
        actual = np.maximum(counts / len(known), least)
        indices = ((actual - expected) * np.log(actual / expected)).sum(axis=1)
        return dict(zip(PROPERTIES, indices.tolist(), strict=True))


def uncertainty_of(scores: NDArray[np.float32], threshold: float) -> float:
    """The mean binary entropy, in bits, of scores `(N,)` from half the threshold on; 0 where there are none."""
    chosen = scores[scores >= threshold / 2].astype(np.float64)
    if not len(chosen):
        return 0.0
    chosen = chosen.clip(1e-9, 1 - 1e-9)
    return float(-(chosen * np.log2(chosen) + (1 - chosen) * np.log2(1 - chosen)).mean())


def fingerprint_of_letterboxed(image: Letterboxed) -> bytes:
    """The fingerprint of an image from the detector's input, also of a flat one.

    It takes a tenth of the time that the image itself takes, and differs by 2 to 3 shades, to either side.
    """
    width, height = round(image.width * image.scale_x), round(image.height * image.scale_y)
    step = max(1, min(width, height) // _THUMBNAIL)
    planes = [np.ascontiguousarray(plane[:height:step, :width:step]) for plane in image.pixels]
    return fingerprint_of(np.asarray(cv2.merge(planes), np.uint8), of_flat=True)


def watch_for(settings: Settings, model: Model, record: Path, metrics: ServiceMetrics) -> ProductionWatch:
    """Start watching, as the settings ask for.

    Args:
        settings: Of the service.
        model: What samples tell of it.
        record: The packed record of the training images, which may be missing.
        metrics: Are told of the drift and the samples.

    Raises:
        UsageError: Samples cannot be kept where they shall be.
    """
    writer = None
    if settings.samples:
        place = open_place(settings.samples, create=True)
        writer = SampleWriter(place, settings.max_samples, settings.max_sample_bytes, metrics.sampled)
    return ProductionWatch(model, read_reference(record), writer, settings.sample_share, metrics)
