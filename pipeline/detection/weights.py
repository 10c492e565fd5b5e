"""Checkpoints: read without running code from strangers, fitted to a detector by name, written plainly."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import DataError, MissingError

log = logging.getLogger(__name__)

CLASS_LAYER = "bbox_head.multi_level_conv_cls."  # one 1x1 convolution a feature level, one output row a class


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a file.

    Attributes:
        state: Parameter and buffer name to tensor, mmdet's key names.
        classes: What its classification rows stand for, in order.
    """

    state: dict[str, Tensor]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class CarriedOver:
    """How a checkpoint was fitted to a detector.

    Attributes:
        known: Classes whose head rows came from the checkpoint, by name.
        fresh: Classes that start from initial values.
    """

    known: tuple[str, ...]
    fresh: tuple[str, ...]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.pth` of mmdet's making, refusing any pickle that would run code.

    Class names come from the checkpoint's meta data; an 80-class head without names is taken for COCO's.

    Raises:
        MissingError: No such file.
        DataError: Not a checkpoint, one that needs code to be run, or one of a model that is not mmdet's YOLOX.
    """
    if not path.is_file():
        raise MissingError("the checkpoint is not there", where=path, expected="a .pth file")
    try:
        with torch.serialization.safe_globals(_plain_values()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it wants to run '{wanted[1]}'" if wanted else (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"the checkpoint cannot be read: {reason}",
            where=path,
            expected="a file that torch.load(weights_only=True) accepts: tensors and plain values, no code",
            # mmengine's own training checkpoints are such: their loss history pickles functions
            remedy="where you trust it, load it once by hand and save only {'meta': {...}, 'state_dict': ...} of it",
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError("the file holds no state_dict", where=path, expected="{'meta': ..., 'state_dict': ...}")
    # mmdet 2 kept a second, unaveraged copy of every parameter beside the averaged one
    tensors = {name: value for name, value in state.items() if not name.startswith("ema_")}
    bias = tensors.get(f"{CLASS_LAYER}0.bias")
    if bias is None:
        raise DataError(
            "the checkpoint is not of mmdet's YOLOX",
            where=path,
            expected=f"a parameter named {CLASS_LAYER}0.bias",
            remedy="use a checkpoint trained with mmdet's YOLOX configs",
        )
    return Checkpoint(tensors, _class_names(content.get("meta") or {}, len(bias), path))


def fit(checkpoint: Checkpoint, model: torch.nn.Module, classes: tuple[str, ...]) -> CarriedOver:
    """Load a checkpoint into a model, moving the rows of its classification head by class name.

    Raises:
        DataError: A parameter is missing or of another shape, which means another YOLOX size.
    """
    own = model.state_dict()
    rows = {name: index for index, name in enumerate(checkpoint.classes)}
    pairs = [(new, rows[name]) for new, name in enumerate(classes) if name in rows]
    _check_shapes(checkpoint.state, own)
    fitted = dict(checkpoint.state)
    for name in [name for name in own if name.startswith(CLASS_LAYER)]:
        fitted[name] = own[name].clone()
        for new, old in pairs:
            fitted[name][new] = checkpoint.state[name][old]
    model.load_state_dict(fitted)
    known = tuple(name for name in classes if name in rows)
    return CarriedOver(known, tuple(name for name in classes if name not in rows))


def write_checkpoint(path: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Write `{"meta", "state_dict"}` with CPU tensors and plain values, which `weights_only=True` accepts."""
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
    torch.save({"meta": dict(meta), "state_dict": tensors}, path)
    return path


def _class_names(meta: Mapping[str, Any], count: int, path: Path) -> tuple[str, ...]:
    dataset = meta.get("dataset_meta") or {}
    names = dataset.get("classes") or dataset.get("CLASSES") or meta.get("classes") or meta.get("CLASSES")
    if names and len(names) == count:
        return tuple(str(name) for name in names)
    if count == len(coco_classes()):
        return coco_classes()
    log.warning("%s: %d classes without names; none can be carried over", path.name, count)
    return tuple(f"class {index}" for index in range(count))


def coco_classes() -> tuple[str, ...]:
    """COCO's 80 category names in the order of mmdet's heads."""
    from pipeline.detection import mmcv_ops

    mmcv_ops.install()
    from mmdet.datasets import CocoDataset  # imported here: it needs mmcv's operators or the stand-in first

    return tuple(CocoDataset.METAINFO["classes"])


def _check_shapes(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse another model's parameters; only the number of classes may differ."""

    def shape(name: str, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        return tuple(tensors[name].shape)[1 if name.startswith(CLASS_LAYER) else 0 :]

    absent = sorted(own.keys() - given.keys())
    foreign = sorted(given.keys() - own.keys())
    other = sorted(name for name in own.keys() & given.keys() if shape(name, own) != shape(name, given))
    if not (absent or foreign or other):
        return
    example = (other or absent or foreign)[0]
    raise DataError(
        f"the pretrained weights do not fit the model: {len(absent)} parameters missing, {len(foreign)} unknown, "
        f"{len(other)} of another shape",
        where=example,
        expected=f"shape {tuple(own[example].shape)}" if example in own else "no such parameter",
        remedy="choose the variant that the weights were trained with",
    )


def _plain_values() -> list[Any]:
    """Harmless types that checkpoints hold beside tensors: numpy's scalars and arrays."""
    arrays = np._core.multiarray  # type: ignore[attr-defined]
    dtypes = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "u4", "u8", "b1")]
    return [arrays._reconstruct, arrays.scalar, np.ndarray, np.dtype, *dtypes]
