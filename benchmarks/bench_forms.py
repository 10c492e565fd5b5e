"""The forms in which a model can be packed: accuracy, speed and size, beside ONNX Runtime in fp32.

    python benchmarks/bench_forms.py [--images 159] [--turns 40] [--json]

YOLOX-nano with COCO's weights at 416 px, on the photographs of `CV_REAL_DATA`, which it needs. INT8 is calibrated on a
hundred of the very photographs that it is measured on: there are no others here. With `--size s`, YOLOX-S at 640 px
with random weights, of which only the speed means something.

Every time is a median of ratios: an image in one form and the same image in ONNX Runtime, in turns. "One thread" is one
run on one thread, "alone" one run on all, and "all cores" as many runs side by side as there are CPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from statistics import median
from typing import Any

import torch
from report import work_in

from pipeline.detection.export import ExportedModel, export_onnx
from pipeline.detection.families.yolox import FAMILY as YOLOX
from pipeline.detection.quantization import calibration_images, quantize
from pipeline.evaluation.model_form import measure_map, time_ratio
from pipeline.metrics.ground_truth import GroundTruth, read_ground_truth
from pipeline.serving.decoding import decode
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.packing import service_requirements
from pipeline.serving.predictor import Predictor
from pipeline.serving.preprocessing import Letterboxed, letterbox
from pipeline.serving.runtimes import RUNTIMES
from pipeline.serving.settings import available_cpus

FORMS = (("cpu", "fp32"), ("cpu", "int8"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))
SIZES = {"nano": 416, "s": 640}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--images", type=int, default=159, help="to measure accuracy on")
    parser.add_argument("--turns", type=int, default=40, help="of each form with ONNX Runtime in fp32")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args()
    data = Path(os.environ.get("CV_REAL_DATA", "../shared/data"))
    if not (data / "val2017.zip").is_file():
        parser.error(f"there are no photographs in {data}; name their folder in CV_REAL_DATA")
    with work_in(None, "bench_forms") as folder:
        rows = measured(folder, data, asked)
    sys.stdout.write(
        json.dumps({"forms": rows, "load": os.getloadavg()[0]}, indent=2) + "\n" if asked.json else table(rows)
    )
    return 0


def measured(folder: Path, data: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each form."""
    truth = photographs(folder, data, asked.images)
    model, metadata = exported(folder, data, asked.size, truth)
    paths = [truth.path_of(image.file_name) for image in truth.images]
    models = {("cpu", "fp32"): model}
    for runtime in ("cpu", "openvino"):
        models[runtime, "int8"] = quantize(
            model.path, calibration_images(paths), metadata, folder / f"{runtime}.onnx",
            quantize_outputs=runtime == "cpu",
        )  # fmt: skip
    prepared = [letterbox(decode(path.read_bytes()), metadata.image_size) for path in paths[:8]]
    threads, rows = available_cpus(), []
    loaded: dict[tuple[str, str, int], Predictor] = {}
    for runtime, precision in FORMS:
        file = models.get((runtime, precision), model)
        form = replace(metadata, runtime=runtime, precision=precision, onnx_sha256=file.sha256)
        for count in {1, threads}:
            loaded[runtime, precision, count] = Predictor(file.path, form, threads=count)
        one, every = loaded[runtime, precision, 1], loaded[runtime, precision, threads]
        plain_one, plain_every = loaded["cpu", "fp32", 1], loaded["cpu", "fp32", threads]
        rows.append(
            {
                "runtime": runtime,
                "precision": every.precision,
                "map": measure_map(every, form, truth) if asked.size == "nano" else None,
                "one_thread": time_ratio(one, plain_one, prepared, turns=asked.turns),
                "alone": time_ratio(every, plain_every, prepared, turns=asked.turns),
                "all_cores": side_by_side(every, plain_every, prepared, threads, asked.turns),
                "alone_ms": milliseconds(every, prepared, asked.turns),
                "model_mb": file.size / 1e6,
                "package_mb": package_size(runtime) / 1e6,
            }
        )
    return rows


