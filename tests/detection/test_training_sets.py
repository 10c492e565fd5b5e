from __future__ import annotations

import pytest

from pipeline.detection.families import FAMILY
from pipeline.detection.hyperparameters import TrainingOptions
from pipeline.detection.training_sets import scratch_warnings


@pytest.mark.parametrize(
    ("images", "epochs", "warned"),
    [
        pytest.param(157, 32, False, id="the demo"),
        pytest.param(157, 20, True, id="the demo in 20 epochs"),
        pytest.param(36, 3, True, id="three epochs on 36 images"),
        pytest.param(99, 300, True, id="few images, seen often"),
        pytest.param(100, 40, False, id="just enough"),
        pytest.param(100, 39, True, id="an epoch too few"),
        pytest.param(5000, 1, False, id="many images, seen once"),
    ],
)
def test_few_images_or_few_samples_are_warned_of(images: int, epochs: int, warned: bool) -> None:
    assert bool(scratch_warnings(TrainingOptions("nano", 64, epochs), images)) == warned


@pytest.mark.parametrize("variant", FAMILY.variants)
def test_the_weights_named_are_of_the_variant(variant: str) -> None:
    few, remedy = scratch_warnings(TrainingOptions(variant, 64, 3), 36)
    assert "36 images for 3 epochs" in few
    assert len(few) <= 110
    assert f"YOLOX-{variant} by" in remedy
    assert remedy.endswith(".pth")
