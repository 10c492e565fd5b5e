"""What it takes to find, in a test set, the images that a model learned from.

    python benchmarks/bench_learned.py [--learned 100000] [--images 1000] [--repetitions 3] [--folder DIR] [--json]

The test set is JPEGs of 640 x 480 pixels, drawn; every other one is a learned image flipped and encoded again. The
other learned images are made-up records of such pictures. Measured, with the files in the page cache:

- record written, record read: the file that lies beside the weights.
- find_seen: all of the check, with every test image decoded; and decoding alone.

The size of the record is that of the file. Peak memory is that of the process, with all that it imported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from report import Target, shown, work_in

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.data.images import inspect  # noqa: E402
from pipeline.data.learned_images import FILE_NAME, LearnedImages, find_seen  # noqa: E402, this checkout's
from pipeline.serving.image_fingerprint import FINGERPRINT_BYTES, fingerprint_of  # noqa: E402

SEARCH, BYTES_AN_IMAGE = 30.0, 321.0  # seconds beside decoding; 320 and the file's own part
CELLS = 8


def main() -> int:
    """Measure and print; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--learned", type=int, default=100_000, help="images learned from; 100,000 by default")
    parser.add_argument("--images", type=int, default=1000, help="test images; 1,000 by default")
    parser.add_argument("--repetitions", type=int, default=3, help="turns; 3 by default")
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary one by default")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args()
    times: dict[str, list[float]] = {}
    with work_in(asked.folder, "bench_learned") as folder:
        test = folder / "test"
        learned = make(test, asked.images, asked.learned)
        names = [path.name for path in (test / "images").iterdir()]
        record = folder / FILE_NAME
        for _ in range(asked.repetitions):
            for name, action in {
                "record written": lambda: learned.write(record),
                "record read": lambda: LearnedImages.read(record),
                "images decoded": lambda: inspect(test / "images", names),
                "find_seen": lambda: find_seen(learned, test),
            }.items():
                times.setdefault(name, []).append(seconds(action))
        found, size = len(find_seen(learned, test)), record.stat().st_size
    if found != asked.images // 2:
        raise RuntimeError(f"{found} images were found instead of {asked.images // 2}")
    middle = {name: median(taken) for name, taken in times.items()}
    figures = {
        "learned": len(learned),
        "images": asked.images,
        "found": found,
        "record_mb": size / 1e6,
        "bytes_an_image": size / len(learned),
        "search_s": max(0.0, middle["find_seen"] - middle["images decoded"]),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }
    targets = [
        Target("search beside decoding", figures["search_s"], SEARCH, "s"),
        Target("record, bytes an image", figures["bytes_an_image"], BYTES_AN_IMAGE, "B"),
    ]
    return shown(figures, targets, times, as_json=asked.json)


def make(folder: Path, images: int, learned: int) -> LearnedImages:
    """Write the test set, and give the record of so many images of which half of it are changed copies."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    looks = np.zeros((learned, FINGERPRINT_BYTES), np.uint8)
    for i in range(max(learned, images)):
        cells = rng.integers(0, 255, (CELLS, CELLS, 3), np.uint8)
        if i < images:
            pixels = cv2.resize(cells, (640, 480), interpolation=cv2.INTER_CUBIC)
            changed = np.ascontiguousarray(pixels[:, ::-1]) if i % 2 else pixels
            cv2.imwrite(str(folder / "images" / f"{i}.jpg"), changed, [cv2.IMWRITE_JPEG_QUALITY, 80])
        if i < learned and (i >= images or i % 2):
            shape = (640, 480) if i < images else (32, 32)
            look = fingerprint_of(cv2.resize(cells, shape, interpolation=cv2.INTER_CUBIC))
            looks[i] = np.frombuffer(look, np.uint8)
    records = [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(images)]
    content = {"images": records, "annotations": [], "categories": []}
    (folder / "annotations.json").write_text(json.dumps(content))
    digests = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(learned))
    return LearnedImages(np.frombuffer(digests, np.uint8).reshape(-1, 32), looks)


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
