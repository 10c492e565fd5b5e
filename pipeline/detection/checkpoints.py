"""Checkpoints: read without running their code, loaded into a detector by class name, written as plain values."""

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
from pipeline.detection.families import Family
from pipeline.errors import DataError, MissingError

log = logging.getLogger(__name__)

STATE_ENTRIES = ("state_dict", "model")  # where mmdet and Megvii keep the weights; a bare state dict has neither
LEARNED_ENTRY = "learned_images"  # where this project keeps what the weights learned from, as uint8 tensors
LISTED = 3  # parameters named in an error
GIVEN = "given.pth"
"""The weights that training started from, fitted to its classes, beside `best.pth` and `last.pth`."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a file."""

    state: dict[str, Tensor]  # parameters and buffers, by mmdet's names
    classes: tuple[str, ...]  # of the rows of its classification layers, in order
    summary: str  # what the file holds, and what of it is not used, in a line
    learned: LearnedImages | None  # the images that the weights learned from; None where the file does not say
    family: Family


def read_checkpoint(path: Path, family: Family) -> Checkpoint:
    """Read a `.pth` file of a family, by mmdet or by the family's authors, and refuse any pickle that would run code.

    Class names come from the checkpoint's meta data; a head of 80 classes without names is taken for COCO's. Averaged
    weights are read if training kept them: mmengine, mmdet 2 and Megvii all store them as the model's weights. The
    entries that mmengine calls `ema_state_dict`, and mmdet 2 `ema_...`, then hold the unaveraged weights
    (mmengine/hooks/ema_hook.py, `_swap...`).

    Raises:
        MissingError: There is no such file.
        DataError: The file is not a checkpoint, would run code, or is of another family.
    """
    if not path.is_file():
        raise MissingError("there is no such checkpoint", where=path, expected="a .pth file")
    content = _load(path)
    beside = dict(content) if isinstance(content, Mapping) else {}
    entry = next((name for name in STATE_ENTRIES if name in beside), None)
    state = beside.pop(entry) if entry else content
    if not state or not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError("the file holds no state_dict", where=path, expected="{'meta': ..., 'state_dict': ...}")
    if not entry:
        beside = {}
    wrapped = all(str(name).startswith("module.") for name in state)  # by DataParallel
    named = {str(name).removeprefix("module.") if wrapped else str(name): value for name, value in state.items()}
    tensors, source = family.normalize({n: value for n, value in named.items() if not n.startswith("ema_")}, path)

    meta, learned = beside.pop("meta", None), _learned(beside.get(LEARNED_ENTRY))
    if learned is not None:
        del beside[LEARNED_ENTRY]
    count, assumed = len(tensors[f"{family.class_layer}0.bias"]), ""
    classes = _class_names(meta, count)
    if not classes and count == len(coco_classes()):
        classes, assumed = coco_classes(), " taken for COCO's"
    elif not classes:
        classes = tuple(f"class {index}" for index in range(count))
        remedy = "where you know them, save the file again with {'meta': {'classes': [...]}} beside the weights"
        log.warning("%s: %d classes without names; none can be carried over; %s", path.name, count, remedy)
    unused = [*map(str, beside), *(["ema_*"] if any(name.startswith("ema_") for name in named) else [])]
    summary = f"{family.name}-{family.variant_of(tensors) or '?'} by {source}, {count} classes{assumed}"
    summary += f"; not used: {', '.join(unused)}" if unused else ""
    return Checkpoint(tensors, classes, summary, learned, family)


def fit(checkpoint: Checkpoint, model: torch.nn.Module, classes: tuple[str, ...]) -> None:
    """Load a checkpoint into a model, moving the rows of its classification head by class name.

    Rows of classes that the checkpoint does not know keep the model's values.

    Raises:
        DataError: A parameter is missing, unknown or of another shape, mostly because it is of another size.
    """
    own, fitted = model.state_dict(), dict(checkpoint.state)
    _check_parameters(checkpoint, own)
    for name in [name for name in own if name.startswith(checkpoint.family.class_layer)]:
        fitted[name] = own[name].clone()
        for row, known in enumerate(classes):
            if known in checkpoint.classes:
                fitted[name][row] = checkpoint.state[name][checkpoint.classes.index(known)]
    model.load_state_dict(fitted)


