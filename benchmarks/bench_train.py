"""How fast training is, beside mmdet's own runner with its own YOLOX config.

    python benchmarks/bench_train.py [--variant nano|tiny|s ...] [--size 416] [--batch 8] [--turns 3] [--json]

Both train on the photographs of `CV_REAL_DATA` with COCO's 80 classes, from random weights, at one size, batch and
augmentation, all of the model, in float32 on a CPU:

- theirs: `mmengine.runner.Runner` with `yolox_<variant>_8xb8-300e_coco.py`, its classes, optimiser, averaging and
  hooks. Of it are changed: where the data lies, the input's size, which is no longer drawn anew every ten steps, for
  `flip` the transforms that mix images, and the number of loading processes, of which the faster of none and as many
  as there are cores is taken.
- ours: the session that model_train runs, with nothing frozen.

Speed is images by seconds between the ends of steps of the second and later epochs, loading included and validation
not; each measurement is a process of its own, and the two take turns. On a GPU ours is in mixed precision, theirs in
float32 as its config says, and the table has the memory that tensors took and the loss of the last epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from finetuning import real_dataset
from report import work_in

ROOT = Path(__file__).resolve().parents[1]
LEAST = 1.3  # times theirs on a CPU
LEAST_GPU = 1.5


def main() -> int:
    """Measure and print; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--variant", action="append", help="nano and tiny by default")
    parser.add_argument("--augmentation", action="append", choices=("flip", "mosaic"), help="both by default")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        plan = json.loads(asked.one)
        sys.stdout.write(json.dumps((ours if plan["who"] == "ours" else theirs)(plan)) + "\n")
        return 0
    with work_in(None, "bench_train") as folder:
        make_set(folder)
        rows = [
            compared(folder, variant, augmentation, asked)
            for variant in asked.variant or ["nano", "tiny"]
            for augmentation in asked.augmentation or ["flip", "mosaic"]
        ]
    return shown(rows, as_json=asked.json)


def make_set(folder: Path) -> None:
    """All photographs, as the train set and as the eval set."""
    from pipeline.data.conversion import select
    from pipeline.data.dataset_folder import write_subset

    dataset, _ = select(real_dataset(folder / "source", "coco"))
    write_subset(dataset, folder / "source", folder / "train")
    few = dataset.subset(list(dataset.images)[:8])  # validation is not measured
    write_subset(few, folder / "source", folder / "eval")


def compared(folder: Path, variant: str, augmentation: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Both in turns; theirs with the number of loading processes that its first turn shows to be the faster."""
    plan = {
        "folder": str(folder),
        "variant": variant,
        "augmentation": augmentation,
        "size": asked.size,
        "batch": asked.batch,
        "epochs": asked.epochs,
    }
    tries = {workers: measured({**plan, "who": "theirs", "workers": workers}) for workers in (0, os.cpu_count() or 1)}
    workers = max(tries, key=lambda each: tries[each]["speed"])
    turns = [(tries[workers], measured({**plan, "who": "ours"}))]
    for _ in range(asked.turns - 1):
        other = measured({**plan, "who": "theirs", "workers": workers})
        turns.append((other, measured({**plan, "who": "ours"})))
    return {
        "variant": variant,
        "augmentation": augmentation,
        "theirs": median(each["speed"] for each, _ in turns),
        "ours": median(each["speed"] for _, each in turns),
        "ratio": median(mine["speed"] / other["speed"] for other, mine in turns),
        "ratios": [mine["speed"] / other["speed"] for other, mine in turns],
        "their_workers": workers,
        "their_memory": turns[0][0]["memory"],
        "our_memory": turns[0][1]["memory"],
        "their_loss": turns[0][0]["loss"],
        "our_loss": turns[0][1]["loss"],
        "least": LEAST_GPU if turns[0][1]["memory"] else LEAST,
    }


def measured(plan: dict[str, Any]) -> dict[str, Any]:
    """One training in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{plan} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def ours(plan: dict[str, Any]) -> dict[str, Any]:
    """Images a second of the session that model_train runs."""
    from dataclasses import replace

    import torch

    from pipeline.detection import hooks
    from pipeline.detection.devices import execution_config
    from pipeline.detection.hyperparameters import FROM_SCRATCH, TrainingOptions
    from pipeline.detection.session import TrainingJob, run
    from pipeline.serving.model_metadata import ModelMetadata

    if not torch.cuda.is_available():
        hooks.REPORT_INTERVAL = 0.0  # each step is told of, as theirs are: a look makes only a GPU wait
    folder = Path(plan["folder"])
    content = json.loads((folder / "train" / "annotations.json").read_text())
    names = tuple(each["name"] for each in content["categories"])
    size, batch = plan["size"], plan["batch"]
    options = TrainingOptions(
        f"yolox-{plan['variant']}", size, plan["epochs"], batch, augmentation=plan["augmentation"]
    )
    hyperparameters = replace(FROM_SCRATCH, plain_epochs=0.0)  # with mosaic to the end, as theirs
    execution = replace(execution_config(options, hyperparameters, len(content["images"])), devices=1)
    clock = Clock(execution.iterations, batch)
    with tempfile.TemporaryDirectory() as out:
        metadata, result = ModelMetadata(plan["variant"], (size, size), names), Path(out)
        sets = folder / "train", folder / "eval"
        job = TrainingJob(options, hyperparameters, metadata, execution, *sets, result, weights=None, resume=result)
        outcome = run(job, lambda step, *_: clock.stop(step))
    return {"speed": clock.speed(), "memory": outcome.memory, "loss": outcome.history[-1].loss["loss"]}


def theirs(plan: dict[str, Any]) -> dict[str, Any]:
    """Images a second of mmdet's own runner."""
    import torch
    from mmengine.hooks import Hook

    from pipeline.detection.mmdet_training import base_config

    config = base_config(f"yolox/yolox_{plan['variant']}_8xb8-300e_coco")
    from mmengine.runner import Runner

    set_theirs(config, plan)
    losses: list[float] = []

    class ClockHook(Hook):  # type: ignore[misc]
        def after_train_iter(self, runner: Any, *_: Any, outputs: Any = None, **__: Any) -> None:
            if torch.cuda.is_available() and (runner.iter + 1) % 10 == 0:
                torch.cuda.synchronize()
            clock.stop(runner.iter + 1)
            if runner.epoch + 1 == runner.max_epochs:
                losses.append(float(outputs["loss"]))

    with tempfile.TemporaryDirectory() as work:
        config.work_dir = work
        runner = Runner.from_cfg(config)
        clock = Clock(len(runner.train_dataloader), plan["batch"])
        runner.register_hook(ClockHook())
        runner.train()
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"speed": clock.speed(), "memory": memory, "loss": sum(losses) / len(losses)}


