"""Images of the test set that the model may have learned from, and the metrics without them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.figures import encode_jpeg, read_pixels, scale
from pipeline.data.learned_images import FILE_NAME, LearnedImages, UnknownWeights, find_seen
from pipeline.data.report.inline_images import Gallery, InlineImage
from pipeline.errors import IntegrityError
from pipeline.files import sha256_of
from pipeline.metrics.detection_metrics import DetectionMetrics, evaluate
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.serving.model_metadata import METADATA_FILE, ModelMetadata

_SHOWN = 12
_THUMBNAIL = 200  # pixels of the longer side
_CAPTIONS = {"exact": "a training image, byte for byte", "similar": "looks like a training image"}

# COCO names an image by its id: `000000000139.jpg` since 2017, `COCO_val2014_000000000139.jpg` before. Train2017 is
# train2014 and val2014 without the 5,000 images of val2017; `coco_val2017.txt` lists these, taken from two independent
# public copies of the list of files of `val2017.zip`, which are equal. COCO's test and unlabeled sets since 2017 have
# names of the same form, but no annotations, so a test set hardly has one of theirs.
_COCO_NAME = re.compile(r"(?:COCO_(?:train|val)2014_)?(\d{12})\.jpe?g", re.IGNORECASE)
_LARGEST_COCO_ID = 581_929  # twelve digits above it are something else, such as a time of day


@dataclass(frozen=True)
class Exposure:
    """The test images that a model learned from, as far as is known."""

    images: int  # in the test set
    learned: int | None  # that the model is known to have learned from; None if it was packed before this was recorded
    seen: Mapping[str, str]  # the test images among them, by name: `exact` copies, or `similar` to one
    thumbnails: Gallery  # some of these, exact copies first
    unknown_weights: tuple[UnknownWeights, ...]  # that the model descends from, and whose training images are unknown
    coco_names: tuple[str, ...]  # named like COCO train2017's, if the weights may descend from those that learned it
    unseen: DetectionMetrics | None  # without the images seen; None where none was seen, or no other is left

    @property
    def exact(self) -> int:
        """Number of test images that are byte for byte training images."""
        return sum(kind == "exact" for kind in self.seen.values())

    @property
    def similar(self) -> int:
        """Number of other test images that look like a training image."""
        return len(self.seen) - self.exact


def check_exposure(truth: GroundTruth, bento: Path, results: Sequence[Mapping[str, Any]]) -> Exposure:
    """Look for the images of a test set among those that a packed model learned from.

    `results` are the predictions of the Bento for the test set, in COCO's results format.

    Raises:
        MissingError: An image or the model's metadata is missing.
        DataError: The model's metadata or the record of training images is damaged.
        IntegrityError: The record of training images is not the one that the model was packed with.
    """
    learned = _read_learned(bento)
    seen = find_seen(learned, truth.folder) if learned is not None else {}
    unknown_weights = learned.unknown_weights if learned is not None else ()
    may_know_coco = learned is None or bool(unknown_weights)  # weights for six classes may descend from COCO's too
    names = [image.file_name for image in truth.images] if may_know_coco else []
    left = {image.id for image in truth.images if image.file_name not in seen}
    unseen = None
    if seen and left:
        unseen = evaluate(truth.only(left), [each for each in results if each["image_id"] in left])
    shown = sorted(seen, key=lambda name: seen[name] != "exact")[:_SHOWN]
    return Exposure(
        images=len(truth.images),
        learned=len(learned) if learned is not None else None,
        seen=seen,
        thumbnails=Gallery({"": [_thumbnail(truth, name, seen[name]) for name in shown]}),
        unknown_weights=unknown_weights,
        coco_names=tuple(name for name in names if is_named_like_train2017(name)),
        unseen=unseen,
    )


def _read_learned(bento: Path) -> LearnedImages | None:
    """Read the record of the images a packed model learned from; None for a Bento packed before there was one."""
    path = bento / FILE_NAME
    named = (ModelMetadata.read(bento / "src" / METADATA_FILE).training.get("learned_images") or {}).get("sha256")
    found = sha256_of(path) if path.is_file() else None
    if found != named:
        raise IntegrityError(
            "the record of the images that the model learned from is "
            + ("not the one it was packed with" if found else "missing"),
            where=path,
            expected=f"SHA-256 {named}" if named else "no such file, because the model's metadata names none",
            remedy="pack the model again",
        )
    return LearnedImages.read(path) if found else None


def is_named_like_train2017(file_name: str) -> bool:
    """Whether a file, with or without folders, is named like an image of COCO train2017."""
    found = _COCO_NAME.fullmatch(PurePosixPath(file_name).name)
    return found is not None and 0 < int(found[1]) <= _LARGEST_COCO_ID and int(found[1]) not in val2017_ids()


@cache
def val2017_ids() -> frozenset[int]:
    """The ids of the 5,000 images of COCO val2017."""
    text = resources.files(__package__).joinpath("coco_val2017.txt").read_text("utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(int(word) for line in lines for word in line.split())


def _thumbnail(truth: GroundTruth, name: str, kind: str) -> InlineImage:
    pixels = read_pixels(truth.path_of(name))
    pixels = scale(pixels, min(_THUMBNAIL / max(pixels.shape[:2]), 1.0))
    caption = f"{name}: {_CAPTIONS[kind]}"
    return InlineImage(name, encode_jpeg(pixels, 82), pixels.shape[1], pixels.shape[0], caption)
