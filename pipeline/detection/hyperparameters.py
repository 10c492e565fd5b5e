"""How to train: the user's options, the hyperparameters that `docs/finetuning.md` chose, and how a run is executed."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UsageError, did_you_mean

CHOICES = {
    "augmentation": ("auto", "flip", "mosaic"),
    "freeze": ("auto", "nothing", "stem", "backbone"),
    "precision": ("auto", "full", "mixed"),
}
MINIMA = {"epochs": 0, "batch_size": 1, "micro_batch": 0, "learning_rate": 0, "devices": 0, "patience": 0}
MINIMA |= {"max_minutes": 0, "workers": -1}
MOSAIC_STEPS = 2500  # a shorter run from scratch is too short to learn from mosaics


@dataclass(frozen=True)
class TrainingOptions:
    """What a user can choose.

    Attributes:
        variant: Size of the detector, for YOLOX: nano, tiny, s, m, l or x.
        image_size: Side of the square input in pixels, a multiple of 32.
        epochs: Passes over the training set; 0 packs the pretrained weights as they are.
        batch_size: Images per step of the optimiser, over all devices.
        micro_batch: Images per device at once; a larger batch is split, and the gradients add up. 0 starts with all
            of a device's share, and halves it whenever memory runs out.
        learning_rate: Peak rate of the optimiser; 0 takes that of `Hyperparameters`.
        augmentation: "flip" is flips and colour; "mosaic" adds mosaic and random affine (and mixup from size s up);
            "auto" is mosaic from scratch in runs of `MOSAIC_STEPS` or more, and flip otherwise.
        freeze: What keeps its pretrained weights: "nothing", the "stem" (with the first stage), the whole "backbone";
            "auto" takes that of `Hyperparameters`.
        precision: "full" is float32; "mixed" computes most of it in float16, on a GPU; "auto" is mixed on a GPU.
        devices: GPUs to train on, with a process each; 0: as many as can share a batch evenly. Without a GPU these are
            processes on the CPU, and 0 is one.
        patience: Epochs without a better mAP on the eval set after which training ends; 0: no limit.
        max_minutes: Training ends with the epoch that reaches this time; 0: no limit.
        workers: Data loading processes per device; -1 uses none on two cores or fewer, else up to four.
        seed: Seed of all randomness.
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
        for name, minimum in MINIMA.items():
            if not (value := getattr(self, name)) >= minimum:  # refuses NaN too
                raise UsageError(f"{name} is {value}", where=name, expected=f"at least {minimum}")
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                expected, remedy = "one of " + ", ".join(choices), did_you_mean(value, choices)
                raise UsageError(f"there is no {name} '{value}'", where=name, expected=expected, remedy=remedy)


@dataclass(frozen=True)
class Hyperparameters:
    """What a user need not choose; `docs/finetuning.md` has the measurements.

    Attributes:
        optimizer: "AdamW" or "SGD" (with Nesterov momentum of 0.9).
        learning_rate: Peak rate.
        backbone_rate: Rate of the backbone, as a share of the learning rate.
        neck_rate: Rate of the neck, as a share of the learning rate.
        class_rate: Rate of the last layer of the class branch, as a multiple of the learning rate.
        weight_decay: Decay of weights; norms and biases have none.
        warm_up: Share of the steps in which the rate rises from a hundredth to its peak; at most three epochs.
        final_rate: Rate at the end, as a share of the peak, reached by a cosine.
        freeze: Pretrained part that does not change: "nothing", "stem" (with the first stage) or "backbone".
        frozen_norm: Whether batch norms of the backbone keep their pretrained statistics.
        balanced: Whether filters before a batch norm are first scaled to length 1, see `optimization`.
        averaged_steps: Window of the averaged weights, as a share of the steps; 0: not averaged.
        mosaic: Whether the option "auto" may mean mosaic.
        plain_epochs: Share of the epochs, at the end, without mosaic.
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


FROM_SCRATCH = Hyperparameters(learning_rate=1e-2, mosaic=True, balanced=False)
KNOWN_CLASSES = Hyperparameters(learning_rate=1e-4, freeze="backbone")
NEW_CLASSES = Hyperparameters(learning_rate=1e-3, backbone_rate=0.1, neck_rate=0.3, class_rate=10.0, freeze="stem")


def default_hyperparameters(*, pretrained: bool, new_classes: int) -> Hyperparameters:
    """The choice for random weights, or for pretrained weights to which some number of the classes is new."""
    if not pretrained:
        return FROM_SCRATCH
    return NEW_CLASSES if new_classes else KNOWN_CLASSES


@dataclass(frozen=True)
class ExecutionConfig:
    """How a training is divided and executed on a machine.

    Attributes:
        iterations: Steps of the optimiser per epoch.
        devices: Processes that share each step.
        micro_batch: Images that a process holds at once.
        workers: Data loading processes of each process; they change nothing but the speed.
        mixed: Whether in mixed precision.
        mosaic: Whether with mosaic and affine, until the last epochs.
        cuda: Whether on GPUs.
    """

    iterations: int
    devices: int = 1
    micro_batch: int = 0
    workers: int = 0
    mixed: bool = False
    mosaic: bool = False
    cuda: bool = False
