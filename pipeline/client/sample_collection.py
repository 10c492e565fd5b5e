"""From the samples that services kept to a data set for labelling, with their detections as pre-labels."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.client.http_client import ServedDetection, ServedImage
from pipeline.client.served_labels import labelled_image
from pipeline.data.fingerprints import group_similar
from pipeline.data.writing.coco_file import coco_file
from pipeline.errors import DataError, MissingError, UsageError
from pipeline.serving.decoding import decode
from pipeline.serving.image_fingerprint import fingerprint_of
from pipeline.serving.sample_places import RECORD, SamplePlace
from pipeline.serving.samples import Sample

ANNOTATIONS = "annotations.json"

_READERS = 8  # a remote place mostly keeps waiting
_NAME_DIGITS = 16  # of the SHA-256, in the file's name


@dataclass(frozen=True)
class Collection:
    """What was made of the samples."""

    samples: int  # that were found, of the time asked for
    images: int  # in the data set
    boxes: int
    reasons: dict[str, int]  # of the images, why they were kept; one may have several reasons
    similar: int  # that look like a more interesting one, and are left out
    broken: tuple[str, ...]  # files that cannot be read, and are left out
    models: tuple[str, ...]  # that predicted the images
    first: datetime  # time of the earliest image
    last: datetime


@dataclass(frozen=True)
class _Read:
    sample: Sample
    fingerprint: bytes
    file: Path  # the image's copy here


def collect_samples(
    place: SamplePlace,
    folder: Path,
    *,
    limit: int | None = None,
    threshold: float | None = None,
    since: datetime | None = None,
) -> Collection:
    """Write the samples of a place as a data set: `images/`, and `annotations.json` in COCO's format, with scores.

    The most interesting come first, and of images that look alike only the most interesting one is taken. The folder
    appears when all is written.

    Args:
        place: Where the samples are.
        folder: A new or empty folder.
        limit: The most images to take.
        threshold: The least score of a pre-label; by default that of the service that kept the sample.
        since: The earliest time of an image.

    Raises:
        UsageError: The folder holds something already.
        MissingError: There are no samples, or none of that time.
        DataError: No sample can be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("the folder for the data set is not empty", where=folder, remedy="name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        (cache := Path(scratch, "cache")).mkdir()
        found, broken = _read_all(place, cache, since)
        representatives = group_similar([each.fingerprint for each in found])
        distinct = [each for index, each in enumerate(found) if representatives[index] == index]
        chosen = distinct[:limit]
        draft = Path(scratch, "dataset")
        boxes = _write(chosen, draft, threshold)
        draft.chmod(0o755)
        draft.replace(folder)
    times = [each.sample.time for each in chosen]
    return Collection(
        samples=len(found) + len(broken),
        images=len(chosen),
        boxes=boxes,
        reasons=dict(Counter(reason for each in chosen for reason in each.sample.reasons)),
        similar=len(found) - len(distinct),
        broken=tuple(broken),
        models=tuple(dict.fromkeys(each.sample.model for each in chosen)),
        first=min(times),
        last=max(times),
    )


def _read_all(place: SamplePlace, cache: Path, since: datetime | None) -> tuple[list[_Read], list[str]]:
    """The samples from a time on, the most interesting first, and the names of those that cannot be read."""
    broken: list[str] = []

    def read(name: str) -> _Read | None:
        try:
            return _read(place, name, cache, since)
        except FileNotFoundError:  # it has gone, to make room for another
            return None
        except DataError:
            broken.append(name)
            return None

    names = sorted(file.name for file in place.files() if file.name.endswith(RECORD))
    with ThreadPoolExecutor(_READERS) as pool:
        found = [each for each in pool.map(read, names) if each]
    if broken and not found:
        problem = f"none of {len(broken)} samples can be read, such as {min(broken)}"
        raise DataError(problem, where=place.url, expected="samples that a service kept")
    if not found:
        when = f" from {since:%Y-%m-%d %H:%M} UTC on" if since and names else ""
        remedy = "leave out the time" if when else "start the service with DETECTOR_SAMPLES set, and send it images"
        raise MissingError(f"there are no samples{when}", where=place.url, remedy=remedy)
    found.sort(key=lambda each: (-each.sample.interest, -each.sample.time.timestamp(), each.sample.image))
    return found, sorted(broken)


def _read(place: SamplePlace, name: str, cache: Path, since: datetime | None) -> _Read | None:
    sample = Sample.from_json(place.read(name), name)
    if since and sample.time.astimezone(UTC) < since:
        return None
    image = place.read(sample.image)
    if hashlib.sha256(image).hexdigest() != sample.sha256:
        raise DataError("the image is not the one that was kept", where=sample.image)
    fingerprint = fingerprint_of(decode(image))
    (cache / sample.image).write_bytes(image)
    return _Read(sample, fingerprint, cache / sample.image)


def _write(chosen: Sequence[_Read], folder: Path, threshold: float | None) -> int:
    """Write the data set, and return the number of its boxes."""
    (folder / "images").mkdir(parents=True)
    newest = max(chosen, key=lambda each: each.sample.time).sample
    classes = dict.fromkeys([*newest.classes, *(name for each in chosen for name in each.sample.classes)])
    boxes = 0
    with coco_file(folder / ANNOTATIONS, list(classes)) as writer:
        for each in chosen:
            sample = each.sample
            name = sample.sha256[:_NAME_DIGITS] + each.file.suffix
            shutil.move(each.file, folder / "images" / name)
            least = sample.score_threshold if threshold is None else threshold
            found = [
                ServedDetection.model_validate(one.model_dump()) for one in sample.detections if one.score >= least
            ]
            boxes += len(found)
            details = sample.model_dump(mode="json", include={"reasons", "uncertainty", "distance", "model", "run"})
            answer = ServedImage(width=sample.width, height=sample.height, detections=found)
            extra = {"date_captured": f"{sample.time:%Y-%m-%d %H:%M:%S}", "sample": details}
            writer.add(labelled_image(name, answer, extra))
    return boxes
