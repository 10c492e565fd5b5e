"""The model card: its metadata are YAML that Hugging Face reads, and its text says what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cases import cases
from detections import found
from evaluations import evaluated, origin_of

from pipeline.data.dataset_origin import DatasetOrigin, ImageLicence
from pipeline.data.pretrained import WeightsOrigin
from pipeline.detection.training_origins import TrainingOrigins
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
STATED = ImageLicence("CC BY 4.0", "", 0)
TRAIN = DatasetOrigin("https://x.org/a|b.zip", "c.json", "coco", images=90, objects=300, licences=(CC,), unlicensed=20)
EVAL = DatasetOrigin(description="Cats", images=30, objects=40, licences=(STATED,), unlicensed=30)
TEST = DatasetOrigin(images=8, objects=8)
ORIGINS = TrainingOrigins(WeightsOrigin("coco.pth", "f" * 64, "Apache-2.0"), {"train": TRAIN, "eval": EVAL})
SCRATCH = replace(ORIGINS, weights=None)
GIVEN_ALONE = TrainingOrigins(ORIGINS.weights, {})


HALF = "half \ud83d"  # of a letter, as JSON can hold it


@pytest.fixture
def card(write_dataset: Callable, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """The metadata and the text of a card, on eight images in two of which nothing is found."""

    def write(metadata: ModelMetadata = METADATA, origins: Any = ORIGINS, **more: Any) -> tuple[dict[str, Any], str]:
        truth = write_dataset([250] * 6 + [60] * 2, ("bright", "dark", EVIL, HALF))
        measured, gate = evaluated(truth, [found(n, 1) for n in range(1, 7)], **more)
        made = ModelCard.of(measured, metadata, origins, TEST, origin_of({"made by": "run/model_eval/1"}))
        write_model_card(tmp_path / "MODEL_CARD.md", made, measured, gate, metadata)
        _, header, text = (tmp_path / "MODEL_CARD.md").read_text("utf-8").split("---\n", 2)
        return yaml.safe_load(header), text

    return write


def test_the_metadata_have_the_results(card: Callable) -> None:
    header, _ = card()
    assert (header["license"], header["pipeline_tag"]) == ("other", "object-detection")
    (model,) = header["model-index"]
    (result,) = model["results"]
    assert (model["name"], result["task"]) == ("yolox-nano", {"type": "object-detection"})
    assert {each["type"]: each["value"] for each in result["metrics"]}["mAP"] == pytest.approx(0.5, abs=1e-3)


def test_the_text_says_what_is_known_and_what_is_not(card: Callable) -> None:
    _, text = card(gate={"min_map50": 0.9})
    for expected in (
        "**Do not ship this model: the quality gate failed.**", "limit missed: mAP50 0.5, at least 0.9",
        "320 x 256 pixels", "8 images with 8 objects", "| mAP50 | 0.500 |", "| bright | 6 | 1.000 | 1.000 |",
        "Training used 120 images, including those of the eval set", "| best epoch | 2 |", "| optimizer | AdamW |",
        "| learning rate | 0.0001 |", f"| given weights | coco.pth, SHA-256 {'f' * 64} |",
        rf"| train | 90 | 300 | https://x.org/a\|b.zip, c.json, coco | CC BY 2.0: 70, none stated: 20 | {'c' * 64} |",
        "| eval | 30 | 40 | Cats | CC BY 4.0 | - |", f"| test | 8 | 8 | not recorded | not stated | {'e' * 64} |",
        "| parity images | 8 |", f"| packed at commit | {'d' * 40} |",
        "| made by | run/model\\_eval/1 |", "fewer than 10 objects in the test set: bright, dark, ",
    ):  # fmt: skip
        assert expected in text
    assert r"a\|b \*c\* \<d\> \[e\](f) \@g" in text, "a name is no markup"
    assert EVIL not in text
    assert "half ?" in text


UNCHANGED = "No epoch was better on the eval set than the given weights: these are packed unchanged."
LAST = "The weights of the last epoch are packed. The figures are those of the best epoch, 0."
BEST_0 = {"epochs": 3, "best_epoch": 0, "learned_images": {"images": 120, "sha256": "b" * 64}}

# what is trained, the epoch that is packed, the origins; what the card says, and what not
TRAININGS: dict[str, tuple[dict[str, Any], dict[str, Any], Any, list[str], list[str]]] = {
    "the given weights were the best": (BEST_0, {"weights": "best"}, ORIGINS, [UNCHANGED], [LAST]),
    "the last epoch is packed": (BEST_0, {"weights": "last"}, ORIGINS, [LAST], [UNCHANGED]),
    "no epochs": (
        {"learned_images": {"images": 0, "sha256": "b" * 64}}, {}, GIVEN_ALONE,
        ["The given weights are packed as they are: nothing was trained."], ["Training used", "| train |", "| eval |"],
    ),
    "from scratch": (
        {"epochs": 3, "best_epoch": 3}, {}, SCRATCH,
        ["| given weights | none: trained from scratch |"], ["licence of the given weights", UNCHANGED],
    ),
    "ended early": (
        {"epochs": 300, "best_epoch": 3, "ended_early": "no better epoch in 5"}, {}, ORIGINS,
        ["Training ended early: no better epoch in 5."], [],
    ),
    "an earlier version trained": (
        {"epochs": 3, "best_epoch": 3}, {"licence": "MIT"}, None,
        ["given weights | not recorded |", "licence of the given weights | MIT |", "| train | - | - | not recorded |"],
        ["scratch"],
    ),
    "nothing is recorded": ({}, {}, None, ["How the model was trained is not recorded."], ["packed as they are"]),
}  # fmt: skip


@cases("training, origin, origins, said, unsaid", TRAININGS)
def test_it_says_what_became_of_the_training(
    card: Callable, training: Any, origin: Any, origins: Any, said: list[str], unsaid: list[str]
) -> None:
    metadata = replace(METADATA, training=training, origin=origin)
    _, text = card(metadata, origins)
    assert [each for each in said if each not in text] == []
    assert [each for each in unsaid if each in text] == []
