"""YOLOX's head with a faster loss that respects ignored regions.

mmdet's `YOLOXHead` ignores the ignored regions of a data set, mostly crowds: each prior in them becomes an example of
background. Here such a prior is no example. Without ignored regions the losses equal mmdet's, and are computed several
times faster, see `assignment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipeline.detection import mmcv_ops
from pipeline.detection.families.yolox.assignment import (
    Assignment,
    Levels,
    Objects,
    PriorPredictions,
    SimOTAConstants,
    assign,
    centres,
    within,
)

mmcv_ops.install()  # importing mmdet needs it

from mmdet.models.dense_heads import YOLOXHead  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmdet.utils import reduce_mean  # noqa: E402


@MODELS.register_module()
class IgnoringYOLOXHead(YOLOXHead):  # type: ignore[misc]  # mmdet is untyped
    """mmdet's head, weight for weight. Its `assigner` only holds SimOTA's constants.

    Attributes:
        positives: Priors with an object in the last batch, the mean over all processes. The losses were divided by it,
            or by 1 where it was less.
    """

    positives: Tensor

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        objectnesses: Sequence[Tensor],
        batch_gt_instances: Sequence[Any],
        batch_img_metas: Sequence[dict[str, Any]],  # noqa: ARG002  # mmdet's signature
        batch_gt_instances_ignore: Sequence[Any] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch of `B` images, each divided by the number of priors that have an object.

        Args:
            cls_scores: Logits per level, `(B, C, H, W)`.
            bbox_preds: Offsets and logarithms of sides in strides per level, `(B, 4, H, W)`.
            objectnesses: Logits per level, `(B, 1, H, W)`.
            batch_gt_instances: `bboxes` `(G, 4)`, x1, y1, x2, y2 in pixels of the input, and `labels` `(G,)` per image.
            batch_img_metas: Not used.
            batch_gt_instances_ignore: `bboxes` `(R, 4)` of the regions to leave out, or None, per image.

        Returns:
            `loss_cls`, `loss_bbox`, `loss_obj`, and with `use_l1` also `loss_l1`.
        """
        # mixed precision ends here: in float16 a cost of 100000 is infinite
        with torch.autocast(objectnesses[0].device.type, enabled=False):
            outputs = self._outputs(cls_scores, bbox_preds, objectnesses)
            objects = _objects(batch_gt_instances, outputs.priors.dtype)
            assignment = self._assign(outputs, objects)
            ignored = _ignored(batch_gt_instances_ignore or [None] * len(batch_gt_instances), outputs.priors)
            counted = self._counted(outputs.priors, ignored)
            return self._losses(outputs, objects, assignment, counted)

    def _outputs(self, classes: Sequence[Tensor], offsets: Sequence[Tensor], objectness: Sequence[Tensor]) -> _Outputs:
        sizes = [(each.shape[2], each.shape[3]) for each in objectness]
        scores = _flat(objectness)[..., 0]
        priors = self.prior_generator.grid_priors(sizes, scores.dtype, scores.device, with_stride=True)
        levels = tuple((*size, int(stride)) for size, stride in zip(sizes, self.strides, strict=True))
        return _Outputs(_flat(classes), _flat(offsets), scores, torch.cat(priors), levels)

    def _assign(self, outputs: _Outputs, objects: Objects) -> Assignment:
        boxes = self._bbox_decode(outputs.priors, outputs.offsets.detach())
        predictions = PriorPredictions(outputs.classes.detach(), outputs.objectness.detach(), boxes)
        own = self.assigner
        constants = SimOTAConstants(own.center_radius, own.candidate_topk, own.iou_weight, own.cls_weight)
        return assign(predictions, objects, outputs.levels, constants)

    def _counted(self, priors: Tensor, ignored: Tensor) -> Tensor:
        """Which priors are in no ignored region, and so examples of background where they have no object.

        Args:
            priors: `(P, 4)`, x, y, stride, stride in pixels.
            ignored: `(B, R, 4)` boxes, x1, y1, x2, y2 in pixels, padded with boxes of no area.

        Returns:
            `(B, P)` of bool.
        """
        return ~within(centres(priors), ignored).any(1)

    def _losses(
        self, outputs: _Outputs, objects: Objects, assignment: Assignment, counted: Tensor
    ) -> dict[str, Tensor]:
        image, prior = assignment.images, assignment.priors
        target = torch.zeros_like(outputs.objectness)
        target[image, prior] = 1.0
        weight = counted | (target > 0)
        self.positives = reduce_mean(target.sum())
        samples = self.positives.clamp(min=1.0)
        losses = {"loss_obj": self.loss_obj(_column(outputs.objectness), _column(target), _column(weight.float()))}
        if len(prior):
            losses |= self._losses_of_objects(outputs, objects, assignment)
        else:  # every weight needs a gradient, if only 0: distributed training waits for all of them
            losses |= {"loss_cls": outputs.classes.sum() * 0, "loss_bbox": outputs.offsets.sum() * 0}
            losses |= {"loss_l1": outputs.offsets.sum() * 0} if self.use_l1 else {}
        return {name: loss / samples for name, loss in losses.items()}

    def _losses_of_objects(self, outputs: _Outputs, objects: Objects, assignment: Assignment) -> dict[str, Tensor]:
        """The losses at priors with an object: of the class, whose target score is the overlap, and of the box."""
        image, prior = assignment.images, assignment.priors
        boxes, labels = (each[image, assignment.objects] for each in (objects.boxes, objects.labels))
        offsets, priors = outputs.offsets[image, prior], outputs.priors[prior]
        scores = F.one_hot(labels, self.num_classes) * assignment.overlaps[:, None]
        losses = {
            "loss_cls": self.loss_cls(outputs.classes[image, prior], scores),
            "loss_bbox": self.loss_bbox(self._bbox_decode(priors, offsets), boxes),
        }
        if self.use_l1:
            losses["loss_l1"] = self.loss_l1(offsets, self._get_l1_target(torch.empty_like(boxes), boxes, priors))
        return losses


@dataclass(frozen=True)
class _Outputs:
    """The head's outputs of all levels, in single precision at least: `(B, P, C)`, `(B, P, 4)`, `(B, P)`, `(P, 4)`."""

    classes: Tensor
    offsets: Tensor
    objectness: Tensor
    priors: Tensor
    levels: Levels


def _flat(levels: Sequence[Tensor]) -> Tensor:
    """`(B, C, H, W)` of each level as one `(B, P, C)`, whatever the memory format."""
    flat = torch.cat([each.permute(0, 2, 3, 1).flatten(1, 2) for each in levels], 1)
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def _column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1)


def _objects(instances: Sequence[Any], dtype: torch.dtype) -> Objects:
    labels = [each.labels.long() for each in instances]
    boxes = [each.bboxes.to(dtype) for each in instances]
    return Objects(pad_sequence(boxes, batch_first=True), pad_sequence(labels, batch_first=True, padding_value=-1))


def _ignored(instances: Sequence[Any], priors: Tensor) -> Tensor:
    regions = [priors[:0] if each is None else each.bboxes.to(priors.dtype) for each in instances]
    return pad_sequence(regions, batch_first=True)
