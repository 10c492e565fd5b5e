"""The epochs of the training that made a model, for the report's section `epochs.html.j2`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.detection.epochs import RESULTS, EpochRecord, read_epochs


@dataclass(frozen=True)
class TrainingEpochs:
    """The epochs in order, of which 0 stands for the given weights."""

    epochs: tuple[EpochRecord, ...]
    losses: tuple[str, ...]  # the parts of the loss, the whole first
    best: int  # the epoch with the highest mAP on the eval set, the first of equals: that of `best.pth`

    @property
    def is_long(self) -> bool:
        """Whether the report folds the table."""
        return len(self.epochs) > 20


def read_training_epochs(files: Path) -> TrainingEpochs | None:
    """Read the epochs from the files that training wrote.

    Returns:
        The epochs; None where nothing was trained, or an earlier version, which wrote no `results.csv`, trained.

    Raises:
        DataError: The file cannot be read.
    """
    path = files / RESULTS
    epochs = read_epochs(path) if path.is_file() else ()
    if not epochs:
        return None
    losses = sorted({part for each in epochs for part in each.loss}, key=lambda part: (part != "loss", part))
    best = max(epochs, key=lambda each: -1.0 if each.mAP is None else each.mAP)
    return TrainingEpochs(epochs, tuple(losses), best.epoch)
