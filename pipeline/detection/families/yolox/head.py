"""YOLOX's head with a faster loss that respects ignored regions.

mmdet's `YOLOXHead` ignores the ignored regions of a data set, mostly crowds: each prior in them becomes an example of
background. Here such a prior is no example. Without ignored regions the losses equal mmdet's, and are computed several
times faster, see `assignment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipeline.detection import mmcv_ops
from pipeline.detection.families.yolox.assignment import Objects, PriorPredictions, assign
from pipeline.detection.partwise import flat_levels, padded_regions

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
            classes, offsets, scores = (flat_levels(each) for each in (cls_scores, bbox_preds, objectnesses))
            objectness = scores[..., 0]
            sizes = [(each.shape[2], each.shape[3]) for each in objectnesses]
            grids = self.prior_generator.grid_priors(sizes, objectness.dtype, objectness.device, with_stride=True)
            priors = torch.cat(grids)
            levels = tuple((*size, int(stride)) for size, stride in zip(sizes, self.strides, strict=True))

            boxes = [each.bboxes.to(priors.dtype) for each in batch_gt_instances]
            labels = [each.labels.long() for each in batch_gt_instances]
            objects = Objects(pad_sequence(boxes, batch_first=True), pad_sequence(labels, True, padding_value=-1))
            predicted = self._bbox_decode(priors, offsets.detach())
            predictions = PriorPredictions(classes.detach(), objectness.detach(), predicted)
            image, prior, owner, overlaps = assign(predictions, objects, levels, self.assigner)

            target = torch.zeros_like(objectness)
            target[image, prior] = 1.0
            ignored = padded_regions(batch_gt_instances_ignore, len(boxes), priors)
            weight = self._counted(priors, ignored) | (target > 0)
            self.positives = reduce_mean(target.sum())
            columns = (each.reshape(-1, 1) for each in (objectness, target, weight.float()))
            losses = {"loss_obj": self.loss_obj(*columns)}
            if len(prior):
                box, label = objects.boxes[image, owner], objects.labels[image, owner]
                shift, cell = offsets[image, prior], priors[prior]
                wanted = F.one_hot(label, self.num_classes) * overlaps[:, None]  # the target score is the overlap
                losses["loss_cls"] = self.loss_cls(classes[image, prior], wanted)
                losses["loss_bbox"] = self.loss_bbox(self._bbox_decode(cell, shift), box)
                if self.use_l1:
                    losses["loss_l1"] = self.loss_l1(shift, self._get_l1_target(torch.empty_like(box), box, cell))
            else:  # every weight needs a gradient, if only 0: distributed training waits for all of them
                losses |= {"loss_cls": classes.sum() * 0, "loss_bbox": offsets.sum() * 0}
                losses |= {"loss_l1": offsets.sum() * 0} if self.use_l1 else {}
            return {name: loss / self.positives.clamp(min=1.0) for name, loss in losses.items()}

    def _counted(self, priors: Tensor, ignored: Tensor) -> Tensor:
        """Which of `(P, 4)` priors have their cell's centre in none of `(B, R, 4)` ignored regions, as `(B, P)`.

        They are examples of background where they have no object. Regions are padded with boxes of no area.
        """
        x, y = (priors[:, :2] + priors[:, 2:] * 0.5).unbind(-1)
        left, top, right, bottom = ignored[..., None].unbind(-2)
        return ~((x > left) & (x < right) & (y > top) & (y < bottom)).any(1)
