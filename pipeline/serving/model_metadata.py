"""`model.json`: what a detector is apart from its weights. Training writes it, packing completes it, serving reads it.

The module also names the files of a packed model, which lie beside its `model.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.errors import DataError, MissingError
from pipeline.serving.runtimes import RUNTIMES, check_form
from pipeline.serving.tiling import AS_TRAINED, Tiling

SERVICE_NAME = "object_detector"
METADATA_FILE = "model.json"
MODEL_FILE = "model.onnx"
TEST_IMAGE_STEM = "test_image"
TEST_RESULT_FILE = "test_result.json"


@dataclass(frozen=True)
class ModelMetadata:
    """A detector, and how it is used. Reading accepts the files of earlier versions, which have fewer fields."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    variant: str  # size of the detector's family, for instance "nano"
    image_size: tuple[int, int]  # (height, width) of the letterboxed input in pixels
    classes: tuple[str, ...]  # a label is an index into them
    score_threshold: float = 0.01  # the graph drops detections with a lower score; as mmdet's YOLOX, like the next
    nms_iou_threshold: float = 0.65  # IoU above which the graph drops the weaker of two boxes of a class
    serving_score_threshold: float = 0.3  # the service's default for requests
    onnx_sha256: str = ""  # in hexadecimal; empty before packing
    metrics: Mapping[str, Any] = field(default_factory=dict)  # of the export; empty before packing
    # How the weights came to be: epochs, best epoch, metrics. `learned_images` has the number of training images, the
    # digest of their record, and the initial weights whose training images are unknown; early versions had none.
    training: Mapping[str, Any] = field(default_factory=dict)
    runtime: str = "cpu"  # where it is to run: a name in `RUNTIMES`
    precision: str = "fp32"  # in which it computes there, one of `PRECISIONS`; early versions knew no other
    # What it was made from: `data`, the digest of each input of the training by name, and `licence`, the SPDX name of
    # that of the weights that training started from, empty where it is not known. Packing adds `commit` of the code,
    # with "-dirty" where the tree differed from it, `created`, its time, ISO 8601 in UTC, and `weights`, the epoch that
    # was packed, `best` or `last`. Early versions had none.
    origin: Mapping[str, Any] = field(default_factory=dict)
    family: str = "YOLOX"  # as its authors write it; early versions knew no other
    tile: int = 0  # side in pixels of the tiles that larger images are cut into; 0, as in early versions: whole images
    overlap: float = 0.2  # the share of a tile that neighbours have in common at least

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise DataError(f"the model metadata needs one or more different classes, not {self.classes}")
        if not 0 <= self.score_threshold <= self.serving_score_threshold <= 1:
            raise DataError(
                f"serving_score_threshold is {self.serving_score_threshold}",
                expected=f"a number from score_threshold, {self.score_threshold}, to 1",
            )
        check_form(self.runtime, self.precision)
        _ = self.tiling

    @property
    def tiling(self) -> Tiling:
        """How large images are cut into tiles."""
        return Tiling(self.tile, self.overlap)

    def in_tiles(self, tile: int, overlap: float) -> ModelMetadata:
        """The same model with another tile and overlap; -1 keeps the one that it has."""
        return replace(
            self,
            tile=self.tile if tile == AS_TRAINED else tile,
            overlap=self.overlap if overlap == AS_TRAINED else overlap,
        )

    def as_packed(
        self, *, metrics: Mapping[str, Any], serving_score_threshold: float, origin: Mapping[str, Any]
    ) -> ModelMetadata:
        """The same model with what its packing adds: measurements, the service's threshold, and facts on its origin."""
        return replace(
            self,
            metrics=metrics,
            serving_score_threshold=serving_score_threshold,
            origin={**self.origin, **origin},
        )

    @property
    def name(self) -> str:
        """Family and variant as people write them: `YOLOX-s`."""
        return f"{self.family}-{self.variant}"

    @property
    def detector(self) -> str:
        """The same as the option of a training has it: `yolox-s`."""
        return self.name.lower()

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's execution providers, the preferred one first; none where another library runs the model."""
        return RUNTIMES[self.runtime].providers

    @classmethod
    def read(cls, path: Path) -> ModelMetadata:
        """Read a `model.json`.

        Raises:
            MissingError: There is no such file.
            DataError: The file is not JSON; or a field is missing, unknown, of the wrong type or inconsistent with
                another.
        """
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise MissingError(
                "there is no model metadata", where=path, remedy="train or pack the model again"
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            problem = ": ".join([*map(str, first["loc"]), first["msg"]])
            raise DataError(
                f"the model metadata is not valid: {problem}", where=path, remedy="train or pack the model again"
            ) from error

    def write(self, path: Path) -> None:
        """Write the metadata as JSON: the same bytes for the same metadata."""
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
