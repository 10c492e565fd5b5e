"""A sample of what the service was asked: an image as it came, what was detected, and why it is kept."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import DataError
from pipeline.serving.api_types import DetectedObject

Reason = Literal["uncertain", "unusual", "random"]


class Sample(BaseModel):
    """What is written beside a kept image. There is nothing of the request in it but the image itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    image: str = Field(pattern=r"^[0-9a-f]{64}\.(jpg|png|webp|bmp)$")  # the file's name: its SHA-256
    file_bytes: int
    width: int  # of the upright image, in pixels
    height: int
    time: datetime  # when it was predicted, in UTC
    reasons: tuple[Reason, ...]
    interest: float  # the share of the requests before that were less uncertain, or less unusual, the higher of the two
    uncertainty: float  # see `uncertainty_of`
    distance: float | None  # to the training images, see `training_reference`; None where these are not known
    model: str  # name and version of the service
    run: str  # that the service comes from, where it was told
    classes: tuple[str, ...]  # of the model, in order
    score_threshold: float  # the service's default
    detections: tuple[DetectedObject, ...]  # down to the model's lowest score

    @property
    def sha256(self) -> str:
        """The digest of the image's file."""
        return self.image.partition(".")[0]

    @classmethod
    def from_json(cls, content: bytes, where: str = "") -> Sample:
        """Read a sample; a `DataError` if it is not one."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            problem = ": ".join([*map(str, first["loc"]), first["msg"]])
            raise DataError(f"this is not a sample: {problem}", where=where) from None


def name_of(image: bytes, suffix: str) -> str:
    """The name of a kept image."""
    return hashlib.sha256(image).hexdigest() + suffix
