"""Small objects in large images: a detector trained and served on whole images, and on tiles, side by side.

    python benchmarks/bench_tiles.py [--epochs 4] [--weights yolox_nano.pth] [--folder FOLDER] [--json]

The images are drawn: 4,000 pixels of a side, with 40 discs and blocks of 12 pixels and two of 500 to 1,100. Both
trainings take as many steps of the optimiser, of as many samples. Accuracy and time are those of the service's own
threads, one image after the other. A third row leaves out what is found in the whole image.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from report import work_in

from pipeline.data.coco import Annotation, Category, CocoDataset, Image, write_coco
from pipeline.data.tile_cutting import cut_tiles
from pipeline.detection.export import export_onnx
from pipeline.detection.hyperparameters import TrainingOptions
from pipeline.detection.training import TrainingResult, train
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.ground_truth import GroundTruth, read_ground_truth
from pipeline.serving.decoding import decode
from pipeline.serving.detection_pool import DetectionPool, Found
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import Detections, Predictor
from pipeline.serving.preprocessing import letterbox
from pipeline.serving.settings import available_cpus, read_settings
from pipeline.serving.tiled_detection import merge
from pipeline.serving.tiling import Tile

SIDE, SMALL, LARGE = 4000, 12, (500, 1100)  # pixels
SMALL_OBJECTS, LARGE_OBJECTS = 40, 2
BATCH = 8
IMAGES = {"train": BATCH, "eval": 2, "test": 4}  # of the train set, a step an epoch
CLASSES = ("disc", "block")


@dataclass(frozen=True)
class Row:
    """A way to train and to serve, and what it gives on the test set."""

    name: str
    steps: int  # of the optimiser
    map: float | None
    map50: float | None
    map_small: float | None
    map_large: float | None
    seconds: float  # an image, decoding included; the median


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=4, help="over the tiles")
    parser.add_argument("--size", type=int, default=256, help="of the network's input in pixels")
    parser.add_argument("--tile", type=int, default=384, help="in pixels of the image")
    parser.add_argument("--weights", type=Path, help="a checkpoint of YOLOX-nano to start from; random by default")
    parser.add_argument("--side", type=int, default=SIDE, help="of the images in pixels")
    parser.add_argument("--folder", type=Path, help="where to work")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args()
    with work_in(asked.folder, "bench_tiles") as folder:
        for seed, (name, count) in enumerate(IMAGES.items()):
            draw_set(folder / name, count, asked.side, seed)
        truth = read_ground_truth(folder / "test" / "annotations.json")
        options = TrainingOptions("yolox-nano", asked.size, asked.epochs, BATCH, tile=asked.tile)
        tiles = cut_tiles(folder / "train", folder / "counted", options.tiling).dataset.images
        steps = asked.epochs * math.ceil(len(tiles) / BATCH)
        tiled = trained(options, folder / "tiled", folder, asked.weights)
        whole = trained(replace(options, tile=0, epochs=steps), folder / "whole", folder, asked.weights)
        rows = [
            measured("whole images", truth, steps, pooled(*packed(whole))),
            measured("tiles", truth, steps, pooled(*packed(tiled))),
            measured("tiles alone", truth, steps, without_whole(*packed(tiled))),
        ]
    if asked.json:
        sys.stdout.write(json.dumps({"rows": [vars(row) for row in rows]}, indent=2) + "\n")
    else:
        sys.stdout.write(table(rows))
    return 0


def draw_set(folder: Path, images: int, side: int, seed: int) -> None:
    """Draw a data set's folder: objects of both sizes on soft blotches, with lines that are none."""
    (folder / "images").mkdir(parents=True)
    records, annotations = [], list[Annotation]()
    for number in range(1, images + 1):
        rng = np.random.default_rng((seed, number))
        coarse = rng.uniform(40, 200, (24, 24, 3)).astype(np.float32)
        canvas = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        canvas += rng.normal(0, 4, (side // 4, side // 4, 1)).astype(np.float32).repeat(4, 0).repeat(4, 1)
        canvas = np.clip(canvas, 0, 255).astype(np.uint8)
        for _ in range(60):
            start, length = rng.integers(0, side, 2), rng.integers(-80, 80, 2)
            cv2.line(canvas, start.tolist(), (start + length).tolist(), rng.uniform(0, 255, 3).tolist(), 2, cv2.LINE_AA)
        lengths = [*rng.integers(LARGE[0], LARGE[1], LARGE_OBJECTS) * side // SIDE, *[SMALL] * SMALL_OBJECTS]
        for length in map(int, lengths):
            label, (x, y) = int(rng.integers(2)), (int(value) for value in rng.integers(0, side - length, 2))
            draw_object(canvas, label, x, y, length, rng)
            box = (float(x), float(y), float(length), float(length))
            annotations.append(Annotation(len(annotations) + 1, number, label + 1, box, float(length * length)))
        cv2.imwrite(str(folder / "images" / f"{number}.jpg"), canvas, [cv2.IMWRITE_JPEG_QUALITY, 92])
        records.append(Image(number, f"{number}.jpg", side, side))
    categories = tuple(Category(number, name) for number, name in enumerate(CLASSES, 1))
    write_coco(CocoDataset(tuple(records), tuple(annotations), categories), folder / "annotations.json")


def draw_object(canvas: NDArray[np.uint8], label: int, x: int, y: int, length: int, rng: np.random.Generator) -> None:
    """Draw a disc or a block, light on dark or dark on light."""
    behind = canvas[y : y + length, x : x + length].mean(axis=(0, 1))
    colour = np.where(behind > 128, rng.uniform(0, 40, 3), rng.uniform(215, 255, 3)).tolist()
    if CLASSES[label] == "block":
        canvas[y : y + length, x : x + length] = colour
    else:
        fixed = [int((value + (length - 1) / 2) * 16) for value in (x, y)]
        cv2.circle(canvas, fixed, length * 8, colour, -1, cv2.LINE_AA, 4)


def trained(options: TrainingOptions, result: Path, data: Path, weights: Path | None) -> TrainingResult:
    """Train into a new folder."""
    result.mkdir()
    with contextlib.redirect_stdout(sys.stderr):  # the progress
        return train(options, data / "train", data / "eval", result, weights=weights)


def packed(result: TrainingResult) -> tuple[Predictor, ModelMetadata]:
    """The best epoch as the service runs it."""
    model = export_onnx(result.metadata, result.folder / "best.pth", result.folder / "model.onnx")
    metadata = replace(result.metadata, onnx_sha256=model.sha256)
    return Predictor(model.path, metadata), metadata


Detect = Callable[[bytes], Detections]


def pooled(predictor: Predictor, metadata: ModelMetadata) -> Detect:
    """The service's threads."""
    pool = DetectionPool(predictor, metadata, read_settings(metadata.serving_score_threshold, 0.0, {}))

    def detect(data: bytes) -> Detections:
        (found,) = asyncio.run(pool.detect([("", data)]))
        if not isinstance(found, Found):
            raise found
        return found.detections

    return detect


def without_whole(predictor: Predictor, metadata: ModelMetadata) -> Detect:
    """The tiles on as many threads, without the whole image."""
    threads = ThreadPoolExecutor(available_cpus())

    def detect(data: bytes) -> Detections:
        image = decode(data)
        height, width = image.shape[:2]
        tiles = metadata.tiling.tiles(width, height)
        views = (letterbox(tile.of(image), metadata.image_size) for tile in tiles)
        parts = list(threads.map(lambda view: predictor.detect([view], alone=False)[0], views))
        whole = Tile(0, 0, width, height), parts[0].rows(np.zeros(len(parts[0].scores), np.bool_))
        return merge([whole, *zip(tiles, parts, strict=True)], metadata.image_size)

    return detect


def measured(name: str, truth: GroundTruth, steps: int, detect: Detect) -> Row:
    """Detect in the test set, one image after the other."""
    results, seconds = list[dict[str, Any]](), []
    for image in truth.images:
        data = truth.path_of(image.file_name).read_bytes()
        start = time.perf_counter()
        found = detect(data)
        seconds.append(time.perf_counter() - start)
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        results += [
            {"image_id": image.id, "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            for (x1, y1, x2, y2), score, label in rows
        ]
    figures = evaluate(truth, results).summary()
    names = ("map", "map50", "map_small", "map_large")
    return Row(name, steps, *(figures[each] for each in names), float(np.median(seconds)))


def table(rows: list[Row]) -> str:
    """The rows, aligned."""
    lines = [f"{'':<14}{'steps':>6}{'mAP':>8}{'mAP50':>8}{'small':>8}{'large':>8}{'s an image':>12}"]
    for row in rows:
        figures = "".join(f"{each or 0:8.3f}" for each in (row.map, row.map50, row.map_small, row.map_large))
        lines.append(f"{row.name:<14}{row.steps:>6}{figures}{row.seconds:12.2f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
