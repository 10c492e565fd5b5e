"""Training samples whose randomness depends on seed, epoch and index alone, not on the process that builds them.

mmdet's transforms draw from numpy's global generator, so a sample would depend on all samples built before it in the
same process: on the number of workers, and on the epoch at which a training resumed. Here each sample has its own seed.
Workers may outlive an epoch, so the index tells them the epoch: sample `index` is requested as
`epoch * len(dataset) + index`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from numpy.random.mtrand import get_bit_generator, set_bit_generator
from torch.utils.data import Sampler

from pipeline.detection import mmcv_ops

mmcv_ops.install()  # importing mmdet needs it

from mmdet.datasets import MultiImageMixDataset  # noqa: E402
from mmdet.registry import DATASETS  # noqa: E402


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed numpy's global functions with some numbers inside the block.

    YOLOX's transforms use no other global generator. The numbers are hashed: with sums, the second epoch of seed 0
    would equal the first epoch of seed 1. The generator is replaced, not seeded again, which takes a tenth of the time.
    """
    own = get_bit_generator()
    set_bit_generator(np.random.PCG64(np.random.SeedSequence(numbers)))
    try:
        yield
    finally:
        set_bit_generator(own)


@DATASETS.register_module()
class SeededDataset(MultiImageMixDataset):  # type: ignore[misc]  # mmdet is untyped
    """mmdet's mix of several images, with a seed per sample and without deep copies.

    mmdet copies a sample before each transform, to try again where that returns None. YOLOX's transforms never do, and
    the copies take longer than the transforms.
    """

    def __init__(self, dataset: dict[str, Any], pipeline: Sequence[dict[str, Any]], seed: int) -> None:
        super().__init__(dataset, pipeline)
        self.seed = seed

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Build the sample of a position that `EpochSampler` gives: `epoch * len(self) + index`."""
        epoch, index = divmod(position, len(self))
        with seeded(self.seed, epoch, index):
            results = self._single(index)
            for transform, name in zip(self.pipeline, self.pipeline_types, strict=True):
                if name in (self._skip_type_keys or ()):
                    continue
                if hasattr(transform, "get_indexes"):
                    others = transform.get_indexes(self.dataset)
                    others = others if isinstance(others, Sequence) else [others]
                    results["mix_results"] = [self._single(other) for other in others]
                results = transform(results)
                results.pop("mix_results", None)
            return results

    def _single(self, index: int) -> dict[str, Any]:
        results: dict[str, Any] = self.dataset[index]
        results.pop("instances", None)  # boxes and labels are loaded; Mosaic would copy the polygons point by point
        return results


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler[int]):
    """The order of an epoch, as positions that `SeededDataset` splits into epoch and index.

    The order over all ranks depends on seed and epoch alone; rank r of n takes every n-th index from the r-th on. So a
    step of n ranks with b images each sees the images of a step of one rank with n * b. Where n does not divide the
    set, the first images are repeated at the end, so that all ranks have equally many.
    """

    def __init__(self, dataset: Sized, seed: int, shuffle: bool = True) -> None:
        dist: tuple[int, int] = get_dist_info()
        self.rank, self.world_size = dist
        self.dataset, self.seed, self.shuffle = dataset, seed, shuffle
        self.epoch = 0

    def __len__(self) -> int:
        """Samples of this rank in an epoch."""
        return math.ceil(len(self.dataset) / self.world_size)

    def __iter__(self) -> Iterator[int]:
        """Positions of this rank."""
        size = len(self.dataset)
        order = np.arange(size)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(size)
        whole = np.resize(order, len(self) * self.world_size)  # repeats from the beginning
        return iter((self.epoch * size + whole[self.rank :: self.world_size]).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch; mmengine's DistSamplerSeedHook calls it before each."""
        self.epoch = epoch
