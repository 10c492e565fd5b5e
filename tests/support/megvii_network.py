"""Megvii's YOLOX, to make a checkpoint of its names and shapes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Depth, width, depthwise of `exps/default/yolox_*.py`; how many tensors; SHA-256 of the sorted lines "name shape" of
# the state dict that yolox 0.3.0 itself builds for 80 classes, so what is written below has its every name and shape.
SIZES = {
    "nano": (0.33, 0.25, True, 642, "3bb40b0511a5f905"),
    "tiny": (0.33, 0.375, False, 462, "94b84951f5111594"),
    "s": (0.33, 0.5, False, 462, "d0fc0633634b486c"),
    "m": (0.67, 0.75, False, 606, "446823ef5ea1313d"),
    "l": (1.0, 1.0, False, 750, "51ced5da4d6556be"),
    "x": (1.33, 1.25, False, 894, "946f1400621891b7"),
}


class MegviiNetwork:
    """Megvii's YOLOX in functions, apart from any class of its package; each tensor is made up when first used."""

    def __init__(self, variant: str, classes: int = 80) -> None:
        self.depth, self.width, self.depthwise = SIZES[variant][:3]
        self.classes = classes
        self.state: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(7)

    def __call__(self, image: Tensor) -> list[list[Tensor]]:
        """Raw class scores, boxes and objectness, each of three levels."""
        dark3, dark4, dark5 = self.backbone("backbone.backbone", image)
        lateral = self.conv("backbone.lateral_conv0", dark5, 512, 1)
        p4 = self.csp("backbone.C3_p4", torch.cat([self.doubled(lateral), dark4], 1), 512, 3, add=False)
        reduced = self.conv("backbone.reduce_conv1", p4, 256, 1)
        out3 = self.csp("backbone.C3_p3", torch.cat([self.doubled(reduced), dark3], 1), 256, 3, add=False)
        down = self.block("backbone.bu_conv2", out3, 256, 2)
        out4 = self.csp("backbone.C3_n3", torch.cat([down, reduced], 1), 512, 3, add=False)
        down = self.block("backbone.bu_conv1", out4, 512, 2)
        out5 = self.csp("backbone.C3_n4", torch.cat([down, lateral], 1), 1024, 3, add=False)
        return [list(kind) for kind in zip(*map(self.head, range(3), (out3, out4, out5)), strict=True)]

    def backbone(self, name: str, image: Tensor) -> list[Tensor]:
        patches = [image[..., row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        x = self.conv(f"{name}.stem.conv", torch.cat(patches, 1), 64, 3)
        stages = []
        for stage, (channels, repeats) in enumerate(((128, 3), (256, 9), (512, 9), (1024, 3)), 2):
            x = self.block(f"{name}.dark{stage}.0", x, channels, 2)
            if stage == 5:
                x = self.pooling(f"{name}.dark5.1", x)
            last = 2 if stage == 5 else 1
            x = self.csp(f"{name}.dark{stage}.{last}", x, channels, repeats, add=stage < 5)
            stages.append(x)
        return stages[1:]

    def head(self, level: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.conv(f"head.stems.{level}", x, 256, 1)
        branches = []
        for kind in ("cls", "reg"):
            first = self.block(f"head.{kind}_convs.{level}.0", x, 256, 1)
            branches.append(self.block(f"head.{kind}_convs.{level}.1", first, 256, 1))
        of_class, of_box = branches
        return (
            self.prediction(f"head.cls_preds.{level}", of_class, self.classes),
            self.prediction(f"head.reg_preds.{level}", of_box, 4),
            self.prediction(f"head.obj_preds.{level}", of_box, 1),
        )

    def csp(self, name: str, x: Tensor, channels: int, repeats: int, *, add: bool) -> Tensor:
        main, short = (self.conv(f"{name}.{part}", x, channels // 2, 1) for part in ("conv1", "conv2"))
        for index in range(max(round(repeats // 3 * round(3 * self.depth)), 1)):
            inner = self.conv(f"{name}.m.{index}.conv1", main, channels // 2, 1)
            inner = self.block(f"{name}.m.{index}.conv2", inner, channels // 2, 1)
            main = inner + main if add else inner
        return self.conv(f"{name}.conv3", torch.cat([main, short], 1), channels, 1)

    def pooling(self, name: str, x: Tensor) -> Tensor:
        x = self.conv(f"{name}.conv1", x, 512, 1)
        pooled = [functional.max_pool2d(x, side, 1, side // 2) for side in (5, 9, 13)]
        return self.conv(f"{name}.conv2", torch.cat([x, *pooled], 1), 1024, 1)

    def block(self, name: str, x: Tensor, channels: int, stride: int) -> Tensor:
        """A 3x3 convolution, in nano split into a depthwise and a pointwise one."""
        if not self.depthwise:
            return self.conv(name, x, channels, 3, stride)
        x = self.conv(f"{name}.dconv", x, round(x.shape[1] / self.width), 3, stride, groups=x.shape[1])
        return self.conv(f"{name}.pconv", x, channels, 1)

    def conv(self, name: str, x: Tensor, channels: int, side: int, stride: int = 1, groups: int = 1) -> Tensor:
        out = int(channels * self.width)
        kernel = self.kernel(f"{name}.conv.weight", (out, x.shape[1] // groups, side, side))
        x = functional.conv2d(x, kernel, None, stride, side // 2, 1, groups)
        gain, shift = self.normal(f"{name}.bn.weight", (out,), 0.2, 1.0), self.normal(f"{name}.bn.bias", (out,), 0.3)
        mean = self.normal(f"{name}.bn.running_mean", (out,), 0.2)
        variance = torch.rand(out, generator=self.random) + 0.3
        self.state |= {f"{name}.bn.running_var": variance, f"{name}.bn.num_batches_tracked": torch.tensor(7)}
        return functional.silu(functional.batch_norm(x, mean, variance, gain, shift, eps=1e-3))

    def prediction(self, name: str, x: Tensor, channels: int) -> Tensor:
        kernel = self.kernel(f"{name}.weight", (channels, x.shape[1], 1, 1))
        return functional.conv2d(x, kernel, self.normal(f"{name}.bias", (channels,), 1.0))

    def kernel(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self.normal(name, shape, float(torch.Size(shape[1:]).numel()) ** -0.5)

    def normal(self, name: str, shape: tuple[int, ...], spread: float, middle: float = 0.0) -> Tensor:
        self.state[name] = torch.empty(shape).normal_(middle, spread, generator=self.random)
        return self.state[name]

    @staticmethod
    def doubled(x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, mode="nearest")
