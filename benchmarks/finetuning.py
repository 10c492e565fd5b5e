"""What each choice of the fine-tuning recipe is worth, in mAP on photographs that no choice was made by.

    python benchmarks/finetuning.py [--task known|regrouped|sample] [--variant NAME ...] [--seeds 0 1 2]
    python benchmarks/finetuning.py --render
    python benchmarks/finetuning.py --diagnose

Runs what `docs/finetuning.md` says, several at once, and appends each to `docs/finetuning.jsonl`; what is there already
is not run again. `--render` makes the tables and the plot of all that is there. The photographs and the weights
are those of `CV_REAL_DATA`, see the docs.

- known: six of COCO's classes; the head's rows are carried over.
- regrouped: classes that COCO does not have: supercategories, and persons by size. The head's rows start from nothing.
- sample: the embedded sample, from COCO's weights and from nothing.

A variant is the chosen recipe with one thing changed. Each run trains on one thread; its best epoch is chosen by the
eval set, and figures are of the test set, where the untouched weights are measured too.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CV_REAL_DATA", ROOT.parent / "shared" / "data"))
PAGE = ROOT / "docs" / "finetuning.md"
RESULTS = PAGE.with_suffix(".jsonl")
SIX = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
GROUPS = ("vehicle", "animal", "furniture", "kitchen", "food")  # COCO's supercategories with enough objects
NEAR = 96**2  # px; persons of this area or more are "person near", the others "person far"


@dataclass(frozen=True)
class Variant:
    """One thing changed.

    Attributes:
        changes: Of the chosen tuning, by field.
        recipe: Of the recipe, by field.
        weights: "coco", "nothing", or COCO's with the "rows" or the "objectness" of the head made anew.
        forgiving: Whether objects that the given weights know and the data set does not name are no background.
        max_empty_share: Of the train set, how much of it may be images without an object.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "coco"
    forgiving: bool = False
    max_empty_share: float = 1.0


@dataclass(frozen=True)
class Task:
    """A data set, how long to train on it, and the variants to compare."""

    image_size: int
    epochs: int
    variants: Mapping[str, Variant]


CHOSEN, UNTOUCHED, SCRATCH = "chosen", "untouched", "from scratch"
ALL = {"freeze": "nothing", "balanced": False}  # all of the network learns, its filters as they came
KNOWN = {
    UNTOUCHED: Variant(recipe={"epochs": 0}),
    CHOSEN: Variant(),
    "all learn, filters as given": Variant(ALL),
    "all learn, filters balanced": Variant({"freeze": "nothing"}),
    "all but the stem learn": Variant({"freeze": "stem"}),
    "all learn, balanced, norms frozen": Variant({"freeze": "nothing", "frozen_norm": True}),
    "all learn, as given, rate 1e-5": Variant({**ALL, "learning_rate": 1e-5}),
    "filters as given": Variant({"balanced": False}),
    "rate 1e-3": Variant({"learning_rate": 1e-3}),
    "rate 1e-5": Variant({"learning_rate": 1e-5}),
    "SGD, rate 1e-3": Variant({"optimizer": "SGD", "learning_rate": 1e-3, "weight_decay": 5e-4}),
    "neck at a third of the rate": Variant({"neck_rate": 0.3}),
    "no warm-up": Variant({"warm_up": 0.0}),
    "constant rate": Variant({"final_rate": 1.0}),
    "weights not averaged": Variant({"averaged_steps": 0.0}),
    "mosaic": Variant(recipe={"augmentation": "mosaic"}),
    "class rows from nothing": Variant(weights="rows"),
    "objectness from nothing": Variant(weights="objectness"),
    "former classes are no background": Variant(forgiving=True),
    "at most a quarter without an object": Variant(max_empty_share=0.25),
    "at most a tenth without an object": Variant(max_empty_share=0.1),
    "none without an object": Variant(max_empty_share=0.0),
}
NEW_CLASSES = {
    UNTOUCHED: Variant(recipe={"epochs": 0}),
    SCRATCH: Variant(weights="nothing"),
    CHOSEN: Variant(),
    "class layer at the common rate": Variant({"class_rate": 1.0}),
    "only the head learns faster": Variant({"backbone_rate": 0.03, "neck_rate": 0.1}),
    "backbone frozen": Variant({"freeze": "backbone"}),
}
REGROUPED = {
    **NEW_CLASSES,
    "all learn, filters as given": Variant(ALL),
    "all learn, filters balanced": Variant({"freeze": "nothing"}),
}
TASKS = {
    "known": Task(416, 5, KNOWN),
    "regrouped": Task(416, 10, REGROUPED),
    "sample": Task(256, 10, NEW_CLASSES),
}


