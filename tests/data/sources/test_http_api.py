from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from api_server import Reply, api_server
from cases import cases
from pictures import picture
from PIL import Image

from pipeline.data.sources.loaded_source import Skipped
from pipeline.errors import DataError, MissingError, PipelineError, UsageError

SECRET = "planted-secret-4711"  # what the fixture sets LABELS_TOKEN and KEY to
NEXT = {"items": "data", "next": "next"}
PAGED = {"items": "data.results", "next": "next"}
BOXES = {"boxes": "objects", "label": "class.name", "box": "bbox"}


def item(name: Any, *, label: Any = "cat", box: Any = (1, 2, 10, 5), **fields: Any) -> dict[Any, Any]:
    return {"image": f"/files/{name}", "objects": [{"class": {"name": label}, "bbox": list(box)}], **fields}


@pytest.fixture(autouse=True)
def _three_images(api_place: Any) -> None:
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        api_place.file(f"/files/{name}", picture(seed=seed))


def names(dataset: Any) -> Any:
    return [image.file_name for image in dataset.images]


def boxes(dataset: Any) -> Any:
    return [(each.image_id, dataset.categories[each.category_id - 1].name, each.bbox) for each in dataset.annotations]


class TestPaging:
    @cases(
        "manner, settings",
        {
            "absolute next URL": ("url", PAGED),
            "relative next URL": ("relative", PAGED),
            "link header": ("link", {}),
            "page number until an empty page": ("number", {"page_parameter": "page"}),
            "page number until 404": ("missing", {"page_parameter": "page"}),
        },
    )
    def test_all_pages_come(self, api_place: Any, manner: Any, settings: Any) -> None:
        api_place.pages("/items", [item("c.png"), item("a.png"), item("b.png", label="ant")], 2, manner)
        loaded, images, dataset = api_place.load(**BOXES, **settings)
        assert names(dataset) == ["a.png", "b.png", "c.png"]
        assert (loaded.kind, loaded.images, loaded.skipped) == ("api", 3, ())
        assert loaded.url == f"api+{api_place.root}/items"
        assert loaded.bytes == sum(path.stat().st_size for path in images.iterdir())
        assert [each.name for each in dataset.categories] == ["ant", "cat"]
        assert boxes(dataset) == [(1, "cat", (1, 2, 10, 5)), (2, "ant", (1, 2, 10, 5)), (3, "cat", (1, 2, 10, 5))]

    def test_order_of_items_and_pages_makes_no_difference(self, api_place: Any, tmp_path: Path) -> None:
        items = [item("a.png"), item("b.png", label="ant"), item("c.png"), item("a.png", label="bee")]
        written = []
        for run, order in (("1", items), ("2", items[::-1])):
            api_place.pages("/items", order, 3, "url")
            api_place.load(run=run, **BOXES, **PAGED)
            written.append((tmp_path / run / "markup" / "annotations.json").read_bytes())
        assert written[0] == written[1]

    def test_query_of_the_url_is_kept(self, api_place: Any) -> None:
        api_place.pages("/items", [item("a.png"), item("b.png"), item("c.png")], 1, "number")
        api_place.load("/items?size=1&page=1", page_parameter="page")
        assert [(each.query["size"], each.query["page"]) for each in api_place.seen("/items")] == [
            ("1", str(page)) for page in (1, 2, 3, 4)
        ]

    @cases(
        "data, settings, match",
        {
            "loop": ({"next": "/items", "data": []}, NEXT, "already read"),
            "parameter ignored": ([item("a.png")], {"page_parameter": "page"}, "same as the one before"),
            "next misspelt": ({"nextPage": "/x", "data": []}, {**NEXT, "next": "nextpage"}, "did you mean 'nextPage'"),
            "cursor instead of a URL": ({"next": "abc", "data": []}, NEXT, r"a text[\s\S]*the next page's URL"),
            "items misspelt": ({"data": {"results": []}}, {"items": "data.result"}, "did you mean 'results'"),
            "items too deep": ([], {"items": "0.id"}, r"no '0' in a list"),
            "items below a number": ({"count": 1}, {"items": "count.x"}, r"no 'x' in a number[\s\S]*set api\.items"),
            "items not set": ({"results": [], "count": 0}, {}, r"leads to an object[\s\S]*set api.items to results"),
            "image misspelt": (
                [{"imgae": "/files/a.png"}],
                {},
                r"'image' of api.image leads nowhere[\s\S]*item 0[\s\S]*did you mean 'imgae",
            ),
            "boxes misspelt": ([item("a.png", objcts=[])], {"boxes": "objetcs"}, r"did you mean 'objects'"),
            "no boxes anywhere": ([{"image": "/files/a.png"}], {"boxes": "objects"}, "of api.boxes leads nowhere"),
            "label misspelt": ([item("a.png")], {**BOXES, "label": "class.nme"}, r"the keys name[\s\S]*item 0, box 0"),
            "three numbers": ([item("a.png", box=(1, 2, 3))], BOXES, "a list of four numbers"),
            "a word in a box": ([item("a.png", box=(1, 2, 3, "x"))], BOXES, r"item 0, box 0[\s\S]*four numbers"),
            "boxes are a number": ([item("a.png", label=None) | {"objects": 3}], BOXES, "a list of boxes"),
            "broken base64": ([{"image": "data:image/png;base64,!!"}], {}, "base64 data is broken"),
            "image is a number": ([{"image": 5}], {}, "api.image leads to a number"),
        },
    )
    def test_wrong_answers(self, api_place: Any, data: Any, settings: Any, match: str) -> None:
        api_place.json("/items", data)
        api_place.fails(DataError, match, **settings)

    def test_missing_next_is_the_end(self, api_place: Any, caplog: pytest.LogCaptureFixture) -> None:
        api_place.json("/items", {"data": [item("a.png")]})
        assert names(api_place.load(items="data", next="page.after")[2]) == ["a.png"]
        assert "taken for the only page" in caplog.text


