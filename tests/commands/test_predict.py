"""`python -m pipeline predict`: through a real service, as a newcomer types it."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import psutil
import pytest
import requests
from api_server import ApiServer, Reply, api_server, json_reply
from cases import cases
from clips import numbered, write_clip
from pictures import exif_of
from PIL import Image
from pycocotools.coco import COCO

from pipeline.client.service_process import RunningService, serve
from pipeline.commands.prediction_outcome import predictions_table

KEY = "a secret key"
BOX = [8.0, 8.0, 40.0, 40.0]


@pytest.fixture(scope="module")
def served(bento: Path) -> Iterator[RunningService]:
    with serve(bento) as server:
        yield server


def test_results_are_those_of_the_rest_api_exactly(toy: Any, served: RunningService, photos: Path) -> None:
    outcome = toy.look("predict", served.url, str(photos), "--json")
    rows = json.loads(outcome.out)
    assert outcome.code == 0
    assert [row.pop("image") for row in rows] == ["black.png", "bright.png", "dark.jpg", "sub/bright.bmp"]
    for row, name in zip(rows, ["black.png", "bright.png", "dark.jpg", "sub/bright.bmp"], strict=True):
        files = {"images": (photos / name).read_bytes()}
        [answer] = requests.post(f"{served.url}/predict", files=files, timeout=10).json()
        answer.pop("status", None)
        assert row == answer


def test_a_table_for_people(toy: Any, served: RunningService, photos: Path) -> None:
    outcome = toy.look("predict", served.url, str(photos))
    assert outcome.out.splitlines() == [
        "image           objects",
        "black.png             0",
        "bright.png            1  1 bright 0.78",
        "dark.jpg              1  1 dark 0.39",
        "sub/bright.bmp        1  1 bright 0.71",
    ]


def test_the_table_has_80_columns() -> None:
    found = [{"label": f"a long name {i}", "score": 0.5} for i in range(20)]
    rows: list[dict[str, Any]] = [{"image": "folder/" * 20 + "x.jpg", "detections": found}]
    rows.append({"image": "y.jpg", "error": "a long\nreason " * 20})
    lines = predictions_table(rows).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert lines[1].endswith("…")
    assert "/x.jpg       20  1 a long name 0 0.50, …" in lines[1]


def test_threshold_and_classes(toy: Any, served: RunningService, photos: Path) -> None:
    def labels(*options: str) -> list[list[str]]:
        rows = json.loads(toy.look("predict", served.url, str(photos), "--json", *options).out)
        return [[each["label"] for each in row["detections"]] for row in rows]

    assert labels("--threshold", "0.75") == [[], ["bright"], [], []]
    assert labels("--threshold", "0.01", "--classes", "dark") == [[], [], ["dark"], []]
    assert labels("--classes", "dark, bright") == [[], ["bright"], ["dark"], ["bright"]]


def test_a_coco_dataset(toy: Any, served: RunningService, photos: Path, tmp_path: Path) -> None:
    outcome = toy.look("predict", served.url, str(photos), "--out", str(tmp_path / "out.json"))
    assert outcome.out.splitlines() == ["4 images, 3 detections", f"  {tmp_path / 'out.json'}"]
    coco = COCO(str(tmp_path / "out.json"))
    assert coco.dataset["categories"] == [{"id": 1, "name": "dark"}, {"id": 2, "name": "bright"}]
    assert coco.dataset["images"][1] == {"id": 2, "file_name": "bright.png", "width": 64, "height": 64}
    [found] = coco.loadAnns(coco.getAnnIds(2))
    score = found.pop("score")
    assert found.pop("segmentation") == []
    assert found == {"id": 1, "image_id": 2, "category_id": 2, "bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": 0}
    assert score == pytest.approx(200 / 255, abs=1e-4)
    for name in ("black.png",):
        assert toy.look("predict", served.url, str(photos / name), "--out", str(tmp_path / "none.json")).code == 0
        assert json.loads((tmp_path / "none.json").read_text())["annotations"] == []


def test_an_archive_is_predicted_to_its_last_image_and_leaves_nothing(
    toy: Any, served: RunningService, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in range(40):
            archive.write(photos / "dark.jpg", f"{number:02}.jpg")
    outcome = toy.look("predict", served.url, str(tmp_path / "x.zip"), "--draw", str(tmp_path / "drawn"))
    assert outcome.out.splitlines()[0] == "40 images, 40 detections"
    assert len(list((tmp_path / "drawn" / "x.zip").iterdir())) == 40
    assert not list((tmp_path / "temporary").iterdir())


def is_edge(pixels: Any, x: int, y: int) -> bool:
    """Whether a pixel has the colour of the second class, orange, in BGR."""
    return bool(np.abs(pixels[y, x].astype(int) - [0, 159, 230]).max() < 40)


def test_pictures_are_drawn_upright_in_their_format(
    toy: Any, served: RunningService, photos: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64), (200, 200, 200)).save(photos / "turned.jpg", exif=exif_of(6))
    shutil.copy(photos / "bright.png", photos / "no_suffix")
    drawn = tmp_path / "new" / "drawn"
    assert toy.look("predict", served.url, str(photos), "--draw", str(drawn)).code == 0
    made = sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*") if path.is_file())
    assert made == ["black.png", "bright.png", "dark.jpg", "no_suffix.png", "sub/bright.bmp", "turned.jpg"]
    for name in ("bright.png", "sub/bright.bmp", "turned.jpg", "no_suffix.png"):
        pixels = cv2.imread(str(drawn / name))
        assert pixels.shape == (64, 64, 3)
        edges = [is_edge(pixels, *at) for at in ((40, 30), (30, 40), (8, 36))]
        assert (edges, is_edge(pixels, 4, 60), is_edge(pixels, 30, 34)) == ([True] * 3, False, False), name
    assert not cv2.imread(str(drawn / "black.png")).any()
    assert (drawn / "bright.png").read_bytes()[:4] == b"\x89PNG"
    assert "4 images" not in toy.look("predict", served.url, str(drawn.parent), "--draw", str(drawn)).out


def test_an_image_is_not_replaced_by_its_drawing(toy: Any, served: RunningService, photos: Path) -> None:
    before = (photos / "bright.png").read_bytes()
    toy.look("predict", served.url, str(photos), "--draw", str(photos)).fails("replace the image itself", code=2)
    assert (photos / "bright.png").read_bytes() == before


@cases("name, size", {"mp4": ("clip.mp4", (64, 64)), "odd": ("odd.avi", (65, 49)), "webm": ("clip.webm", (64, 64))})
def test_a_video_is_drawn_with_all_its_frames_in_order(
    toy: Any, served: RunningService, tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    options = {"codec": "mjpeg"} if name == "odd.avi" else {}
    frames = [np.maximum(numbered(i, *size) // 4 + 150, i * 5).astype(np.uint8) for i in range(25)]
    clip = write_clip(tmp_path / name, frames, rate=25, **options)
    outcome = toy.look(
        "predict", served.url, str(clip), "--draw", str(tmp_path / "drawn"), "--out", str(tmp_path / "o")
    )
    assert outcome.code == 0, outcome.log
    assert [image["file_name"] for image in json.loads((tmp_path / "o").read_text())["images"]][-1].endswith("024.jpg")
    [drawn] = (tmp_path / "drawn").iterdir()
    assert drawn.name == (name if name == "clip.mp4" else f"{name}.mp4")
    with av.open(str(drawn)) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.width, stream.height) == (25, *size)
        shown = [frame.to_ndarray(format="bgr24") for frame in container.decode(stream)]
    assert len(shown) == 25
    assert all(abs(int(a[46, 60, 0]) - int(b[46, 60, 0])) < 25 for a, b in zip(shown, frames, strict=True))


def test_what_cannot_be_predicted_is_named_and_the_rest_is_written(
    toy: Any, served: RunningService, photos: Path, tmp_path: Path
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "dark.jpg").read_bytes()[:100])
    (photos / "text.png").write_text("no image")
    write_clip(tmp_path / "clip.mp4", 3)
    (photos / "cut.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes()[:500])
    outcome = toy.look("predict", served.url, str(photos), "--out", str(tmp_path / "out.json"))
    outcome.fails("not predicted: broken.jpg: ", "not predicted: text.png: not an image file", "not predicted: cut.mp4")
    assert len(json.loads((tmp_path / "out.json").read_text())["images"]) == 4
    rows = json.loads(toy.look("predict", served.url, str(photos), "--json").out)
    assert [row["image"] for row in rows if "error" in row] == ["broken.jpg", "cut.mp4", "text.png"]
    assert "text.png              -  not an image file" in toy.look("predict", served.url, str(photos)).out


@cases(
    "arguments, message",
    {
        "no such image": (["URL", "PHOTOS/brigth.png"], "did you mean 'bright.png'"),
        "no such class": (["URL", "PHOTOS", "--classes", "drak"], "did you mean 'dark'"),
        "a threshold below the model's": (["URL", "PHOTOS", "--threshold", "0.001"], "0.01, the least"),
        "a threshold above 1": (["URL", "PHOTOS", "--threshold", "2"], "no scores from 2"),
        "no workers": (["URL", "PHOTOS", "--workers", "0"], ""),
        "an output that is a folder": (["URL", "PHOTOS", "--out", "PHOTOS"], "the output is a folder"),
        "an output that is a source": (["URL", "PHOTOS", "--out", "PHOTOS/dark.jpg"], "would replace a source"),
        "an output in no folder": (["URL", "PHOTOS", "--out", "PHOTOS/no/x.json"], "no folder for the output"),
        "drawings into a file": (["URL", "PHOTOS", "--draw", "PHOTOS/dark.jpg"], "is a file"),
        "no HTTP": (["ftp://here", "PHOTOS"], "not the address of a service"),
        "a password": (["http://me:secret@here", "PHOTOS"], "must not hold a password"),
        "a folder that is no Bento": (["PHOTOS", "PHOTOS"], "holds no packed service"),
        "no such Bento": (["no/such/bento", "PHOTOS"], "no such folder"),
    },
)
def test_a_wrong_call_is_refused(
    toy: Any, served: RunningService, photos: Path, arguments: list[str], message: str
) -> None:
    typed = [each.replace("URL", served.url).replace("PHOTOS", str(photos)) for each in arguments]
    outcome = toy.look("predict", *typed)
    outcome.fails(message, code=2)
    assert "secret" not in outcome.log


def test_a_service_that_is_not_there_is_told_at_once(toy: Any, photos: Path) -> None:
    started = time.monotonic()
    toy.look("predict", "http://127.0.0.1:9", str(photos)).fails("no service answers", "python -m pipeline serve")
    assert time.monotonic() - started < 5


def test_a_run_is_served_for_the_command(packing: Any, bento: Path, photos: Path) -> None:
    before = psutil.Process().children()
    packing.look("predict", "latest", str(photos)).fails("there is no dev run yet")
    assert packing.step("--set", f"pack.source={bento}").code == 0
    outcome = packing.look("predict", "latest", str(photos / "dark.jpg"), "--json")
    assert [row["detections"][0]["label"] for row in json.loads(outcome.out)] == ["dark"]
    assert not packing.left_over()
    assert packing.step("--set", "pack.fails=true").code == 1
    failed = packing.manifest()["run"]
    packing.look("predict", failed, str(photos)).fails("has no packed service", "the newest run that has one")
    assert packing.look("predict", "latest", str(photos / "dark.jpg")).code == 0
    packing.look("predict", "latest~1", str(photos)).fails("'toy' has fewer with a bento_service")
    assert psutil.Process().children() == before


# --- a service that misbehaves ---------------------------------------------------------------------------------------


@pytest.fixture
def scripted() -> Iterator[ApiServer]:
    with api_server() as server:
        server.json("/info", {"classes": ["dark"], "score_threshold": 0.01})
        answer = {"width": 64, "height": 48, "detections": [{"box": BOX, "score": 0.5, "label": "dark", "class_id": 0}]}
        server.json("/predict", [answer])
        server.json("/livez", {})
        yield server


def test_the_key_is_sent_and_not_shown(
    toy: Any, scripted: ApiServer, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.token = f"Bearer {KEY}"
    scripted.open = {"/livez"}
    toy.look("predict", scripted.root, str(photos)).fails("HTTP 401", "DETECTOR_API_KEY")
    monkeypatch.setenv("DETECTOR_API_KEY", KEY)
    outcome = toy.look("predict", f"{scripted.root}/", str(photos))
    assert outcome.code == 0
    assert KEY not in outcome.out + outcome.log
    assert {request.headers["Authorization"] for request in scripted.seen("/predict")[-4:]} == {f"Bearer {KEY}"}
    monkeypatch.setenv("DETECTOR_API_KEY", "wrong")
    outcome = toy.look("predict", scripted.root, str(photos))
    outcome.fails("HTTP 401")


def test_a_busy_service_is_asked_again_when_it_says(toy: Any, scripted: ApiServer, photos: Path) -> None:
    ready = json_reply({}), json_reply({"classes": ["dark"], "score_threshold": 0.01})
    scripted.planned = [*ready, Reply(503, headers={"Retry-After": "1"}), Reply(200, b"[]", sent=0)]
    started = time.monotonic()
    assert toy.look("predict", scripted.root, str(photos), "--workers", "1").code == 0
    assert time.monotonic() - started >= 1
    assert len(scripted.seen("/predict")) == 4 + 2


def test_items_with_a_status_of_their_own_are_understood(toy: Any, scripted: ApiServer, photos: Path) -> None:
    scripted.json("/predict", [{"status": 422, "error": {"code": "invalid_image", "message": "it is odd"}}])
    toy.look("predict", scripted.root, str(photos / "dark.jpg")).fails("not predicted: dark.jpg: it is odd")
    scripted.json("/predict", {"error": {"code": "internal_error", "message": "a fault"}}, 500)
    toy.look("predict", scripted.root, str(photos / "dark.jpg")).fails("not predicted: dark.jpg: a fault")


def test_after_a_failure_there_is_no_partial_output(
    toy: Any, scripted: ApiServer, photos: Path, tmp_path: Path
) -> None:
    scripted.json("/predict", {"detail": "gone"}, 404)
    arguments = ("--out", str(tmp_path / "out.json"), "--draw", str(tmp_path / "drawn"))
    toy.look("predict", scripted.root, str(photos), *arguments).fails("HTTP 404")
    assert not list(tmp_path.glob("*out.json*"))


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


@cases("number, code", {"Ctrl-C": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)})
def test_an_interruption_leaves_no_process_and_no_output(
    started: Any, bento: Path, tmp_path: Path, number: int, code: int
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 3000)
    drawn = tmp_path / "drawn"
    process = started("predict", str(bento), str(clip), "--out", str(tmp_path / "out.json"), "--draw", str(drawn))
    until = time.monotonic() + 60
    while not (drawn.is_dir() and list(drawn.iterdir())):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.send_signal(number)
    before = time.monotonic()
    out, log = process.communicate(timeout=10)
    assert time.monotonic() - before < 3
    assert (process.returncode, out) == (code, "")
    assert "stopped" in log
    assert "Traceback" not in log
    assert not [each for each in psutil.wait_procs(family, timeout=3)[1] if each.status() != psutil.STATUS_ZOMBIE]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["clip.mp4"]
