"""What the predictor needs of a library that runs models. Only the library that a model asks for is imported."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

INPUT = "images"
OUTPUTS = ("batch_index", "boxes", "scores", "labels")


class GraphOutputs(NamedTuple):
    """The detections of a whole batch, in any order; named as the graph's outputs are."""

    batch_index: NDArray[np.int64]  # (M,)
    boxes: NDArray[np.float32]  # (M, 4) x1 y1 x2 y2 in letterboxed pixels
    scores: NDArray[np.float32]  # (M,)
    labels: NDArray[np.int64]  # (M,)


class Backend(Protocol):
    """A model that is loaded twice on a CPU: to use all threads for a run, and for runs side by side.

    The results of both are the same bit for bit. Several threads may use it.
    """

    engine: str  # name and version of the library
    on_cpu: bool
    providers: list[str]  # where it runs, the preferred one first
    precision: str  # in which it computes, which on some CPUs is not the one that was asked for

    def run(self, pixels: NDArray[np.float32], *, alone: bool) -> GraphOutputs:
        """Run the graph on a batch (B, 3, S_h, S_w); `alone` tells whether no other thread runs it."""