def photographs(folder: Path, data: Path, count: int) -> GroundTruth:
    """The first photographs, with their annotations."""
    with zipfile.ZipFile(data / "annotations_trainval2017.zip") as opened:
        (folder / "annotations.json").write_bytes(opened.read("annotations/instances_val2017.json"))
    truth = read_ground_truth(folder / "annotations.json")
    truth = truth.only({image.id for image in truth.images[:count]})
    (folder / "images").mkdir()
    with zipfile.ZipFile(data / "val2017.zip") as opened:
        for image in truth.images:
            truth.path_of(image.file_name).write_bytes(opened.read(f"val2017/{image.file_name}"))
    return truth


def exported(folder: Path, data: Path, size: str, truth: GroundTruth) -> tuple[ExportedModel, ModelMetadata]:
    """The model in fp32."""
    metadata = ModelMetadata(size, (SIZES[size], SIZES[size]), tuple(truth.categories.values()))
    if size == "nano":
        content = torch.load(data / "yolox_nano_coco.pth", weights_only=True)
    else:
        torch.manual_seed(0)
        content = {"state_dict": YOLOX.build_model(metadata).state_dict()}
    content["meta"] = {"dataset_meta": {"classes": metadata.classes}}
    torch.save(content, folder / "weights.pth")
    return export_onnx(metadata, folder / "weights.pth", folder / "model.onnx"), metadata


def side_by_side(one: Predictor, other: Predictor, images: Sequence[Letterboxed], threads: int, turns: int) -> float:
    """The median ratio of the times of as many runs side by side as there are threads."""
    ratios = []
    with ThreadPoolExecutor(threads) as pool:
        for turn in range(-1, max(1, turns // 4)):
            seconds = {}
            for predictor in (one, other) if turn % 2 else (other, one):
                start = time.perf_counter()
                batch = [images[i % len(images)] for i in range(4 * threads)]
                list(pool.map(lambda image, run=predictor: run.detect([image], alone=False), batch))
                seconds[predictor] = time.perf_counter() - start
            if turn >= 0:
                ratios.append(seconds[one] / seconds[other] if one is not other else 1.0)
    return median(ratios)


def milliseconds(predictor: Predictor, images: Sequence[Letterboxed], turns: int) -> float:
    """The median time of an image on all threads."""
    times = []
    for turn in range(turns):
        start = time.perf_counter()
        predictor.detect([images[turn % len(images)]])
        times.append(time.perf_counter() - start)
    return 1000 * median(times)


def package_size(runtime: str) -> int:
    """Bytes on disk of what runs the model, with the packages that only it needs."""
    others = {"cpu": "openvino", "openvino": "cpu"}
    own = {*service_requirements(runtime)} - {*service_requirements(others[runtime])}
    names = [each.partition("==")[0] for each in own]
    assert RUNTIMES[runtime].engine in names
    files = [path for name in names for path in distribution(name).files or ()]
    return sum(Path(path.locate()).stat().st_size for path in files if Path(path.locate()).is_file())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text."""
    head = f"{'form':<15} {'mAP':>6} {'loss':>7} {'one thread':>11} {'alone':>7} {'all cores':>10} {'alone, ms':>10} "
    lines = [head + f"{'model MB':>9} {'packages MB':>12}"]
    for row in rows:
        accuracy = "     -       -" if row["map"] is None else f"{row['map']:6.4f} {rows[0]['map'] - row['map']:7.4f}"
        lines.append(
            f"{row['runtime'] + ' ' + row['precision']:<15} {accuracy} {row['one_thread']:11.2f} {row['alone']:7.2f} "
            f"{row['all_cores']:10.2f} {row['alone_ms']:10.1f} {row['model_mb']:9.1f} {row['package_mb']:12.0f}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
