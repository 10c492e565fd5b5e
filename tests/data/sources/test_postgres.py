"""The database source on a real PostgreSQL."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import postgres
import pytest
from cases import cases
from memory import peak_of
from pictures import picture

from pipeline.data.coco import read_coco
from pipeline.data.loading import load_source
from pipeline.errors import DataError, MissingError, UsageError

LOAD = """
from pathlib import Path
from pipeline.data.loading import load_source
folder = Path(sys.argv[2])
folders = folder / "images", folder / "markup"
print(load_source(sys.argv[1], *folders, query=sys.argv[3], cache=folder / "cache").images)"""
pytestmark = pytest.mark.skipif(bool(postgres.missing()), reason=postgres.missing())


PNG = picture(size=(80, 80))


@pytest.fixture(scope="module")
def gallery() -> Iterator[Any]:
    """A server with the tables `shots` (two images), `boxes` (three, of one image) and `large` (one image of 20 kB)."""
    with postgres.postgres() as server:
        server.run("CREATE TABLE shots (file text, data bytea, taken timestamptz, score numeric, tags jsonb)")
        row = "(timestamptz '2026-01-02 03:04:05+00', 0.5, jsonb '{\"b\": [1, 2]}')"
        for file in ("a.png", "b.png"):
            server.run(f"INSERT INTO shots SELECT %s, %s, * FROM (VALUES {row}) AS v(t, s, j)", file, PNG)
        server.run("CREATE TABLE boxes (file text, label text, x real, y real, w int, h numeric)")
        server.run(
            "INSERT INTO boxes VALUES ('a.png', 'cat', 1.5, 2, 3, 4.25), ('a.png', 'dog', 5, 6, 7, 8), "
            "('a.png', 'cat', 0, 0, 9, 9)"
        )
        server.run("CREATE SEQUENCE visits")
        yield server


@pytest.fixture
def load(gallery: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a query on the server; gives what came, and the data set."""
    monkeypatch.setenv("GALLERY_PASSWORD", postgres.PASSWORD)

    def run(query: Any, url: Any = "", **options: Any) -> tuple[Any, ...]:
        options |= {"query": query, "cache": tmp_path / "cache"}
        loaded = load_source(url or gallery.url(), tmp_path / "images", tmp_path / "markup", **options)
        return loaded, read_coco(tmp_path / "markup/annotations.json")

    return run


JOINED = """
    SELECT s.file AS name, s.data AS image, b.label, b.x, b.y, b.w AS width, b.h AS height, s.taken, s.score, s.tags
    FROM shots s LEFT JOIN boxes b USING (file) WHERE s.file LIKE '%.png' AND s.file <> ':name'"""
LISTED = """
    SELECT file AS name, data AS image, taken, score, tags,
        (SELECT jsonb_agg(jsonb_build_array(x, y, w, h) ORDER BY x) FROM boxes b WHERE b.file = s.file) AS boxes,
        (SELECT array_agg(label ORDER BY x) FROM boxes b WHERE b.file = s.file) AS labels
    FROM shots s"""


@pytest.mark.parametrize("query", [pytest.param(JOINED, id="a box a row"), pytest.param(LISTED, id="lists")])
def test_bytes_and_boxes(load: Any, tmp_path: Path, gallery: Any, query: str) -> None:
    loaded, dataset = load(query)
    assert (loaded.kind, loaded.images, loaded.skipped) == ("database", 2, ())
    assert loaded.url == f"postgresql://127.0.0.1:{gallery.port}/postgres"
    assert (tmp_path / "images/b.png").read_bytes() == PNG
    assert [(each.category_id, each.bbox) for each in dataset.annotations] == [
        (1, (0, 0, 9, 9)),
        (1, (1.5, 2, 3, 4.25)),
        (2, (5, 6, 7, 8)),
    ]
    extra = dataset.images[0].extra
    assert (extra["score"], extra["tags"]) == ("0.5", {"b": [1, 2]})
    assert extra["taken"].startswith("2026-01-02")


class TestLogin:
    LOGIN = f"{postgres.USER}:${{GALLERY_PASSWORD}}@"

    def test_password_from_libpq(self, load: Any, gallery: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGPASSWORD", postgres.PASSWORD)
        assert load(JOINED, url=gallery.url(f"{postgres.USER}@"))[0].images == 2

    def test_whole_url_from_the_environment(self, load: Any, gallery: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(
            "GALLERY", f"postgres://{postgres.USER}:planted%2Fsecret%40%257@127.0.0.1:{gallery.port}/postgres"
        )
        loaded, _ = load(JOINED, url="${GALLERY}")
        assert (loaded.images, loaded.url) == (2, "${GALLERY}")

    @cases(
        "login, password",
        {
            "wrong": (LOGIN, "planted-wrong"),
            "wrong, and badly written": (f"{postgres.USER}:planted/wro@ng@", ""),
            "wrong user": ("planted-nobody:${GALLERY_PASSWORD}@", postgres.PASSWORD),
        },
    )
    def test_refused(
        self, load: Any, gallery: Any, monkeypatch: Any, caplog: Any, capfd: Any, login: str, password: str
    ) -> None:
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("GALLERY_PASSWORD", password)
        monkeypatch.delenv("PGPASSWORD", raising=False)
        with pytest.raises((MissingError, UsageError), match=r"cannot be opened|not a database URL") as caught:
            load(JOINED, url=gallery.url(login))
        told = "\n".join([str(caught.value), caplog.text, *capfd.readouterr()])
        assert not any(secret in told for secret in ("planted-wrong", "wro@ng", postgres.PASSWORD))
        assert caught.value.__suppress_context__


class TestReadsOnly:
    @cases(
        "query",
        {
            "WITH": "WITH gone AS (DELETE FROM shots RETURNING *) SELECT file AS name, data AS image FROM gone",
            "function": "SELECT file AS name, data AS image, nextval('visits') FROM shots",
            "two statements": "SELECT 1; DELETE FROM shots",
        },
    )
    def test_refused(self, load: Any, gallery: Any, query: str) -> None:
        with pytest.raises((UsageError, DataError), match=r"refuses the query|broke off after 0 rows"):
            load(query)
        assert gallery.run("SELECT count(*) FROM shots") == [(2,)]
        assert gallery.run("SELECT is_called FROM visits") == [(False,)]


def test_connection_lost_on_the_way(load: Any, gallery: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.sources.database._ROWS", 4)

    def cut() -> None:
        end = time.monotonic() + 20
        while not list((tmp_path / "images").glob("*.png")) and time.monotonic() < end:
            time.sleep(0.01)
        others = "FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid()"
        gallery.run(f"SELECT pg_terminate_backend(pid) {others}")

    cutter = threading.Thread(target=cut)
    cutter.start()
    slow = "SELECT n || '.png' AS name, data AS image, pg_sleep(0.02) AS s FROM generate_series(1, 1000) n, shots"
    with pytest.raises(DataError, match=r"broke off after \d+ rows: .*terminat[\s\S]*run it again"):
        load(f"{slow} WHERE file = 'a.png'")
    cutter.join()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(gallery: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 images of 20 kB are 100 MB, which a cursor on this side would hold."""
    monkeypatch.setenv("GALLERY_PASSWORD", postgres.PASSWORD)
    peaks = []
    for count in (50, 5000):
        query = (
            f"SELECT n || '.png' AS name, data AS image FROM generate_series(1, {count}) n, shots WHERE file = 'a.png'"
        )
        images, peak = peak_of(LOAD, gallery.url(), tmp_path / str(count), query)
        assert images == str(count)
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 30, peaks
