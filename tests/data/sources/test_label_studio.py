from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from api_server import Reply, json_reply
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import picture

from pipeline.data.sources.api_images import ApiRecord
from pipeline.data.sources.label_studio import read_task, rotated
from pipeline.data.sources.loaded_source import Skipped
from pipeline.data.sources.source import ApiSource, parse_source
from pipeline.errors import DataError, UsageError

KEY = "planted-secret-4711"  # what the fixture sets LABEL_STUDIO_API_KEY to
EXPORT = "/api/projects/12/export"


def png(seed: int = 0) -> bytes:
    return picture(size=(200, 100), seed=seed)


def rectangle(
    label: Any = "cat", x: Any = 10, y: Any = 20, width: Any = 30, height: Any = 40, rotation: Any = 0, **more: Any
) -> Any:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, "rectanglelabels": [label]}
    own = {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "image_rotation": 0, "value": value}
    return own | {"original_width": 200, "original_height": 100} | more


def polygon(*points: Any, label: Any = "cat") -> dict[Any, Any]:
    value = {"points": [list(point) for point in points], "polygonlabels": [label]}
    return {"type": "polygonlabels", "to_name": "image", "original_width": 200, "original_height": 100, "value": value}


def task(number: Any, *results: Any, image: Any = "/data/upload/12/{}.png", **annotation: Any) -> dict[Any, Any]:
    own = {"id": number, "result": list(results), "was_cancelled": False, "ground_truth": False}
    return {"id": number, "data": {"image": image.format(number)}, "annotations": [own | annotation]}


@pytest.fixture
def label_studio(api_place: Any) -> Any:
    """A server that looks like Label Studio's, with the images of project 12."""
    api_place.prefix, api_place.path, api_place.token = "label-studio", "/projects/12", f"Token {KEY}"
    for number in (1, 2, 3):
        api_place.file(f"/data/upload/12/{number}.png", png(number))
    return api_place


def read(task: Any, **settings: Any) -> tuple[Any, list[Any]]:
    source = parse_source("label-studio+http://host/projects/1", api=settings)
    assert isinstance(source, ApiSource)
    record, *left_out = read_task(task, source, "task 1")
    return record, left_out


class TestProject:
    def test_whole(self, label_studio: Any) -> None:
        turned = rectangle("dog", x=50, y=50, width=10, height=10, rotation=90)
        tasks = [
            task(2, rectangle("dog"), polygon((0, 0), (50, 0), (0, 100))),
            task(1, rectangle(), turned),
            task(3),
            {"id": 4, "data": {"image": "/data/upload/12/1.png"}, "annotations": []},
        ]
        label_studio.json(EXPORT, tasks)
        loaded, images, dataset = label_studio.load("/projects/12/data?tab=3")
        assert label_studio.seen(EXPORT)[0].query == {"exportType": "JSON"}
        assert loaded.url == f"label-studio+{label_studio.root}/projects/12/data"
        assert (loaded.kind, loaded.images) == ("api", 3)
        assert [each.reason for each in loaded.skipped] == ["it is not labelled"]
        assert [each.file_name for each in dataset.images] == ["1.png", "2.png", "3.png"]
        assert dataset.classes == ("cat", "dog")
        assert [(each.image_id, each.category_id, tuple(map(round, each.bbox))) for each in dataset.annotations] == [
            (1, 1, (20, 20, 60, 40)),
            (1, 2, (90, 50, 10, 20)),
            (2, 1, (0, 0, 100, 100)),
            (2, 2, (20, 20, 60, 40)),
        ]
        assert [each.area for each in dataset.annotations] == pytest.approx([2400, 200, 5000, 2400])
        assert dataset.annotations[2].segmentation == [[0, 0, 100, 0, 0, 100]]
        assert (images / "2.png").read_bytes() == png(2)

    @pytest.mark.parametrize(
        "image", ["data/upload/12/{}.png", "/data/upload/12/{}.png", "/studio/data/upload/12/{}.png"]
    )
    def test_below_a_path(self, label_studio: Any, image: Any) -> None:
        label_studio.json(f"/studio{EXPORT}", [task(1, rectangle(), image=image)])
        label_studio.file("/studio/data/upload/12/1.png", png())
        assert label_studio.load("/studio/projects/12")[0].images == 1
        assert label_studio.paths()[-1] == "/studio/data/upload/12/1.png"

    def test_local_files_and_storages(self, label_studio: Any) -> None:
        seen = []

        def serve(request: pytest.FixtureRequest) -> Any:
            seen.append(request.query)
            return Reply(200, png(len(seen)))

        label_studio.route("/data/local-files/", serve)
        label_studio.route("/tasks/2/resolve/", serve)
        tasks = [task(1, image="/data/local-files/?d=set/a%20b.png"), task(2, image="s3://bucket/deep/c.png")]
        label_studio.json(EXPORT, tasks)
        dataset = label_studio.load()[2]
        assert [each.file_name for each in dataset.images] == ["c.png", "set/a b.png"]
        assert {"d": "set/a b.png"} in seen
        assert {"fileuri": base64.b64encode(b"s3://bucket/deep/c.png").decode()} in seen

    @cases(
        "reply, error, match",
        {
            "wrong token": (Reply(401), UsageError, "LABEL_STUDIO_API_KEY"),
            "no list": (json_reply({"detail": "x"}), DataError, "an object[\\s\\S]*a list of tasks"),
            "no task": (json_reply([1]), DataError, "'data' of api"),
        },
    )
    def test_errors(self, label_studio: Any, reply: Any, error: type[Exception], match: str) -> None:
        label_studio.planned = [reply]
        label_studio.fails(error, match)

    @pytest.mark.parametrize("path", ["/", "/projects/x"])
    def test_no_project(self, label_studio: Any, path: str) -> None:
        label_studio.fails(UsageError, "names no project", path)


