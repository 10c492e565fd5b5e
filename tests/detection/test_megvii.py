from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.detection.config import build_model
from pipeline.detection.megvii import is_megvii, mmdet_name, to_mmdet
from pipeline.detection.spec import DetectorSpec
from pipeline.detection.weights import CLASS_LAYER, coco_classes, fit, read_checkpoint, variant_of
from pipeline.errors import DataError

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


def picture() -> Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def nano() -> tuple[dict[str, Tensor], list[list[Tensor]]]:
    """Weights of a YOLOX-nano under Megvii's names, and its raw outputs for `picture()`."""
    network = MegviiNetwork("nano")
    outputs = network(picture())
    return network.state, outputs


def megvii_file(path: Path, state: dict[str, Tensor], *, archive: bool = True, **more: Any) -> Path:
    """As `Trainer.save_ckpt` writes it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], 0.1, momentum=0.9).state_dict()
    content = {"start_epoch": 3, "model": state, "optimizer": optimizer} | more
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    return path


@pytest.mark.parametrize("variant", SIZES)
@torch.no_grad()
def test_the_mapped_network_computes_what_megviis_does(variant: str) -> None:
    network = MegviiNetwork(variant)
    expected = network(picture())
    count, digest = SIZES[variant][3:]
    lines = "\n".join(sorted(f"{name} {tuple(value.shape)}" for name, value in network.state.items()))
    assert (len(network.state), hashlib.sha256(lines.encode()).hexdigest()[:16]) == (count, digest)

    mapped = to_mmdet(network.state)
    model = build_model(DetectorSpec(variant, (64, 64), coco_classes())).eval()
    assert {n: v.shape for n, v in mapped.items()} == {n: v.shape for n, v in model.state_dict().items()}
    assert len(mapped) == count
    assert variant_of(mapped) == variant
    model.load_state_dict(mapped)
    for ours, theirs in zip(model.bbox_head(model.extract_feat(picture())), expected, strict=True):
        for level, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(level, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("megvii", "mmdet"),
    [
        ("backbone.backbone.stem.conv.bn.bias", "backbone.stem.conv.bn.bias"),
        ("backbone.backbone.dark3.1.conv2.conv.weight", "backbone.stage2.1.short_conv.conv.weight"),
        ("backbone.backbone.dark5.1.conv2.conv.weight", "backbone.stage4.1.conv2.conv.weight"),
        ("backbone.backbone.dark5.2.m.0.conv2.conv.weight", "backbone.stage4.2.blocks.0.conv2.conv.weight"),
        ("backbone.C3_n3.conv3.bn.weight", "neck.bottom_up_blocks.0.final_conv.bn.weight"),
        ("head.cls_convs.2.1.dconv.conv.weight", "bbox_head.multi_level_cls_convs.2.1.depthwise_conv.conv.weight"),
        ("head.obj_preds.1.bias", "bbox_head.multi_level_conv_obj.1.bias"),
        ("backbone.C3_n3.attention.weight", "neck.bottom_up_blocks.0.attention.weight"),
        ("backbone.fpn.weight", "backbone.fpn.weight"),
    ],
)
def test_names(megvii: str, mmdet: str) -> None:
    assert mmdet_name(megvii) == mmdet


def test_mmdets_own_names_are_not_taken_for_megviis(pretrained: Path) -> None:
    assert not is_megvii(read_checkpoint(pretrained).state)


@torch.no_grad()
@pytest.mark.parametrize("archive", [pytest.param(True, id="zip"), pytest.param(False, id="before torch 1.6")])
@pytest.mark.parametrize("layout", ["training", "published", "bare", "DataParallel"])
def test_a_file_of_megviis_is_read(
    tmp_path: Path, nano: Any, layout: str, archive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    state, outputs = nano
    path = tmp_path / "yolox_nano.pth"
    if layout == "training":
        megvii_file(path, state, archive=archive, best_ap=0.5, curr_ap=None)
    else:
        wrapped = {f"module.{name}": value for name, value in state.items()} if layout == "DataParallel" else state
        content = wrapped if layout == "bare" else {"model": wrapped}
        torch.save(content, path, _use_new_zipfile_serialization=archive)
    with caplog.at_level(logging.INFO, "pipeline"):
        checkpoint = read_checkpoint(path)
    rest = ("start_epoch", "optimizer", "best_ap", "curr_ap") if layout == "training" else ()
    assert (checkpoint.source, checkpoint.classes, checkpoint.left_over) == ("Megvii", coco_classes(), rest)
    said = "yolox_nano.pth: YOLOX-nano by Megvii, 80 classes taken for COCO's"
    assert caplog.messages == [said + ("; not used: start_epoch, optimizer, best_ap, curr_ap" if rest else "")]

    model = build_model(DetectorSpec("nano", (64, 64), coco_classes())).eval()
    fit(checkpoint, model, coco_classes())
    scores, *_ = model.bbox_head(model.extract_feat(picture()))
    torch.testing.assert_close(scores[0], outputs[0][0], rtol=1e-4, atol=1e-4)


def test_megviis_rows_move_by_class_name(tmp_path: Path, nano: Any) -> None:
    state, _ = nano
    model = build_model(DetectorSpec("nano", (64, 64), ("dog", "unicorn", "person")))
    carried = fit(read_checkpoint(megvii_file(tmp_path / "w.pth", state)), model, ("dog", "unicorn", "person"))
    assert (carried.known, carried.fresh) == (("dog", "person"), ("unicorn",))
    for level in range(3):
        rows, theirs = model.state_dict()[f"{CLASS_LAYER}{level}.weight"], state[f"head.cls_preds.{level}.weight"]
        assert torch.equal(rows[0], theirs[coco_classes().index("dog")])
        assert torch.equal(rows[2], theirs[0])


def test_megviis_classes_are_cocos_in_the_same_order() -> None:
    # SHA-256 of the lines of COCO_CLASSES in yolox 0.3.0, yolox/data/datasets/coco_classes.py
    assert hashlib.sha256("\n".join(coco_classes()).encode()).hexdigest()[:16] == "d7654b2610157284"


@pytest.mark.parametrize("meta", [None, {"classes": ["a", "b"]}])
def test_other_classes_have_the_names_that_are_put_beside_them(
    tmp_path: Path, nano: Any, meta: Any, caplog: pytest.LogCaptureFixture
) -> None:
    state = {name: value[:2] if name.startswith("head.cls_preds.") else value for name, value in nano[0].items()}
    path = megvii_file(tmp_path / "w.pth", state, **({"meta": meta} if meta else {}))
    assert read_checkpoint(path).classes == (("a", "b") if meta else ("class 0", "class 1"))
    assert ("save the file again with {'meta'" in caplog.text) is (meta is None)


def test_what_megviis_yolox_does_not_have_is_refused_by_name(tmp_path: Path, nano: Any) -> None:
    state = dict(nano[0])
    state["backbone.fpn.weight"] = state.pop("backbone.C3_p4.conv1.conv.weight")
    checkpoint = read_checkpoint(megvii_file(tmp_path / "w.pth", state))
    model = build_model(DetectorSpec("nano", (64, 64), ("dog",)))
    says = (
        r"1 missing, 1 unknown[\s\S]*missing: neck\.top_down_blocks\.0\.main_conv\.conv\.weight; "
        r"unknown: backbone\.fpn\.weight[\s\S]*unchanged YOLOX-nano"
    )
    with pytest.raises(DataError, match=says):
        fit(checkpoint, model, ("dog",))


class Malice:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("place", ["best_ap", "model"])
def test_a_file_of_megviis_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nano: Any, archive: bool, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    megvii_file(Path("w.pth"), nano[0], archive=archive, **{place: Malice()})
    with pytest.raises(DataError, match=r"wants to run 'posix\.system'"):
        read_checkpoint(Path("w.pth"))
    assert not Path("pwned").exists()
    torch.load("w.pth", weights_only=False)
    assert Path("pwned").exists(), "the file was harmless all along"
