"""Bad input, through the real notebooks: one clear message, exit code 1 or 2, nothing published, the run goes on."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.coco import write_coco
from pipeline.data.sample import make_sample

GOOD = "sample://shapes?images=8&size=64&seed=1"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with images in a zip, the same zip cut off, their annotations, and a web page for weights."""
    folder = tmp_path / "raw"
    write_coco(make_sample(folder / "images", images=8, size=64, seed=1), folder / "good.json")
    with zipfile.ZipFile(folder / "good.zip", "w") as archive:
        for path in sorted((folder / "images").iterdir()):
            archive.write(path, f"val2017/{path.name}")
    data = (folder / "good.zip").read_bytes()
    with zipfile.ZipFile(folder / "escaping.zip", "w") as archive:
        archive.writestr("../../escaped.jpg", b"x")
    (folder / "cut.zip").write_bytes(data[: len(data) // 2])
    (folder / "weights.pth").write_text("<html>404</html>")
    return folder


@pytest.mark.parametrize(
    ("given", "says"),
    [
        pytest.param({"source_url": "cut.zip", "annotations_url": "good.json"}, ["cut.zip"], id="truncated zip"),
        pytest.param(
            {"source_url": "escaping.zip", "annotations_url": "good.json"},
            ["../../escaped.jpg"],
            id="a zip with ../ in it",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"source_url": "good.zip", "annotations_url": "good.json", "weights_url": "weights.pth"},
            ["weights.pth", "checkpoint"],
            id="weights that are a web page",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bad_raw_data(given: dict[str, str], says: list[str], project: Any, raw: Path) -> None:
    sets = [part for name, value in given.items() for part in ("--set", f"data_load.{name}={raw / value}")]
    done = project.step("data_load", *sets)
    assert done.returncode == 1
    message = done.stderr[done.stderr.index("error: ") :]
    assert all(text in message for text in says), message
    assert len(message.splitlines()) <= 12, message
    assert "Traceback" not in done.stderr
    assert "IPKernelApp" not in done.stderr  # nor what the kernel says while it is ended
    assert project.artifacts() == []
    assert project.manifest()["steps"]["data_load"]["status"] == "failed"
    run = project.manifest()["run"]
    # what the run was opened with holds until it is set otherwise
    right = {**dict.fromkeys(given, ""), "source_url": GOOD}
    sets = [part for name, value in right.items() for part in ("--set", f"data_load.{name}={value}")]
    assert project.step("data_load", "--run", run, *sets).returncode == 0
    assert project.manifest()["run"] == run
    assert len(project.artifacts()) == 3


def test_unknown_classes_and_shares(project: Any) -> None:
    """Wrong values that only the domain can know to be wrong."""
    assert project.step("data_load", "--set", f"data_load.source_url={GOOD}").returncode == 0
    before = project.artifacts()
    for setting, says in (("data_prep.classes=[circel]", "circle"), ("data_prep.train_share=1.5", "train_share")):
        done = project.step("data_prep", "--set", setting)
        assert done.returncode in (1, 2)
        assert says in done.stderr
        assert project.artifacts() == before
