"""The model card: `model.json`, all that the service knows about its model besides the graph itself."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, MissingError


@dataclass(frozen=True)
class ModelCard:
    """What a packed model is and how it is used.

    Attributes:
        variant: YOLOX variant, for instance "nano".
        image_size: (height, width) of the graph's input in pixels.
        classes: Class names; a label is an index into them.
        score_threshold: Least score the graph gives out.
        nms_iou_threshold: IoU above which the graph drops the weaker of two boxes of a class.
        serving_score_threshold: Least score of an answer when the request names none.
        onnx_sha256: SHA-256 of `model.onnx`, in hexadecimal.
        metrics: Measured figures, for instance the export's parity.
        training: How the model came to be: epochs, best epoch, and as `learned_images` the number of images that it
            learned from, the digest of their record, and the weights it started from whose images are unknown. A
            model that was packed before there were such records has no such entry.
    """

    variant: str
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    score_threshold: float
    nms_iou_threshold: float
    serving_score_threshold: float
    onnx_sha256: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = [problem for problem, wrong in self._checks() if wrong]
        if problems:
            raise DataError(f"the model card is inconsistent: {'; '.join(problems)}")

    def _checks(self) -> list[tuple[str, bool]]:
        return [
            ("image_size must be two positive numbers", len(self.image_size) != 2 or min(self.image_size) < 1),
            ("classes must not be empty", not self.classes),
            ("classes must not repeat", len(set(self.classes)) != len(self.classes)),
            ("score_threshold must be within 0..1", not 0 <= self.score_threshold <= 1),
            ("nms_iou_threshold must be within 0..1", not 0 <= self.nms_iou_threshold <= 1),
            (
                "serving_score_threshold must be within score_threshold..1",
                not self.score_threshold <= self.serving_score_threshold <= 1,
            ),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON values."""
        return {**asdict(self), "image_size": list(self.image_size), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: object = "") -> ModelCard:
        """Build a card from JSON values.

        Raises:
            DataError: A field is missing, unknown, of the wrong type or inconsistent with another.
        """
        known = [one.name for one in fields(cls)]
        for name in values:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1)
                remedy = f"did you mean {nearest[0]!r}?" if nearest else ""
                raise DataError(f"the model card has an unknown field {name!r}", where=where, remedy=remedy)
        try:
            return cls(
                variant=str(values["variant"]),
                image_size=(int(values["image_size"][0]), int(values["image_size"][1])),
                classes=tuple(str(name) for name in values["classes"]),
                score_threshold=float(values["score_threshold"]),
                nms_iou_threshold=float(values["nms_iou_threshold"]),
                serving_score_threshold=float(values["serving_score_threshold"]),
                onnx_sha256=str(values["onnx_sha256"]),
                metrics=dict(values.get("metrics", {})),
                training=dict(values.get("training", {})),
            )
        except KeyError as error:
            raise DataError(f"the model card lacks the field {error}", where=where) from error
        except (TypeError, ValueError, IndexError) as error:
            raise DataError(f"the model card has a field of the wrong type: {error}", where=where) from error

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read a card from a JSON file.

        Raises:
            MissingError: There is no such file.
            DataError: The file is no JSON, or no model card.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise MissingError("there is no model card", where=path) from error
        except ValueError as error:
            raise DataError(f"the model card is not JSON: {error}", where=path) from error
        if not isinstance(values, dict):
            raise DataError("the model card is not a JSON object", where=path)
        return cls.from_dict(values, where=path)

    def write(self, path: Path) -> None:
        """Write the card as JSON, the same bytes for the same card."""
        path.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
