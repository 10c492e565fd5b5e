"""The epochs of a training: what is recorded of each, as a file of comma-separated values and as lines of a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError

RESULTS = "results.csv"
_LOSSES = ("loss", "loss_bbox", "loss_cls", "loss_obj", "loss_l1")  # that a line has room for
_OTHERS = ("epoch", "learning_rate", "mAP", "mAP50")
HEADER = "  epoch   loss   bbox    cls    obj     l1    rate  img/s    mAP  mAP50"
"""Above the lines of `epoch_line`: 71 characters, so that they fit a terminal when the log indents them."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a training, with metrics on the eval set where it was validated."""

    epoch: int  # 1 for the first; 0 for the pretrained weights before any training
    loss: dict[str, float]  # mean over the steps, by part: `loss`, `loss_cls`, `loss_bbox`, ...; empty in epoch 0
    learning_rate: float  # of the head, at the end of the epoch
    mAP: float | None = None  # noqa: N815  # the field's own spelling
    mAP50: float | None = None  # noqa: N815


def epoch_line(record: EpochRecord, epochs: int, images_per_second: float | None) -> str:
    """An epoch of so many as a line of the table under `HEADER`; what was not measured is a dash."""
    losses = [record.loss.get(part) for part in _LOSSES]
    cells = [f"{record.epoch}/{epochs}".rjust(7)]
    cells += ["-".rjust(7) if value is None else f"{value:7.2f}" for value in losses]
    cells.append(f"{record.learning_rate:8.1e}" if record.epoch else "-".rjust(8))
    cells.append("-".rjust(7) if images_per_second is None else f"{images_per_second:7.0f}")
    cells += ["-".rjust(7) if value is None else f"{value:7.3f}" for value in (record.mAP, record.mAP50)]
    return "".join(cells)


def write_epochs(path: Path, history: Sequence[EpochRecord]) -> None:
    """Write a line an epoch: its number, each part of the loss, the learning rate, mAP and mAP50 on the eval set.

    What was not measured is empty. Times are left out, so that the same training gives the same bytes.
    """
    parts = sorted({part for record in history for part in record.loss})
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["epoch", *parts, *_OTHERS[1:]])
        for record in history:
            losses = [record.loss.get(part) for part in parts]
            rows.writerow([record.epoch, *losses, record.learning_rate, record.mAP, record.mAP50])


def read_epochs(path: Path) -> tuple[EpochRecord, ...]:
    """Read what `write_epochs` wrote.

    Raises:
        DataError: The file has other content.
    """

    def number(text: str) -> float | None:
        return float(text) if text != "" else None

    history = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                epoch, rate, *metrics = (row.pop(name) for name in _OTHERS)
                loss = {part: float(text) for part, text in row.items() if text}
                history.append(EpochRecord(int(epoch), loss, float(rate), *map(number, metrics)))
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise DataError(
            f"the table of epochs cannot be read: {error}", where=path, expected=f"the columns {', '.join(_OTHERS)}"
        ) from error
    return tuple(history)