class TestItems:
    @cases(
        "fields, settings, expected",
        {
            "xywh": ({"b": [1, 2, 10, 5]}, {"box": "b"}, (1, 2, 10, 5)),
            "xyxy": ({"b": [1, 2, 11, 7]}, {"box": "b", "box_format": "xyxy"}, (1, 2, 10, 5)),
            "cxcywh": ({"b": [6, 4.5, 10, 5]}, {"box": "b", "box_format": "cxcywh"}, (1, 2, 10, 5)),
            "fraction": ({"b": [0.25, 0.5, 0.5, 0.25]}, {"box": "b", "units": "fraction"}, (10, 10, 20, 5)),
            "percent": ({"b": [25, 50, 50, 25]}, {"box": "b", "units": "percent"}, (10, 10, 20, 5)),
            "four fields": ({"p": {"x": 1, "y": 2}, "w": "10", "h": 5}, {"box": "p.x, p.y, w, h"}, (1, 2, 10, 5)),
            "indices": ({"c": [[1, 2], [10, 5]]}, {"box": "c.0.0,c.0.1,c.1.0,c.1.1"}, (1, 2, 10, 5)),
        },
    )
    def test_boxes_in_pixels(self, api_place: Any, fields: Any, settings: Any, expected: Any) -> None:
        api_place.json("/items", [{"image": "files/a.png", "objects": [{"label": 7, **fields}]}])
        dataset = api_place.load(boxes="objects", **settings)[2]
        assert [(each.bbox, each.area) for each in dataset.annotations] == [
            (expected, 50.0 if expected[2] == 10 else 100.0)
        ]
        assert dataset.classes == ("7",)

    def test_metadata_and_subset(self, api_place: Any) -> None:
        fields = {"id": 9, "cam": {"id": "x"}, "weather": None}
        api_place.json("/items", [item("a.png", s="validation", **fields), item("b.png", s="?")])
        dataset = api_place.load(subset="s", metadata="id, cam.id, weather, none")[2]
        assert dict(dataset.images[0].extra) == {"source_id": 9, "cam.id": "x", "weather": None, "subset": "eval"}
        assert dict(dataset.images[1].extra) == {}

    def test_base64(self, api_place: Any) -> None:
        data = base64.b64encode(picture(size=(30, 10))).decode()
        items = [{"image": f"data:image/png;base64,{data}", "n": "x"}, {"image": data, "n": "y/z.png"}]
        api_place.json("/items", items)
        _, images, dataset = api_place.load(name="n")
        assert names(dataset) == ["x.png", "y/z.png"]
        assert (images / "y" / "z.png").read_bytes() == picture(size=(30, 10))
        assert (dataset.images[0].width, dataset.images[0].height) == (30, 10)

    def test_one_row_a_box(self, api_place: Any) -> None:
        rows = [
            {"image": "/files/a.png", "kind": kind, "x": x, "y": 0, "w": 2, "h": 2}
            for kind, x in (("b", 3), ("a", 1), ("b", 3))
        ]
        api_place.pages("/items", rows, 1, "number")
        dataset = api_place.load(boxes=".", box="x,y,w,h", label="kind", page_parameter="page")[2]
        assert boxes(dataset) == [(1, "a", (1, 0, 2, 2)), (1, "b", (3, 0, 2, 2))]
        assert len(api_place.seen("/files/a.png")) == 1

    def test_names_from_urls_are_made_unique(self, api_place: Any) -> None:
        for number in (1, 2):
            api_place.file(f"/frames/{number}/loaded", picture(seed=number))
        api_place.json("/items", [{"image": f"/frames/{number}/loaded?sig=x"} for number in (1, 2)])
        found = names(api_place.load()[2])
        assert len(set(found)) == 2
        assert all(name.startswith("loaded-") and name.endswith(".png") for name in found)

    def test_what_cannot_be_had_is_skipped(self, api_place: Any) -> None:
        api_place.file("/files/text.png", b"not a picture")
        api_place.file("/files/page.png", b"<!DOCTYPE html><html>log in</html>")
        api_place.file("/files/empty.png", b"")
        rows = [
            *(item(name) for name in ("text.png", "page.png", "empty.png", "gone.png", "a.png")),
            {"image": None},
            {"image": "s3://bucket/key.png"},
            {"image": "http://[bad/a.png"},
            item("b.png", label=None),
        ]
        api_place.json("/items", rows)
        loaded, _, dataset = api_place.load(**BOXES)
        assert names(dataset) == ["a.png", "b.png"]
        page = "a web page came"
        where, files = f"page 1 of {api_place.root}/items", f"{api_place.root}/files"
        assert loaded.skipped == (
            Skipped(f"{where}, item 0 ({files}/text.png)", "it is no image that can be read"),
            Skipped(f"{where}, item 1 ({files}/page.png)", f"{page} instead of an image: the URL may want a login"),
            Skipped(f"{where}, item 2 ({files}/empty.png)", "the file is empty"),
            Skipped(f"{where}, item 3 ({files}/gone.png)", "the server answered 404 Not Found"),
            Skipped(f"{where}, item 5", "it has no image"),
            Skipped(f"{where}, item 6", "its URL, of the kind 's3', cannot be fetched"),
            Skipped(f"{where}, item 7", "its URL is not valid"),
            Skipped(f"{where}, item 8, box 0", "it has no label"),
        )

    def test_odd_formats_are_converted(self, api_place: Any) -> None:
        api_place.file("/files/a.tif", picture("TIFF", orientation=6))
        api_place.file("/files/broken.tif", picture("TIFF")[:-900])
        api_place.file("/files/a.tif.png", picture())
        api_place.file("/files/b.jpeg", picture("JPEG", orientation=6))  # taken as it is, at its upright size
        rows = [item("a.tif", box=(0, 0, 0.5, 1)), item("broken.tif"), item("a.tif.png"), item("b.jpeg")]
        api_place.json("/items", rows)
        loaded, images, dataset = api_place.load(**BOXES, units="fraction")
        assert loaded.renamed == {"a.tif": "a.tif.2.png"}
        assert sorted(path.name for path in images.iterdir()) == ["a.tif.2.png", "a.tif.png", "b.jpeg"]
        assert names(dataset) == ["a.tif", "a.tif.png", "b.jpeg"]
        with Image.open(images / "a.tif.2.png") as image:
            assert image.size == (20, 40)
        assert [each.bbox for each in dataset.annotations if each.image_id != 2] == [(0, 0, 10, 40), (20, 80, 200, 200)]
        assert [each.item.rpartition(", ")[2] for each in loaded.skipped] == ["item 1"]