def write_checkpoint(
    path: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any], learned: LearnedImages | None = None
) -> Path:
    """Write `{"meta", "state_dict"}` with CPU tensors and plain values, which `weights_only=True` accepts.

    The images that the weights learned from are stored as tensors, 320 bytes per image.
    """
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
    content: dict[str, Any] = {"meta": dict(meta), "state_dict": tensors}
    if learned is not None:
        content[LEARNED_ENTRY] = {name: torch.tensor(array) for name, array in learned.to_arrays().items()}
    torch.save(content, path)
    return path


def coco_classes() -> tuple[str, ...]:
    """COCO's 80 category names in the order of mmdet's heads."""
    from mmdet.datasets import CocoDataset  # after the families, which puts mmcv's operators in place

    return tuple(CocoDataset.METAINFO["classes"])


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_plain_values()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and its unpickler raise many kinds over a broken file
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        said = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or type(error).__name__
        reason = f"it wants to run '{wanted[1]}'" if wanted else said.splitlines()[0]
        raise DataError(
            f"the checkpoint cannot be read: {reason}",
            where=path,
            expected="a file that torch.load(weights_only=True) accepts: tensors and plain values, no code",
            remedy="where you trust it, load it once by hand and save only {'meta': {...}, 'state_dict': ...} of it",
        ) from error


def _learned(entry: object) -> LearnedImages | None:
    """The record that `write_checkpoint` wrote; None for an entry of that name with other content."""
    try:
        arrays = {str(name): value.numpy() for name, value in entry.items()}  # type: ignore[attr-defined]
        return LearnedImages.from_arrays(arrays)
    except (DataError, TypeError, AttributeError):  # numpy has not all of torch's types
        return None


def _class_names(meta: object, count: int) -> tuple[str, ...]:
    """The names that the meta data gives to `count` rows, in mmengine's, mmdet 2's or our own spelling; or none."""
    for part in (meta.get("dataset_meta"), meta) if isinstance(meta, Mapping) else ():
        names = (part.get("classes") or part.get("CLASSES")) if isinstance(part, Mapping) else None
        if isinstance(names, list | tuple) and len(names) == count:
            return tuple(str(name) for name in names)
    return ()


def _check_parameters(checkpoint: Checkpoint, own: Mapping[str, Tensor]) -> None:
    """Only the number of classes may differ."""
    given = {name: tuple(value.shape) for name, value in checkpoint.state.items()}
    wanted = {name: tuple(value.shape) for name, value in own.items()}
    wanted |= {
        n: (len(checkpoint.classes), *wanted[n][1:]) for n in wanted if n.startswith(checkpoint.family.class_layer)
    }
    wrong = [f"{name} is missing" for name in wanted if name not in given]
    wrong += [f"{name} is unknown" for name in given if name not in wanted]
    wrong += [f"{n} is {given[n]} instead of {wanted[n]}" for n in wanted if given.get(n, wanted[n]) != wanted[n]]
    if wrong:
        family = checkpoint.family
        ours, theirs = family.variant_of(own), family.variant_of(checkpoint.state)
        another = f"these are weights of {family.name}-{theirs}: set detector={family.name.lower()}-{theirs}"
        raise DataError(
            f"the pretrained weights do not fit the model: {len(wrong)} parameters differ",
            where=", ".join(wrong[:LISTED] + ["..."] * (len(wrong) > LISTED)),
            expected=f"the parameters of {family.name}-{ours}",
            remedy=another if theirs not in (ours, None) else f"use weights of an unchanged {family.name}-{ours}",
        )


class _Skipped:
    """Replaces pickled objects that are not needed."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _plain_values() -> list[Any]:
    """Harmless types that checkpoints hold beside tensors: numpy's scalars and arrays, and mmengine's loss history."""
    arrays = np._core.multiarray  # type: ignore[attr-defined]
    rebuild = [arrays._reconstruct, arrays.scalar]
    earlier = [(function, f"numpy.core.multiarray.{function.__name__}") for function in rebuild]  # numpy 1's names
    dtypes = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "u4", "u8", "b1")]
    # a HistoryBuffer names its own methods by way of getattr: neither is called, the pickle only gets a stand-in
    history = [(_Skipped, "mmengine.logging.history_buffer.HistoryBuffer"), (_Skipped, "builtins.getattr")]
    return [*rebuild, *earlier, np.ndarray, np.dtype, *dtypes, *history]
