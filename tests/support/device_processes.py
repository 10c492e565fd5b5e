"""What the processes of a training on several devices run in place of `devices._work`: each changes the detector."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.detection import devices
from pipeline.detection.devices import _work
from pipeline.detection.families.yolox.detector import PartwiseYOLOX


def still(*arguments: Any) -> None:
    """Batch norms keep their statistics."""
    keep_statistics()
    _work(*arguments)


def keep_statistics() -> None:
    train = PartwiseYOLOX.train

    def still_train(self: Any, mode: bool = True) -> Any:
        train(self, mode)
        for module in self.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    PartwiseYOLOX.train = still_train


def crowded(rank: int, *arguments: Any) -> None:
    """The second process has memory for one image."""
    loss = PartwiseYOLOX.loss

    def crowded_loss(self: Any, batch_inputs: Any, *others: Any, **named: Any) -> Any:
        if len(batch_inputs) > 1 and rank == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(self, batch_inputs, *others, **named)

    PartwiseYOLOX.loss = crowded_loss
    _work(rank, *arguments)


def broken(*arguments: Any) -> None:
    """Each step is a programming mistake."""

    def broken_loss(self: Any, *others: Any, **named: Any) -> None:
        raise TypeError("the very words of the mistake")

    PartwiseYOLOX.loss = broken_loss
    _work(*arguments)


def asleep(*arguments: Any) -> None:
    """Say nothing for a long time, as in a long validation."""

    def sleeping(*_: Any) -> None:
        limit = (
            torch.distributed.distributed_c10d._get_default_group()._get_backend(torch.device("cpu")).options._timeout
        )
        Path(os.environ["PLACE"], os.environ["LOCAL_RANK"]).write_text(str(limit))
        time.sleep(100)

    devices.run = sleeping
    _work(*arguments)


def gone(rank: int, *arguments: Any) -> None:
    """End at once, without a result."""
