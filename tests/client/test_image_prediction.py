"""The stream of predictions: its order, how far it reads ahead, and its end."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.client.http_client import Answer, ServedImage
from pipeline.client.image_prediction import Question, predict_images
from pipeline.client.image_sources import NamedImage
from pipeline.errors import StepError

ALL = Question(None, frozenset(), 1 << 20)


class Client:
    """Answers after a random moment, or fails; counts requests at once."""

    def __init__(self, fails_at: str = "") -> None:
        self.fails_at, self.at_once, self.most, self.is_closed = fails_at, 0, 0, False
        self._lock = threading.Lock()

    def predict(self, name: str, data: bytes, threshold: float | None) -> Answer:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(random.random() / 200)
        with self._lock:
            self.at_once -= 1
        if name == self.fails_at:
            raise StepError("gone")
        return Answer(ServedImage(width=int(name), height=1, detections=[]), 0.0, 0, {})

    def close(self) -> None:
        self.is_closed = True


def images(taken: list[int], count: int = 100) -> Iterator[NamedImage]:
    for number in range(count):
        taken.append(number)
        yield NamedImage(str(number), b"x")


def test_predictions_come_in_order_with_few_images_read_ahead() -> None:
    client: Any = Client()
    taken: list[int] = []
    for number, each in enumerate(predict_images(client, images(taken), ALL, workers=3)):
        assert each.answer
        assert (each.image.name, each.answer.width) == (str(number), number)
        assert len(taken) - number <= 2 * 3
    assert (number, client.most, client.is_closed) == (99, 3, False)


def test_a_failure_ends_the_stream_and_the_client() -> None:
    client: Any = Client(fails_at="10")
    taken: list[int] = []
    with pytest.raises(StepError, match="gone"):
        list(predict_images(client, images(taken), ALL, workers=3))
    assert client.is_closed
    assert len(taken) < 20


def test_what_is_made_of_an_answer_comes_with_it() -> None:
    client: Any = Client()
    found = predict_images(client, images([], 4), ALL, finish=lambda image, data, answer: image.name * 2)
    assert [each.result for each in found] == ["00", "11", "22", "33"]
