"""The size and the speed of each detector in ONNX Runtime, beside YOLOX-s.

    python benchmarks/bench_models.py [--detector rtmdet-s ...] [--size 640] [--turns 20] [--json]

The weights are random: they change neither the size nor the speed of a network, and give the suppression next to
nothing to do. A time is the median of ratios: an image in one detector and the same image in YOLOX-s, in turns.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import work_in

from pipeline.detection.export import export_onnx
from pipeline.detection.families import detectors, find_family
from pipeline.evaluation.model_form import time_ratio
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import Predictor
from pipeline.serving.preprocessing import letterbox

BESIDE = "yolox-s"
CLASSES = tuple(f"class {number}" for number in range(80))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--detector", action="append", choices=detectors(), help="all by default")
    parser.add_argument("--size", type=int, default=640, help="of the square input in pixels")
    parser.add_argument("--turns", type=int, default=20, help="of each detector with YOLOX-s")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args()
    noise = np.random.default_rng(0)
    images = [letterbox(noise.integers(0, 256, (480, 640, 3), np.uint8), (asked.size, asked.size)) for _ in range(4)]
    rows = []
    with work_in(None, "bench_models") as folder:
        _, plain = prepared(BESIDE, asked.size, folder)
        for name in asked.detector or detectors():
            row, predictor = prepared(name, asked.size, folder)
            rows.append({**row, "time": time_ratio(predictor, plain, images, turns=asked.turns)})
    sys.stdout.write(json.dumps({"models": rows}, indent=2) + "\n" if asked.json else table(rows))
    return 0


def prepared(detector: str, size: int, folder: Path) -> tuple[dict[str, Any], Predictor]:
    """What a detector's network takes, and the detector, ready to run."""
    torch.manual_seed(0)
    family = find_family(detector)
    metadata = ModelMetadata(detector.rpartition("-")[2], (size, size), CLASSES, family=family.name)
    model = family.build_model(metadata)
    weights = folder / f"{detector}.pth"
    torch.save({"meta": {"classes": list(CLASSES)}, "state_dict": model.state_dict()}, weights)
    exported = export_onnx(metadata, weights, folder / f"{detector}.onnx")
    parameters = sum(each.numel() for each in model.parameters())
    row = {"detector": detector, "parameters": parameters, "onnx_bytes": exported.size}
    return row, Predictor(exported.path, replace(metadata, onnx_sha256=exported.sha256))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"{'detector':<13} {'parameters, M':>14} {'ONNX, MB':>9} {'time':>6}"]
    for row in rows:
        size = f"{row['parameters'] / 1e6:14.1f} {row['onnx_bytes'] / 1e6:9.1f}"
        lines.append(f"{row['detector']:<13} {size} {row['time']:6.2f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
