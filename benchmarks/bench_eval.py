"""How long the evaluation of a large test set takes, and its memory, beside pycocotools' twelve numbers.

    python benchmarks/bench_eval.py [--images 5000] [--draws 1000] [--folder DIR] [--json]

A made set of 80 classes, with about 7 objects and 38 detections an image. Each side runs in a process of its own: ours
computes all figures, curves, kinds of errors and intervals.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from report import Target, shown, work_in

CLASSES = 80


def make_set(folder: Path, images: int) -> None:
    """Write `annotations.json` and `results.json`."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(1, images + 1):
        for _ in range(rng.poisson(7.3)):
            width, height = rng.lognormal(4, 1, 2).clip(4, 400)
            x, y, label = rng.uniform(0, 640 - width), rng.uniform(0, 480 - height), int(rng.integers(CLASSES)) + 1
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": label, "area": width * height}
                | {"bbox": [x, y, width, height], "iscrowd": int(rng.random() < 0.01)}
            )
            for _ in range(rng.poisson(5.2)):
                named = label if rng.random() < 0.8 else int(rng.integers(CLASSES)) + 1
                moved = [x + rng.normal() * width / 10, y + rng.normal() * height / 10]
                box = [*moved, *(np.array([width, height]) * np.exp(rng.normal(0, 0.1, 2)))]
                score = float(rng.random())
                results.append({"image_id": image, "category_id": named, "bbox": list(map(float, box)), "score": score})
    names = [{"id": label, "name": f"class {label}"} for label in range(1, CLASSES + 1)]
    files = [{"id": image, "file_name": f"{image}.jpg", "width": 640, "height": 480} for image in range(1, images + 1)]
    content = {"images": files, "categories": names, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(content), "utf-8")
    (folder / "results.json").write_text(json.dumps(results), "utf-8")


def run_pycocotools(folder: Path, _: int) -> dict[str, float]:
    """COCO's twelve numbers, and the seconds that they took."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        started = time.perf_counter()
        truth = COCO(str(folder / "annotations.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"seconds": time.perf_counter() - started, "map": float(evaluation.stats[0])}


def run_ours(folder: Path, draws: int) -> dict[str, float]:
    """All figures of the report, with intervals from so many draws, and the seconds that they took."""
    from pipeline.metrics.chance import measure_chance
    from pipeline.metrics.detection_metrics import evaluate
    from pipeline.metrics.ground_truth import read_ground_truth
    from pipeline.metrics.resampling import draw_figures

    started = time.perf_counter()
    truth = read_ground_truth(folder / "annotations.json")
    metrics = evaluate(truth, json.loads((folder / "results.json").read_text("utf-8")))
    evaluated = time.perf_counter()
    measure_chance(metrics, draw_figures(metrics, draws=draws))
    done = time.perf_counter()
    return {"seconds": done - started, "metrics": evaluated - started, "map": metrics.map or 0.0}


SIDES = {"pycocotools": run_pycocotools, "ours": run_ours}


def main() -> int:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where to work")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", choices=["make", *SIDES], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "make":
        make_set(options.folder, options.images)
        return 0
    if options.part:
        figures = SIDES[options.part](options.folder, options.draws)
        figures["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write(json.dumps(figures))
        return 0
    told = {}
    with work_in(options.folder, "eval") as folder:
        # this process stays small: Linux counts the memory of the process that starts another as its peak
        for part in ("make", *SIDES):
            command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
            command += ["--images", str(options.images), "--draws", str(options.draws)]
            told[part] = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    theirs, ours = json.loads(told["pycocotools"]), json.loads(told["ours"])
    targets = [
        Target("all figures and intervals to pycocotools' twelve", ours["seconds"] / theirs["seconds"], 1.0, "x"),
        Target("memory to pycocotools' memory", ours["mib"] / theirs["mib"], 0.5, "x"),
        Target("difference of mAP", abs(ours["map"] - theirs["map"]), 0.0, ""),
    ]
    figures = {"without_intervals_ratio": ours["metrics"] / theirs["seconds"]}
    figures |= {"pycocotools_mib": theirs["mib"], "ours_mib": ours["mib"]}
    times = {"pycocotools": theirs["seconds"], "ours": ours["seconds"], "without_intervals": ours["metrics"]}
    return shown(figures, targets, {name: [taken] for name, taken in times.items()}, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
