"""The published weights of YOLOX: one table, `published_weights.yaml`, and the choice that fits a variant."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import yaml

from pipeline.errors import UsageError, did_you_mean

COCO = "coco"  # stands for the weights in the table that fit the variant

_TABLE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class PublishedWeights:
    """One published file, trained on COCO train2017.

    Attributes:
        variant: YOLOX size.
        source: Who trained it: "mmdet" or "Megvii".
        url: Where the file is.
        sha256: Digest of the file; empty where it is not known.
        licence: Its SPDX identifier.
        mAP: On COCO val2017 at IoU 0.50:0.95, as its publisher gives it.
    """

    variant: str
    source: str
    url: str
    sha256: str
    licence: str
    mAP: float  # noqa: N815  # the field's own spelling

    @property
    def sha256_start(self) -> str:
        """The known start of the digest: mmdet's file names end with eight digits of it."""
        if self.sha256 or self.source != "mmdet":
            return self.sha256
        return PurePosixPath(self.url).stem.rpartition("-")[2]


@cache
def published_weights() -> tuple[PublishedWeights, ...]:
    """The table."""
    return tuple(PublishedWeights(**entry) for entry in yaml.safe_load(_TABLE.read_text(encoding="utf-8")))


def coco_weights(variant: str) -> PublishedWeights:
    """The weights that `coco` means: the first entry of the variant, which is mmdet's where there is one.

    Raises:
        UsageError: There is no such variant, or none is given.
    """
    table = {entry.variant: entry for entry in reversed(published_weights())}
    if variant not in table:
        raise UsageError(
            f"there are no published weights of YOLOX-{variant}"
            if variant
            else f"'{COCO}' stands for weights of a YOLOX variant, and none is given",
            where="variant",
            expected="one of " + ", ".join(sorted(table)),
            remedy=did_you_mean(variant, table, otherwise="give the variant to train", cutoff=0.3),
        )
    return table[variant]
