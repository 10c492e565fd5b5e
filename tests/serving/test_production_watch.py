"""What production sees: which images are kept, and how the drift rises; in a process and in a real server."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from cases import cases
from kept_samples import bright, encoded, write_record
from pictures import smooth
from prometheus_client import CollectorRegistry

from pipeline.client.service_process import RunningService, serve
from pipeline.errors import StepError
from pipeline.serving.image_fingerprint import fingerprint_of
from pipeline.serving.predictor import Detections
from pipeline.serving.preprocessing import letterbox
from pipeline.serving.production_watch import (
    COMPARED_EVERY,
    Drift,
    Model,
    ProductionWatch,
    Recent,
    fingerprint_of_letterboxed,
    uncertainty_of,
)
from pipeline.serving.samples import Sample
from pipeline.serving.service_metrics import ServiceMetrics
from pipeline.serving.training_reference import PROPERTIES, TrainingReference

MODEL = Model("object_detector:1", "", ("dim", "bright"), 0.3)


def detections(*scores: float) -> Detections:
    count = len(scores)
    boxes = np.zeros((count, 4), np.float32)
    return Detections(boxes, np.array(scores, np.float32), np.zeros(count, np.int64), 120, 80)


class Keeper:
    """Takes samples in place of a writer."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def offer(self, sample: Any, image: bytes, suffix: str) -> bool:
        self.samples.append(sample("0" * 64 + suffix))
        return True

    def close(self) -> None: ...


class Watched:
    """A watch, and what it kept and told."""

    def __init__(self, reference: TrainingReference | None, *, keeps: bool = True, share: float = 0.0) -> None:
        self.registry = CollectorRegistry()
        self.keeper = Keeper()
        metrics = ServiceMetrics(MODEL.classes, ["/predict"], self.registry)
        self.watch = ProductionWatch(MODEL, reference, self.keeper if keeps else None, share, metrics)  # type: ignore[arg-type]

    def see(self, pixels: Any, *scores: float) -> list[str] | None:
        """The reasons for which an image is kept."""
        before = len(self.keeper.samples)
        self.watch.see(encoded(pixels), letterbox(pixels, (96, 96)), detections(*scores))
        return list(self.keeper.samples[-1].reasons) if len(self.keeper.samples) > before else None

    def drift(self, name: str) -> float | None:
        return self.registry.get_sample_value("detector_drift", {"property": name})


@cases(
    "scores, uncertainty",
    {
        "no detection": ([], 0.0),
        "all below half the threshold": ([0.14, 0.1], 0.0),
        "one in the middle": ([0.5], 1.0),
        "one that is certain": ([1.0], 0.0),
        "those below half the threshold do not count": ([0.5, 0.14], 1.0),
        "the mean": ([0.5, 1.0], 0.5),
        "also below the threshold": ([0.2], 0.7219),
    },
)
def test_the_uncertainty_of_an_image(scores: list[float], uncertainty: float) -> None:
    assert uncertainty_of(np.array(scores, np.float32), 0.3) == pytest.approx(uncertainty, abs=1e-4)


def test_of_the_recent_values_the_rank_and_the_mean() -> None:
    recent = Recent(4)
    assert (recent.rank(1.0), recent.mean) == (0.0, 0.0)
    for value in (9.0, 1.0, 2.0, 3.0, 4.0):  # the first is forgotten
        recent.add(value)
    assert [recent.rank(value) for value in (0.5, 1.0, 2.5, 9.0)] == [0.0, 0.0, 0.5, 1.0]
    assert recent.mean == 2.5


def test_an_uncertain_image_is_kept_and_usual_ones_are_not(reference: TrainingReference) -> None:
    watched = Watched(reference)
    assert [watched.see(smooth(seed), 0.9) for seed in range(50)] == [None] * 50
    assert watched.see(smooth(3), 0.5) == ["uncertain"]
    assert watched.see(smooth(3), 0.9, 0.95) is None
    assert watched.keeper.samples[0].uncertainty == 1.0
    assert watched.keeper.samples[0].interest == 1.0


