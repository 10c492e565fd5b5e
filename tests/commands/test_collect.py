"""`python -m pipeline collect`: what a person types after a service has kept samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from cases import cases
from kept_samples import encoded, keep, sample_of
from pictures import smooth

from pipeline.client.service_process import serve
from pipeline.commands.named_service import settings_of
from pipeline.data.coco import read_coco
from pipeline.serving.sample_places import LocalFolder


def test_from_a_service_to_a_data_set(bento: Path, toy: Any, tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    with serve(bento, environment={"DETECTOR_SAMPLES": str(samples), "DETECTOR_SAMPLE_SHARE": "1"}) as service:
        answers = {}
        for seed in range(5):
            image = encoded(smooth(seed, (64, 64)), ".jpg")
            (answers[image],) = requests.post(
                f"{service.url}/predict", files=[("images", ("a.jpg", image))], timeout=30
            ).json()
    outcome = toy.look("collect", str(samples), "--out", "labelling")
    assert outcome.code == 0, outcome.log
    lines = outcome.out.splitlines()
    assert lines[0] == "samples    5"
    assert lines[1].startswith("images     5: 5 random")
    assert lines[2].startswith(f"pre-labels {sum(len(each['detections']) for each in answers.values())} object")
    assert lines[4] == "data set   labelling/annotations.json"
    dataset = read_coco(toy.root / "labelling" / "annotations.json")
    boxes = dataset.by_image()
    for image in dataset.images:
        data = (toy.root / "labelling" / "images" / image.file_name).read_bytes()
        assert (image.width, image.height) == (answers[data]["width"], answers[data]["height"])
        assert len(boxes[image.id]) == len(answers[data]["detections"])
    assert dataset.classes == ("dark", "bright")


@pytest.fixture
def kept(toy: Any) -> LocalFolder:
    place = LocalFolder(toy.root / "samples", create=True)
    for number in range(3):
        image = encoded(smooth(number))
        keep(place, image, sample_of(image, number=number))
    return place


def test_json_and_a_broken_sample(toy: Any, kept: LocalFolder) -> None:
    kept.write(sample_of(encoded(smooth(1))).image, b"broken")
    outcome = toy.look("collect", "samples", "--out", "set", "--json", "--limit", "1")
    content = json.loads(outcome.out)
    assert (content["samples"], content["images"], len(content["broken"])) == (3, 1, 1)
    assert content["folder"] == "set"
    assert "left out, since it cannot be read" in outcome.log


def test_what_is_left_out_is_told_of(toy: Any, kept: LocalFolder) -> None:
    outcome = toy.look("collect", "samples", "--out", "set", "--limit", "1")
    assert outcome.out.splitlines()[0] == "samples    3, less 2 less interesting"


@cases(
    "arguments, code, says",
    {
        "no such folder": (("nowhere", "--out", "set"), 2, "there is no such folder of samples"),
        "no package": (("gs://bucket/a", "--out", "set"), 2, "gcsfs"),
        "a password in a URL": (("s3://key:geheim@bucket", "--out", "set"), 2, "holds credentials"),
        "a folder that is not empty": (("samples", "--out", "steps"), 2, "is not empty"),
        "a later time": (("samples", "--out", "set", "--since", "2027-01-01"), 1, "from 2027-01-01 00:00 UTC on"),
    },
)
def test_a_wrong_call_is_refused(toy: Any, kept: LocalFolder, arguments: tuple[str, ...], code: int, says: str) -> None:
    outcome = toy.look("collect", *arguments)
    outcome.fails(says, code=code)
    assert "geheim" not in outcome.log
    assert not (toy.root / "set").exists()


@pytest.mark.parametrize("option", [("--limit", "0"), ("--threshold", "2"), ("--since", "yesterday")])
def test_a_wrong_option_is_refused(toy: Any, kept: LocalFolder, option: tuple[str, str]) -> None:
    assert toy.look("collect", "samples", "--out", "set", *option).code == 2


def test_a_relative_folder_is_that_of_who_starts_the_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTOR_SAMPLES", "samples")
    assert settings_of()["DETECTOR_SAMPLES"] == str(tmp_path / "samples")
    monkeypatch.setenv("DETECTOR_SAMPLES", "s3://bucket/a")
    assert settings_of()["DETECTOR_SAMPLES"] == "s3://bucket/a"
