"""What the service counts for Prometheus, beside BentoML's own metrics at `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64)


class ServiceMetrics:
    """The counters of one process; BentoML adds up those of all processes."""

    def __init__(self, classes: Sequence[str], paths: Sequence[str], registry: CollectorRegistry = REGISTRY) -> None:
        requests = Counter(
            "detector_requests", "requests by path and HTTP status", ["path", "status"], registry=registry
        )
        self._requests = {path: {200: requests.labels(path, "200")} for path in paths}
        self._all_requests = requests
        self._refusals = Counter(
            "detector_refusals", "requests and images that were refused, by error code", ["code"], registry=registry
        )
        self._images = Counter("detector_images", "images that were predicted", registry=registry)
        detections = Counter(
            "detector_detections", "detected objects in answers, by class", ["label"], registry=registry
        )
        self._detections = [detections.labels(name) for name in classes]
        self._scores = Histogram(
            "detector_score", "scores of the detected objects in answers", buckets=_SCORES, registry=registry
        )
        stages = Histogram(
            "detector_stage_seconds",
            "time of an image by stage, and of a request",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        names = ("read", "decode", "wait", "inference", "post", "request")
        self._stages = {name: stages.labels(name) for name in names}
        self._per_request = Histogram(
            "detector_request_images", "images in a request", buckets=_COUNTS, registry=registry
        )
        self._batch = Histogram(
            "detector_batch_size", "images in the run that an image was in", buckets=_COUNTS, registry=registry
        )
        self.waiting = Gauge(
            "detector_waiting_images", "images under way", multiprocess_mode="livesum", registry=registry
        )
        self._samples = Counter(
            "detector_samples", "images that were worth keeping, by what became of them", ["outcome"], registry=registry
        )
        # means over the last images of one process: their sum would mean nothing, so the latest of all is told
        self._drift = Gauge(
            "detector_drift",
            "population stability index of the recent images against the training images",
            ["property"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._best_score = Gauge(
            "detector_mean_best_score",
            "mean highest score of the recent images",
            multiprocess_mode="livemostrecent",
            registry=registry,
        )

    def answered(self, path: str, status: int) -> None:
        """Count an answer."""
        by_status = self._requests[path]
        if status not in by_status:
            by_status[status] = self._all_requests.labels(path, str(status))
        by_status[status].inc()

    def refused(self, code: str) -> None:
        """Count a request or an image that was refused."""
        self._refusals.labels(code).inc()

    def timed(self, stage: str, seconds: float) -> None:
        """Record the time of a stage."""
        self._stages[stage].observe(seconds)

    def ran(self, batch: int) -> None:
        """Record the number of images in the run that an image was in."""
        self._batch.observe(batch)

    def predicted(self, images: int) -> None:
        """Count the images of a request."""
        self._images.inc(images)
        self._per_request.observe(images)

    def sampled(self, outcome: str) -> None:
        """Count an image that was worth keeping: `kept`, `known`, `dropped` or `failed`."""
        self._samples.labels(outcome).inc()

    def drifted(self, best_score: float, indices: Mapping[str, float]) -> None:
        """Tell of the recent images: their mean highest score, and the drift of each property."""
        self._best_score.set(best_score)
        for name, index in indices.items():
            self._drift.labels(name).set(index)

    def detected(self, class_ids: Sequence[int], scores: Sequence[float]) -> None:
        """Count the detections of an image, as they are answered."""
        for class_id, score in zip(class_ids, scores, strict=True):
            self._detections[class_id].inc()
            self._scores.observe(score)
