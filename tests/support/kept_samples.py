"""Samples as a service keeps them, and a record of training images."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pictures import smooth

from pipeline.serving.image_fingerprint import FINGERPRINT_BYTES, fingerprint_of
from pipeline.serving.sample_places import RECORD, SamplePlace
from pipeline.serving.samples import Sample

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def bright(seed: int, size: tuple[int, int] = (120, 120), least: int = 200) -> Any:
    """A picture of soft blotches, from a shade on."""
    return np.asarray(least + smooth(seed, size).astype(int) * (255 - least) // 255, np.uint8)


def encoded(pixels: Any, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, pixels)[1])


def sample_of(image: bytes, suffix: str = ".png", number: int = 0, **changed: Any) -> Sample:
    """A sample of an image, taken so many minutes after noon."""
    values: dict[str, Any] = {
        "image": hashlib.sha256(image).hexdigest() + suffix,
        "file_bytes": len(image),
        "width": 120,
        "height": 80,
        "time": NOON + timedelta(minutes=number),
        "reasons": ("uncertain",),
        "interest": 0.97,
        "uncertainty": 0.9,
        "distance": None,
        "model": "object_detector:1",
        "run": "",
        "classes": ("dim", "bright"),
        "score_threshold": 0.3,
        "detections": (),
    }
    return Sample(**values | changed)


def keep(place: SamplePlace, image: bytes, sample: Sample) -> None:
    """Write a sample into a place."""
    place.write(sample.image, image)
    place.write(sample.sha256 + RECORD, sample.model_dump_json().encode())


def write_record(path: Path, pictures: list[Any]) -> None:
    """Write the record of training images that a Bento has."""
    prints = b"".join(fingerprint_of(each) or bytes(FINGERPRINT_BYTES) for each in pictures)
    np.savez(path, looks=np.frombuffer(prints, np.uint8).reshape(-1, FINGERPRINT_BYTES))
