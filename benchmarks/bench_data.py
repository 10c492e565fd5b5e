"""What data_prep takes, beside decoding every image once.

    python benchmarks/bench_data.py [--images 5000] [--boxes 36000] [--turns 3] [--folder DIR] [--json]

The images are JPEGs of 640 x 480 pixels and 150 KB each, and every fiftieth is its neighbour at half the size; a
hundredth of the boxes is faulty. They are made in `--folder`, and kept there for the next time, or in a temporary one.
In turns, each in a process of its own, imports not counted, the files in the page cache:

- decoding: `cv2.imdecode` of every file, read from disk, in as many threads as there are cores.
- data_prep: what the notebook does, from reading the annotations to the report: validation with every image decoded
  and near duplicates searched for, selection, split, the report, the three subsets written.

Then what grows with boxes, namely the rules, selection, split, the subsets' annotations and the report, for these
images and boxes, and for twenty times the boxes, once on twenty times the images and once on the same ones; the latter
also with boxes all of one class, as in pictures of shelves. Seconds are the processor's there, and facts of files made
up; no image is decoded but those that the report shows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from report import Target, shown, work_in

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MOST_TIME, MOST_MEMORY, MOST_GROWTH = 2.5, 1.0, 25.0  # times decoding; GB; times for twenty times the boxes
MORE = 20
WIDTH, HEIGHT, CLASSES = 640, 480, 80
SIZES = {  # times the images, times the boxes, classes
    "boxes": (1, 1, CLASSES),
    "more boxes, images": (MORE, MORE, CLASSES),
    "more boxes": (1, MORE, CLASSES),
    "boxes of one class": (1, 1, 1),
    "more boxes of one class": (1, MORE, 1),
}
GROWTH = {"more boxes, images": "boxes", "more boxes": "boxes", "more boxes of one class": "boxes of one class"}
NOTES = (
    "ratios of one run: on a machine that others use too they swing, and those of processor time swing less;",
    "the report is drawn by one thread, so that with more cores the ratio is higher",
)


def main() -> int:
    """Measure and print; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=5000, help="how many; 5000 by default")
    parser.add_argument("--boxes", type=int, default=36_000, help="on all of them; 36000 by default")
    parser.add_argument("--turns", type=int, default=3, help="3 by default")
    parser.add_argument("--folder", type=Path, help="where images are made and kept; a temporary folder by default")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        plan = json.loads(asked.one)
        measure = {"decode": decode_all, "prepare": prepare, "grow": grow}[plan["what"]]
        sys.stdout.write(json.dumps(measure(plan)) + "\n")
        return 0
    with work_in(asked.folder, "bench_data") as work:
        source = (asked.folder or work) / f"bench_data-{asked.images}-{asked.boxes}"
        make_source(source, asked.images, asked.boxes)
        return compared(source, work, asked)


def compared(source: Path, work: Path, asked: argparse.Namespace) -> int:
    """Measure all in turns, and print."""
    times: dict[str, list[float]] = defaultdict(list)
    memory: list[float] = []
    run(what="decode", source=source)  # so that the first turn finds the files in the page cache too
    for turn in range(asked.turns):
        decoded = run(what="decode", source=source)
        prepared = run(what="prepare", source=source, out=work / f"prepared {turn}")
        for name, found in (("decoding", decoded), ("data_prep", prepared)):
            times[name].append(found["seconds"])
            times[f"{name}, processor"].append(found["processor"])
        memory.append(prepared["memory"] / 1e9)
        for part, taken in prepared["parts"].items():
            times[f"  {part}"].append(taken)
    for turn in range(min(2, asked.turns)):
        for name, (images, boxes, classes) in SIZES.items():
            size = {"images": asked.images * images, "boxes": asked.boxes * boxes, "classes": classes}
            times[name].append(run(what="grow", source=source, out=work / f"{name} {turn}", **size)["seconds"])
    ratios = [mine / theirs for mine, theirs in zip(times["data_prep"], times["decoding"], strict=True)]
    growth = {more: median(times[more]) / median(times[fewer]) for more, fewer in GROWTH.items()}
    files = [path.stat().st_size for path in (source / "images").iterdir()]
    figures = {
        "images": len(files),
        "megabytes": sum(files) / 1e6,
        "boxes": asked.boxes,
        "data_prep_to_decoding": median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "of processor time": median(times["data_prep, processor"]) / median(times["decoding, processor"]),
        "memory_gb": max(memory),
        **{f"growth, {name}": value for name, value in growth.items()},
    }
    targets = [
        Target("data_prep to decoding every image once", median(ratios), MOST_TIME, ""),
        Target("peak memory of data_prep", max(memory), MOST_MEMORY, "GB"),
        *(Target(f"{MORE} times the boxes: {name}", value, MOST_GROWTH, "times") for name, value in growth.items()),
    ]
    return shown(figures, targets, times, notes=NOTES, as_json=asked.json)


