"""Pretrained weights as an artifact: a checkpoint and its origin, or a note that there is none."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.fetch.fetching import Fetched, fetch
from pipeline.data.published_weights import COCO, coco_weights, published_weights
from pipeline.errors import DataError, UsageError, did_you_mean

log = logging.getLogger(__name__)

_CHECKPOINT_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save since 1.6: a zip; before: a pickle


@dataclass(frozen=True)
class LoadedWeights:
    """A checkpoint file, or `path` None where none was asked for."""

    path: Path | None
    url: str
    sha256: str
    size: int


def load_weights(url: str, folder: Path, *, cache: Path, sha256: str = "", variant: str = "") -> LoadedWeights:
    """Write `source.json`, and `weights.pth` where a URL is given.

    Args:
        url: A PyTorch checkpoint at a path or any URL that `fetch` reads; "coco" for the published weights that fit
            the variant; empty to start without.
        folder: The folder to write to.
        cache: The folder of downloads.
        sha256: The expected digest of the checkpoint; empty to accept any, or for "coco" the one in the table.
        variant: YOLOX size, needed for "coco" only.

    Raises:
        UsageError: A digest is given without a URL, or "coco" without a variant that there is.
        MissingError: There is nothing at the URL.
        DataError: The file is no checkpoint, or has another digest than given or published.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = LoadedWeights(None, "", "", 0)
    if url == COCO:
        chosen = coco_weights(variant)
        log.info("coco: YOLOX-%s by %s, mAP %.3f, %s", variant, chosen.source, chosen.mAP, chosen.licence)
        url, sha256 = chosen.url, sha256 or chosen.sha256
    elif (remedy := did_you_mean(url, [COCO], cutoff=0.7)) and not Path(url).exists():
        raise UsageError(f"there are no weights '{url}'", expected=f"{COCO}, a path or a URL", remedy=remedy)
    if url:
        found = fetch(url, cache, sha256=sha256)
        _check_published(found)
        _check_checkpoint(found.path, found.url)
        path = Path(shutil.copyfile(found.path, folder / "weights.pth"))
        weights = LoadedWeights(path, found.url, found.sha256, found.size)
    elif sha256:
        raise UsageError("a SHA-256 was given without a URL", where=sha256, remedy="give the weights' URL, too")
    source = {"url": weights.url, "sha256": weights.sha256, "size": weights.size}
    (folder / "source.json").write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    return weights


def _check_published(found: Fetched) -> None:
    for entry in published_weights():
        if entry.url == found.url and not found.sha256.startswith(entry.sha256_start):
            found.path.unlink()  # of a URL in the table it is a download
            raise DataError(
                f"the file's SHA-256 is {found.sha256}, which is not that of the published weights",
                where=found.url,
                expected=f"SHA-256 {entry.sha256_start}, and on" if not entry.sha256 else f"SHA-256 {entry.sha256}",
                remedy="the download was removed: run again; if the same comes, something else is served at this URL",
            )


def _check_checkpoint(path: Path, shown: str) -> None:
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(4)
    if not start.startswith(_CHECKPOINT_STARTS):
        raise DataError("the weights are not a PyTorch checkpoint", where=shown, expected="a file torch.save wrote")
