"""The model card: its metadata are YAML that Hugging Face reads, and its text says what was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from detections import found
from evaluations import evaluated

from pipeline.data.dataset_origin import DatasetOrigin, ImageLicence
from pipeline.evaluation.report.model_card import ModelCard, write_model_card
from pipeline.serving.model_metadata import ModelMetadata

EVIL = "a|b\n*c* <d> [e](f) @g"
METADATA = ModelMetadata(
    variant="nano",
    image_size=(256, 320),
    classes=("bright", EVIL),
    onnx_sha256="a" * 64,
    metrics={"parity_images": 8, "parity_max_box_difference": 0.001},
    training={
        "epochs": 3,
        "best_epoch": 2,
        "learned_images": {"images": 120, "sha256": "b" * 64},
        "recipe": {"optimizer": "AdamW", "learning_rate": 1e-4},
    },
    origin={"data": {"coco_train_dataset": "c" * 64}, "licence": "Apache-2.0", "commit": "d" * 40},
)
CC = ImageLicence("CC BY 2.0", "https://creativecommons.org/licenses/by/2.0/", 70)
SETS = {
    "train": DatasetOrigin("https://x.org/a|b.zip", images=90, objects=300, licences=(CC,), unlicensed=20),
    "test": DatasetOrigin(images=8, objects=8),
}


HALF = "half \ud83d"  # of a letter, as JSON can hold it


@pytest.fixture
def card(write_dataset: Callable, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """The metadata and the text of a card, on eight images in two of which nothing is found."""

    def write(metadata: ModelMetadata = METADATA, **more: Any) -> tuple[dict[str, Any], str]:
        truth = write_dataset([250] * 6 + [60] * 2, ("bright", "dark", EVIL, HALF))
        measured, gate = evaluated(truth, [found(n, 1) for n in range(1, 7)], **more)
        made = ModelCard.of(measured, metadata, SETS, {"made by": "run/model_eval/1", "coco_test_dataset": "e" * 64})
        write_model_card(tmp_path / "MODEL_CARD.md", made, measured, gate, metadata)
        _, header, text = (tmp_path / "MODEL_CARD.md").read_text("utf-8").split("---\n", 2)
        return yaml.safe_load(header), text

    return write


def test_the_metadata_have_the_results(card: Callable) -> None:
    header, _ = card()
    assert (header["license"], header["pipeline_tag"]) == ("apache-2.0", "object-detection")
    (model,) = header["model-index"]
    (result,) = model["results"]
    assert (model["name"], result["task"]) == ("yolox-nano", {"type": "object-detection"})
    assert {each["type"]: each["value"] for each in result["metrics"]}["mAP"] == pytest.approx(0.5, abs=1e-3)


def test_the_text_says_what_is_known_and_what_is_not(card: Callable) -> None:
    _, text = card(gate={"min_map50": 0.9})
    for expected in (
        "**Do not ship this model: the quality gate failed.**", "limit missed: mAP50 0.5, at least 0.9",
        "320 x 256 pixels", "8 images with 8 objects", "| mAP50 | 0.500 |", "| bright | 6 | 1.000 | 1.000 |",
        "learned from 120 images", "| best epoch | 2 |", "| optimizer | AdamW |", "| learning rate | 0.0001 |",
        rf"| train | 90 | 300 | https://x.org/a\|b.zip | CC BY 2.0: 70, none stated: 20 | {'c' * 64} |",
        "| eval | - | - | not recorded | not stated | - |",
        f"| test | 8 | 8 | not recorded | not stated | {'e' * 64} |",
        "| parity images | 8 |", f"| commit | {'d' * 40} |",
        "| made by | run/model\\_eval/1 |", "fewer than 10 objects in the test set: bright, dark, ",
    ):  # fmt: skip
        assert expected in text
    assert r"a\|b \*c\* \<d\> \[e\](f) \@g" in text, "a name is no markup"
    assert EVIL not in text
    assert "half ?" in text


def test_an_unknown_licence_is_said(card: Callable) -> None:
    header, text = card(ModelMetadata(variant="s", image_size=(64, 64), classes=("bright", "dark")))
    assert header["license"] == "unknown"
    assert "| licence of the weights that training started from | unknown |" in text
