"""Training from random weights: where it is too short to find anything, and what to start from in its place."""

from __future__ import annotations

from pipeline.data.published_weights import COCO, coco_weights
from pipeline.detection.hyperparameters import Recipe

# Measured from scratch with YOLOX-nano, see docs/finetuning.md. On photographs 640 samples (80 steps of 8) give a mAP
# of 0. On the embedded sample, which is easy, 157 images give a mAP of 0.2 after 1,570 samples (10 epochs), an mAP50 of
# 0.73 after 3,140 (20 epochs), and above 0.9 after 5,024 (32 epochs).
FEWEST_SAMPLES = 4000  # images times epochs
FEWEST_IMAGES = 100  # however often they are seen: below the least that was seen to suffice


def scratch_warnings(recipe: Recipe, images: int) -> tuple[str, ...]:
    """What to say before training from random weights on so many images; nothing where it is worth trying.

    Args:
        recipe: How to train.
        images: Of the train set.

    Returns:
        A sentence each: what is wrong, and the published weights to take.
    """
    if images >= FEWEST_IMAGES and images * recipe.epochs >= FEWEST_SAMPLES:
        return ()
    weights = coco_weights(recipe.variant)
    return (
        f"training from scratch on {images} images for {recipe.epochs} epochs will find little: use pretrained weights",
        f"weights_url: {COCO} takes YOLOX-{weights.variant} by {weights.source} "
        f"(mAP {weights.mAP:.3f} on COCO, {weights.licence}): {weights.url}",
    )