class TestFailures:
    @cases(
        "replies, error, match",
        {
            "500, then 401": ([Reply(500), Reply(401)], UsageError, r"401 Unauthorized[\s\S]*LABELS_TOKEN"),
            "forbidden": ([Reply(403)], UsageError, r"403 Forbidden[\s\S]*LABELS_TOKEN"),
            "always cut": ([Reply(200, b"[1, 2", sent=2)] * 5, MissingError, "the connection broke|was cut"),
            "login page": ([Reply(200, b"<html><body>Log in</body></html>")], DataError, "web page, not JSON"),
            "no JSON": ([Reply(200, b"{oops")], DataError, "no JSON: Expecting"),
            "nested too deep": ([Reply(200, b"[" * 100_000)], DataError, "no JSON"),
            "redirect loop": ([Reply(302, headers={"Location": "/items"})] * 40, UsageError, "TooManyRedirects"),
            "too slow": ([Reply(200, b"[]", delay=0.3)] * 5, MissingError, "no answer within 0.1 s"),
        },
    )
    def test_one_clear_error_without_secrets(
        self, api_place: Any, replies: Any, error: type[Exception], match: str
    ) -> None:
        api_place.planned = list(replies)
        timeout = 0.1 if replies[0].delay else 2
        path = "/${KEY}/items?key=${KEY}"
        assert "${KEY}" in api_place.fails(error, match, path, timeout=timeout, token_env="LABELS_TOKEN")
        assert api_place.requests[0].headers["Authorization"] == f"Bearer {SECRET}"
        assert api_place.requests[0].query["key"] == SECRET

    def test_refusal_is_not_repeated(self, api_place: Any) -> None:
        api_place.token = "Bearer right"
        api_place.fails(UsageError, r"set api\.token_env")
        assert len(api_place.requests) == 1


