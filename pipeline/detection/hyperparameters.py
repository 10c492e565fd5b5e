"""How to train: what the user asks for, and what the measurements in docs/finetuning.md chose for the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.detection.spec import check_image_size, check_variant
from pipeline.errors import UsageError

AUGMENTATIONS = ("auto", "flip", "mosaic")
FROZEN = ("auto", "nothing", "stem", "backbone")
PRECISIONS = ("auto", "full", "mixed")
MOSAIC_STEPS = 2500  # a shorter run from scratch has not the steps to learn from mosaics


@dataclass(frozen=True)
class Recipe:
    """What a user can ask for.

    Attributes:
        variant: YOLOX size: nano, tiny, s, m, l or x.
        image_size: Side of the square input in pixels, a multiple of 32.
        epochs: Passes over the training set; 0 packs the pretrained weights as they are.
        batch_size: Images that one step of the optimiser learns from, over all devices.
        micro_batch: Images a device holds at once; more are taken in parts, whose gradients add up. 0 begins with all
            of a device's share, and halves it whenever memory runs out.
        learning_rate: Peak rate of the optimiser; 0 leaves it to `Tuning`.
        augmentation: "flip" is flips and colour; "mosaic" adds mosaic and random affine (and mixup from size s up);
            "auto" is mosaic from scratch in runs of `MOSAIC_STEPS` or more, and flip otherwise.
        freeze: What keeps its pretrained weights: "nothing", the "stem" (with the first stage), the whole "backbone";
            "auto" leaves it to `Tuning`.
        precision: "full" is float32; "mixed" computes most of it in float16, on a GPU; "auto" is mixed on a GPU.
        devices: GPUs to train on, each with a process; 0: all that can share a batch evenly. Where there is
            none, processes on the CPU, and 0 is one.
        patience: Epochs without a better mAP on the eval set after which training ends; 0: none.
        max_minutes: Training ends with the epoch in which it has taken so long; 0: no limit.
        workers: Data loading processes a device; -1 uses none on two cores or fewer, else up to four.
        seed: Of everything random.
    """

    variant: str = "s"
    image_size: int = 640
    epochs: int = 10
    batch_size: int = 8
    micro_batch: int = 0
    learning_rate: float = 0.0
    augmentation: str = "auto"
    freeze: str = "auto"
    precision: str = "auto"
    devices: int = 0
    patience: int = 0
    max_minutes: float = 0.0
    workers: int = -1
    seed: int = 0

    def __post_init__(self) -> None:
        check_variant(self.variant)
        check_image_size((self.image_size, self.image_size))
        least = {"epochs": 0, "batch_size": 1, "micro_batch": 0, "learning_rate": 0, "devices": 0, "patience": 0}
        for name, limit in {**least, "max_minutes": 0, "workers": -1}.items():
            value = getattr(self, name)
            if not value >= limit:
                raise UsageError(f"{name} is {value}", where=name, expected=f"at least {limit}")
        for name, allowed in (("augmentation", AUGMENTATIONS), ("freeze", FROZEN), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"there is no {name} '{getattr(self, name)}'", where=name, expected="one of " + ", ".join(allowed)
                )


@dataclass(frozen=True)
class Tuning:
    """What a user need not know; docs/finetuning.md has what was measured.

    Attributes:
        optimizer: "AdamW" or "SGD" (with Nesterov's momentum of 0.9).
        learning_rate: Peak rate.
        backbone_rate: The backbone's, as a share of it.
        neck_rate: The neck's, as a share of it.
        class_rate: The rate of the last layer of the class branch, as a multiple of it.
        weight_decay: Of weights; norms and biases have none.
        warm_up: Share of the steps in which the rate rises from a hundredth to its peak; at most three epochs.
        final_rate: The rate's end, as a share of its peak; a cosine leads there.
        freeze: Which pretrained part stays as it is: "nothing", "stem" (with the first stage) or "backbone".
        frozen_norm: Whether batch norms of the backbone keep their pretrained statistics.
        balanced: Whether filters before a batch norm are brought to length 1 first, see `filters`.
        averaged_steps: Length of the window of the averaged weights, as a share of the steps; 0: not averaged.
        mosaic: Whether "auto" may mean mosaic.
        plain_epochs: Share of the epochs, at the end, in which mosaic is off; 0: in none.
        max_gradient: Gradients of a greater norm are scaled down to it.
    """

    optimizer: str = "AdamW"
    learning_rate: float = 1e-4
    backbone_rate: float = 1.0
    neck_rate: float = 1.0
    class_rate: float = 1.0
    weight_decay: float = 0.05
    warm_up: float = 0.1
    final_rate: float = 0.05
    freeze: str = "nothing"
    frozen_norm: bool = False
    balanced: bool = True
    averaged_steps: float = 0.05
    mosaic: bool = False
    plain_epochs: float = 0.2
    max_gradient: float = 35.0


FROM_SCRATCH = Tuning(learning_rate=1e-2, mosaic=True, balanced=False)
KNOWN_CLASSES = Tuning(learning_rate=1e-4, freeze="backbone")
NEW_CLASSES = Tuning(learning_rate=1e-3, backbone_rate=0.1, neck_rate=0.3, class_rate=10.0, freeze="stem")


def tuning_for(*, pretrained: bool, fresh_classes: int) -> Tuning:
    """What suits a run that starts from nothing, or from weights to which so many of its classes are new."""
    if not pretrained:
        return FROM_SCRATCH
    return NEW_CLASSES if fresh_classes else KNOWN_CLASSES


def settled(recipe: Recipe, tuning: Tuning) -> Tuning:
    """A tuning with what the user decided in its place."""
    return replace(
        tuning,
        learning_rate=recipe.learning_rate or tuning.learning_rate,
        freeze=tuning.freeze if recipe.freeze == "auto" else recipe.freeze,
    )
