from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from pictures import picture

from pipeline.data.coco import read_coco
from pipeline.data.images import file_names
from pipeline.data.loading import load_source
from pipeline.errors import DataError, MissingError, UsageError

SIZE = (60, 40)
PNG, JPEG = picture(size=SIZE), picture("JPEG", SIZE, seed=1)


@pytest.fixture
def database(tmp_path: Path) -> Any:
    """A SQLite file with the table `pictures`, one row each: a.png 60x40, b.jpg 60x40."""
    with sqlite3.connect(tmp_path / "gallery.db") as connection:
        connection.execute("CREATE TABLE pictures (name TEXT, data BLOB)")
        connection.executemany("INSERT INTO pictures VALUES (?, ?)", [("a.png", PNG), ("b.jpg", JPEG)])
    connection.close()
    return tmp_path / "gallery.db"


@pytest.fixture
def load(tmp_path: Path, database: Any) -> Any:
    """Runs a query on it, or on another database; gives what came, and the data set."""

    def run(query: Any, url: Any = "", to: Any = "out", **options: Any) -> tuple[Any, ...]:
        place = tmp_path / to
        options |= {"query": query, "cache": tmp_path / "cache"}
        loaded = load_source(url or f"sqlite:///{database}", place / "images", place / "markup", **options)
        return loaded, read_coco(place / "markup/annotations.json")

    return run


@pytest.mark.parametrize(
    ("name", "stored"),
    [("x\u202f", "x\u202f"), ("d\\", "d%5C"), ("x\t", "x%09"), ("C:", "C%3A"), ("y" * 200, "y" * 181)],
)
def test_names_are_made_safe(load: Any, tmp_path: Path, name: str, stored: str) -> None:
    loaded, dataset = load(f"SELECT '{name}' || name AS name, data AS image FROM pictures")
    names = [image.file_name for image in dataset.images]
    assert all(each.startswith(stored) for each in names)
    assert (loaded.images, sorted(names)) == (2, sorted(each.name for each in (tmp_path / "out/images").iterdir()))


GONE = ("gone.png", "shots", "x/" * 2500 + "a.png", "~nosuchuser/a.png")


def insert(database: Any, *rows: Any) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM pictures")
        connection.executemany("INSERT INTO pictures VALUES (?, ?)", rows)
    connection.close()


def boxes(dataset: Any) -> Any:
    """By image name: label, box, iscrowd."""
    found = {image.file_name: [] for image in dataset.images}
    for each in dataset.annotations:
        name, label = dataset.images[each.image_id - 1].file_name, dataset.classes[each.category_id - 1]
        found[name].append((label, each.bbox, each.iscrowd))
    return found


