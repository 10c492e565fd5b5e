"""Planted label mistakes are found, and a model that is sure and often wrong is not believed."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import cases
from detections import found
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.coco import Annotation, Image
from pipeline.data.writing.labelled import LabelledBox
from pipeline.detection.export import export_onnx
from pipeline.evaluation.label_check import (
    BADLY_PLACED,
    KINDS,
    NO_OBJECT,
    UNLABELLED,
    WRONG_CLASS,
    LabelCheck,
    check_labels,
    trust_in,
)
from pipeline.metrics.coco_matching import box_iou
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.matching import Matches, match_results
from pipeline.serving.decoding import decode
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import Predictor
from pipeline.serving.preprocessing import letterbox

CLASSES = {1: "car", 2: "person", 3: "bird"}
SIZE = 300
PLACE = (100.0, 100.0, 80.0, 60.0)  # where mistakes are planted: nothing else is there
SPARE = 7  # the image on which they are


def matched(truth: GroundTruth, results: Sequence[dict[str, Any]]) -> Matches:
    return match_results(truth, results)[1]


def check(truth: GroundTruth, results: Sequence[dict[str, Any]]) -> LabelCheck:
    return check_labels(truth, matched(truth, results))


def labelled(boxes: Sequence[tuple[int, int, Sequence[float]]], images: int) -> GroundTruth:
    annotations = [
        Annotation(number, image, label, tuple(map(float, box)), float(box[2] * box[3]))  # type: ignore[arg-type]
        for number, (image, label, box) in enumerate(boxes, 1)
    ]
    names = tuple(Image(number, f"{number}.jpg", SIZE, SIZE) for number in range(1, images + 1))
    return GroundTruth(Path(), names, tuple(annotations), CLASSES)


def scene(images: int, seed: int) -> GroundTruth:
    """Objects of three classes, up to four an image, each in a quarter of its own; image `SPARE` has none."""
    rng = np.random.default_rng(seed)
    boxes = []
    for image in range(1, images + 1):
        for quarter in rng.permutation(4)[: 0 if image == SPARE else rng.integers(0, 5)].tolist():
            width, height = rng.uniform(30, 110, 2)
            x, y = 150 * (quarter % 2) + rng.uniform(0, 30), 150 * (quarter // 2) + rng.uniform(0, 30)
            boxes.append((image, int(rng.integers(1, 4)), (x, y, width, height)))
    return labelled(boxes, images)


def detect(truth: GroundTruth, seed: int) -> list[dict[str, Any]]:
    """A usual detector: unsure of some objects, takes some for others, moves boxes, and sees things, mostly unsure."""
    rng = np.random.default_rng(seed)
    results = []
    for each in truth.annotations:
        moved = np.array(each.bbox) + rng.normal(0, 0.03, 4) * each.bbox[2]
        confused, unsure = rng.random(2) < 0.05
        label = int(rng.integers(1, 4)) if confused else each.category_id
        score = rng.uniform(0.05, 0.6) if confused or unsure else rng.beta(8, 2)
        if rng.random() > 0.001:
            results.append(found(each.image_id, label, moved.tolist(), float(score)))
    for image in truth.images:
        for _ in range(2 if image.id != SPARE else 0):
            box = [*rng.uniform(0, 250, 2), *rng.uniform(20, 100, 2)]
            results.append(found(image.id, int(rng.integers(1, 4)), box, float(rng.beta(1, 9))))
    return results


def with_label(truth: GroundTruth, label: int, box: Sequence[float]) -> GroundTruth:
    extra = Annotation(10**6, SPARE, label, tuple(box), box[2] * box[3])  # type: ignore[arg-type]
    return replace(truth, annotations=(*truth.annotations, extra))


PLANTED: dict[str, tuple[str, tuple[int, Sequence[float]] | None, tuple[int, float] | None]] = {
    # kind, the label's class and box, the detection's class and score
    "dropped": (UNLABELLED, None, (1, 0.92)),
    "flipped": (WRONG_CLASS, (2, PLACE), (1, 0.92)),
    "shifted": (BADLY_PLACED, (1, (130.0, 110.0, 80.0, 60.0)), (1, 0.92)),
    "shrunk": (BADLY_PLACED, (1, (100.0, 100.0, 40.0, 60.0)), (1, 0.92)),
    "spawned": (NO_OBJECT, (1, PLACE), None),
}


@cases("kind, label, detection", PLANTED)
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_mistake_is_found_among_500_images(kind: str, label: Any, detection: Any, seed: int) -> None:
    truth = scene(500, seed)
    results = detect(truth, seed + 100)
    planted = with_label(truth, *label) if label else truth
    if detection:
        results.append(found(SPARE, detection[0], PLACE, detection[1]))
    checked = check(planted, results)
    [suspect] = [each for each in checked.suspects if each.image_id == SPARE]
    assert (suspect.kind, suspect.file_name) == (kind, f"{SPARE}.jpg")
    assert suspect.truth == (LabelledBox(CLASSES[label[0]], tuple(label[1])) if label else None)
    assert suspect.annotation_id == (10**6 if label else None)
    assert suspect.detection == (LabelledBox(CLASSES[detection[0]], PLACE, detection[1]) if detection else None)
    assert checked.of_kind(kind).index(suspect) < 3
    assert checked.suspects.index(suspect) < 12  # of about 1,000 labels


def test_all_kinds_at_once_are_among_the_first() -> None:
    truth, places = scene(500, 5), dict[str, set[str]]()
    results = detect(truth, 6)
    images, annotations = list(truth.images), list(truth.annotations)
    for number, (name, (kind, label, detection)) in enumerate(PLANTED.items(), 501):
        images.append(Image(number, f"{name}.jpg", SIZE, SIZE))
        places.setdefault(kind, set()).add(f"{name}.jpg")
        if label:
            box = tuple(map(float, label[1]))
            annotations.append(Annotation(number + 10**6, number, label[0], box, 1.0))  # type: ignore[arg-type]
        if detection:
            results.append(found(number, detection[0], PLACE, detection[1]))
    checked = check(replace(truth, images=tuple(images), annotations=tuple(annotations)), results)
    for kind, names in places.items():
        assert names <= {each.file_name for each in checked.of_kind(kind)[: len(names) + 2]}
    assert [each.kind for each in checked.suspects[:4]] == list(KINDS)


def test_a_model_that_is_sure_and_often_wrong_is_not_believed() -> None:
    """Every second detection is wrong, all with the highest scores, and nothing tells them from the right ones."""
    truth, rng = scene(500, 1), np.random.default_rng(2)
    results = [each | {"score": float(rng.uniform(0.95, 1))} for each in detect(truth, 3)]
    assert trust_in(matched(truth, results)).max() < 0.8
    assert check(truth, results).counts[UNLABELLED] == 0
    # of one such class, too, beside two that are found well
    bad = [each for each in results if each["category_id"] == 3]
    good = [each for each in detect(truth, 3) if each["category_id"] != 3]
    checked = check(truth, good + bad)
    assert not [each for each in checked.suspects if each.detection and each.detection.label == "bird"]
    assert [each for each in checked.suspects if each.detection]


def test_right_detections_make_no_label_suspect() -> None:
    truth = scene(200, 8)
    exact = [found(each.image_id, each.category_id, each.bbox, 0.9) for each in truth.annotations]
    assert check(truth, exact).suspects == ()


@cases(
    "label, extra, expected",
    {
        "a second box of a found object": ((1, PLACE), [(1, (104, 102, 80, 60), 0.9), (1, (90, 96, 80, 60), 0.9)], []),
        "a second class for a found object": ((1, PLACE), [(1, PLACE, 0.95), (2, PLACE, 0.9)], []),
        "two classes for an unlabelled object": (None, [(1, PLACE, 0.95), (2, PLACE, 0.9)], [UNLABELLED]),
        "an unlabelled neighbour": ((1, PLACE), [(1, PLACE, 0.9), (1, (140, 100, 80, 60), 0.9)], [UNLABELLED]),
        "an unlabelled object on another": ((1, PLACE), [(1, PLACE, 0.9), (2, (100, 100, 30, 60), 0.9)], [UNLABELLED]),
        "an unsure detection": (None, [(1, PLACE, 0.1)], []),
        "a label that is found badly and with doubt": ((1, (130, 110, 80, 60)), [(1, PLACE, 0.2)], [NO_OBJECT]),
        "a box that is a little off": ((1, (108, 104, 80, 60)), [(1, PLACE, 0.9)], []),
    },
)  # fmt: skip
def test_what_is_suspect(label: Any, extra: Any, expected: list[str]) -> None:
    truth = scene(300, 4)
    exact = [found(each.image_id, each.category_id, each.bbox, 0.9) for each in truth.annotations]
    exact += [found(each.id, 1 + each.id % 3, (5, 270, 25, 25), 0.15) for each in truth.images]  # no object
    planted = with_label(truth, *label) if label else truth
    results = [*exact, *(found(SPARE, klass, box, score) for klass, box, score in extra)]
    assert [each.kind for each in check(planted, results).suspects] == expected


def test_crowds_are_not_checked() -> None:
    truth = scene(300, 4)
    exact = [found(each.image_id, each.category_id, each.bbox, 0.9) for each in truth.annotations]
    crowded = with_label(truth, 1, (50.0, 50.0, 200.0, 200.0))
    crowded = replace(crowded, annotations=(*truth.annotations, replace(crowded.annotations[-1], iscrowd=1)))
    inside = [*exact, found(SPARE, 1, PLACE, 0.9)]
    assert check(crowded, inside).suspects == ()
    assert check(crowded, inside).labels == len(truth.annotations)
    assert [each.kind for each in check(truth, inside).suspects] == [UNLABELLED]


@cases(
    "boxes, detections",
    {
        "nothing": ([], []),
        "no detection": ([(1, 1, PLACE)], []),
        "no label": ([], [found(1, 1, PLACE, 0.99)]),
        "one of each": ([(1, 1, PLACE)], [found(2, 1, PLACE, 0.99)]),
    },
)
def test_with_too_little_to_go_by_nothing_is_suspect(boxes: Any, detections: Any) -> None:
    checked = check(labelled(boxes, 2), detections)
    assert (checked.images, checked.labels, checked.suspects) == (2, len(boxes), ())
    assert checked.counts == dict.fromkeys(KINDS, 0)


def naive_trust(matches: Matches) -> list[float]:
    """Each detection against each other one."""
    right = (matches.truth >= 0).tolist()
    count = len(right)
    trust = []
    for i in range(count):
        alike = [j for j in range(count) if j != i and abs(matches.scores[i] - matches.scores[j]) <= 0.1]
        own = [j for j in alike if matches.labels[i] == matches.labels[j]]
        overall = sum(right[j] for j in alike) / max(len(alike), 1)
        trust.append((sum(right[j] for j in own) + 10 * overall) / (len(own) + 10))
    return trust


def test_trust_is_the_share_of_the_others_alike_that_are_right() -> None:
    truth = scene(40, 3)
    results = detect(truth, 4)
    matches = matched(truth, results)
    assert trust_in(matches).tolist() == pytest.approx(naive_trust(matches))


_numbers = st.floats(1, 100)


@settings(max_examples=25, deadline=None)
@given(
    boxes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.tuples(*[_numbers] * 4)), max_size=12),
    detections=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.tuples(*[_numbers] * 4), st.floats(0, 1)), max_size=12
    ),
)
def test_a_label_and_a_detection_are_in_one_suspect_at_most(boxes: Any, detections: Any) -> None:
    """On top of a scene that makes the model trusted."""
    base = scene(40, 9)
    exact = [found(each.image_id + 3, each.category_id, each.bbox, 0.5) for each in base.annotations]
    known = [(each.image_id + 3, each.category_id, each.bbox) for each in base.annotations]
    checked = check(labelled([*known, *boxes], 43), [*exact, *(found(*each) for each in detections)])
    labels = [each.annotation_id for each in checked.suspects if each.annotation_id]
    drawn = Counter(repr((each.image_id, each.detection)) for each in checked.suspects if each.detection)
    assert len(labels) == len(set(labels))
    assert max(drawn.values(), default=0) <= 1 or len(set(map(repr, detections))) < len(detections)
    for kind in KINDS:
        scores = [each.score for each in checked.of_kind(kind)]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
    for each in checked.suspects:
        assert (each.truth is None) == (each.kind == UNLABELLED)
        assert (each.detection is None) == (each.kind == NO_OBJECT)


@pytest.fixture(scope="module")
def photographed(real_data: Path, real_truth: GroundTruth, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What YOLOX-nano finds in COCO's photographs."""
    folder = tmp_path_factory.mktemp("nano")
    metadata = ModelMetadata("nano", (416, 416), tuple(real_truth.categories.values()))
    weights = torch.load(real_data / "yolox_nano_coco.pth", weights_only=True)
    torch.save({**weights, "meta": {"dataset_meta": {"classes": metadata.classes}}}, folder / "weights.pth")
    model = export_onnx(metadata, folder / "weights.pth", folder / "model.onnx")
    predictor = Predictor(model.path, replace(metadata, onnx_sha256=model.sha256))
    ids = {name: id_ for id_, name in real_truth.categories.items()}
    results = []
    with zipfile.ZipFile(real_data / "val2017.zip") as opened:
        for image in real_truth.images:
            pixels = decode(opened.read(f"val2017/{image.file_name}"))
            (answer,) = predictor.detect([letterbox(pixels, metadata.image_size)])
            rows = zip(answer.boxes.tolist(), answer.scores.tolist(), answer.labels.tolist(), strict=True)
            for (x1, y1, x2, y2), score, label in rows:
                box = (x1, y1, x2 - x1, y2 - y1)
                results.append(found(image.id, ids[metadata.classes[label]], box, score))
    return results


