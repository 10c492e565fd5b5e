"""RTMDet's head with a loss that respects ignored regions and says by what it was divided.

mmdet's `RTMDetSepBNHead` ignores the ignored regions of a data set, mostly crowds: each prior in them becomes an
example of background. Here such a prior is no example. Without ignored regions the losses equal mmdet's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from pipeline.detection import mmcv_ops
from pipeline.detection.partwise import flat_levels, padded_regions

mmcv_ops.install()  # importing mmdet needs it

from mmdet.models.dense_heads import RTMDetSepBNHead  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures.bbox import distance2bbox  # noqa: E402
from mmdet.utils import reduce_mean  # noqa: E402


@MODELS.register_module()
class IgnoringRTMDetHead(RTMDetSepBNHead):  # type: ignore[misc]  # mmdet is untyped
    """mmdet's head, weight for weight.

    Attributes:
        positives: Sum of the overlaps of the predicted boxes with their objects in the last batch, the mean over all
            processes. The losses were divided by it, or by 1 where it was less.
    """

    positives: Tensor

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        batch_gt_instances: Sequence[Any],
        batch_img_metas: Sequence[dict[str, Any]],  # noqa: ARG002  # mmdet's signature
        batch_gt_instances_ignore: Sequence[Any] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch of `B` images that fill their input, as letterboxed ones do.

        Args:
            cls_scores: Logits per level, `(B, C, H, W)`.
            bbox_preds: Distances of the sides from the prior in pixels per level, `(B, 4, H, W)`.
            batch_gt_instances: `bboxes` `(G, 4)`, x1, y1, x2, y2 in pixels of the input, and `labels` `(G,)` per image.
            batch_img_metas: Not used.
            batch_gt_instances_ignore: `bboxes` `(R, 4)` of the regions to leave out, or None, per image.

        Returns:
            `loss_cls` and `loss_bbox`.
        """
        # mixed precision ends here: overlaps and their logarithms need more digits than float16 has
        with torch.autocast(cls_scores[0].device.type, enabled=False):
            classes, distances = flat_levels(cls_scores), flat_levels(bbox_preds)
            sizes = [(each.shape[2], each.shape[3]) for each in cls_scores]
            grids = self.prior_generator.grid_priors(sizes, classes.dtype, classes.device, with_stride=True)
            priors = torch.cat(grids)
            predicted = distance2bbox(priors, distances)
            found = [
                self._targets(classes[image], predicted[image], priors, objects)
                for image, objects in enumerate(batch_gt_instances)
            ]
            labels, boxes, overlaps = (torch.stack(each) for each in zip(*found, strict=True))

            positive = labels < self.num_classes
            ignored = padded_regions(batch_gt_instances_ignore, len(labels), priors)
            weight = self._counted(priors, ignored) | positive
            self.positives = reduce_mean(overlaps.sum())
            targets = labels.flatten(), overlaps.flatten()
            flat_weight = weight.flatten().to(classes.dtype)
            losses = {"loss_cls": self.loss_cls(classes.flatten(0, 1), targets, flat_weight, avg_factor=1.0)}
            if positive.any():
                chosen = predicted[positive], boxes[positive]
                losses["loss_bbox"] = self.loss_bbox(*chosen, weight=overlaps[positive], avg_factor=1.0)
            else:  # every weight needs a gradient, if only 0: distributed training waits for all of them
                losses["loss_bbox"] = predicted.sum() * 0
            return {name: loss / self.positives.clamp(min=1.0) for name, loss in losses.items()}

    @torch.no_grad()
    def _targets(
        self, classes: Tensor, predicted: Tensor, priors: Tensor, objects: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What each prior of an image learns, by mmdet's assigner, which works in single precision only.

        Returns:
            Its label `(P,)`, `num_classes` where it has no object; its object's box `(P, 4)`; and the overlap `(P,)` of
            the predicted box with it.
        """
        known = InstanceData(bboxes=objects.bboxes.float(), labels=objects.labels.long())
        said = InstanceData(scores=classes.float(), bboxes=predicted.float(), priors=priors.float())
        assigned = self.assigner.assign(said, known)
        positive = assigned.gt_inds > 0  # they count objects from 1
        numbers = assigned.gt_inds[positive] - 1
        labels = torch.full_like(assigned.gt_inds, self.num_classes)
        labels[positive] = known.labels[numbers]
        boxes, overlaps = torch.zeros_like(predicted), torch.zeros_like(predicted[:, 0])
        boxes[positive] = known.bboxes[numbers].to(boxes.dtype)
        overlaps[positive] = assigned.max_overlaps[positive].to(overlaps.dtype)
        return labels, boxes, overlaps

    def _counted(self, priors: Tensor, ignored: Tensor) -> Tensor:
        """Which of `(P, 4)` priors have their point in none of `(B, R, 4)` ignored regions, as `(B, P)`.

        They are examples of background where they have no object. A prior's point is the top left corner of its cell,
        which decides in RTMDet too whether it may have an object. Regions are padded with boxes of no area.
        """
        x, y = priors[:, 0], priors[:, 1]
        left, top, right, bottom = ignored[..., None].unbind(-2)
        return ~((x >= left) & (x < right) & (y >= top) & (y < bottom)).any(1)