class TestBoxes:
    @cases(
        "columns, found",
        {
            "xywh": ("'cat' AS label, 1 AS x, 2.5 AS y, 30 AS width, 4 AS height", [("cat", (1, 2.5, 30, 4), 0)]),
            "xyxy, capitals": ("'cat' AS Label, 1 AS X1, 2 AS Y1, 31 AS X2, 6 AS Y2", [("cat", (1, 2, 30, 4), 0)]),
            "lists": (
                """'[[1,2,3,4],[5,6,7,8.5]]' AS boxes, '["dog","cat"]' AS labels, '[0,1]' AS iscrowd""",
                [("cat", (5, 6, 7, 8.5), 1), ("dog", (1, 2, 3, 4), 0)],
            ),
            "lists, NULL": ("NULL AS boxes, NULL AS labels", []),
            "lists, empty": ("'[]' AS boxes, '[]' AS labels", []),
            "NULL": ("NULL AS label, NULL AS x, NULL AS y, NULL AS width, NULL AS height", []),
            "text": ("7 AS label, '1' AS x, '2' AS y, '3' AS width, '4' AS height", [("7", (1, 2, 3, 4), 0)]),
            "as given": (
                "'c' AS label, -5 AS x, 2 AS y, 1e3 AS width, 0 AS height, 1 AS iscrowd",
                [("c", (-5, 2, 1000, 0), 1)],
            ),
            "none": ("1 AS n", []),
        },
    )
    def test_forms(self, load: Any, tmp_path: Path, columns: str, found: Any) -> None:
        loaded, dataset = load(f"SELECT name, data AS image, {columns} FROM pictures")
        assert boxes(dataset) == {"a.png": found, "b.jpg": found}
        assert (loaded.kind, loaded.images, loaded.skipped, loaded.sha256) == ("database", 2, (), "")
        assert (tmp_path / "out/images/a.png").read_bytes() == PNG

    ROWS = """
        WITH boxes(name, label, x, y, width, height) AS (VALUES
            ('a.png', 'dog', 1, 2, 3, 4), ('a.png', 'cat', 5, 6, 7, 8), ('a.png', 'cat', 1, 6, 7, 8),
            ('b.jpg', NULL, NULL, NULL, NULL, NULL))
        SELECT p.name, {image} AS image, label, x, y, width, height, {extra}
        FROM boxes JOIN pictures p ON p.name = boxes.name ORDER BY {order}"""

    def test_order_of_rows_does_not_matter(self, load: Any, tmp_path: Path) -> None:
        """The image may come with any of its rows."""
        for i, order in enumerate(("label, x", "x DESC, label", "height, y", "p.name DESC, label DESC")):
            image = "CASE WHEN label IS NULL OR label = 'dog' THEN data END"
            extra = "CASE label WHEN 'cat' THEN 1 END AS n, x AS differs"
            _, dataset = load(self.ROWS.format(image=image, extra=extra, order=order), to=str(i))
            assert boxes(dataset) == {
                "a.png": [("cat", (1, 6, 7, 8), 0), ("cat", (5, 6, 7, 8), 0), ("dog", (1, 2, 3, 4), 0)],
                "b.jpg": [],
            }
        contents = {(tmp_path / str(i) / "markup/annotations.json").read_bytes() for i in range(4)}
        assert len(contents) == 1
        assert b'"n": 1' in contents.pop()
        assert {tuple(file_names(tmp_path / str(i) / "images")) for i in range(4)} == {("a.png", "b.jpg")}


class TestImages:
    def test_unreadable_is_skipped_with_its_boxes(self, load: Any, database: Path) -> None:
        insert(database, ("a.png", PNG), ("bad.png", b"no picture"), ("none.png", None), ("zero.png", b""))
        loaded, dataset = load(
            "SELECT name, data AS image, name AS label, 1 AS x, 2 AS y, 3 AS width, 4 AS height FROM pictures"
        )
        assert boxes(dataset) == {"a.png": [("a.png", (1, 2, 3, 4), 0)]}
        assert dataset.classes == ("a.png",)
        assert [(each.item.partition("gallery.db, ")[2], each.reason) for each in loaded.skipped] == [
            ("row 2, 'bad.png'", "it is no image that can be read"),
            ("row 3, 'none.png'", "no record has its image"),
            ("row 4, 'zero.png'", "the file is empty"),
        ]

    def test_paths(self, load: Any, database: Path, tmp_path: Path, server: Any) -> None:
        """Relative ones start from the SQLite file's folder, wherever one works."""
        (tmp_path / "shots").mkdir()
        (tmp_path / "shots/1.png").write_bytes(PNG)
        url = server.file("/far.jpg", JPEG)
        there = tmp_path / "shots/1.png"
        insert(database, *((path, None) for path in ("shots/1.png", str(there), f"{url}?sig=x", *GONE)))
        loaded, dataset = load("SELECT name AS path FROM pictures")
        assert [each.file_name for each in dataset.images] == ["1.png", "far.jpg", "shots/1.png"]
        assert [each.reason for each in loaded.skipped] == [f"there is no file {path[:200]}" for path in GONE]
        assert loaded.skipped[0].item == f"sqlite:///{database}, row 4, 'gone.png'"
        assert (tmp_path / "out/images/far.jpg").read_bytes() == JPEG
        load(f"SELECT '{url}' AS path, 'my/name.jpg' AS name", to="2")
        assert file_names(tmp_path / "2/images") == ["my/name.jpg"]


