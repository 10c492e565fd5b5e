"""Pretrained weights as an artifact: a checkpoint and its origin, or a note that there is none.

`coco` stands for weights that YOLOX's authors published, from the table `published_weights.yaml`.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipeline.data.dataset_origin import portable
from pipeline.data.fetch.fetching import fetch
from pipeline.errors import DataError, UsageError, did_you_mean

log = logging.getLogger(__name__)

COCO = "coco"  # stands for the weights in the table that fit the detector

_TABLE = Path(__file__).with_name("published_weights.yaml")
_CHECKPOINT_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save since 1.6: a zip; before: a pickle


@dataclass(frozen=True)
class PublishedWeights:
    """One published file, trained on COCO train2017 by "mmdet" or "Megvii"."""

    detector: str  # family and variant, such as `yolox-s`
    source: str
    url: str
    licence: str  # its SPDX identifier
    mAP: float  # noqa: N815  # on COCO val2017 at IoU 0.50:0.95, as its publisher gives it

    @property
    def sha256_start(self) -> str:
        """The known start of the file's digest: mmdet's file names end with eight digits of it."""
        return PurePosixPath(self.url).stem.rpartition("-")[2] if self.source == "mmdet" else ""


@cache
def published_weights() -> tuple[PublishedWeights, ...]:
    """The table."""
    return tuple(PublishedWeights(**entry) for entry in yaml.safe_load(_TABLE.read_text(encoding="utf-8")))


def coco_weights(detector: str) -> PublishedWeights:
    """The weights that `coco` means: the first entry of the detector, which is mmdet's where there is one."""
    table = {entry.detector: entry for entry in reversed(published_weights())}
    if detector not in table:
        raise UsageError(
            f"'{COCO}' stands for published weights of a detector, and there are none of '{detector}'",
            where="detector",
            expected="one of " + ", ".join(sorted(table)),
            remedy=did_you_mean(detector, table, otherwise="give the detector to train", cutoff=0.3),
        )
    return table[detector]


@dataclass(frozen=True)
class WeightsOrigin:
    """Where a checkpoint comes from."""

    url: str
    sha256: str
    licence: str = ""  # its SPDX identifier; empty where it is not known


def load_weights(url: str, folder: Path, *, cache: Path, sha256: str = "", detector: str = "") -> dict[str, Any]:
    """Write `source.json`, and `weights.pth` where a URL is given; returns what `source.json` says.

    Of a path on this machine it says the last name, so that the same weights are the same artifact on another machine.
    The URL may be empty to start without, or "coco" for the published weights of the detector.

    Raises:
        UsageError: A digest is given without a URL, or "coco" without a detector that has published weights.
        DataError: The file is no checkpoint, or has another digest than given or published.
    """
    if sha256 and not url:
        raise UsageError("a SHA-256 was given without a URL", where=sha256, remedy="give the weights' URL, too")
    if url == COCO:
        chosen = coco_weights(detector)
        log.info("coco: %s by %s, mAP %.3f, %s", detector, chosen.source, chosen.mAP, chosen.licence)
        url = chosen.url
    elif (remedy := did_you_mean(url, [COCO], cutoff=0.7)) and not Path(url).exists():
        raise UsageError(f"there are no weights '{url}'", expected=f"{COCO}, a path or a URL", remedy=remedy)
    folder.mkdir(parents=True, exist_ok=True)
    source = {"url": "", "sha256": "", "size": 0}
    if url:
        found = fetch(url, cache, sha256=sha256)
        known = next((entry.sha256_start for entry in published_weights() if entry.url == found.url), "")
        if not found.sha256.startswith(known):
            found.path.unlink()  # of a URL in the table it is a download
            raise DataError(
                f"the file's SHA-256 is {found.sha256}, which is not that of the published weights",
                where=found.url,
                expected=f"SHA-256 {known}, and on",
                remedy="the download was removed: run again; if the same comes, something else is served at this URL",
            )
        start = b""
        if found.path.is_file():
            with found.path.open("rb") as file:
                start = file.read(4)
        if not start.startswith(_CHECKPOINT_STARTS):
            problem = "the weights are not a PyTorch checkpoint"
            raise DataError(problem, where=found.url, expected="a file torch.save wrote")
        shutil.copyfile(found.path, folder / "weights.pth")
        source = {"url": portable(found.url), "sha256": found.sha256, "size": found.size}
    (folder / "source.json").write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    return source


def read_weights_origin(folder: Path) -> WeightsOrigin | None:
    """The origin of the weights in a folder that `load_weights` wrote; None where there are no weights."""
    source = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    if not source["url"]:
        return None
    licence = next((entry.licence for entry in published_weights() if entry.url == source["url"]), "")
    return WeightsOrigin(source["url"], source["sha256"], licence)