def run(**plan: Any) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(plan, default=str)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{plan} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def decode_all(plan: dict[str, Any]) -> dict[str, Any]:
    """Read and decode every image once, on all cores."""
    paths = sorted(Path(plan["source"], "images").iterdir())

    def decode(path: Path) -> int:
        return int(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR).shape[0])

    start, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = sum(pool.map(decode, paths))
    return {"seconds": time.perf_counter() - start, "processor": time.process_time() - used, "rows": rows}


def prepare(plan: dict[str, Any]) -> dict[str, Any]:
    """What data_prep's notebook does."""
    from pipeline.data.checks import image_rules, validation
    from pipeline.data.coco import read_coco
    from pipeline.data.conversion import select
    from pipeline.data.dataset_folder import write_subset
    from pipeline.data.report.page import write_report
    from pipeline.data.report.sample_images import sample_grid
    from pipeline.data.split.dataset_split import split

    source, out = Path(plan["source"]), Path(plan["out"])
    parts: defaultdict[str, float] = defaultdict(float)
    validation.inspect = timed(validation.inspect, parts, "images looked at")
    image_rules.group_similar = timed(image_rules.group_similar, parts, "near duplicates")
    start, used = time.perf_counter(), time.process_time()
    with clock(parts, "annotations read"):
        raw = read_coco(source / "annotations.json")
    with clock(parts, "rules"):
        checked = validation.validate(raw, source / "images")
    parts["rules"] -= parts["images looked at"] + parts["near duplicates"]
    with clock(parts, "selection"):
        selected, _ = select(checked.dataset)
    with clock(parts, "split"):
        subsets = split(selected, groups=checked.groups)
        str(subsets.shares)
    with clock(parts, "report"):
        write_report(out / "report", checked=checked, parts=subsets, selected=selected, images_folder=source / "images")
    with clock(parts, "subsets written"):
        for name in ("train", "eval", "test"):
            write_subset(getattr(subsets, name), source / "images", out / name, upright=checked.upright)
    with clock(parts, "samples shown"):
        sample_grid(out / "train", count=6)._repr_png_()
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    return {"seconds": seconds, "processor": processor, "parts": parts, "memory": peak_memory()}


def grow(plan: dict[str, Any]) -> dict[str, Any]:
    """What of data_prep grows with the boxes, on facts of files that are made up."""
    from pipeline.data.checks.validation import apply_rules
    from pipeline.data.coco import write_coco
    from pipeline.data.conversion import select
    from pipeline.data.images import ImageFacts
    from pipeline.data.report.page import write_report
    from pipeline.data.split.dataset_split import split

    source, out = Path(plan["source"]), Path(plan["out"])
    files = sorted(path for path in Path(source, "images").iterdir())
    dataset = make_dataset(plan["images"], plan["boxes"], plan["classes"])
    images = out / "images"
    images.mkdir(parents=True)
    facts = {}
    noise = np.random.default_rng(0)
    for number, image in enumerate(dataset.images):
        os.link(files[number % len(files)], images / image.file_name)
        facts[image.file_name] = ImageFacts(WIDTH, HEIGHT, digest=str(number), fingerprint=made_up_look(noise))
    start = time.process_time()
    checked = apply_rules(dataset, facts)
    selected, _ = select(checked.dataset)
    subsets = split(selected, groups=checked.groups)
    for name in ("train", "eval", "test"):
        write_coco(getattr(subsets, name), out / name / "annotations.json")
    write_report(out / "report", checked=checked, parts=subsets, selected=selected, images_folder=images)
    return {"seconds": time.process_time() - start}


