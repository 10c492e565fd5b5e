"""SimOTA for a batch of images at once: the assignment of objects to the priors that learn them.

The rule is YOLOX's (https://arxiv.org/abs/2107.08430, section 2.1), in the arithmetic of mmdet's `SimOTAAssigner`: an
object takes the k priors at which predicting it costs least, k being the sum of its best overlaps. mmdet picks them
object by object from tables of priors x objects x classes; here a table has priors x objects, and all are picked in
one go, which is faster on a CPU and keeps a GPU from waiting at every object.

Boxes are `(x1, y1, x2, y2)`, priors `(x, y, stride, stride)` with the top left corner of their cell, all in pixels of
the network's input. Tables are `(B, G, P)` or `(B, G, V)`: `B` images, the `G` objects of the fullest of them, all `P`
priors or, of each image, the at most `V` that are candidates for any of its objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

OUTSIDE = 100000.0  # added to the cost of a prior not both in an object's box and near its centre, as in mmdet
EPS = 1e-7  # keeps the logarithm of an overlap finite, as in mmdet
LEAST_UNION = 1e-6  # keeps the overlap of two boxes without area finite, as in mmdet's bbox_overlaps
LEAST_LOG = -100.0  # where torch's binary_cross_entropy clamps its logarithms
# Objects times priors that one table of cost may have. A CPU gains by taking images together only while the table stays
# in its cache (measured: 2**18); a GPU by taking as many as there is memory for, here 128 MiB a table.
CPU_ELEMENTS = 2**18
GPU_ELEMENTS = 2**25

Levels = Sequence[tuple[int, int, int]]  # cells down, cells across, and a cell's side in pixels, level by level


class PriorPredictions(NamedTuple):
    """What a head says at the `P` priors of `B` images, in single precision and without gradients."""

    classes: Tensor  # (B, P, C) logits
    objectness: Tensor  # (B, P) logits
    boxes: Tensor  # (B, P, 4)


class Objects(NamedTuple):
    """The objects of `B` images, padded to `G`, the largest number in one image."""

    boxes: Tensor  # (B, G, 4)
    labels: Tensor  # (B, G) class indices, -1 where there is no object


@torch.no_grad()
def assign(predictions: PriorPredictions, objects: Objects, levels: Levels, constants: Any) -> tuple[Tensor, ...]:
    """Assign priors to objects. Of priors with equal cost the first is taken; mmdet takes any.

    The priors are the cells of the levels, row by row. The constants are SimOTA's, the attributes of mmdet's assigner.

    Returns:
        The `N` priors that have an object, each once, ordered by image and prior: the index `(N,)` of the image, of the
        prior, and of the object in its image, and the IoU `(N,)` of the predicted box with the object's.
    """
    images, table = len(objects.labels), objects.labels.shape[1] * predictions.boxes.shape[1]
    elements = GPU_ELEMENTS if predictions.boxes.is_cuda else CPU_ELEMENTS
    step = max(1, elements // max(1, table))
    parts = [_assign(predictions, objects, levels, constants, slice(i, i + step)) for i in range(0, images, step)]
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def _assign(
    predictions: PriorPredictions, objects: Objects, levels: Levels, constants: Any, part: slice
) -> tuple[Tensor, ...]:
    """The columns of an assignment for some of the images."""
    real = objects.labels[part] >= 0
    count = int(real.sum(1).max())
    real, labels, boxes = real[:, :count], objects.labels[part, :count], objects.boxes[part, :count]
    inside, near = _places(boxes, real, levels, constants.center_radius)
    # of each image the priors that are candidates: their numbers (B, V), and which are no padding
    candidate = (inside | near).any(1)
    counts = candidate.sum(1)
    used = torch.arange(int(counts.max()), device=boxes.device) < counts[:, None]
    index = used.new_zeros(used.shape, dtype=torch.long)
    index[used] = candidate.nonzero()[:, 1]
    if index.numel() == 0:
        return index.new_zeros(0), index.new_zeros(0), index.new_zeros(0), boxes.new_zeros(0)
    rows = torch.arange(len(index), device=boxes.device)[:, None]
    classes, objectness, predicted = (each[part][rows, index] for each in predictions)
    overlaps = _overlaps(boxes, predicted).mul_(used[:, None])
    cost = _class_cost(classes, objectness, labels).mul_(constants.cls_weight)
    cost += (overlaps + EPS).log_().mul_(-constants.iou_weight)
    ideal = torch.gather(inside & near, 2, index[:, None].expand(-1, count, -1))
    cost += (~ideal).mul(OUTSIDE)
    cost.masked_fill_(~(real[..., None] & used[:, None]), torch.inf)
    owner = _owners(cost, overlaps, real, constants.candidate_topk)
    image, slot = (owner >= 0).nonzero(as_tuple=True)
    owned = owner[image, slot]
    return image + part.start, index[image, slot], owned, overlaps[image, owned, slot]


def _places(boxes: Tensor, real: Tensor, levels: Levels, radius: float) -> tuple[Tensor, Tensor]:
    """Which priors are in which objects' boxes, and which are near their centres: twice `(B, G, P)`.

    A level is a grid, so its columns and rows are tested, not each of its priors.
    """
    left, top, right, bottom = boxes[..., None].unbind(-2)
    across, down = (left + right) / 2.0, (top + bottom) / 2.0
    inside: list[Tensor] = []
    near: list[Tensor] = []
    for height, width, stride in levels:
        x, y = (torch.arange(cells, device=boxes.device) * stride + 0.5 * stride for cells in (width, height))
        reach = radius * stride
        areas = (left, top, right, bottom), (across - reach, down - reach, across + reach, down + reach)
        for found, (x1, y1, x2, y2) in zip((inside, near), areas, strict=True):
            columns, rows = (x > x1) & (x < x2) & real[..., None], (y > y1) & (y < y2)
            found.append((rows[..., :, None] & columns[..., None, :]).flatten(-2))
    return torch.cat(inside, -1), torch.cat(near, -1)


def _overlaps(boxes: Tensor, predicted: Tensor) -> Tensor:
    """IoU of `(B, G, 4)` with `(B, V, 4)` boxes as `(B, G, V)`, in the order of operations of mmdet's bbox_overlaps."""
    left, top, right, bottom = boxes[..., None].unbind(-2)
    x1, y1, x2, y2 = predicted[:, None].unbind(-1)
    inter = (torch.minimum(right, x2) - torch.maximum(left, x1)).clamp_(min=0)
    inter *= (torch.minimum(bottom, y2) - torch.maximum(top, y1)).clamp_(min=0)
    union = ((x2 - x1) * (y2 - y1) + (right - left) * (bottom - top)).sub_(inter).clamp_(min=LEAST_UNION)
    return inter.div_(union)