@pytest.mark.slow
@pytest.mark.parametrize("kind", [UNLABELLED, WRONG_CLASS, BADLY_PLACED])
def test_on_photographs_planted_mistakes_are_among_the_first(
    real_truth: GroundTruth, photographed: list[Any], kind: str
) -> None:
    """Of labels that the smallest model finds with trust, each is spoilt once, beside COCO's own mistakes."""
    matches = matched(real_truth, photographed)
    trusted = np.flatnonzero((trust_in(matches) >= 0.9) & (matches.truth >= 0))
    fits = box_iou(matches.boxes[trusted], matches.truth_boxes[matches.truth[trusted]]) >= 0.8
    labels = [each for each in real_truth.annotations if not each.iscrowd]
    spoilt = [labels[row] for row in matches.truth[trusted[fits]].tolist()][:40]
    assert len(spoilt) == 40
    first = 0
    for label in spoilt:
        x, y, width, height = label.bbox
        wrong = {
            UNLABELLED: [],
            WRONG_CLASS: [replace(label, category_id=1 if label.category_id != 1 else 2)],
            BADLY_PLACED: [replace(label, bbox=(x + 0.35 * width, y + 0.2 * height, width, height))],
        }[kind]
        others = tuple(each for each in real_truth.annotations if each.id != label.id)
        checked = check(replace(real_truth, annotations=(*others, *wrong)), photographed)
        name = real_truth.categories[label.category_id]
        first += any(
            each.image_id == label.image_id and each.detection is not None and each.detection.label == name
            for each in checked.of_kind(kind)[:5]
        )
    assert first >= 36
