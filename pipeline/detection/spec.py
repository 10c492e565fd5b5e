"""What a trained detector is, apart from its weights: `model.json` in the folder of inference files."""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, MissingError, UsageError

VARIANTS = ("nano", "tiny", "s", "m", "l", "x")
STRIDE = 32  # of the coarsest of YOLOX's three feature maps
SPEC_FILE = "model.json"


@dataclass(frozen=True)
class DetectorSpec:
    """The facts every later step needs about a detector.

    Attributes:
        variant: YOLOX size, one of `VARIANTS`.
        image_size: Height and width in pixels of the letterboxed input, equal and multiples of 32.
        classes: Class names; a class's index is its label.
        score_threshold: Detections below it are dropped inside the model (mmdet's YOLOX: 0.01).
        nms_iou_threshold: Boxes of one class that overlap more are suppressed (mmdet's YOLOX: 0.65).
        training: What is known of how the weights came to be: epochs, best epoch, metrics.
    """

    variant: str
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    score_threshold: float = 0.01
    nms_iou_threshold: float = 0.65
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_variant(self.variant)
        check_image_size(self.image_size)
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise DataError(
                "a detector needs at least one class, each with its own name",
                where=", ".join(self.classes) or "no classes",
                expected="distinct class names",
                remedy="look at the categories of the data set",
            )

    def write(self, folder: Path) -> Path:
        """Write `model.json` into `folder`."""
        path = folder / SPEC_FILE
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: Path) -> DetectorSpec:
        """Read `model.json` from `folder`.

        Raises:
            MissingError: There is none.
            DataError: It is not what `write` writes.
        """
        path = folder / SPEC_FILE
        if not path.is_file():
            raise MissingError(
                "the folder of inference files has no model.json",
                where=path,
                expected="the output of model_train",
                remedy="run model_train again",
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["image_size"] = tuple(values["image_size"])
            values["classes"] = tuple(values["classes"])
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"model.json cannot be read: {error}",
                where=path,
                expected="the fields of DetectorSpec",
                remedy="run model_train again",
            ) from error


def check_variant(variant: str) -> None:
    """Refuse a YOLOX size that does not exist, with the nearest that does."""
    if variant not in VARIANTS:
        near = difflib.get_close_matches(variant, VARIANTS, 1, 0.3) or ["s"]
        raise UsageError(
            f"there is no YOLOX variant '{variant}'",
            where="variant",
            expected="one of " + ", ".join(VARIANTS),
            remedy=f"did you mean '{near[0]}'?",
        )


def check_image_size(image_size: tuple[int, int]) -> None:
    """Refuse an input size that the feature maps cannot cover exactly."""
    height, width = image_size
    if height != width or height <= 0 or height % STRIDE:
        below = max(STRIDE, height // STRIDE * STRIDE)
        raise UsageError(
            f"image size {height} x {width} does not fit YOLOX",
            where="image_size",
            expected=f"a square whose side is a multiple of {STRIDE}",
            remedy=f"try {below} or {below + STRIDE}",
        )