class TestPersonalTokens:
    JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.planted"

    @pytest.fixture
    def expiring(self, label_studio: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Personal token in, access tokens out, each good for three images."""
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", self.JWT)
        made = []

        def refresh(request: pytest.FixtureRequest) -> Any:
            if json.loads(request.body) != {"refresh": self.JWT} or "Authorization" in request.headers:
                return json_reply({"detail": "bad"}, 401)
            made.append(f"access-planted-{len(made)}")
            label_studio.token, label_studio.left = f"Bearer {made[-1]}", 3
            return json_reply({"access": made[-1]})

        def spend(request: pytest.FixtureRequest) -> Any:
            label_studio.left -= 1
            if label_studio.left < 0:
                label_studio.token = "expired"
                return Reply(401)
            return Reply(200, png(int(request.path[-5])))

        label_studio.token, label_studio.open, label_studio.made = "nobody", {"/api/token/refresh"}, made
        label_studio.route("/api/token/refresh", refresh)
        label_studio.json(EXPORT, [task(number) for number in range(8)])
        for number in range(8):
            label_studio.route(f"/data/upload/12/{number}.png", spend)
        return label_studio

    def test_exchanged_and_renewed(self, expiring: Any) -> None:
        assert expiring.load()[0].images == 8
        assert len(expiring.made) >= 3

    @cases(
        "reply, error, match",
        {
            "refused": (json_reply({"code": "token_not_valid"}, 401), UsageError, "LABEL_STUDIO_API_KEY"),
            "no token in the answer": (json_reply({"acess": "x"}), DataError, "no access token"),
        },
    )
    def test_refused(self, expiring: Any, reply: Any, error: type[Exception], match: str) -> None:
        expiring.route("/api/token/refresh", lambda _: reply)
        expiring.fails(error, match)

    def test_never_enough(self, expiring: Any) -> None:
        expiring.route("/data/upload/12/5.png", lambda _: Reply(401))
        expiring.fails(UsageError, r"401[\s\S]*5\.png")
        assert len(expiring.seen("/data/upload/12/5.png")) == 6


class TestTasks:
    @cases(
        "annotations, x",
        {
            "newest": ([{"updated_at": "2026-01-02"}, {"updated_at": "2026-01-03"}], 1),
            "newest by creation": ([{"created_at": "2026-01-04"}, {"updated_at": "2026-01-03"}], 0),
            "ground truth first": ([{"updated_at": "1", "ground_truth": True}, {"updated_at": "2"}], 0),
            "cancelled never": ([{"updated_at": "1"}, {"updated_at": "2", "was_cancelled": True}], 0),
            "higher number of those alike": ([{"id": 3}, {"id": 20}], 1),
        },
    )
    def test_which_annotation(self, annotations: Any, x: Any) -> None:
        there = [each | {"result": [rectangle(x=index)]} for index, each in enumerate(annotations)]
        for order in (there, there[::-1]):
            record, _ = read({"id": 1, "data": {"image": "/a.png"}, "annotations": order})
            assert record.image.boxes[0].bbox[0] == x / 100

    @cases(
        "annotations, reason",
        {
            "none": ([], "it is not labelled"),
            "cancelled": ([{"was_cancelled": True, "result": [rectangle()]}], "it is not labelled"),
            "turned image": ([{"result": [rectangle(image_rotation=90)]}], "turned image"),
        },
    )
    def test_left_out(self, annotations: Any, reason: Any) -> None:
        found, _ = read({"id": 1, "data": {"image": "/a.png"}, "annotations": annotations})
        assert isinstance(found, Skipped)
        assert reason in found.reason

    @cases(
        "data, result, settings, url",
        {
            "the only URL": ({"photo": "/a.png", "text": "hi"}, {}, {}, "/a.png"),
            "named as in the labels": ({"image": "/a.png", "thumb": "/b.png"}, {}, {}, "/a.png"),
            "named as source": ({"p": "/a.png", "q": "/b.png"}, {"source": "$q"}, {}, "/b.png"),
            "set, deeper": ({"p": {"url": "/a.png"}}, {}, {"image": "p.url"}, "/a.png"),
        },
    )
    def test_which_image(self, data: Any, result: Any, settings: Any, url: str) -> None:
        record, _ = read({"id": 1, "data": data, "annotations": [{"result": [rectangle(**result)]}]}, **settings)
        assert record.url == url

    @cases(
        "data, settings, match",
        {
            "two": ({"p": "/a.png", "q": "/b.png"}, {}, r"several URLs[\s\S]*api.image to one of: p, q"),
            "none": ({"text": "hi"}, {}, r"no URL[\s\S]*one of: text"),
            "misspelt": ({"p": "/a.png"}, {"image": "P"}, "did you mean 'p'"),
            "a number": ({"p": 7}, {"image": "p"}, "a number"),
        },
    )
    def test_no_image(self, data: Any, settings: Any, match: str) -> None:
        with pytest.raises(DataError, match=match):
            read({"id": 1, "data": data, "annotations": [{"result": []}]}, **settings)

    def test_what_is_not_taken_is_told(self) -> None:
        brush = {"type": "brushlabels", "value": {"rle": [1], "format": "rle", "brushlabels": ["cat"]}}
        choice = {"type": "choices", "value": {"choices": ["sunny"]}}
        nameless = rectangle()
        nameless["value"]["rectanglelabels"] = []
        double = rectangle()
        double["value"]["rectanglelabels"] = ["cat", "pet"]
        record, left_out = read(
            task(1, brush, brush, choice, nameless, rectangle(x="here"), polygon((0, 0), (1, 1)), double)
        )
        assert isinstance(record, ApiRecord)
        assert [box.label for box in record.image.boxes] == ["cat", "pet"]
        assert record.image.boxes[0].bbox == pytest.approx((0.1, 0.2, 0.3, 0.4))
        assert record.image.left_out
        assert left_out == [
            Skipped("task 1: 2 regions", "of the type 'brushlabels', which is not taken"),
            Skipped("task 1: 1 regions", "without a label"),
            Skipped("task 1: 2 regions", "without a place"),
        ]

    @cases(
        "results, size",
        {
            "one": ([rectangle()], (200, 100)),
            "one that tells": ([rectangle(), {"type": "choices", "value": {}}], (200, 100)),
            "two": ([rectangle(), rectangle(original_width=7)], (0, 0)),
            "none": ([], (0, 0)),
        },
    )
    def test_size_as_label_studio_saw_it(self, results: Any, size: Any) -> None:
        image = read(task(1, *results))[0].image
        assert (image.width, image.height) == size


@settings(deadline=None)
@given(st.tuples(*[st.floats(0.01, 1)] * 4), st.floats(-360, 360), st.floats(0.2, 5))
def test_turning_keeps_sides_and_angles(box: Any, degrees: Any, aspect: Any) -> None:
    x, y, width, height = box
    points = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    turned = [(a * aspect, b) for a, b in rotated(points, degrees, aspect)]
    assert turned[0] == pytest.approx((x * aspect, y), abs=1e-9)
    assert math.dist(turned[0], turned[1]) == pytest.approx(width * aspect)
    assert math.dist(turned[1], turned[2]) == pytest.approx(height)
    assert math.dist(turned[0], turned[2]) == pytest.approx(math.hypot(width * aspect, height))


def test_turning_is_clockwise_as_one_sees_it() -> None:
    points = [(0.5, 0.5), (0.6, 0.5), (0.6, 0.5), (0.5, 0.5)]
    assert rotated(points, 90, 2.0)[1] == pytest.approx((0.5, 0.7))
