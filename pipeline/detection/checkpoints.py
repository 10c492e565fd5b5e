"""Checkpoints: read without running code from strangers, fitted to a detector by name, written plainly."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.learned_images import LearnedImages
from pipeline.detection.families.yolox.megvii import is_megvii, to_mmdet
from pipeline.errors import DataError, MissingError

log = logging.getLogger(__name__)

CLASS_LAYER = "bbox_head.multi_level_conv_cls."  # one 1x1 convolution a feature level, one output row a class
STATE_ENTRIES = ("state_dict", "model")  # where mmdet and Megvii keep the weights; a bare state dict has neither
LEARNED_ENTRY = "learned_images"  # where this project keeps what the weights learned from, as uint8 tensors
LISTED = 3  # names of each kind in an error

# Channels of the stem, and bottlenecks of the first stage: 64 and 3 times a variant's width and depth.
VARIANTS = {(16, 1): "nano", (24, 1): "tiny", (32, 1): "s", (48, 2): "m", (64, 3): "l", (80, 4): "x"}


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a file.

    Attributes:
        state: Parameter and buffer name to tensor, mmdet's key names.
        classes: What its classification rows stand for, in order.
        source: Whose names the file gives its tensors: "mmdet" or "Megvii".
        left_over: What else the file holds and nobody uses: names of entries, tensors summed up by prefix.
        learned: The images that the weights learned from; None where the file does not tell.
    """

    state: dict[str, Tensor]
    classes: tuple[str, ...]
    source: str = "mmdet"
    left_over: tuple[str, ...] = ()
    learned: LearnedImages | None = None


@dataclass(frozen=True)
class CarriedOver:
    """How a checkpoint was fitted to a detector.

    Attributes:
        known: Classes whose head rows came from the checkpoint, by name.
        fresh: Classes that start from initial values.
    """

    known: tuple[str, ...]
    fresh: tuple[str, ...]


def read_checkpoint(path: Path, *, again: bool = False) -> Checkpoint:
    """Read a YOLOX `.pth` of mmdet's or Megvii's making, refusing any pickle that would run code.

    Class names come from the checkpoint's meta data; an 80-class head without names is taken for COCO's. Where averaged
    weights were kept in training, those are read: all three trainers save them as the model's own. What mmengine calls
    `ema_state_dict`, and mmdet 2 `ema_...`, are by then the unaveraged ones (mmengine/hooks/ema_hook.py, `_swap...`).

    Raises:
        MissingError: No such file.
        DataError: Not a checkpoint, one that needs code to be run, or one of a model that is not a YOLOX.
    """
    if not path.is_file():
        raise MissingError("the checkpoint is not there", where=path, expected="a .pth file")
    content = _load(path)
    state, beside = _split(content, path)
    twins = [name for name in state if name.startswith("ema_")]
    state = {name: value for name, value in state.items() if not name.startswith("ema_")}
    source = "Megvii" if f"{CLASS_LAYER}0.bias" not in state and is_megvii(state) else "mmdet"
    if source == "Megvii":
        state = to_mmdet(state)
    bias = state.get(f"{CLASS_LAYER}0.bias")
    if bias is None or bias.ndim != 1:
        raise DataError(
            "the checkpoint is not of mmdet's YOLOX, nor of Megvii's",
            where=path,
            expected=f"a parameter named {CLASS_LAYER}0.bias or head.cls_preds.0.bias",
            remedy="use a checkpoint trained with mmdet's or Megvii's YOLOX configs",
        )
    learned = _learned(beside.get(LEARNED_ENTRY))
    used = {"meta", LEARNED_ENTRY} if learned is not None else {"meta"}
    left_over = [str(name) for name in beside if name not in used]
    left_over += [f"ema_* ({len(twins)} tensors)"] if twins else []
    names = _class_names(beside.get("meta"), len(bias))
    checkpoint = Checkpoint(state, names or _assumed_names(len(bias), path), source, tuple(left_over), learned)
    if not again:
        _tell(checkpoint, path, named=bool(names))
    return checkpoint