class TestTokens:
    @pytest.mark.parametrize("scheme", ["Bearer", "Token"])
    def test_sent_to_pages_and_images(self, api_place: Any, scheme: str) -> None:
        api_place.token = f"{scheme} {SECRET}"
        api_place.pages("/items", [item("a.png"), item("b.png")], 1, "url")
        settings = {"token_scheme": "Token"} if scheme == "Token" else {}
        loaded, _, dataset = api_place.load(token_env="LABELS_TOKEN", **settings, **PAGED, **BOXES)
        assert loaded.images == 2
        assert {each.headers.get("Authorization") for each in api_place.requests} == {api_place.token}
        assert SECRET not in f"{dataset}"

    def test_server_cannot_make_us_show_the_token(self, api_place: Any) -> None:
        api_place.json("/items", {"data": [item("a.png")], "next": f"/{SECRET}/items"})
        api_place.fails(PipelineError, r"items", token_env="LABELS_TOKEN", items="data", next="next")

    def test_not_sent_to_other_hosts(self, api_place: Any) -> None:
        with api_server() as other:
            for name in ("x.png", "y.png"):
                other.file(f"/{name}", picture(seed=ord(name[0])))
            other.json("/more", [{"image": "/x.png"}])
            api_place.route("/away.png", lambda _: Reply(302, headers={"Location": f"{other.root}/y.png"}))
            api_place.token = f"Bearer {SECRET}"
            link = {"Link": f'<{other.root}/more>; rel="next"'}
            api_place.json("/items", [{"image": "/away.png"}, item("a.png")], headers=link)
            found = names(api_place.load(token_env="LABELS_TOKEN")[2])
            assert found == ["a.png", "away.png", "x.png"]
            assert other.paths() == ["/y.png", "/more", "/x.png"]
            assert not any("Authorization" in each.headers for each in other.requests)


class TestResume:
    def files(self, server: Any) -> Any:
        return sorted(path for path in server.paths() if path.startswith("/files"))

    def test_broken_run_goes_on(self, api_place: Any, tmp_path: Path) -> None:
        api_place.json("/items", [item("a.png"), item("b.png"), item("c.png")])
        good = api_place.routes["/files/c.png"]
        api_place.route("/files/c.png", lambda _: Reply(500))
        api_place.fails(MissingError, r"failed 5 times[\s\S]*c\.png")
        for path in (tmp_path / "cache").rglob("*"):
            if path.is_file() and path.read_bytes() == picture(seed=0):
                path.write_bytes(b"damaged")
        api_place.route("/files/c.png", good)
        api_place.requests.clear()
        _, images, _ = api_place.load(run="2")
        assert self.files(api_place) == ["/files/a.png", "/files/c.png"]
        assert (images / "a.png").read_bytes() == picture(seed=0)

    def test_finished_run_asks_what_has_changed_and_forgets_what_is_gone(self, api_place: Any, tmp_path: Path) -> None:
        api_place.json("/items", [item("a.png"), item("b.png")])
        api_place.load(run="1")
        api_place.file("/files/b.png", picture(seed=99))
        api_place.requests.clear()
        _, images, _ = api_place.load(run="2")
        assert [("If-None-Match" in each.headers) for each in api_place.requests[1:]] == [True, True]
        assert [(images / name).read_bytes() for name in ("a.png", "b.png")] == [picture(seed=0), picture(seed=99)]
        kept = sorted(tmp_path.glob("cache/*/*"))
        api_place.json("/items", [item("a.png")])
        api_place.load(run="3")
        assert len(kept) - len(sorted(tmp_path.glob("cache/*/*"))) == 2


def test_images_are_fetched_side_by_side(api_place: Any) -> None:
    barrier = threading.Barrier(2, timeout=2)
    for name in ("a", "b"):
        data = picture(seed=ord(name))
        api_place.route(f"/files/{name}.png", lambda _, data=data: (barrier.wait(), Reply(200, data))[1])
    api_place.json("/items", [item("a.png"), item("b.png")])
    assert api_place.load()[0].images == 2