class TestExtra:
    def test_other_columns_are_kept(self, load: Any) -> None:
        _, dataset = load(
            "SELECT name, data AS image, 9 AS id, 800 AS width, 600 AS height, 1.5 AS Score, NULL AS none, "
            "'dusk' AS \"light of day\", 'validation' AS subset FROM pictures WHERE name = 'a.png'"
        )
        sizes = {"source_height": 600, "source_width": 800}
        others = {"Score": 1.5, "light of day": "dusk", "source_id": 9, "subset": "eval"}
        assert dict(dataset.images[0].extra) == sizes | others
        assert (dataset.images[0].width, dataset.images[0].height) == (60, 40)

    def test_what_differs_between_rows_or_is_bytes_is_left_out(self, load: Any) -> None:
        loaded, dataset = load(
            "SELECT name, data AS image, n, 'same' AS same, data AS thumbnail "
            "FROM pictures, (SELECT 1 AS n UNION SELECT 2)"
        )
        assert [dict(each.extra) for each in dataset.images] == [{"same": "same"}] * 2
        assert [each.item for each in loaded.skipped] == ["field 'n'", "field 'thumbnail'"]
        assert "2 images" in loaded.skipped[0].reason


class TestRefused:
    @cases(
        "columns, problem",
        {
            "no name": ("data AS image", "not either name and image or path; it has image"),
            "no image": ("name, data", "not either name and image or path; it has name, data"),
            "image and path": ("name, data AS image, name AS path", "not either name and image or path"),
            "a column twice": ("name, data AS image, 1 AS n, 2 AS N", "a column twice; it has name, image, n, N"),
            "label without box": ("name, data AS image, 'c' AS label", "has label and no boxes"),
            "box without label": (
                "name, data AS image, 1 AS x, 1 AS y, 1 AS width, 1 AS height",
                "boxes without label",
            ),
            "half a box": ("name, data AS image, 'c' AS label, 1 AS x, 1 AS y", "boxes without height, width"),
            "lists without labels": ("name, data AS image, '[]' AS boxes", "boxes without labels"),
            "two forms": ("name, data AS image, 1 AS x, 1 AS x1", "boxes in 2 forms"),
        },
    )
    def test_columns(self, load: Any, columns: str, problem: str) -> None:
        with pytest.raises(UsageError, match=rf"{problem}[\s\S]*gallery\.db[\s\S]*name and image"):
            load(f"SELECT {columns} FROM pictures")

    BOX = "1 AS x, 2 AS y, 3 AS width, 4 AS height"

    @cases(
        "columns, problem",
        {
            "name of bytes": ("data AS name, data AS image", "name is bytes, and not a text"),
            "image of text": ("name, 'text' AS image", "image is 'text', and not the bytes of a file"),
            "no number": (
                f"name, data AS image, 'c' AS label, {BOX.replace('2', repr('two'))}",
                "y is 'two', and not a number",
            ),
            "label without box": (
                "name, data AS image, 'c' AS label, NULL AS x, NULL AS y, NULL AS width, NULL AS height",
                "a label and no box",
            ),
            "iscrowd": (f"name, data AS image, 'c' AS label, {BOX}, 2 AS iscrowd", "iscrowd is int, and not 0 or 1"),
            "no JSON": ("name, data AS image, '[[1,2,3' AS boxes, '[]' AS labels", "boxes is '.*, and not a JSON list"),
            "three numbers": ("name, data AS image, '[[1,2,3]]' AS boxes, '[1]' AS labels", "not four numbers"),
            "two lengths": ("name, data AS image, '[[1,2,3,4]]' AS boxes, '[]' AS labels", "1 boxes, 0 labels"),
            "subset": ("name, data AS image, 'holdout' AS subset", "subset is 'holdout'"),
            "hidden name": ("'.' || name AS name, data AS image", "name cannot be used"),
            "absolute name of Windows": ("'C:\\' || name AS name, data AS image", "name cannot be used"),
            "name that leads out": ("'../' || name AS name, data AS image", "name cannot be used"),
            "two images of one name": ("'same' AS name, data AS image", "'same' differs from that of .*row 1"),
            "name inside a name": (
                "CASE name WHEN 'a.png' THEN 'a.png' ELSE 'a.png/b.jpg' END AS name, data AS image",
                "or inside one's",
            ),
            "name that comes out the same": (
                "CASE name WHEN 'a.png' THEN 'x.png' ELSE 'x' END AS name, (SELECT min(data) FROM pictures) AS image",
                "'x.png' is that of another",
            ),
            "two splits": (
                "'x' AS name, (SELECT min(data) FROM pictures) AS image, "
                "CASE name WHEN 'a.png' THEN 'train' ELSE 'test' END AS subset",
                "two splits: train and test",
            ),
            "no server": ("'http://127.0.0.1:9/a.png' AS path", "127.0.0.1:9/a.png cannot be fetched"),
            "placeholder out of the database": ("'/tmp/${HOME}/a.png' AS path", "placeholder"),
            "device": ("name, '/dev/zero' AS path", "/dev/zero cannot be fetched: this is no plain"),
        },
    )
    def test_rows(self, load: Any, columns: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        with pytest.raises(DataError, match=rf"{problem}[\s\S]*gallery\.db, row [12]"):
            load(f"SELECT {columns} FROM pictures")

    @cases(
        "query, problem",
        {
            "DELETE": ("DELETE FROM pictures", "does not start with SELECT"),
            "behind a comment": ("-- SELECT\n/* SELECT */ DROP TABLE pictures", "does not start with SELECT"),
            "behind WITH": ("WITH a AS (SELECT 1) DELETE FROM pictures", "refuses the query: .*readonly"),
            "behind SELECT": ("SELECT 1; DELETE FROM pictures", "refuses the query"),
            "column that is not there": ("SELECT nme FROM pictures", "refuses the query: no such column: nme"),
        },
    )
    def test_queries(self, load: Any, database: Path, query: str, problem: str) -> None:
        before = database.read_bytes()
        with pytest.raises(UsageError, match=rf"{problem}[\s\S]*gallery\.db"):
            load(query)
        assert database.read_bytes() == before

    def test_no_row_and_no_image(self, load: Any, database: Path) -> None:
        with pytest.raises(DataError, match=r"returns no rows[\s\S]*gallery\.db"):
            load("SELECT name, data AS image FROM pictures WHERE false")
        insert(database, ("a.png", b"x"))
        with pytest.raises(DataError, match=r"there are no images\n[\s\S]*it is no image[\s\S]*row 1, 'a\.png'"):
            load("SELECT name, data AS image FROM pictures")

    @cases(
        "url, error, problem",
        {
            "no file": ("sqlite:///{}/none.db", MissingError, "no such database file"),
            "in memory": ("sqlite://", MissingError, "no such database file"),
            "no SQLite file": ("sqlite:///{}/text.db", UsageError, "file is not a database"),
            "no package for the dialect": ("duckdb:///a.db", UsageError, "package for 'duckdb' databases is missing"),
            "no driver": ("mssql+pyodbc://host/a", UsageError, r"package for 'mssql\+pyodbc' databases is missing"),
            "no server": ("postgresql://me:planted@127.0.0.1:9/a", MissingError, "cannot be opened: .*refused"),
            "no port": ("postgresql://me:planted@127.0.0.1:port/a", UsageError, "not a database URL"),
            "no setting": ("postgresql://127.0.0.1:9/a?password=planted&nonsense=planted", MissingError, "nonsense"),
            "no value": ("sqlite:///{}/gallery.db?timeout=planted", UsageError, "setting"),
        },
    )
    def test_database(self, load: Any, tmp_path: Path, url: str, error: type[Exception], problem: str) -> None:
        (tmp_path / "text.db").write_text("no database" * 999)
        with pytest.raises(error, match=problem) as caught:
            load("SELECT name, data AS image FROM pictures", url=url.format(tmp_path))
        assert "planted" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert not (tmp_path / "none.db").exists()
        assert caught.value.__context__ is None or caught.value.__suppress_context__
