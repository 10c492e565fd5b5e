"""How time and memory grow with the number of images, part by part, from a thousand to a hundred thousand.

    python benchmarks/bench_scale.py [--images 1000 10000 100000] [--parts PART ...] [--s3-most 10000] [--json]

Everything is made up, with 7.2 boxes an image; no part looks at pixels. Each part runs for each number of images in a
process of its own: seconds of the processor, over S3 of the clock, and the peak of the process's memory above what it
had before, its imports and inputs.

- annotations: `read_coco` of the instances file.
- near duplicates: the search among the fingerprints of all images, of which every fiftieth is a noisy copy.
- data_prep: rules, duplicates, selection, split, and the annotations of the three sets written.
- tables: the annotations of a train and an eval set, as training writes them once for all its processes of a machine.
- training data: the train set, as each of these processes holds it, and its samples' annotations read once. What is
  mapped from the tables is counted in each, though it is in memory once.
- validation: the mAP of an eval set of so many images with 30 detections each.
- index: the index of an artifact of so many files, written and read.
- put, get, get again, listing: so many files of 20 KB in a store on a local S3 server, into an empty store; out of it
  by a machine that has none of them; out of it once more on the same machine; and listed for garbage collection. They
  are linear and slow here, so only up to `--s3-most` files.

Growth is the last number of images to the one before, scaled to a decade.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
from report import Target, shown, work_in

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

MOST_GROWTH = 13.0  # times for ten times the images
BOXES, DETECTIONS = 7.2, 30  # an image
FILE_BYTES = 20_000
UNITS = ("seconds", "megabytes")
LOCAL = ("annotations", "near duplicates", "data_prep", "tables", "training data", "validation", "index")
ON_S3 = ("put", "get", "get again", "listing")
NOTES = (
    "growth of times below a tenth of a second says nothing;",
    "the S3 server shares the machine with what is measured",
)


def main() -> int:
    """Measure and print; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    sizes = [1000, 10_000, 100_000]
    parser.add_argument(
        "--images", type=int, nargs="+", default=sizes, help="numbers of them; 1k, 10k, 100k by default"
    )
    parser.add_argument("--parts", nargs="+", choices=[*LOCAL, "s3"], default=[*LOCAL, "s3"], help="all by default")
    parser.add_argument("--s3-most", type=int, default=10_000, help="files over S3 at most; 10,000 by default")
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary one by default")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        plan = json.loads(asked.one)
        measure = {"s3": over_s3}.get(plan["part"], alone)
        sys.stdout.write(json.dumps(measure(plan)) + "\n")
        return 0
    with work_in(asked.folder, "bench_scale") as work:
        found = {images: measured(images, asked, work) for images in sorted(asked.images)}
    return printed(found, as_json=asked.json)


def measured(images: int, asked: argparse.Namespace, work: Path) -> dict[str, dict[str, float]]:
    """Seconds and peak memory in MB of each part for so many images."""
    found: dict[str, dict[str, float]] = {}
    for part in asked.parts:
        if part != "s3":
            found[part] = run(part, images, work)
        elif images <= asked.s3_most:
            found |= on_s3(images, work)
    return found


def on_s3(images: int, work: Path) -> dict[str, dict[str, float]]:
    """The parts of the store, each in a process of its own, on a server that is started for them."""
    from seaweed import KEY, SECRET, seaweed

    place = work / f"s3-{images}"
    (place / "server").mkdir(parents=True)
    make_files(place / "files", images)
    with seaweed(place / "server") as endpoint:
        environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        environment |= {"AWS_DEFAULT_REGION": "us-east-1"}
        return {action: run("s3", images, place, environment, action=action) for action in ON_S3}


def printed(found: dict[int, dict[str, dict[str, float]]], *, as_json: bool) -> int:
    """Print a row a part, with seconds and memory for each number of images and the growth a decade of both."""
    parts = list(dict.fromkeys(part for of_size in found.values() for part in of_size))
    growth = {part: grown for part in parts if (grown := growth_of(part, found))}
    figures = {
        f"{part}, {size}, {unit}": of_size[part][what]
        for size, of_size in found.items()
        for part in of_size
        for what, unit in (("seconds", "s"), ("megabytes", "MB"))
    }
    figures |= {f"growth, {part}": grown["seconds"] for part, grown in growth.items()}
    if not as_json:
        sys.stdout.write(table_of(parts, found, growth) + "\n\n")
        figures = {}
    targets = [
        Target(f"ten times the images: {part}, {what}", growth[part][what], MOST_GROWTH, "times")
        for part in ("near duplicates", "data_prep")
        for what in growth.get(part, ())
    ]
    return shown(figures, targets, {}, notes=NOTES, as_json=as_json)