def made_up_look(noise: np.random.Generator) -> bytes:
    """What a picture of no other's likeness looks like."""
    from pipeline.serving.image_fingerprint import fingerprint_of

    return fingerprint_of(noise.integers(0, 256, (6, 6, 3), np.uint8).repeat(3, 0).repeat(3, 1))


@contextmanager
def clock(parts: dict[str, float], name: str) -> Iterator[None]:
    """Add the time of a block to a part."""
    start = time.perf_counter()
    yield
    parts[name] += time.perf_counter() - start


def timed(function: Callable[..., Any], parts: dict[str, float], name: str) -> Callable[..., Any]:
    """The function, its time added to a part."""

    def call(*arguments: Any, **options: Any) -> Any:
        with clock(parts, name):
            return function(*arguments, **options)

    return call


def peak_memory() -> int:
    """The most bytes this process and one of its children had; threads are all it starts."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def make_source(folder: Path, images: int, boxes: int) -> None:
    """The images and their annotations, unless they are there."""
    from pipeline.data.coco import write_coco

    if (folder / "annotations.json").exists():
        return
    dataset = make_dataset(images, boxes)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [image.file_name for image in dataset.images]
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(partial(make_picture, folder / "images"), names, range(images), chunksize=64):
            pass
    write_coco(dataset, folder / "annotations.json")


def make_picture(folder: Path, name: str, number: int) -> None:
    """A picture with patches, edges and grain of all sizes, as photographs have; or its neighbour at half the size."""
    is_copy = number % 50 == 49
    noise = np.random.default_rng(number - is_copy)
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for cells, height in ((3, 70), (12, 40), (48, 26), (240, 46)):
        patches = noise.normal(0, height, (cells, cells * 4 // 3, 3)).astype(np.float32)
        canvas += cv2.resize(patches, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    for _ in range(8):
        corner, size = noise.integers(0, (WIDTH, HEIGHT)), noise.integers(20, 200, 2)
        cv2.rectangle(canvas, corner.tolist(), (corner + size).tolist(), noise.normal(0, 60, 3).tolist(), -1)
    pixels = np.clip(canvas + 128, 0, 255).astype(np.uint8)
    if is_copy:
        pixels = cv2.resize(pixels, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    (folder / name).write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())


def make_dataset(images: int, boxes: int, kinds: int = CLASSES) -> Any:
    """Images and boxes of classes as unequal as COCO's; a hundredth reaches over the edge, or is there twice."""
    from pipeline.data.coco import Annotation, Category, CocoDataset, Image

    noise = np.random.default_rng(7)
    share = 1 / np.arange(1, kinds + 1)
    classes = noise.choice(np.arange(1, kinds + 1), boxes, p=share / share.sum())
    sides = np.exp(noise.uniform(np.log(8), np.log(300), (boxes, 2)))
    corners = noise.uniform(0, 1, (boxes, 2)) * np.maximum((WIDTH, HEIGHT) - sides, 0)
    corners[::200] = (WIDTH - 3.0, 5.0)
    table = np.round(np.concatenate([corners, sides], axis=1), 2)
    table[1::200] = table[: len(table[1::200]) * 200 : 200]
    places = np.sort(noise.integers(1, images + 1, boxes))
    annotations = tuple(
        Annotation(i, place, category, (x, y, width, height), width * height)
        for i, (place, category, (x, y, width, height)) in enumerate(
            zip(places.tolist(), classes.tolist(), table.tolist(), strict=True), 1
        )
    )
    pictures = tuple(
        Image(i, f"{i:06}.jpg", *((WIDTH // 2, HEIGHT // 2) if (i - 1) % 50 == 49 else (WIDTH, HEIGHT)))
        for i in range(1, images + 1)
    )
    return CocoDataset(pictures, annotations, tuple(Category(i, f"class {i}") for i in range(1, kinds + 1)))


if __name__ == "__main__":
    sys.exit(main())
