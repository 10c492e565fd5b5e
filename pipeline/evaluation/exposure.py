"""Which images of the test set the model may have learned from, and what its figures are without them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.learned_images import FILE_NAME, LearnedImages, SeenImage, UnknownWeights, find_seen
from pipeline.errors import IntegrityError
from pipeline.evaluation.coco_names import is_named_like_train2017
from pipeline.evaluation.ground_truth import IMAGES_FOLDER, GroundTruth, read_ground_truth
from pipeline.evaluation.metrics import DetectionMetrics, evaluate
from pipeline.evaluation.prediction_images import thumbnail
from pipeline.serving.model_metadata import METADATA_FILE, ModelMetadata

_PICTURES = 12


@dataclass(frozen=True)
class SeenPicture:
    """A small picture of a test image that the model learned from, as a JPEG file."""

    image: SeenImage
    jpeg: bytes


@dataclass(frozen=True)
class Exposure:
    """How far a model knows the images that it is judged on.

    Attributes:
        images: Number of test images.
        learned: Number of images that the model is known to have learned from; None for a model that was packed
            before this was recorded.
        seen: The test images among them, in the test set's order.
        pictures: Some of these, the exact ones first.
        unknown_weights: Weights that the model descends from, and whose training images nobody recorded.
        coco_names: Test images that are named like images of COCO train2017, where the model descends or may descend
            from weights that learned these: from any of which nobody recorded what they learned from.
        unseen: The metrics without the images seen; None where none was seen, or nothing else is left.
    """

    images: int
    learned: int | None
    seen: tuple[SeenImage, ...]
    pictures: tuple[SeenPicture, ...]
    unknown_weights: tuple[UnknownWeights, ...]
    coco_names: tuple[str, ...]
    unseen: DetectionMetrics | None

    @property
    def exact(self) -> int:
        """Number of test images that are byte for byte among those learned from."""
        return sum(one.kind == "exact" for one in self.seen)

    @property
    def similar(self) -> int:
        """Number of other test images that look like one of those learned from."""
        return len(self.seen) - self.exact

    @property
    def unseen_images(self) -> int | None:
        """Number of test images that are not seen; None where it is not known what the model learned from."""
        return None if self.learned is None else self.images - len(self.seen)

    @property
    def exact_share(self) -> float | None:
        """`exact` as a share of the test images; None where it is not known what the model learned from."""
        return None if self.learned is None else self.exact / self.images

    @property
    def similar_share(self) -> float | None:
        """`similar` as a share of the test images; None where it is not known what the model learned from."""
        return None if self.learned is None else self.similar / self.images

    @property
    def knows_coco(self) -> bool:
        """Whether the model descends from weights for COCO's classes."""
        return any(weights.coco for weights in self.unknown_weights)


def check_exposure(test_set: Path, bento: Path, results: Sequence[Mapping[str, Any]]) -> Exposure:
    """Look for the images of a test set among those that a packed model learned from.

    Args:
        test_set: A folder with `annotations.json` and `images/`.
        bento: The built Bento.
        results: The model's predictions for the test set, in COCO's results format.

    Raises:
        MissingError: An image or the model metadata is not there.
        DataError: The annotations, the model metadata or the record of learned images are not what they claim to be.
        IntegrityError: The record of learned images is not the one that the model was packed with.
    """
    truth = read_ground_truth(test_set)
    learned = read_learned(bento)
    seen = find_seen(learned, test_set) if learned is not None else ()
    unknown_weights = learned.unknown_weights if learned is not None else ()
    may_know_coco = learned is None or bool(unknown_weights)  # weights for six classes may descend from COCO's too
    names = [image.file_name for image in truth.images] if may_know_coco else []
    return Exposure(
        images=len(truth.images),
        learned=len(learned) if learned is not None else None,
        seen=seen,
        pictures=_pictures(test_set, seen),
        unknown_weights=unknown_weights,
        coco_names=tuple(name for name in names if is_named_like_train2017(name)),
        unseen=_without(truth, results, {one.file_name for one in seen}),
    )


def read_learned(bento: Path) -> LearnedImages | None:
    """The record of what a packed model learned from; None for a Bento that was packed before there was one.

    Raises:
        MissingError: The Bento has no model metadata.
        DataError: The model metadata or the record is damaged.
        IntegrityError: The record is missing, or is not the one that the model metadata names.
    """
    path = bento / FILE_NAME
    named = (ModelMetadata.read(bento / "src" / METADATA_FILE).training.get("learned_images") or {}).get("sha256")
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    if found != named:
        raise IntegrityError(
            "the record of the images that the model learned from is not the one it was packed with"
            if found
            else "the record of the images that the model learned from is missing",
            where=path,
            expected=f"SHA-256 {named}" if named else "no such file, for the model metadata names none",
            remedy="pack the model again",
        )
    return LearnedImages.read(path) if found else None


def _pictures(test_set: Path, seen: Sequence[SeenImage]) -> tuple[SeenPicture, ...]:
    shown = sorted(seen, key=lambda one: one.kind != "exact")[:_PICTURES]
    return tuple(SeenPicture(one, thumbnail(test_set / IMAGES_FOLDER / one.file_name)) for one in shown)


def _without(truth: GroundTruth, results: Sequence[Mapping[str, Any]], names: set[str]) -> DetectionMetrics | None:
    left = {image.id for image in truth.images if image.file_name not in names}
    if not names or not left:
        return None
    return evaluate(truth.only(left), [one for one in results if one["image_id"] in left])