def growth_of(part: str, found: dict[int, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Times for ten times the images, by the last two numbers of images that the part was measured with."""
    *_, fewer, more = 0, 0, *(size for size in found if part in found[size])
    if not fewer:
        return {}
    exponent = 1 / log10(more / fewer)
    return {what: (found[more][part][what] / max(found[fewer][part][what], 1e-3)) ** exponent for what in UNITS}


def table_of(
    parts: list[str], found: dict[int, dict[str, dict[str, float]]], growth: dict[str, dict[str, float]]
) -> str:
    """What `printed` prints, as text."""
    heads = "".join(f"{size:>12,} s{'MB':>9}" for size in found)
    lines = [f"{'':<18}{heads}{'growth: time, memory':>24}"]
    for part in parts:
        cells = "".join(
            f"{row['seconds']:>14.2f}{row['megabytes']:>9.0f}"
            if (row := found[size].get(part))
            else f"{'-':>14}{'-':>9}"
            for size in found
        )
        grown = "{seconds:>15.1f} {megabytes:>8.1f}".format(**growth[part]) if part in growth else ""
        lines.append(f"{part:<18}{cells}{grown}")
    return "\n".join(lines)


def run(part: str, images: int, work: Path, environment: dict[str, str] | None = None, **more: Any) -> dict[str, float]:
    """One measurement in a process of its own."""
    plan = {"part": part, "images": images, "work": str(work), **more}
    command = [sys.executable, __file__, "--one", json.dumps(plan)]
    surroundings = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
    if done.returncode:
        raise RuntimeError(f"{plan} failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    told = f"{more.get('action', part)}, {images:,} images: {found['seconds']:.2f} s, {found['megabytes']:.0f} MB"
    print(told, file=sys.stderr, flush=True)  # all of it takes minutes
    return found


def alone(plan: dict[str, Any]) -> dict[str, float]:
    """A part that needs no server: made ready, then measured."""
    makers: dict[str, Callable[[int, Path], Callable[[], object]]] = {
        "annotations": annotations,
        "near duplicates": near_duplicates,
        "data_prep": data_prep,
        "tables": tables,
        "training data": training_data,
        "validation": validation,
        "index": index,
    }
    action = makers[plan["part"]](plan["images"], Path(plan["work"]))
    with taken(time.process_time) as found:  # other processes of a shared machine slow it less
        action()
    return found


@contextmanager
def taken(clock: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Seconds of a block, and how many MB the process's memory rose above what it had before, at most."""
    found: dict[str, float] = {}
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from now
    before, start = memory("VmRSS"), clock()
    yield found
    found["seconds"] = clock() - start
    found["megabytes"] = (memory("VmHWM") - before) / 1e3


def memory(kind: str) -> float:
    """Of this process, in kB, by Linux."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{kind}:")]
    return float(line.split()[1])


def annotations(images: int, work: Path) -> Callable[[], object]:
    """Read the instances file."""
    from pipeline.data.coco import read_coco

    path = dataset_folder(images, work) / "annotations.json"
    return lambda: read_coco(path)


def near_duplicates(images: int, _: Path) -> Callable[[], object]:
    """Search among fingerprints."""
    from pipeline.data.fingerprints import group_similar

    prints = made_up_prints(images)
    return lambda: group_similar(prints)


def data_prep(images: int, work: Path) -> Callable[[], object]:
    """What data_prep does with annotations and facts of files."""
    from pipeline.data.checks.validation import apply_rules
    from pipeline.data.coco import read_coco, write_coco
    from pipeline.data.conversion import select
    from pipeline.data.images import ImageFacts
    from pipeline.data.split.dataset_split import split

    path = dataset_folder(images, work) / "annotations.json"
    prints = made_up_prints(images)

    def prepare() -> None:
        dataset = read_coco(path)
        facts = {
            image.file_name: ImageFacts(image.width, image.height, digest=f"{number:064x}", fingerprint=print_)
            for number, (image, print_) in enumerate(zip(dataset.images, prints, strict=True))
        }
        checked = apply_rules(dataset, facts)
        del dataset
        selected, _ = select(checked.dataset)
        subsets = split(selected, groups=checked.groups)
        for name, subset in subsets.subsets.items():
            write_coco(subset, work / "prepared" / name / "annotations.json")

    return prepare


def tables(images: int, work: Path) -> Callable[[], object]:
    """Read the instances file, and write the tables of a train and an eval set."""
    from pipeline.data.coco import read_coco
    from pipeline.detection.session import write_tables

    folder = dataset_folder(images, work)

    def write() -> None:
        dataset = read_coco(folder / "annotations.json")
        write_tables(dataset, dataset, folder, work / f"tables-{images}")

    return write


def training_data(images: int, work: Path) -> Callable[[], object]:
    """The train set of a training."""
    from mmengine.registry import DATASETS, DefaultScope

    from pipeline.detection.families.yolox import FAMILY as YOLOX
    from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
    from pipeline.serving.model_metadata import ModelMetadata

    folder = dataset_folder(images, work)
    names = tuple(f"class {number}" for number in range(1, 81))
    execution = ExecutionConfig(1, devices=1)
    metadata = ModelMetadata("nano", (64, 64), names)
    config = YOLOX.training_config(TrainingOptions("yolox-nano", 64, 1, 8), Hyperparameters(), metadata, execution)
    if not (prepared := work / f"tables-{images}").exists():
        run("tables", images, work)
    YOLOX.set_machine(config, folder, folder, execution, prepared)
    plan = config.train_dataloader.dataset.dataset
    with DefaultScope.overwrite_default_scope("mmdet"):
        DATASETS.get(plan.type)  # imports mmdet

    def load() -> None:
        with DefaultScope.overwrite_default_scope("mmdet"):
            dataset = DATASETS.build(plan)
        for number in range(len(dataset)):
            dataset.get_data_info(number)

    return load


def validation(images: int, work: Path) -> Callable[[], object]:
    """The metric of a validation, on as many detections as a model gives that has learned something."""
    from pipeline.detection.coco_metric import FOUND, TRUTH_FILE, MatchedCocoMetric

    if not (prepared := work / f"tables-{images}").exists():
        run("tables", images, work)
    noise = np.random.default_rng(1)
    found = np.empty((images, DETECTIONS), FOUND)
    corners = noise.uniform(0, 500, (images, DETECTIONS, 2)).astype(np.float32)
    sides = noise.uniform(8, 200, corners.shape).astype(np.float32)
    found["bboxes"] = np.concatenate([corners, corners + sides], axis=2)
    found["scores"] = noise.uniform(0, 1, (images, DETECTIONS))
    found["labels"] = noise.integers(0, 80, (images, DETECTIONS))
    metric = MatchedCocoMetric(str(prepared / "eval" / TRUTH_FILE))
    results = list(enumerate(found, 1))
    return lambda: metric.compute_metrics(results)


def index(images: int, _: Path) -> Callable[[], object]:
    """The index of an artifact."""
    from pipeline.runtime.store.artifact_store import StoredFile, read_index, write_index

    files = [StoredFile(f"images/{number:08}.jpg", FILE_BYTES, f"{number:064x}") for number in range(images)]
    return lambda: read_index(write_index(files), "here")


def over_s3(plan: dict[str, Any]) -> dict[str, float]:
    """One of the parts of the store."""
    import s3fs

    from pipeline.runtime.garbage_collection import find_garbage
    from pipeline.runtime.runs import Runs
    from pipeline.runtime.store.artifact_store import Artifact, Store

    work, action = Path(plan["work"]), plan["action"]
    if action == "put":
        bucket(s3fs.S3FileSystem())
    # each part is a machine of its own, except that `get again` is where `get` was
    machine = {"get again": "get"}.get(action, action)
    store = Store("s3://scale/store", work / f"cache of {machine}")
    stored = work / "artifact.json"
    artifact = None
    if action == "put":
        store.files.create("first", b"asks what the place honours")
    else:
        artifact = Artifact(**json.loads(stored.read_text()))
        store.has(artifact)  # connects
    actions: dict[str, Callable[[], object]] = {
        "put": lambda: stored.write_text(json.dumps(vars(store.put("images", work / "files")))),
        "get": lambda: store.get(artifact, work / "laid out", link=True),
        "get again": lambda: store.get(artifact, work / "laid out", link=True),
        "listing": lambda: find_garbage(Runs(store)),
    }
    with taken(time.perf_counter) as found:
        actions[action]()
    return found


def bucket(system: Any) -> None:
    """Make the bucket: the server accepts connections before it can store anything."""
    for _ in range(100):
        try:
            system.mkdir("scale")
            system.pipe_file("scale/ready", b"yes")
        except OSError:
            time.sleep(0.1)
        else:
            return


def dataset_folder(images: int, work: Path) -> Path:
    """A folder with made annotations of so many images, and without the images."""
    folder = work / f"made-{images}"
    if not (folder / "annotations.json").exists():
        # in another process: what this one has freed would hide what is measured
        command = [sys.executable, "-c", MAKE, str(folder), str(images), str(round(images * BOXES))]
        subprocess.run(command, check=True, cwd=Path(__file__).parent)
    return folder


MAKE = """
import sys
from pathlib import Path
sys.path.insert(0, "..")
from bench_data import make_dataset
from pipeline.data.coco import write_coco
folder, images, boxes = sys.argv[1:]
write_coco(make_dataset(int(images), int(boxes)), Path(folder, "annotations.json"))
"""


def made_up_prints(images: int) -> list[bytes]:
    """Fingerprints of pictures of patches, of which every fiftieth is that of its neighbour with a little noise."""
    import cv2

    from pipeline.serving.image_fingerprint import FINGERPRINT_BYTES, fingerprint_of

    noise = np.random.default_rng(5)
    prints = []
    for number in range(images):
        if number % 50 == 49:
            grain = noise.integers(-3, 4, FINGERPRINT_BYTES)
            prints.append(np.clip(np.frombuffer(prints[-1], np.uint8) + grain, 0, 255).astype(np.uint8).tobytes())
        else:
            patches = cv2.resize(noise.integers(0, 256, (6, 6, 3), np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)
            prints.append(fingerprint_of(patches))
    return prints


def make_files(folder: Path, files: int) -> None:
    """So many different files."""
    folder.mkdir()
    noise = np.random.default_rng(3)
    for number in range(files):
        (folder / f"{number:08}.jpg").write_bytes(noise.bytes(FILE_BYTES))


if __name__ == "__main__":
    sys.exit(main())
