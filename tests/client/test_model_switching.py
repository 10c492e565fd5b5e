"""Real services that take each other's place under load, and those that must not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import requests

from pipeline.client.model_switching import Release, SwitchingService, keep_newest
from pipeline.client.service_process import listening_socket
from pipeline.client.switching_proxy import SwitchingProxy
from pipeline.errors import StepError
from pipeline.evaluation.prediction import check_test_image

DARK = cv2.imencode(".png", np.full((64, 64, 3), 100, np.uint8))[1].tobytes()


@dataclass
class Switching:
    """A switching service, its address, and what its clients got."""

    service: SwitchingService
    url: str
    before: list[psutil.Process]  # child processes of the tests that ran already
    answers: Counter[str] = field(default_factory=Counter)  # by label, or by what went wrong

    @contextmanager
    def load(self, clients: int = 4) -> Iterator[None]:
        """Clients that send images without a pause, each on a connection that it keeps."""
        stop = threading.Event()

        def ask() -> None:
            with requests.Session() as session:
                while not stop.is_set():
                    self.answers[self.ask(session)] += 1

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def ask(self, session: requests.Session) -> str:
        """The label of an object in an image, or why there was no answer."""
        try:
            files = {"images": ("a.png", DARK)}
            answer = session.post(f"{self.url}/predict", files=files, timeout=30)
            return str(answer.json()[0]["detections"][0]["label"]) if answer.ok else f"HTTP {answer.status_code}"
        except (requests.RequestException, LookupError) as error:
            return repr(error)


@pytest.fixture
def switching() -> Iterator[Switching]:
    before = psutil.Process().children()
    with (
        listening_socket("127.0.0.1", 0) as listening,
        SwitchingProxy(listening) as proxy,
        SwitchingService(proxy, check_test_image) as service,
    ):
        yield Switching(service, f"http://127.0.0.1:{listening.getsockname()[1]}", before)
    assert psutil.Process().children() == before


def release(number: int, bento: Path) -> Release:
    return Release(f"run {number:03}", str(bento), lambda: nullcontext(bento))


def switch_under_load(switching: Switching, bentos: tuple[Path, Path], count: int) -> None:
    switching.service.start(release(0, bentos[0]))
    with switching.load():
        for number in range(1, count + 1):
            before = sum(switching.answers.values())
            switching.service.offer(release(number, bentos[number % 2]))
            assert switching.service.name == f"run {number:03}"
            until = time.monotonic() + 20
            while sum(switching.answers.values()) < before + 20:
                assert time.monotonic() < until, switching.answers
                time.sleep(0.01)
    assert {*switching.answers} == {"dark", "night"}, switching.answers
    assert sum(switching.answers.values()) >= 20 * count
    print(f"{count} switches: {dict(switching.answers)}")


def test_two_switches_under_load_fail_no_request(switching: Switching, bento: Path, other_bento: Path) -> None:
    switch_under_load(switching, (bento, other_bento), 2)


@pytest.mark.slow
def test_ten_switches_under_load_fail_no_request(switching: Switching, bento: Path, other_bento: Path) -> None:
    switch_under_load(switching, (bento, other_bento), 10)


def spoilt(bento: Path, folder: Path, how: str) -> Path:
    """A copy that does not start, or that starts and gives another test result than it recorded."""
    shutil.copytree(bento, folder)
    if how == "model":
        next(folder.rglob("model.onnx")).write_bytes(b"broken")
    else:
        result = next(folder.rglob("test_result.json"))
        content = json.loads(result.read_text())
        content["detections"][0]["box"][0] += 20
        result.write_text(json.dumps(content))
    return folder


def test_a_broken_model_is_refused_once_and_the_one_before_stays(
    switching: Switching, bento: Path, other_bento: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = spoilt(other_bento, tmp_path / "broken", "model")
    switching.service.start(release(1, bento))
    offered = [release(2, broken)] * 3
    with switching.load():
        keep_newest(switching.service, lambda: offered.pop(), interval=0.05, rounds=3)
    assert {*switching.answers} == {"dark"}, switching.answers
    assert switching.service.name == "run 001"
    [refusal] = [record for record in caplog.records if "is refused" in record.getMessage()]
    assert "run 002 is refused, and run 001 stays: " in refusal.getMessage()
    switching.service.offer(release(3, other_bento))
    assert switching.service.name == "run 003"


def test_a_model_is_checked_before_it_serves(
    switching: Switching, bento: Path, other_bento: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(url: str) -> None:
        assert requests.get(f"{url}/readyz", timeout=5).ok
        if len(seen) == 1:
            raise StepError("other results")
        seen.append(url)

    seen: list[str] = []
    monkeypatch.setattr(switching.service, "_check", check)
    switching.service.start(release(1, bento))
    switching.service.offer(release(2, other_bento))
    assert switching.service.name == "run 001"
    with requests.Session() as session:
        assert switching.ask(session) == "dark"


@pytest.mark.slow
def test_a_model_with_another_test_result_is_not_ready(
    switching: Switching, bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.client import model_switching

    serve = model_switching.serve
    monkeypatch.setattr(model_switching, "serve", lambda folder, **options: serve(folder, timeout=8, **options))
    with pytest.raises(StepError, match="was not ready within 8 s"):
        switching.service.start(release(1, spoilt(bento, tmp_path / "wrong", "result")))


def test_older_runs_and_runs_with_the_same_model_change_nothing(switching: Switching, bento: Path) -> None:
    switching.service.start(release(5, bento))
    processes = psutil.Process().children()
    for offered in (None, release(4, Path("/nowhere")), release(5, Path("/nowhere")), release(6, bento)):
        switching.service.offer(offered)
    assert psutil.Process().children() == processes


def test_a_service_that_died_is_started_again(switching: Switching, bento: Path) -> None:
    switching.service.start(release(1, bento))
    [leader] = [each for each in psutil.Process().children() if each not in switching.before]
    for process in [leader, *leader.children(recursive=True)]:
        os.kill(process.pid, signal.SIGKILL)
    with requests.Session() as session:
        assert switching.ask(session) == "HTTP 503"
        keep_newest(switching.service, lambda: None, interval=0.05, rounds=2)
        assert switching.ask(session) == "dark"


def test_a_store_that_is_out_of_reach_is_logged_once_and_asked_again(
    switching: Switching, bento: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [OSError("gone"), OSError("gone"), OSError("gone")]

    def newest() -> Release | None:
        if answers:
            raise answers.pop()
        return None

    keep_newest(switching.service, newest, interval=0.01, rounds=4)
    assert [record.getMessage() for record in caplog.records] == ["newer runs cannot be looked for: gone"]
