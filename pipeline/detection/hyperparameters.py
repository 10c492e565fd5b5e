"""How to train: the user's options, the hyperparameters that `docs/finetuning.md` chose, and how a run is executed."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UsageError, did_you_mean
from pipeline.serving.tiling import Tiling

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
    """What a user can choose."""

    detector: str = "yolox-s"  # family and size
    image_size: int = 640  # side of the square input in pixels, a multiple of the family's stride
    epochs: int = 10  # 0 packs the pretrained weights as they are
    batch_size: int = 8  # images per step of the optimiser, over all devices
    # Images per device at once: a larger batch is split, and the gradients add up. 0 starts with all of a device's
    # share, and halves it whenever memory runs out.
    micro_batch: int = 0
    learning_rate: float = 0.0  # peak; 0 takes that of `Hyperparameters`
    # "flip" is flips and colour, "mosaic" adds mosaic and random affine (and mixup from size s up), "auto" is mosaic
    # from scratch in runs of `MOSAIC_STEPS` or more, and flip otherwise
    augmentation: str = "auto"
    freeze: str = "auto"  # what keeps its pretrained weights; "auto" takes that of `Hyperparameters`
    precision: str = "auto"  # "full" is float32, "mixed" mostly float16, "auto" mixed on a GPU
    # GPUs, or processes on the CPU, of all machines; 0: as many GPUs as can share a batch evenly, or a process each
    devices: int = 0
    patience: int = 0  # epochs without a better mAP on the eval set after which training ends; 0: no limit
    max_minutes: float = 0.0  # training ends with the epoch that reaches this time; 0: no limit
    workers: int = -1  # data loading processes per device; -1 uses none on two cores or fewer, else up to eight
    seed: int = 0
    tile: int = 0  # side in pixels of the tiles that larger images are cut into, to train on and to serve; 0: none
    overlap: float = 0.2  # the share of a tile that neighbours have in common at least

    @property
    def tiling(self) -> Tiling:
        """How large images are cut into tiles."""
        return Tiling(self.tile, self.overlap)

    @property
    def variant(self) -> str:
        """The size of the detector."""
        return self.detector.rpartition("-")[2]

    def __post_init__(self) -> None:
        for name, minimum in MINIMA.items():
            if not (value := getattr(self, name)) >= minimum:  # refuses NaN too
                raise UsageError(f"{name} is {value}", where=name, expected=f"at least {minimum}")
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                expected, remedy = "one of " + ", ".join(choices), did_you_mean(value, choices)
                raise UsageError(f"there is no {name} '{value}'", where=name, expected=expected, remedy=remedy)
        _ = self.tiling


@dataclass(frozen=True)
class Hyperparameters:
    """What a user need not choose; `docs/finetuning.md` has the measurements."""

    optimizer: str = "AdamW"  # or "SGD", with Nesterov momentum of 0.9
    learning_rate: float = 1e-4  # peak
    backbone_rate: float = 1.0  # as a multiple of the learning rate, like the next two
    neck_rate: float = 1.0
    class_rate: float = 1.0  # of the last layer of the class branch
    weight_decay: float = 0.05  # norms and biases have none
    warm_up: float = 0.1  # share of the steps in which the rate rises to its peak; at most three epochs
    final_rate: float = 0.05  # at the end, as a share of the peak, reached by a cosine
    freeze: str = "nothing"  # the pretrained part that does not change: or "stem" (with the first stage), "backbone"
    frozen_norm: bool = False  # whether batch norms of the backbone keep their pretrained statistics
    balanced: bool = True  # whether filters before a batch norm are first scaled to length 1, see `optimization`
    averaged_steps: float = 0.05  # window of the averaged weights, as a share of the steps; 0: not averaged
    mosaic: bool = False  # whether the option "auto" may mean mosaic
    plain_epochs: float = 0.2  # share of the epochs, at the end, without mosaic
    max_gradient: float = 35.0  # gradients of a greater norm are scaled down to it


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
    """How a training is divided and executed on a machine."""

    iterations: int  # steps of the optimiser per epoch
    devices: int = 1  # processes that share each step
    micro_batch: int = 0  # images that a process holds at once
    workers: int = 0  # data loading processes of each process; they change nothing but the speed
    mixed: bool = False  # precision
    mosaic: bool = False  # until the last epochs
    cuda: bool = False
