"""From the images as annotations of a source mean them to those in the folder, some of them converted."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image as Picture

from pipeline.data.checks.image_rules import exif_orientation
from pipeline.data.coco import CocoDataset, Image
from pipeline.data.image_facts import ImageFacts
from pipeline.data.sources.loaded_source import Raw

ORIENTATION = "orientation"  # a field of converted images


def as_on_disk(dataset: CocoDataset, raw: Raw, folder: Path) -> CocoDataset:
    """File names as they are in the folder, with what the source says of each image.

    A picture that was converted has been turned upright on the way; boxes drawn on it as it was stored turn with it.
    """
    dataset = replace(dataset, images=tuple(_image_on_disk(image, raw) for image in dataset.images))
    turned = {name: said[ORIENTATION] for name, said in raw.fields.items() if ORIENTATION in said}
    if not turned:
        return dataset
    facts: dict[str, ImageFacts] = defaultdict(ImageFacts)
    for name, orientation in turned.items():
        with Picture.open(folder / name) as picture:
            facts[name] = ImageFacts(*picture.size, orientation)
    return exif_orientation(dataset, facts, "repair")[0]


def _image_on_disk(image: Image, raw: Raw) -> Image:
    name = raw.renamed.get(image.file_name, image.file_name)
    return replace(image, file_name=name, extra={**image.extra, **fields_of(name, raw)})


def fields_of(name: str, raw: Raw) -> dict[str, Any]:
    """What the source says of an image, by its name in the folder, and is kept with it."""
    return {key: value for key, value in raw.fields.get(name, {}).items() if key != ORIENTATION}
