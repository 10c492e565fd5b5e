"""Bad input, through the real notebooks: one clear message, exit code 1 or 2, nothing published, the run goes on."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

GOOD = "sample://shapes?images=8&size=64&seed=1"


@dataclass(frozen=True)
class Case:
    """What is wrong: how to make it, which settings point at it, what the message must say."""

    make: Callable[[Path], None]
    sets: dict[str, str]
    says: tuple[str, ...]


def good_images(folder: Path) -> None:
    from pipeline.data.coco import write_coco
    from pipeline.data.sample import make_sample

    dataset = make_sample(folder / "images", images=8, size=64, seed=1)
    write_coco(dataset, folder / "good.json")
    with zipfile.ZipFile(folder / "good.zip", "w") as archive:
        for path in sorted((folder / "images").iterdir()):
            archive.write(path, f"val2017/{path.name}")


def nothing(folder: Path) -> None:
    del folder


def truncated(folder: Path) -> None:
    good_images(folder)
    data = (folder / "good.zip").read_bytes()
    (folder / "cut.zip").write_bytes(data[: len(data) // 2])


def escaping(folder: Path) -> None:
    good_images(folder)
    with zipfile.ZipFile(folder / "good.zip", "a") as archive:
        archive.writestr("../../escaped.jpg", b"x")


def naming_an_absent_image(folder: Path) -> None:
    good_images(folder)
    content = json.loads((folder / "good.json").read_text())
    content["images"].append({"id": 999, "file_name": "nowhere.jpg", "width": 64, "height": 64})
    (folder / "absent.json").write_text(json.dumps(content))


def a_web_page(folder: Path) -> None:
    good_images(folder)
    (folder / "weights.pth").write_text("<html>404</html>")


CASES = {
    "a missing archive": Case(nothing, {"source_url": "{0}/none.zip"}, ("none.zip",)),
    "a truncated zip": Case(truncated, {"source_url": "{0}/cut.zip", "annotations_url": "{0}/good.json"}, ("cut.zip",)),
    "a zip with ../ in it": Case(
        escaping, {"source_url": "{0}/good.zip", "annotations_url": "{0}/good.json"}, ("../../escaped.jpg",)
    ),
    "an annotation file naming an absent image": Case(
        naming_an_absent_image, {"source_url": "{0}/good.zip", "annotations_url": "{0}/absent.json"}, ("nowhere.jpg",)
    ),
    "another SHA-256": Case(
        good_images,
        {"source_url": "{0}/good.zip", "annotations_url": "{0}/good.json", "source_sha256": "0" * 64},
        ("good.zip", "0" * 12),
    ),
    "weights that are a web page": Case(
        a_web_page,
        {"source_url": "{0}/good.zip", "annotations_url": "{0}/good.json", "weights_url": "{0}/weights.pth"},
        ("weights.pth", "checkpoint"),
    ),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[] if name == "a truncated zip" else pytest.mark.slow)
        for name, case in CASES.items()
    ],
)
def test_bad_raw_data(case: Case, project: Any, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    case.make(raw)
    sets = [part for name, value in case.sets.items() for part in ("--set", f"data_load.{name}={value.format(raw)}")]
    done = project.step("data_load", *sets)
    assert done.returncode == 1
    message = done.stderr[done.stderr.index("error: ") :]
    assert all(text in message for text in case.says), message
    assert len(message.splitlines()) <= 12, message
    assert "Traceback" not in done.stderr
    assert "IPKernelApp" not in done.stderr  # nor what the kernel says while it is ended
    assert project.artifacts() == []
    assert not list(tmp_path.rglob("escaped.jpg"))
    assert project.manifest()["steps"]["data_load"]["status"] == "failed"
    run = project.manifest()["run"]
    # what the run was opened with holds until it is set otherwise
    right = {**dict.fromkeys(case.sets, ""), "source_url": GOOD}
    sets = [part for name, value in right.items() for part in ("--set", f"data_load.{name}={value}")]
    assert project.step("data_load", "--run", run, *sets).returncode == 0
    assert project.manifest()["run"] == run
    assert len(project.artifacts()) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(("data_load", "--set", "data_load.image_url=x"), "source_url", id="an unknown parameter"),
        pytest.param(("data_load", "--set", "data_prep.seed=one"), "data_prep.seed", id="a value of another type"),
        pytest.param(("data_loda",), "did you mean 'data_load'?", id="an unknown step"),
        pytest.param(("--set", "seed=1"), "STEP.NAME=VALUE", id="a setting without a step"),
        pytest.param(("--config", "configs/dmeo.yaml"), "configs/demo.yaml", id="an unknown config"),
        pytest.param(
            ("--set", "data_load.weights_url=https://me:secret@example.org/w.pth"), "password", id="a password in a URL"
        ),
    ],
)
def test_a_wrong_call_starts_nothing(arguments: tuple[str, ...], says: str, project: Any) -> None:
    done = project.step(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "secret" not in done.stderr
    assert len(done.stderr.splitlines()) <= 8
    assert not (project.root / ".store" / "default" / "dev" / "runs").exists()


def test_a_missing_upstream_step(project: Any) -> None:
    assert project.step("data_load", "--set", f"data_load.source_url={GOOD}").returncode == 0
    before = project.artifacts()
    done = project.step("model_train")
    assert done.returncode in (1, 2)
    assert "python step.dev.py data_prep" in done.stderr
    assert project.artifacts() == before


def test_a_foreign_kernel(project: Any) -> None:
    path = project.root / "steps" / "data_load.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
    nbformat.write(notebook, path)
    done = project.step("data_load")
    assert done.returncode in (1, 2)
    assert "'ir'" in done.stderr
    assert "python3" in done.stderr
    assert project.artifacts() == []


def test_unknown_classes_and_shares(project: Any) -> None:
    """Wrong values that only the domain can know to be wrong."""
    assert project.step("data_load", "--set", f"data_load.source_url={GOOD}").returncode == 0
    before = project.artifacts()
    for setting, says in (("data_prep.classes=[circel]", "circle"), ("data_prep.train_share=1.5", "train_share")):
        done = project.step("data_prep", "--set", setting)
        assert done.returncode in (1, 2)
        assert says in done.stderr
        assert project.artifacts() == before