def set_theirs(config: Any, plan: dict[str, Any]) -> None:
    """What must be changed of mmdet's config for the same work on these data."""
    folder, size = Path(plan["folder"]), (plan["size"], plan["size"])
    train = config.train_dataloader
    train.update(batch_size=plan["batch"], num_workers=plan["workers"], persistent_workers=plan["workers"] > 0)
    train.dataset.dataset.update(
        data_root=f"{folder}/train/", ann_file="annotations.json", data_prefix={"img": "images/"}
    )
    for transform in train.dataset.pipeline:
        if transform.type in ("Mosaic", "MixUp"):
            transform.img_scale = size
        elif transform.type == "RandomAffine":
            transform.border = (-size[0] // 2, -size[1] // 2)
        elif transform.type == "Resize":
            transform.scale = size
    if plan["augmentation"] == "flip":
        mixing = ("Mosaic", "RandomAffine", "MixUp")
        train.dataset.pipeline = [each for each in train.dataset.pipeline if each.type not in mixing]
    else:
        # their last fifteen epochs of three hundred are without mosaic; these here are all of the others
        config.custom_hooks = [each for each in config.custom_hooks if each.type != "YOLOXModeSwitchHook"]
    config.model.data_preprocessor.batch_augments = None
    config.train_cfg = {"type": "EpochBasedTrainLoop", "max_epochs": plan["epochs"]}
    config.default_hooks.checkpoint = None
    for unused in ("val_dataloader", "val_cfg", "val_evaluator", "test_dataloader", "test_cfg", "test_evaluator"):
        config[unused] = None
    config.log_level = "ERROR"


class Clock:
    """Speed from the ends of steps, without the first epoch and what lies between epochs."""

    def __init__(self, iterations: int, batch: int) -> None:
        self._iterations = iterations
        self._batch = batch
        self._stops: dict[int, dict[int, float]] = {}

    def stop(self, step: int) -> None:
        """A step ended; the last one told of counts once."""
        self._stops.setdefault((step - 1) // self._iterations, {}).setdefault(step, time.perf_counter())

    def speed(self) -> float:
        """Images a second."""
        steps, seconds = 0, 0.0
        for epoch, stops in self._stops.items():
            # the last batch of an epoch may be a part of one
            whole = [step for step in stops if step % self._iterations]
            if epoch and len(whole) > 1:
                steps += max(whole) - min(whole)
                seconds += stops[max(whole)] - stops[min(whole)]
        if not steps:
            raise RuntimeError(f"no epoch after the first has two whole batches to time: {self._iterations} an epoch")
        return steps * self._batch / seconds


def shown(rows: list[dict[str, Any]], *, as_json: bool) -> int:
    """Print the table."""
    met = all(row["ratio"] >= row["least"] for row in rows)
    if as_json:
        sys.stdout.write(json.dumps({"rows": rows, "met": met}, indent=2) + "\n")
        return 0 if met else 1
    sys.stdout.write("                   images/s                               memory GiB      last loss\n")
    sys.stdout.write("                theirs    ours   ratio  least             theirs  ours   theirs  ours\n")
    for row in rows:
        memory = [row[name] / 2**30 for name in ("their_memory", "our_memory")]
        spread = f"({min(row['ratios']):.2f}-{max(row['ratios']):.2f})"
        verdict = "met" if row["ratio"] >= row["least"] else "MISSED"
        sys.stdout.write(
            f"{row['variant']:<6}{row['augmentation']:<8}{row['theirs']:8.1f}{row['ours']:8.1f}{row['ratio']:8.2f}"
            f"{row['least']:7.1f}  {verdict:<6} {spread:<12}{memory[0]:5.1f} {memory[1]:5.1f}"
            f"{row['their_loss']:9.2f} {row['our_loss']:6.2f}   their loading processes: {row['their_workers']}\n"
        )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