def _class_cost(classes: Tensor, objectness: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of the scores with each object's class, summed over the classes, as `(B, G, V)`.

    Of a one-hot target it is that of no class at all, less the wrong term and plus the right one at the object's class.
    """
    scores = (classes.sigmoid() * objectness.sigmoid()[..., None]).sqrt_()
    absent = torch.log1p(-scores).clamp_(min=LEAST_LOG)
    wanted = labels.clamp(min=0)[..., None].expand(-1, -1, scores.shape[1])
    own = torch.gather(scores.transpose(1, 2), 1, wanted).log_().clamp_(min=LEAST_LOG)
    return torch.gather(absent.transpose(1, 2), 1, wanted).sub_(own).sub_(absent.sum(-1)[:, None])


def _owners(cost: Tensor, overlaps: Tensor, real: Tensor, limit: int) -> Tensor:
    """Which object each candidate goes to, `(B, V)`, -1 for none.

    Of objects and candidates that only pad their table the cost is infinite, and the overlap 0. An object takes at most
    `limit` candidates.
    """
    limit = min(limit, cost.shape[2])
    wishes = overlaps.topk(limit).values.sum(-1).int().clamp_(min=1)
    # whole numbers in the order of the costs, equal costs in the order of their places
    bits = cost.float().view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    distinct = (ordered << 32) | torch.arange(cost.shape[-1], device=cost.device)
    cheapest = distinct.topk(limit, largest=False).indices
    taken = (torch.arange(limit, device=cost.device) < wishes[..., None]) & real[..., None]
    taken &= torch.gather(cost, 2, cheapest) < torch.inf
    image, number, rank = taken.nonzero(as_tuple=True)
    owner = cheapest.new_full((len(cost), cost.shape[2]), -1)
    takers = torch.zeros_like(owner)
    slot = cheapest[image, number, rank]
    owner[image, slot] = number
    takers.index_put_((image, slot), torch.ones_like(slot), accumulate=True)
    shared = takers > 1
    owner[shared] = cost.transpose(1, 2)[shared].argmin(-1)
    return owner