def test_an_unusual_image_is_kept_also_a_flat_one(reference: TrainingReference) -> None:
    watched = Watched(reference)
    for seed in range(50):
        assert watched.see(smooth(seed), 0.9) is None
    assert watched.see(smooth(500) // 4, 0.9) == ["unusual"]
    assert watched.see(np.zeros((80, 120, 3), np.uint8), 0.9) == ["unusual"]
    sample = watched.keeper.samples[0]
    assert sample.distance is not None
    assert sample.distance > reference.unusual


def test_about_one_in_twenty_is_kept_even_where_all_are_unusual(reference: TrainingReference) -> None:
    watched = Watched(reference)
    kept = [watched.see(smooth(1000 + seed) // 3, 0.9) for seed in range(600)]
    assert 20 <= sum(each is not None for each in kept[100:]) <= 45


def test_without_training_images_only_the_scores_count() -> None:
    watched = Watched(None)
    watched.see(smooth(1), 0.9)
    assert watched.see(smooth(500) // 4, 0.9) is None
    assert watched.see(smooth(500) // 4, 0.6) == ["uncertain"]
    assert watched.keeper.samples[0].distance is None


def test_a_random_share_is_kept_besides() -> None:
    watched = Watched(None, share=0.25)
    kept = [watched.see(smooth(1), 0.9) for _ in range(400)]
    assert 60 <= kept.count(["random"]) <= 140
    assert watched.keeper.samples[0].interest == 0


def test_the_fingerprint_of_the_prepared_image_is_that_of_the_image() -> None:
    for size in ((300, 200), (200, 300), (90, 70)):
        pixels = smooth(5, size)
        ours, exact = (
            np.frombuffer(each, np.uint8).astype(int)
            for each in (fingerprint_of_letterboxed(letterbox(pixels, (256, 256))), fingerprint_of(pixels))
        )
        assert np.abs(ours - exact).mean() < 3


@cases(
    "change, moved, still",
    {
        "nothing": (lambda p: p, (), PROPERTIES),
        "less light": (lambda p: p // 2, ("brightness", "contrast", "distance"), ()),
        "no colours": (lambda p: np.repeat(p[..., :1], 3, axis=2), ("red", "blue"), ()),
    },
)
def test_the_drift_tells_what_has_changed(
    reference: TrainingReference, change: Any, moved: tuple[str, ...], still: tuple[str, ...]
) -> None:
    watched = Watched(reference)
    for seed in range(90):
        watched.see(smooth(2000 + seed), 0.9)
    assert watched.drift("brightness") is None
    for seed in range(600):
        watched.see(change(smooth(3000 + seed)), 0.9)
    assert [name for name in moved if (watched.drift(name) or 0) < 0.2] == []
    assert [name for name in still if (watched.drift(name) or 0) > 0.2] == []
    assert watched.registry.get_sample_value("detector_mean_best_score") == pytest.approx(0.9)


def test_without_samples_some_images_are_compared_and_none_kept(reference: TrainingReference) -> None:
    watched = Watched(reference, keeps=False)
    for seed in range(110 * COMPARED_EVERY):
        assert watched.see(smooth(seed % 100) // 2, 0.5) is None
    assert (watched.drift("brightness") or 0) > 0.2


def test_a_fault_is_logged_once_and_no_request_fails(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(None)
    for _ in range(3):
        watched.watch.see(b"", letterbox(smooth(1), (96, 96)), None)  # type: ignore[arg-type]
    assert caplog.text.count("an image could not be looked at") == 1


def test_the_index_is_that_of_its_definition() -> None:
    expected = np.full((len(PROPERTIES), 10), 0.1)
    drift = Drift(expected)
    for number in range(200):
        drift.add([number % 5] * len(PROPERTIES))
    least = 0.5 / 200
    right = 5 * (0.2 - 0.1) * np.log(0.2 / 0.1) + 5 * (least - 0.1) * np.log(least / 0.1)
    assert drift.indices() == pytest.approx(dict.fromkeys(PROPERTIES, right))


# A real server, whose model gives one box an image, with the brightness as its score.


@pytest.fixture(scope="module")
def bento(packed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bento with a record of bright training images."""
    folder = tmp_path_factory.mktemp("recorded") / "bento"
    shutil.copytree(packed.folder, folder)
    write_record(folder / "learned_images.npz", [bright(seed) for seed in range(150)])
    return folder


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples") / "kept"


@pytest.fixture(scope="module")
def served(bento: Path, samples: Path) -> Iterator[RunningService]:
    with serve(bento, environment={"DETECTOR_SAMPLES": str(samples), "DETECTOR_RUN": "the run"}) as running:
        yield running


def post(service: RunningService, *images: bytes, name: str = "image") -> None:
    files = [("images", (name, image)) for image in images]
    answer = requests.post(f"{service.url}/predict", files=files, headers={"X-Secret": "client"}, timeout=30)
    assert answer.status_code == 200


def figure(service: RunningService, name: str) -> float:
    lines = requests.get(f"{service.url}/metrics", timeout=10).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


def kept_in(folder: Path, count: int) -> list[Sample]:
    end = time.monotonic() + 10
    while len(list(folder.glob("*.json"))) < count and time.monotonic() < end:
        time.sleep(0.02)
    found = [Sample.from_json(path.read_bytes()) for path in folder.glob("*.json")]
    assert len(found) == count
    return found


def test_a_server_keeps_the_uncertain_and_the_unusual_image_and_not_the_usual_one(
    served: RunningService, samples: Path, packed: Any
) -> None:
    darkest, *_, brightest = sorted(map(bright, range(150)), key=np.mean)  # of the training images
    uncertain, unusual = bright(201, (240, 60)), bright(202) // 12  # the first is half padding, which is grey
    for image in (darkest, darkest, brightest, uncertain, unusual):
        post(served, encoded(image), name="../../home/alice/passport.png")
    found = {each.reasons: each for each in kept_in(samples, 2)}
    assert found.keys() == {("uncertain",), ("unusual",)}
    sample = found["uncertain",]
    assert (samples / sample.image).read_bytes() == encoded(uncertain)
    assert (sample.width, sample.height, sample.run, sample.model) == (240, 60, "the run", packed.tag)
    assert [each.label for each in sample.detections] == ["bright"]
    assert sample.uncertainty > 0.9
    text = (samples / f"{sample.sha256}.json").read_text()
    for private in ("alice", "passport", "client", "127.0.0.1"):
        assert private not in text
    assert figure(served, 'detector_samples_total{outcome="kept"}') == 2


def test_the_drift_of_a_server_rises_for_other_images(served: RunningService) -> None:
    def send(change: Any) -> None:
        pictures = [encoded(change(bright(seed)), ".jpg") for seed in range(300, 364)]
        for _ in range(4):
            post(served, *pictures[:32])
            post(served, *pictures[32:])

    send(lambda picture: picture)
    before = figure(served, 'detector_drift{property="brightness"}')
    assert figure(served, "detector_mean_best_score") > 0.7
    send(lambda picture: picture // 2)
    send(lambda picture: picture // 2)
    assert figure(served, 'detector_drift{property="brightness"}') > max(1.0, 3 * before)
    assert figure(served, "detector_mean_best_score") < 0.6


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(packed: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(StepError, match="samples cannot be kept in this folder"),
        serve(packed.folder, environment={"DETECTOR_SAMPLES": str(tmp_path / "file" / "a")}),
    ):
        pass


def test_samples_that_fail_or_wait_are_counted_and_nothing_else_happens(packed: Any, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    environment = {"DETECTOR_SAMPLES": str(folder), "DETECTOR_SAMPLE_SHARE": "1"}
    with serve(packed.folder, environment=environment, log_path=tmp_path / "log") as running:
        shutil.rmtree(folder)
        post(running, encoded(bright(1)))
        end = time.monotonic() + 10
        while not figure(running, 'detector_samples_total{outcome="failed"}') and time.monotonic() < end:
            time.sleep(0.02)
        assert figure(running, 'detector_samples_total{outcome="failed"}') == 1
        folder.mkdir()
        post(running, *[encoded(bright(seed)) for seed in range(20)])
    assert len(kept_in(folder, 20)) == 20, "what waits is written before the server ends"
    log = (tmp_path / "log").read_text()
    assert "the Bento has no learned_images.npz" in log
    assert "samples are not kept at" in log
