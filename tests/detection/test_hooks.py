from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from mmengine.hooks import EMAHook
from torch import nn

from pipeline.detection.checkpoints import read_checkpoint
from pipeline.detection.hooks import SameStatisticsHook, WeightsHook, averaged, measured


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"coco/bbox_mAP": 0.2, "coco/bbox_mAP_50": 0.4, "coco/bbox_mAP_s": 1}, (0.2, 0.4), id="both"),
        pytest.param({}, (0.0, 0.0), id="nothing was found"),
        pytest.param(None, (0.0, 0.0), id="no metrics"),
    ],
)
def test_the_figures_of_a_validation(given: dict[str, float] | None, expected: tuple[float, float]) -> None:
    assert measured(given) == dict(zip(("mAP", "mAP50"), expected, strict=True))


def validate(hook: WeightsHook, model: nn.Module, epoch: int, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(epoch)
    hook.after_val_epoch(SimpleNamespace(model=model, epoch=epoch), {"coco/bbox_mAP": value, "coco/bbox_mAP_50": value})


@pytest.mark.parametrize(
    ("values", "best"),
    [
        pytest.param({1: 0.1, 2: 0.3, 3: 0.2}, 2, id="in the middle"),
        pytest.param({2: 0.1, 4: 0.1}, 2, id="the first of equals"),
        pytest.param({1: 0.0, 2: 0.0}, 1, id="nothing found"),
        pytest.param({0: 0.5, 1: 0.4}, 0, id="pretrained weights"),
        pytest.param({0: 0.0, 1: 0.1}, 1, id="better than pretrained weights"),
    ],
)
def test_the_best_and_the_last_are_kept(values: dict[int, float], best: int, tmp_path: Path) -> None:
    hook, model = WeightsHook(tmp_path, {"classes": ["a"]}), nn.Linear(1, 1)
    for epoch, value in values.items():
        validate(hook, model, epoch, value)
    assert (hook.best_epoch, hook.best, hook.last_epoch) == (best, values[best], max(values))
    for name, epoch in (("best.pth", best), ("last.pth", max(values))):
        content = torch.load(tmp_path / name, weights_only=True)
        assert content["meta"] == {"classes": ["a"], "epoch": epoch, "mAP": values[epoch], "mAP50": values[epoch]}
        assert float(content["state_dict"]["weight"]) == epoch
    assert float(hook.best_state["weight"]) == best


def test_the_averaged_model_is_the_ema_hooks(tmp_path: Path) -> None:
    hook = EMAHook()
    hook.ema_model = copy = nn.Linear(1, 1)
    assert averaged(SimpleNamespace(hooks=[WeightsHook(tmp_path, {}), hook])) is copy
    assert averaged(SimpleNamespace(hooks=[])) is None


def _end_an_epoch(rank: int, processes: int, folder: Path) -> None:
    """What one of several processes does."""
    address = f"file://{folder / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    model, copy = (nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(1)) for _ in range(2))
    for each, base in ((model, 1.0), (copy, 10.0)):
        each[0].running_mean.copy_(torch.tensor([base * rank, 0.1]))  # 0.1 * 3 / 3 is not 0.1 in float32
        each[1].running_var.fill_(base + rank)
        each[0].num_batches_tracked.fill_(7)
    ema = EMAHook()
    ema.ema_model = copy
    hook = SameStatisticsHook()
    hook.after_train_epoch(SimpleNamespace(model=model, hooks=[ema]))
    torch.save({"model": model.state_dict(), "copy": copy.state_dict()}, folder / f"{rank}.pth")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("processes", [2, 3])
def test_all_processes_end_an_epoch_with_the_mean_of_their_statistics(processes: int, tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(
        _end_an_epoch, (processes, tmp_path), nprocs=processes, start_method="fork", join=True
    )
    mean = sum(range(processes)) / processes
    for rank in range(processes):
        found = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        for name, base in (("model", 1.0), ("copy", 10.0)):
            torch.testing.assert_close(found[name]["0.running_mean"], torch.tensor([base * mean, 0.1]), atol=0, rtol=0)
            torch.testing.assert_close(found[name]["1.running_var"], torch.tensor([base + mean]), atol=0, rtol=0)
            assert int(found[name]["0.num_batches_tracked"]) == 7


def test_one_process_has_the_mean_already() -> None:
    model = nn.BatchNorm2d(2)
    model.running_mean.fill_(0.3)
    hook: Any = SameStatisticsHook()
    hook.after_train_epoch(SimpleNamespace(model=model, hooks=[]))
    assert torch.equal(model.running_mean, torch.tensor([0.3, 0.3]))


def test_kept_weights_are_a_checkpoint_to_start_from(tmp_path: Path, skilled: Path) -> None:
    """What `write` writes, `read_checkpoint` reads, whatever memory format the model is in."""
    given = read_checkpoint(skilled)
    state = {
        name: value.to(memory_format=torch.channels_last) if value.ndim == 4 else value
        for name, value in given.state.items()
    }
    hook = WeightsHook(tmp_path, {"classes": list(given.classes)})
    hook.write("best.pth", state, 3, {"mAP": 0.5})
    again = read_checkpoint(tmp_path / "best.pth")
    assert again.classes == given.classes
    assert all(torch.equal(again.state[name], value) for name, value in given.state.items())
    assert all(value.is_contiguous() for value in again.state.values())