def main() -> int:
    """Run what is asked for, or render what was run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", choices=TASKS, action="append", help="all by default")
    parser.add_argument("--variant", action="append", help="all of the task by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="runs at a time, a thread each")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="a variant of one's own, of tuning")
    parser.add_argument("--recipe", nargs="+", default=[], metavar="NAME=VALUE", help="the same, of the recipe")
    parser.add_argument("--render", action="store_true", help="only make tables and plot of the results")
    parser.add_argument("--diagnose", action="store_true", help="gradients and filters of the given weights, by part")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a run, as JSON: each has a process of its own
    asked = parser.parse_args()
    if asked.one:
        sys.stdout.write(json.dumps(run(**json.loads(asked.one))) + "\n")
        return 0
    if asked.diagnose:
        diagnose()
        return 0
    if asked.render:
        render(read_results(asked.results))
        return 0
    own = own_variant(asked.set, asked.recipe)
    runs = [
        {"task": task, "variant": name, "seed": seed, "own": own}
        for task in asked.task or TASKS
        for name in ([" ".join(asked.set + asked.recipe)] if own else asked.variant or TASKS[task].variants)
        for seed in (asked.seeds if name != UNTOUCHED else asked.seeds[:1])
        if own or name in TASKS[task].variants
    ]
    done = {key_of(record) for record in read_results(asked.results)}
    with ThreadPoolExecutor(asked.at_once) as pool:
        for record in pool.map(in_process, [each for each in runs if key_of(each) not in done]):
            with asked.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            sys.stdout.write(shown(record) + "\n")
            sys.stdout.flush()
    return 0


def own_variant(tuning: Sequence[str], recipe: Sequence[str]) -> dict[str, Any] | None:
    """A variant from the command line."""

    def values(pairs: Sequence[str]) -> dict[str, Any]:
        found = {}
        for pair in pairs:
            name, _, text = pair.partition("=")
            try:
                found[name] = json.loads(text)
            except ValueError:
                found[name] = text
        return found

    return {"changes": values(tuning), "recipe": values(recipe)} if tuning or recipe else None


def in_process(asked: dict[str, Any]) -> dict[str, Any]:
    """Run one in a process of its own, on one thread."""
    command = [sys.executable, __file__, "--one", json.dumps(asked)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{asked} failed:\n{done.stderr[-4000:]}")
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def run(task: str, variant: str, seed: int, own: dict[str, Any] | None) -> dict[str, Any]:
    """Train once, and measure on the test set."""
    import torch

    from pipeline.detection.hyperparameters import TrainingOptions, default_hyperparameters
    from pipeline.detection.training import train

    logging.disable(logging.INFO)
    plan, chosen = TASKS[task], Variant(**own) if own else TASKS[task].variants[variant]
    with tempfile.TemporaryDirectory() as place:
        sets = make_sets(task, Path(place), chosen.max_empty_share)
        classes = tuple(
            each["name"] for each in json.loads((sets["test"] / "annotations.json").read_text())["categories"]
        )
        weights = make_weights(chosen.weights, Path(place))
        if variant == UNTOUCHED:
            best, false_alarms = untouched(weights, classes, plan, sets)
            return {"task": task, "variant": variant, "seed": seed, "best": best, "false_alarms": false_alarms}
        if chosen.forgiving:
            forgive(weights, classes, plan)
        options = replace(TrainingOptions("yolox-nano", plan.image_size, plan.epochs, 8, seed=seed), **chosen.recipe)
        new_classes = 0 if task == "known" else len(classes)
        chosen_values = default_hyperparameters(pretrained=weights is not None, new_classes=new_classes)
        hyperparameters = replace(chosen_values, **chosen.changes)
        out = Path(place) / "out"
        out.mkdir()
        since = time.monotonic()
        result = train(options, sets["train"], sets["eval"], out, weights=weights, hyperparameters=hyperparameters)
        seconds = time.monotonic() - since
        last = measure(out / "last.pth", result.metadata, sets["test"])
        is_last = result.best_epoch == result.history[-1].epoch
        best, false_alarms = last if is_last else measure(out / "best.pth", result.metadata, sets["test"])
    return {
        "task": task,
        "variant": variant,
        "seed": seed,
        "best": best,
        "false_alarms": false_alarms,
        "best_epoch": result.best_epoch,
        "last": last[0],
        "eval": [record.mAP for record in result.history],
        "losses": [record.loss for record in result.history],
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
    }


def make_weights(kind: str, folder: Path) -> Path | None:
    """What training starts from; see `Variant.weights`."""
    import torch

    from pipeline.detection.checkpoints import read_checkpoint, write_checkpoint
    from pipeline.detection.families.yolox import FAMILY as YOLOX

    given = DATA / "yolox_nano_coco.pth"
    if kind in ("coco", "nothing"):
        return given if kind == "coco" else None
    checkpoint = read_checkpoint(given, YOLOX)
    names = list(checkpoint.classes)
    if kind == "rows":
        names = [f"formerly {name}" for name in names]
    for name, value in checkpoint.state.items():
        if kind == "objectness" and "multi_level_conv_obj" in name:
            # as mmdet initialises it: a chance of 0.01
            value.copy_(torch.full_like(value, -4.595) if name.endswith("bias") else torch.randn_like(value) * 0.01)
    return write_checkpoint(folder / "weights.pth", checkpoint.state, {"classes": names})


def forgive(weights: Path | None, classes: tuple[str, ...], plan: Task) -> None:
    """Have the head leave out of the background what the given weights take for another class of theirs."""
    import torch

    from pipeline.detection.checkpoints import fit, read_checkpoint
    from pipeline.detection.families.yolox import FAMILY as YOLOX
    from pipeline.detection.families.yolox import detector, head
    from pipeline.serving.model_metadata import ModelMetadata

    checkpoint = read_checkpoint(weights or Path(), YOLOX)
    size = (plan.image_size, plan.image_size)
    teacher = YOLOX.build_model(ModelMetadata("nano", size, checkpoint.classes)).eval()
    fit(checkpoint, teacher, checkpoint.classes)
    former = torch.tensor([name not in classes for name in checkpoint.classes])
    seen: dict[str, Any] = {}

    class ForgivingHead(head.IgnoringYOLOXHead):  # type: ignore[misc]
        def _counted(self, priors: Any, ignored: Any) -> Any:
            return super()._counted(priors, ignored) & ~seen["former"]

    class ForgivingYOLOX(detector.PartwiseYOLOX):  # type: ignore[misc]
        def loss(self, batch_inputs: Any, batch_data_samples: Any) -> Any:
            with torch.no_grad():
                scores, _, objectness = teacher.bbox_head(teacher.extract_feat(batch_inputs))
            rows = torch.cat([level.flatten(2) for level in scores], 2).sigmoid()
            sure = rows * torch.cat([level.flatten(2) for level in objectness], 2).sigmoid()
            other = sure[:, former].amax(1)
            seen["former"] = (other > 0.05) & (other > sure[:, ~former].amax(1))  # (B, P)
            return super().loss(batch_inputs, batch_data_samples)

    # importing `detector` has registered the originals, which are replaced
    detector.MODELS.register_module(name="IgnoringYOLOXHead", module=ForgivingHead, force=True)
    detector.MODELS.register_module(name="PartwiseYOLOX", module=ForgivingYOLOX, force=True)


def untouched(
    weights: Path | None, classes: tuple[str, ...], plan: Task, sets: Mapping[str, Path]
) -> tuple[float, float | None]:
    """What `measure` says of the given weights; rows of classes that they do not know start from nothing."""
    import torch

    from pipeline.detection.checkpoints import fit, read_checkpoint, write_checkpoint
    from pipeline.detection.families.yolox import FAMILY as YOLOX
    from pipeline.serving.model_metadata import ModelMetadata

    torch.manual_seed(0)  # of rows that start from nothing
    spec = ModelMetadata("nano", (plan.image_size, plan.image_size), classes)
    model = YOLOX.build_model(spec)
    fit(read_checkpoint(weights or Path(), YOLOX), model, classes)
    path = write_checkpoint(sets["test"] / "untouched.pth", model.state_dict(), {"classes": list(classes)})
    return measure(path, spec, sets["test"])


def measure(weights: Path, spec: Any, folder: Path) -> tuple[float, float | None]:
    """Of a checkpoint on a data set the mAP, and the false positives per image on images without an object.

    With the letterbox and the suppression that the service has; false positives at the threshold with the highest F1.
    """
    import cv2
    import torch

    from pipeline.detection.export import load_detector
    from pipeline.detection.mmcv_ops import nms
    from pipeline.metrics.detection_metrics import evaluate
    from pipeline.metrics.ground_truth import read_ground_truth
    from pipeline.serving.preprocessing import letterbox, stack

    model = load_detector(spec, weights)
    results = []
    for image in json.loads((folder / "annotations.json").read_text())["images"]:
        pixels = cv2.imread(str(folder / "images" / image["file_name"]))
        boxed = letterbox(pixels, spec.image_size)
        with torch.no_grad():
            boxes, scores = model(torch.from_numpy(stack([boxed])))
        scale = torch.tensor([boxed.scale_x, boxed.scale_y]).repeat(2)
        for label, row in enumerate(scores[0]):
            chosen = (row > spec.score_threshold).nonzero()[:, 0]
            for k in chosen[nms(boxes[0][chosen], row[chosen], spec.nms_iou_threshold)].tolist():
                x1, y1, x2, y2 = (boxes[0][k] / scale).tolist()
                found = {"image_id": image["id"], "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                results.append({**found, "score": float(row[k])})
    metrics = evaluate(read_ground_truth(folder / "annotations.json"), results)
    false_alarms = metrics.fp_per_image_without_objects
    return round(float(metrics.map or 0.0), 4), None if false_alarms is None else round(false_alarms, 4)


def make_sets(task: str, folder: Path, max_empty_share: float = 1.0) -> dict[str, Path]:
    """Train, eval and test sets: the official val2017 photographs are for testing, a fifth of the others for eval."""
    from pipeline.data.conversion import select
    from pipeline.data.dataset_folder import write_subset
    from pipeline.data.sample import make_sample
    from pipeline.data.split.dataset_split import split

    images = folder / "source"
    if task == "sample":
        parts = split(make_sample(images), max_empty_share=max_empty_share)
    else:
        dataset, _ = select(real_dataset(images, task), classes=SIX if task == "known" else ())
        names = [Path(line).name for line in (DATA / "official_val2017_names.txt").read_text().split()]
        parts = split(dataset, train_share=0.8, eval_share=0.2, test_names=names, max_empty_share=max_empty_share)
    for name in ("train", "eval", "test"):
        write_subset(getattr(parts, name), images, folder / name)
    return {name: folder / name for name in ("train", "eval", "test")}


def real_dataset(images: Path, task: str) -> Any:
    """The photographs unpacked, and their annotations with the task's classes."""
    from pipeline.data.coco import read_coco

    images.mkdir()
    with zipfile.ZipFile(DATA / "val2017.zip") as archive:
        for member in archive.namelist():
            if member.endswith(".jpg"):
                (images / Path(member).name).write_bytes(archive.read(member))
    with zipfile.ZipFile(DATA / "annotations_trainval2017.zip") as archive:
        content = json.loads(archive.read("annotations/instances_val2017.json"))
    if task == "regrouped":
        content = regrouped(content)
    path = images.parent / "annotations.json"
    path.write_text(json.dumps(content))
    return read_coco(path)


