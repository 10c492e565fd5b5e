"""Samples that depend on nothing but seed, epoch and index: against workers, restarts, ranks, and mmdet's own."""

from __future__ import annotations

import copy
import hashlib
import pickle
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.hooks import DistSamplerSeedHook
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from pipeline.detection import mmcv_ops, seeded_samples, transforms
from pipeline.detection.seeded_samples import EpochSampler, seeded

mmcv_ops.install()

import mmdet.datasets  # noqa: E402, F401  # fills the registry
from mmdet.engine.hooks import YOLOXModeSwitchHook  # noqa: E402

SIDE = 32
IMAGES = 13  # of the train set in conftest
SINGLE = [
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "LoadFitted", "scale": (SIDE, SIDE), "memory": 10**7},
]
MIX = [
    {"type": "FittedMosaic", "img_scale": (SIDE, SIDE), "pad_val": 114},
    {"type": "RandomAffine", "scaling_ratio_range": (0.5, 1.5), "border": (-SIDE // 2, -SIDE // 2)},
    {"type": "MixUp", "img_scale": (SIDE, SIDE), "ratio_range": (0.8, 1.6), "pad_val": 114},
]
MIXING = [transform["type"] for transform in MIX]
MMDETS = {"FittedMosaic": "Mosaic", "HSVByTable": "YOLOXHSVRandomAug", "PackChannelsLast": "PackDetInputs"}
LAST = [
    {"type": "HSVByTable"},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "Pad", "pad_to_square": True, "pad_val": {"img": (114.0,) * 3}},
    {"type": "FilterAnnotations", "min_gt_bbox_wh": (1, 1), "keep_empty": False},
    {"type": "PackChannelsLast"},
]


@pytest.fixture
def config(datasets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Of a seeded data set with every mix."""
    del capsys  # pycocotools prints
    single = {
        "type": "CocoDataset",
        "metainfo": {"classes": ("disc", "block")},
        "data_root": f"{datasets[0]}/",
        "ann_file": "annotations.json",
        "data_prefix": {"img": "images/"},
        "pipeline": SINGLE,
    }
    return {"type": "SeededDataset", "seed": 5, "dataset": single, "pipeline": MIX + LAST}


def build(config: dict[str, Any], **changes: Any) -> Any:
    with DefaultScope.overwrite_default_scope("mmdet"):
        return DATASETS.build(copy.deepcopy(config | changes))


def loader(config: dict[str, Any], workers: int, persistent: bool = False, **options: Any) -> DataLoader[Any]:
    """Built by mmengine, from names."""
    whole = {
        "dataset": config,
        "sampler": {"type": "EpochSampler"},
        "collate_fn": {"type": "stack_channels_last"},
        "batch_size": 4,
        "num_workers": workers,
        "persistent_workers": persistent,
        **options,
    }
    with DefaultScope.overwrite_default_scope("mmdet"):
        return Runner.build_dataloader(whole, seed=5)


def digest(sample: dict[str, Any]) -> str:
    """Of a sample or a batch of them."""
    packed = sample["data_samples"]
    found = hashlib.sha256(sample["inputs"].numpy().tobytes())
    for each in packed if isinstance(packed, list) else [packed]:
        for boxes in (each.gt_instances, each.ignored_instances):
            found.update(boxes.bboxes.tensor.numpy().tobytes() + boxes.labels.numpy().tobytes())
        found.update(repr([each.img_id, each.get("flip"), each.ori_shape]).encode())
    return found.hexdigest()


def epochs(batches: DataLoader[Any], which: list[int]) -> list[list[str]]:
    digests = []
    for epoch in which:
        batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        digests.append([digest(batch) for batch in batches])
    return digests


def test_batches_do_not_depend_on_workers_or_on_what_was_before(config: dict[str, Any]) -> None:
    expected = epochs(loader(config, 0), [0, 1, 2, 3])
    assert len({batch for epoch in expected for batch in epoch}) == 4 * 4  # batches of 13 images, none twice

    assert epochs(loader(config, 2, persistent=True), [0, 1, 2, 3]) == expected
    for workers in (0, 1):
        assert epochs(loader(config, workers), [3]) == expected[3:]
    assert epochs(loader(config | {"seed": 6}, 0), [1])[0] != expected[1]


@pytest.mark.slow
def test_batches_are_the_same_in_workers_that_are_spawned(config: dict[str, Any]) -> None:
    expected = epochs(loader(config, 0), [1])
    assert epochs(loader(config, 1, multiprocessing_context="spawn"), [1]) == expected


def test_each_sample_has_its_own_randomness(config: dict[str, Any]) -> None:
    config["dataset"]["indices"] = 1  # one image, so that nothing else differs
    dataset = build(config)
    assert len(dataset) == 1
    own = [digest(dataset[epoch]) for epoch in range(8)]
    assert len(set(own)) == 8
    assert [digest(dataset[epoch]) for epoch in reversed(range(8))] == own[::-1]
    assert {digest(build(config, seed=6)[epoch]) for epoch in range(8)}.isdisjoint(own)  # not even one epoch later


def test_building_a_sample_leaves_the_global_generators_alone(config: dict[str, Any]) -> None:
    """Of Python's and torch's this also says that no transform draws from them."""
    dataset = build(config)
    np.random.seed(1)
    np.random.rand(3)
    before = [random.getstate(), torch.get_rng_state().tolist(), pickle.dumps(np.random.get_state())]
    for index in range(len(dataset)):
        dataset[index]
    dataset.pipeline[-1] = lambda results: 1 / 0
    with pytest.raises(ZeroDivisionError):
        dataset[0]
    assert [random.getstate(), torch.get_rng_state().tolist(), pickle.dumps(np.random.get_state())] == before


@pytest.mark.parametrize("pipeline", [LAST, MIX[:2] + LAST, MIX + LAST], ids=["flip", "mosaic", "mixup"])
def test_a_sample_is_the_one_mmdet_builds_with_its_copies(
    config: dict[str, Any], pipeline: list[dict[str, Any]]
) -> None:
    ours = build(config, pipeline=pipeline)
    mmdets = [transform | {"type": MMDETS.get(transform["type"], transform["type"])} for transform in pipeline]
    theirs = build({"type": "MultiImageMixDataset", "dataset": config["dataset"], "pipeline": mmdets})

    for index in range(IMAGES):
        with seeded(5, 2, index):
            expected = digest(theirs[index])
        assert digest(ours[2 * IMAGES + index]) == expected


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_mosaic_can_be_switched_off_on_the_way(config: dict[str, Any], workers: int) -> None:
    """By mmdet's hook, which restarts workers that would not hear of it."""
    batches = loader(config, workers, persistent=workers > 0)
    plain = epochs(loader(config | {"pipeline": LAST}, 0), [0, 1, 2, 3])
    mixed = epochs(loader(config, 0), [0, 1])
    head = SimpleNamespace(use_l1=False)
    runner = SimpleNamespace(
        train_dataloader=batches,
        train_loop=SimpleNamespace(dataloader=batches),
        model=SimpleNamespace(bbox_head=head),
        max_epochs=4,
        logger=SimpleNamespace(info=lambda text: None),
    )
    hooks, seen = [YOLOXModeSwitchHook(num_last_epochs=1, skip_type_keys=MIXING), DistSamplerSeedHook()], []
    for runner.epoch in range(4):
        for hook in hooks:
            hook.before_train_epoch(runner)
        seen.append([digest(batch) for batch in batches])

    assert seen == mixed + plain[2:]
    assert head.use_l1


def sampler(monkeypatch: pytest.MonkeyPatch, size: int, rank: int = 0, world: int = 1, **options: Any) -> EpochSampler:
    monkeypatch.setattr(seeded_samples, "get_dist_info", lambda: (rank, world))
    return EpochSampler(range(size), **{"seed": 3, **options})


@pytest.mark.parametrize(("size", "world"), [(13, 1), (13, 2), (16, 2), (13, 4), (3, 8), (1, 2)])
def test_ranks_share_every_index_step_by_step(monkeypatch: pytest.MonkeyPatch, size: int, world: int) -> None:
    one = sampler(monkeypatch, size)
    ranks = [sampler(monkeypatch, size, rank, world) for rank in range(world)]
    for each in (one, *ranks):
        each.set_epoch(4)
    whole, shares = list(one), [list(each) for each in ranks]

    assert sorted(whole) == list(range(4 * size, 5 * size))  # which says the epoch, too
    assert {len(share) for share in shares} == {len(ranks[0])} == {-(-size // world)}
    together = [position for step in zip(*shares, strict=True) for position in step]
    assert together[:size] == whole
    assert together[size:] == (whole * world)[: len(together) - size]


def test_every_image_is_loaded_from_its_file_once(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    decode = transforms.read_fitted
    monkeypatch.setattr(transforms, "read_fitted", lambda path, scale: read.append(path) or decode(path, scale))
    batches = loader(config, 0)
    epochs(batches, [0, 1, 2])
    assert len(read) == len(set(read)) == IMAGES
