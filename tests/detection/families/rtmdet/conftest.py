"""An RTMDet-tiny with weights that are random, and find something everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.detection.checkpoints import write_checkpoint
from pipeline.detection.families.rtmdet import FAMILY
from pipeline.serving.model_metadata import ModelMetadata

CLASSES = ("disc", "block")


@pytest.fixture(scope="session")
def random_weights(photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Norms have the statistics of photographs, boxes are a few cells large, and some anchors have both classes."""
    torch.manual_seed(5)
    model = FAMILY.build_model(ModelMetadata("tiny", (256, 256), CLASSES, family="RTMDet"))
    model.init_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        pixels = torch.from_numpy(FAMILY.letterbox(photographs, (256, 256)))
        model.train()
        model._forward((pixels - model.data_preprocessor.mean) / model.data_preprocessor.std)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # or rounding would be seen in channels that hardly vary
                module.running_var.clamp_(min=0.02)
        for scores, boxes in zip(model.bbox_head.rtm_cls, model.bbox_head.rtm_reg, strict=True):
            scores.weight.normal_(std=0.1)
            scores.bias.fill_(-5.0)
            boxes.weight.normal_(std=0.01)
            boxes.bias.fill_(1.5)
    path: Path = tmp_path_factory.mktemp("random_weights") / "w.pth"
    return write_checkpoint(path, model.state_dict(), {"classes": list(CLASSES)})