def regrouped(content: dict[str, Any]) -> dict[str, Any]:
    """COCO's annotations with classes that COCO does not have: supercategories merged, persons split by size."""
    names = {each["id"]: (each["name"], each["supercategory"]) for each in content["categories"]}
    classes = [*GROUPS, "person near", "person far"]

    def group(annotation: dict[str, Any]) -> str:
        name, above = names[annotation["category_id"]]
        if name == "person":
            return "person near" if annotation["area"] >= NEAR else "person far"
        return above

    kept = [
        {**each, "category_id": classes.index(group(each)) + 1}
        for each in content["annotations"]
        if group(each) in classes
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
    return {**content, "annotations": kept, "categories": categories}


def key_of(record: Mapping[str, Any]) -> tuple[str, str, int]:
    """What tells runs apart."""
    return record["task"], record["variant"], record["seed"]


def read_results(path: Path) -> list[dict[str, Any]]:
    """What was run so far."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def shown(record: Mapping[str, Any]) -> str:
    """A run on a line."""
    line = f"{record['task']:<10} {record['variant']:<36} seed {record['seed']}  best {record['best']:.4f}"
    if record["variant"] == UNTOUCHED:
        return line
    curve = " ".join(f"{value:.3f}" for value in record["eval"] if value is not None)
    return f"{line} last {record['last']:.4f} epoch {record['best_epoch']} eval {curve}  {record['seconds']:.0f} s"


def diagnose() -> None:
    """Print, by part of the network, what a step of training meets: before and after filters are balanced."""
    import torch
    from mmengine.runner import Runner
    from mmengine.utils import import_modules_from_strings

    from pipeline.detection.checkpoints import fit, read_checkpoint
    from pipeline.detection.families.yolox import FAMILY as YOLOX
    from pipeline.detection.families.yolox.config import training_config
    from pipeline.detection.hyperparameters import KNOWN_CLASSES, ExecutionConfig, TrainingOptions
    from pipeline.detection.mmdet_training import set_machine
    from pipeline.detection.optimization import balance_filters
    from pipeline.serving.model_metadata import ModelMetadata

    logging.disable(logging.INFO)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        sets = make_sets("known", Path(place))
        options, spec = TrainingOptions("yolox-nano", 416, 1, 16), ModelMetadata("nano", (416, 416), SIX)
        execution = ExecutionConfig(4)
        mmdet_config = training_config(options, replace(KNOWN_CLASSES, freeze="nothing"), spec, execution)
        import_modules_from_strings(**mmdet_config.custom_imports)
        set_machine(mmdet_config, sets["train"], sets["eval"], execution)
        mmdet_config.work_dir = place
        runner = Runner.from_cfg(mmdet_config)
        batch = next(iter(runner.build_dataloader(mmdet_config.train_dataloader)))
        model = runner.model.train()
        fit(read_checkpoint(DATA / "yolox_nano_coco.pth", YOLOX), model, SIX)
        for title in ("as given", "balanced"):
            losses = model(**model.data_preprocessor(batch, True), mode="loss")
            sum(losses.values()).backward()
            named = ", ".join(f"{name} {float(value):.2f}" for name, value in losses.items())
            sys.stdout.write(f"\n{title}: {named}\n{parts_of(model)}\n")
            model.zero_grad()
            balance_filters(model)


def parts_of(model: Any) -> str:
    """A row for each part: the shortest filter before a norm, the gradient, and what a step of Adam at 1e-4 changes."""
    parts = ["backbone.stem", *(f"backbone.stage{i}" for i in (1, 2, 3, 4)), "neck", "cls_convs", "reg_convs"]
    lines = [f"{'':<16}{'shortest filter':>16}{'median filter':>16}{'gradient':>12}{'largest change':>16}"]
    for part in parts:
        filters, changes, gradient = [], [], 0.0
        for name, module in model.named_modules():
            if part in name and hasattr(module, "conv") and hasattr(module, "bn"):
                weight = module.conv.weight.detach().flatten(1)
                filters += weight.norm(dim=1).tolist()
                # Adam's first steps move each weight by the rate, whatever its gradient
                changes += (1e-4 * weight.shape[1] ** 0.5 / weight.norm(dim=1)).tolist()
                gradient += float(module.conv.weight.grad.square().sum())
        middle = sorted(filters)[len(filters) // 2]
        lines.append(f"{part:<16}{min(filters):16.5f}{middle:16.3f}{gradient**0.5:12.2f}{max(changes):16.1%}")
    return "\n".join(lines)


def render(records: Sequence[Mapping[str, Any]]) -> None:
    """Put the tables into `docs/finetuning.md`, and the plot beside it."""
    page = PAGE.read_text("utf-8")
    for task in TASKS:
        start, end = f"<!-- table: {task} -->", "<!-- end of table -->"
        before, _, rest = page.partition(start)
        after = rest.partition(end)[2]
        page = f"{before}{start}\n\n{table([each for each in records if each['task'] == task])}\n\n{end}{after}"
    PAGE.write_text(page, "utf-8")
    plot(records)


def grouped(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Records by variant, in the order of the tables."""
    order = list(TASKS[records[0]["task"]].variants) if records else []
    found = {name: sorted((r for r in records if r["variant"] == name), key=lambda r: r["seed"]) for name in order}
    return {name: rows for name, rows in found.items() if rows}


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Rows of variants: the mean over seeds of the epoch that is packed and of the last one, and each seed."""
    lines = ["| variant | packed | last epoch | packed, by seed | best epochs | s |", "|---|---|---|---|---|---|"]
    for name, rows in grouped(records).items():
        best = [row["best"] for row in rows]
        if name == UNTOUCHED:
            lines.append(f"| {name} | {best[0]:.3f} | | | | |")
            continue
        last = mean(row["last"] for row in rows)
        seeds = " ".join(f"{value:.3f}" for value in best)
        epochs = " ".join(str(row["best_epoch"]) for row in rows)
        bold = "**" if name == CHOSEN else ""
        taken = mean(row["seconds"] for row in rows)
        lines.append(
            f"| {bold}{name}{bold} | {bold}{mean(best):.3f}{bold} | {last:.3f} | {seeds} | {epochs} | {taken:.0f} |"
        )
    return "\n".join(lines)


def plot(records: Sequence[Mapping[str, Any]]) -> None:
    """A row for each variant: a dot for each seed's packed epoch, a ring for its last."""
    import matplotlib.pyplot as plt

    parts = {task: grouped([each for each in records if each["task"] == task]) for task in TASKS}
    heights = [len(rows) for rows in parts.values()]
    figure, axes = plt.subplots(len(parts), 1, figsize=(9, 0.3 * sum(heights) + 2), height_ratios=heights)
    for axis, (task, rows) in zip(axes, parts.items(), strict=True):
        names = [name for name in rows if name != UNTOUCHED]
        for y, name in enumerate(names):
            for row in rows[name]:
                axis.plot(row["last"], y, "o", color="#999999", markerfacecolor="none", markersize=6)
                axis.plot(row["best"], y, "o", color="#c44e52" if name == CHOSEN else "#4c72b0", markersize=5)
        axis.axvline(rows[UNTOUCHED][0]["best"], color="#222222", linestyle="--", linewidth=1)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_title(f"{task}: mAP on the test set; dashed, the untouched weights", loc="left", fontsize=9)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(PAGE.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    sys.exit(main())
