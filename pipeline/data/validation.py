"""A data set checked against its images, record by record: what is unsound is fixed or dropped, and always said."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.coco import CocoDataset
from pipeline.data.rules import geometry, records
from pipeline.data.rules.findings import Facts, Finding, Findings, Rule
from pipeline.data.rules.inspection import inspect
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

RULES: tuple[Rule, ...] = (
    records.duplicate_categories,
    records.duplicate_images,
    records.duplicate_annotation_ids,
    records.unknown_references,
    records.unreadable_images,
    geometry.exif_orientation,
    geometry.declared_size,
    geometry.unsound_boxes,
    geometry.boxes_outside,
    geometry.duplicate_boxes,
    geometry.wrong_areas,
)


@dataclass(frozen=True)
class Validation:
    """A sound data set, and how it came to be.

    Attributes:
        dataset: What is left, with unique ids, known references, and boxes within their images.
        findings: What was found on the way there.
        upright: File names of images that EXIF wants turned; their boxes are already where they will be, so
            `write_subset` must turn the pixels.
    """

    dataset: CocoDataset
    findings: Findings
    upright: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.findings)

    def _repr_html_(self) -> str:
        return self.findings._repr_html_()


def validate(dataset: CocoDataset, images_folder: Path) -> Validation:
    """Hold a data set to the rules, decoding every image once.

    Args:
        dataset: As it came from outside.
        images_folder: Where its images are.

    Raises:
        DataError: No image is left.
    """
    facts = inspect(images_folder, sorted({image.file_name for image in dataset.images}))
    validation = apply_rules(dataset, facts)
    if not validation.dataset.images:
        raise DataError(
            f"None of the {len(dataset.images)} images can be used",
            where=images_folder,
            expected="images that the annotations name and OpenCV can decode",
            remedy=f"look at the findings:\n{validation.findings}",
        )
    return validation


def apply_rules(dataset: CocoDataset, facts: Facts, rules: Sequence[Rule] = RULES) -> Validation:
    """Hold a data set to rules, one after another; the same again changes nothing more.

    Args:
        dataset: What to check.
        facts: What is known of every file it names.
        rules: Which rules, in order.
    """
    records: list[Finding] = []
    for rule in rules:
        dataset, found = rule(dataset, facts)
        records += found
        if found:
            logger.info("%s: %d findings", found[0].rule, len(found))
    upright = sorted({image.file_name for image in dataset.images if facts[image.file_name].orientation != 1})
    return Validation(dataset, Findings(tuple(records)), tuple(upright))