def variant_of(state: Mapping[str, Tensor]) -> str | None:
    """The YOLOX size that these parameters, under mmdet's names, are of; None where it is none of the six."""
    stem = state.get("backbone.stem.conv.conv.weight")
    if stem is None or stem.ndim != 4:
        return None
    blocks = {name.split(".")[4] for name in state if name.startswith("backbone.stage1.1.blocks.")}
    variant = VARIANTS.get((len(stem), len(blocks)))
    depthwise = any(".depthwise_conv." in name for name in state)
    return variant if depthwise == (variant == "nano") else None


def fit(checkpoint: Checkpoint, model: torch.nn.Module, classes: tuple[str, ...]) -> CarriedOver:
    """Load a checkpoint into a model, moving the rows of its classification head by class name.

    Raises:
        DataError: A parameter is missing, unknown or of another shape, which mostly means another YOLOX size.
    """
    own = model.state_dict()
    rows = {name: index for index, name in enumerate(checkpoint.classes)}
    pairs = [(new, rows[name]) for new, name in enumerate(classes) if name in rows]
    _check_parameters(checkpoint, own)
    fitted = dict(checkpoint.state)
    for name in [name for name in own if name.startswith(CLASS_LAYER)]:
        fitted[name] = own[name].clone()
        for new, old in pairs:
            fitted[name][new] = checkpoint.state[name][old]
    model.load_state_dict(fitted)
    known = tuple(name for name in classes if name in rows)
    return CarriedOver(known, tuple(name for name in classes if name not in rows))


def write_checkpoint(
    path: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any], learned: LearnedImages | None = None
) -> Path:
    """Write `{"meta", "state_dict"}` with CPU tensors and plain values, which `weights_only=True` accepts.

    Args:
        path: The file.
        state: The weights.
        meta: Plain values.
        learned: The images that the weights learned from, to lie beside them as tensors: 320 bytes an image.
    """
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
    content: dict[str, Any] = {"meta": dict(meta), "state_dict": tensors}
    if learned is not None:
        content[LEARNED_ENTRY] = {name: torch.tensor(array) for name, array in learned.to_arrays().items()}
    torch.save(content, path)
    return path


def coco_classes() -> tuple[str, ...]:
    """COCO's 80 category names in the order of mmdet's heads."""
    from pipeline.detection import mmcv_ops

    mmcv_ops.install()
    from mmdet.datasets import CocoDataset  # imported here: it needs mmcv's operators or the stand-in first

    return tuple(CocoDataset.METAINFO["classes"])


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_plain_values()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and its unpickler raise many kinds over a broken file
        # what comes before is advice to try it without the check
        said = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or type(error).__name__
        wanted = re.search(r"GLOBAL (\S+)", said)
        reason = f"it wants to run '{wanted[1]}'" if wanted else said.splitlines()[0]
        raise DataError(
            f"the checkpoint cannot be read: {reason}",
            where=path,
            expected="a file that torch.load(weights_only=True) accepts: tensors and plain values, no code",
            remedy="where you trust it, load it once by hand and save only {'meta': {...}, 'state_dict': ...} of it",
        ) from error


def _split(content: object, path: Path) -> tuple[dict[str, Tensor], dict[Any, Any]]:
    """The weights, and the entries that lie beside them."""
    beside = dict(content) if isinstance(content, Mapping) else {}
    entry = next((name for name in STATE_ENTRIES if name in beside), None)
    state = beside.pop(entry) if entry else content
    if not state or not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError("the file holds no state_dict", where=path, expected="{'meta': ..., 'state_dict': ...}")
    wrapped = all(str(name).startswith("module.") for name in state)  # by DataParallel
    tensors = {str(name).removeprefix("module.") if wrapped else str(name): value for name, value in state.items()}
    return tensors, beside if entry else {}


def _learned(entry: object) -> LearnedImages | None:
    """The record that `write_checkpoint` put there; an entry that is none is somebody else's."""
    if not isinstance(entry, Mapping) or not all(isinstance(value, Tensor) for value in entry.values()):
        return None
    try:
        return LearnedImages.from_arrays({str(name): value.numpy() for name, value in entry.items()})
    except (DataError, TypeError):  # numpy has not all of torch's types
        return None


