"""`python -m pipeline prelabel`: pre-labels of a real service, read back by the project's own readers."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from api_server import ApiServer, api_server
from cases import cases
from clips import write_clip

from pipeline.client.service_process import RunningService, serve
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.reading import read_annotations
from pipeline.data.writing import FORMATS

NAMES = ["black.png", "bright.png", "dark.jpg", "sub/bright.bmp"]
OUTPUTS = {"cvat": "out.xml", "label-studio": "out.json", "coco": "out.json", "yolo": "out"}


@pytest.fixture(scope="module")
def served(bento: Path) -> Iterator[RunningService]:
    with serve(bento) as server:
        yield server


@pytest.mark.parametrize("kind", [each for each in FORMATS if each != "label-studio"])
def test_the_readers_find_what_predict_finds(
    toy: Any, served: RunningService, photos: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "made").mkdir()
    out = tmp_path / "made" / OUTPUTS[kind]
    outcome = toy.look("prelabel", served.url, str(photos), "--format", kind, "--out", str(out))
    assert (outcome.code, outcome.out.splitlines()) == (0, ["4 images, 3 detections", f"  {out}"]), outcome.log
    rows = json.loads(toy.look("predict", served.url, str(photos), "--json").out)
    found = read_annotations(out if kind == "yolo" else out.parent, ImageIndex(photos, NAMES))
    classes = {each.id: each.name for each in found.dataset.categories}
    assert list(classes.values()) == ["dark", "bright"]
    names = {image.id: image.file_name for image in found.dataset.images}
    assert sorted(names.values()) == NAMES
    there = {(names[each.image_id], classes[each.category_id], each.bbox) for each in found.dataset.annotations}
    expected = {(row["image"], each["label"], (8.0, 8.0, 32.0, 32.0)) for row in rows for each in row["detections"]}
    assert {(name, label, tuple(round(side, 4) for side in box)) for name, label, box in there} == expected


def test_label_studio_finds_the_images_where_it_is_told(
    toy: Any, served: RunningService, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tasks.json"
    typed = ("prelabel", served.url, str(photos), "--format", "label-studio", "--out", str(out))
    outcome = toy.look(*typed)
    assert outcome.out.splitlines()[1:] == [f"  {out}", f"  {tmp_path / 'tasks.setup.xml'}"]
    assert [each["data"]["image"] for each in json.loads(out.read_text())] == [
        f"/data/local-files/?d={name}" for name in NAMES
    ]
    assert toy.look(*typed, "--image-prefix", "https://host/street/").code == 0
    tasks = json.loads(out.read_text())
    assert tasks[3]["data"]["image"] == "https://host/street/sub/bright.bmp"
    assert [len(each["predictions"]) for each in tasks] == [0, 1, 1, 1]
    assert '<Label value="dark" />' in (tmp_path / "tasks.setup.xml").read_text()


def test_threshold_and_json(toy: Any, served: RunningService, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    typed = ("--format", "coco", "--out", str(out), "--threshold", "0.75")
    outcome = toy.look("prelabel", served.url, str(photos), *typed, "--json")
    assert [len(row["detections"]) for row in json.loads(outcome.out)] == [0, 1, 0, 0]
    assert [each["score"] for each in json.loads(out.read_text())["annotations"]] == pytest.approx(
        [200 / 255], abs=1e-4
    )


def test_what_cannot_be_predicted_is_named_and_the_rest_is_written(
    toy: Any, served: RunningService, photos: Path, tmp_path: Path
) -> None:
    (photos / "text.png").write_text("no image")
    out = tmp_path / "out.json"
    outcome = toy.look("prelabel", served.url, str(photos), "--format", "coco", "--out", str(out))
    outcome.fails("not predicted: text.png: not an image file")
    assert outcome.out.splitlines()[0] == "4 images, 3 detections, 1 not predicted"
    assert len(json.loads(out.read_text())["images"]) == 4


@cases(
    "arguments, message",
    {
        "no format": (["URL", "PHOTOS", "--out", "TMP/x"], ""),
        "no such format": (["URL", "PHOTOS", "--format", "voc", "--out", "TMP/x"], ""),
        "no output": (["URL", "PHOTOS", "--format", "coco"], ""),
        "no such image": (["URL", "PHOTOS/brigth.png", "--format", "coco", "--out", "TMP/x"], "did you mean"),
        "a threshold above 1": (
            ["URL", "PHOTOS", "--format", "coco", "--out", "TMP/x", "--threshold", "2"],
            "no scores",
        ),
        "a folder for a file": (["URL", "PHOTOS", "--format", "cvat", "--out", "PHOTOS"], "the output is a folder"),
        "a source": (["URL", "PHOTOS", "--format", "cvat", "--out", "PHOTOS/dark.jpg"], "would replace a source"),
        "no folder": (["URL", "PHOTOS", "--format", "cvat", "--out", "TMP/no/x.xml"], "no folder for the output"),
        "no folder for a folder": (["URL", "PHOTOS", "--format", "yolo", "--out", "TMP/no/x"], "no folder for the"),
        "a full folder": (["URL", "PHOTOS", "--format", "yolo", "--out", "PHOTOS"], "is not empty"),
        "a file for a folder": (["URL", "PHOTOS", "--format", "yolo", "--out", "PHOTOS/dark.jpg"], "is a file"),
        "a prefix without use": (
            ["URL", "PHOTOS", "--format", "cvat", "--out", "TMP/x", "--image-prefix", "s3://x/"],
            "cvat has no URLs of images",
        ),
    },
)
def test_a_wrong_call_is_refused(
    toy: Any, served: RunningService, photos: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    places = {"URL": served.url, "PHOTOS": str(photos), "TMP": str(tmp_path)}
    typed = [re.sub("URL|PHOTOS|TMP", lambda found: places[found[0]], each) for each in arguments]
    toy.look("prelabel", *typed).fails(message, code=2)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_served_for_the_command(packing: Any, bento: Path, photos: Path, tmp_path: Path) -> None:
    before = psutil.Process().children()
    out = tmp_path / "out.xml"
    typed = ("prelabel", "latest", str(photos), "--format", "cvat", "--out", str(out))
    packing.look(*typed).fails("there is no dev run yet")
    assert packing.step("--set", f"pack.source={bento}").code == 0
    assert packing.look(*typed).code == 0
    assert out.read_text().count("<box ") == 3
    assert not packing.left_over()
    assert psutil.Process().children() == before


@pytest.mark.parametrize("kind", FORMATS)
def test_after_a_failure_nothing_is_left(toy: Any, photos: Path, tmp_path: Path, kind: str) -> None:
    server: ApiServer
    with api_server() as server:
        server.json("/info", {"classes": ["dark"], "score_threshold": 0.01})
        server.json("/livez", {})
        server.json("/predict", {"detail": "gone"}, 404)
        (tmp_path / "made").mkdir()
        typed = ("--format", kind, "--out", str(tmp_path / "made" / OUTPUTS[kind]))
        toy.look("prelabel", server.root, str(photos), *typed).fails("HTTP 404")
    assert not list((tmp_path / "made").iterdir())


def test_images_that_yolo_cannot_tell_apart_are_told(
    toy: Any, served: RunningService, photos: Path, tmp_path: Path
) -> None:
    (photos / "dark.png").write_bytes((photos / "bright.png").read_bytes())
    typed = ("--format", "yolo", "--out", str(tmp_path / "out"))
    toy.look("prelabel", served.url, str(photos), *typed).fails("dark.jpg and dark.png", "another format")
    assert [path.name for path in tmp_path.glob("*out*")] == []


def test_ctrl_c_leaves_no_output(started: Any, served: RunningService, tmp_path: Path) -> None:
    """As for `predict`, which has the same test with a service of its own."""
    clip = write_clip(tmp_path / "clip.mp4", 3000)
    (made := tmp_path / "made").mkdir()
    process = started("prelabel", served.url, str(clip), "--format", "yolo", "--out", str(made / "out"))
    until = time.monotonic() + 60
    while not list(made.rglob("*.txt")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, log = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, "")
    assert "stopped" in log
    assert "Traceback" not in log
    assert list(made.iterdir()) == []