def _class_names(meta: object, count: int) -> tuple[str, ...]:
    """The names that the meta data gives to `count` rows, in mmengine's, mmdet 2's or our own spelling; or none."""
    for part in (meta.get("dataset_meta"), meta) if isinstance(meta, Mapping) else ():
        names = (part.get("classes") or part.get("CLASSES")) if isinstance(part, Mapping) else None
        names = (names,) if isinstance(names, str) else names
        if isinstance(names, list | tuple) and len(names) == count:
            return tuple(str(name) for name in names)
    return ()


def _assumed_names(count: int, path: Path) -> tuple[str, ...]:
    if count == len(coco_classes()):
        return coco_classes()
    log.warning(
        "%s: %d classes without names; none can be carried over. Where you know them, save the file again with "
        "{'meta': {'classes': [...]}} beside the weights",
        path.name,
        count,
    )
    return tuple(f"class {index}" for index in range(count))


def _tell(checkpoint: Checkpoint, path: Path, *, named: bool) -> None:
    variant = variant_of(checkpoint.state)
    log.info(
        "%s: YOLOX%s by %s, %d classes%s%s",
        path.name,
        f"-{variant}" if variant else " of no known size",
        checkpoint.source,
        len(checkpoint.classes),
        " taken for COCO's" if not named and checkpoint.classes == coco_classes() else "",
        "; not used: " + ", ".join(checkpoint.left_over) if checkpoint.left_over else "",
    )


def _check_parameters(checkpoint: Checkpoint, own: Mapping[str, Tensor]) -> None:
    """Refuse another model's parameters; only the number of classes may differ."""
    given = {name: tuple(value.shape) for name, value in checkpoint.state.items()}
    wanted = {name: tuple(value.shape) for name, value in own.items()}
    wanted |= {n: (len(checkpoint.classes), *wanted[n][1:]) for n in wanted if n.startswith(CLASS_LAYER)}
    shared = sorted(wanted.keys() & given.keys())
    found = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unknown": sorted(given.keys() - wanted.keys()),
        "of another shape": [f"{n} {given[n]} instead of {wanted[n]}" for n in shared if given[n] != wanted[n]],
    }
    if not any(found.values()):
        return
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in found.items() if names)
    examples = {kind: ", ".join(names[:LISTED] + ["..."] * (len(names) > LISTED)) for kind, names in found.items()}
    ours, theirs = variant_of(own), variant_of(checkpoint.state)
    another = f"these are weights of YOLOX-{theirs}: set model_train.variant={theirs}"
    raise DataError(
        f"the pretrained weights do not fit the model: {counts}",
        where="; ".join(f"{kind}: {names}" for kind, names in examples.items() if names),
        expected=f"the parameters of YOLOX-{ours}",
        remedy=another if theirs not in (ours, None) else f"use weights of an unchanged YOLOX-{ours}",
    )


class _Skipped:
    """Takes the place of what a checkpoint pickles and nobody here needs; does nothing, whatever it is given."""

    def __new__(cls, *_: object) -> _Skipped:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Forget it."""


def _plain_values() -> list[Any]:
    """Harmless types that checkpoints hold beside tensors: numpy's scalars and arrays, and mmengine's loss history."""
    arrays = np._core.multiarray  # type: ignore[attr-defined]
    rebuild = [arrays._reconstruct, arrays.scalar]
    earlier = [(function, f"numpy.core.multiarray.{function.__name__}") for function in rebuild]  # numpy 1's names
    dtypes = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "u4", "u8", "b1")]
    # a HistoryBuffer names its own methods by way of getattr: neither is called, the pickle only gets a stand-in
    history = [(_Skipped, "mmengine.logging.history_buffer.HistoryBuffer"), (_Skipped, "builtins.getattr")]
    return [*rebuild, *earlier, np.ndarray, np.dtype, *dtypes, *history]
