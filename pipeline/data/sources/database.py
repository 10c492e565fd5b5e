"""Images and boxes out of a database: any that SQLAlchemy reaches, by the user's query, in chunks of rows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from tqdm import tqdm

from pipeline.data.coco import unsafe_name
from pipeline.data.fetch.credentials import redact
from pipeline.data.fetch.fetching import fetch
from pipeline.data.parsed import ParsedBox, ParsedImage, subset_named
from pipeline.data.sources.image_sink import DIFFERS, ImageSink
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.data.sources.source import DatabaseSource, FetchOptions
from pipeline.errors import DataError, MissingError, PipelineError, UsageError

_EXPECTED = (
    "name and image (the file's bytes), or path (with name or without); label with x, y, width, height or x1, y1, x2, "
    "y2, or boxes and labels (JSON lists); iscrowd; subset; other columns are kept with the image"
)
_XYWH, _XYXY, _LISTS = ("x", "y", "width", "height"), ("x1", "y1", "x2", "y2"), ("boxes",)
_BYTES = (bytes, bytearray, memoryview)
_ROWS = 20  # in memory at a time, with their images
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_READING = re.compile(r"[\s(]*(select|with|values|table|from)\b", re.IGNORECASE)
_OWN_CLIENT = "run the query in the database's own client"


def load_database(source: DatabaseSource, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    """Take what a query gives: images, and their boxes as a COCO file.

    The query runs in a transaction that is never committed, and with PostgreSQL and SQLite can only read. A relative
    path starts from the SQLite file's folder, or with other databases from the working folder. Files that are not
    images, and missing local paths, are skipped with their boxes. The same rows in any order give the same bytes.
    """
    if not _READING.match(_COMMENTS.sub(" ", source.query)):
        raise UsageError("the query does not start with SELECT", where=source.shown, expected="a query that only reads")
    sink = ImageSink(images)
    folder = Path(source.url.database or "").parent if source.url.get_backend_name() == "sqlite" else Path()
    paths: dict[str, str] = {}
    number = 0
    with closing(_rows(source)) as rows:
        for number, (image, data, path) in enumerate(rows, 1):
            where = f"{source.shown}, row {number}, '{image.name}'"
            content: bytes | Path | None = data
            problem = ""
            if path and paths.get(image.name) != path:
                paths[image.name] = path
                content = _file(path, folder, options, where)
                problem = "" if content else f"there is no file {redact(path)[:200]}"
            sink.add(image, content, where=where, problem=problem)
    if not number:
        raise DataError("the query returns no rows", where=source.shown, remedy=_OWN_CLIENT)
    return sink.finish("database", source.shown, annotations=annotations)


def _name_of(path: str) -> str:
    """The name of an image of which only the path is known: a relative path itself, otherwise its last part."""
    if "://" in path:
        return unquote(re.split("[?#]", path)[0]).rpartition("/")[2]
    return PurePosixPath(path).name if unsafe_name(path) else path


def _file(path: str, folder: Path, options: FetchOptions, where: str) -> Path | None:
    """The file at a row's path; None if there is none on this machine."""
    if "${" in path:  # data must not read the environment
        raise DataError("the path has a placeholder, which paths out of a database cannot have", where=where)
    url = path if "://" in path else str(folder / path)
    if "://" not in path and not os.path.exists(os.path.expanduser(url)):  # noqa: PTH110, PTH111 - these raise nothing
        return None
    try:
        found = fetch(url, options.cache).path
    except PipelineError as error:
        problem = f"the image {redact(path)} cannot be fetched: {error.problem}"
        raise DataError(problem, where=where, remedy="run it again, or exclude the row in the query") from None
    return found if found.is_file() else None


def _rows(source: DatabaseSource) -> Generator[tuple[ParsedImage, bytes | None, str]]:
    # PostgreSQL: a cursor on the server. Without parameters, a % in the query is a % for all drivers.
    options = {"stream_results": True, "yield_per": _ROWS, "no_parameters": True}
    number, columns = 0, None
    with _connect(source) as connection:  # ends in a rollback
        try:
            result = connection.exec_driver_sql(source.query, execution_options=options)
            columns = _Columns(list(result.keys()), source.shown)
            for number, values in enumerate(tqdm(result, desc="rows", unit="row", mininterval=0.5, ascii=True), 1):
                yield columns.row(values, number)
        except SQLAlchemyError as error:
            if columns:
                problem = f"the query broke off after {number} rows: {_message(source, error)}"
                raise DataError(problem, where=source.shown, remedy="run it again") from None
            problem = f"the database refuses the query: {_message(source, error)}"
            raise UsageError(problem, where=source.shown, remedy=_OWN_CLIENT) from None


def _message(source: DatabaseSource, error: SQLAlchemyError) -> str:
    """The first line of the database's own message, without secrets."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    text = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    for secret in source.secrets:
        text = text.replace(secret, "***")
    return text[:300]


def _connect(source: DatabaseSource) -> Connection:
    """A connection that only reads. Messages of the libraries are reworded, and not chained."""
    is_sqlite, name = source.url.get_backend_name() == "sqlite", source.url.database or ""
    if is_sqlite and not Path(name).is_file():  # SQLite would create it
        raise MissingError("there is no such database file", where=source.shown, expected="sqlite:///folder/file.db")
    try:
        engine = create_engine(source.url, poolclass=NullPool, hide_parameters=True)
    except (ImportError, NoSuchModuleError):
        problem = f"the package for '{source.url.drivername}' databases is missing"
        raise UsageError(problem, where=source.shown, remedy="install it, such as psycopg[binary]") from None
    except (SQLAlchemyError, TypeError, ValueError):
        raise UsageError("the database URL has a setting that cannot be used", where=source.shown) from None
    try:
        connection = engine.connect().execution_options(postgresql_readonly=True)
        if is_sqlite:
            connection.exec_driver_sql("PRAGMA query_only = ON")
    except SQLAlchemyError as error:
        problem = f"the database cannot be opened: {_message(source, error)}"
        remedy = "check the address, and the user and password in the environment"
        raise MissingError(problem, where=source.shown, remedy=remedy) from None
    return connection


class _Columns:
    """Reads rows with these column names, in upper or lower case."""

    def __init__(self, names: Sequence[str], shown: str) -> None:
        self._shown = shown
        lower = [name.lower() for name in names]
        forms = [form for form in (_XYWH, _XYXY, _LISTS) if set(form[:2]) & {*lower}]  # a width alone is an image's
        self._form = forms[0] if forms else ()
        self._label = "labels" if self._form == _LISTS else "label"
        needed = {*self._form, self._label} if forms else set()
        orphans = [] if forms else [each for each in ("label", "labels", "iscrowd") if each in lower]
        has_image, has_path = "image" in lower, "path" in lower
        problems = {
            "a column twice": len({*lower}) < len(lower),
            "not either name and image or path": has_image == has_path or (has_image and "name" not in lower),
            f"boxes in {len(forms)} forms": len(forms) > 1,
            f"boxes without {', '.join(sorted(needed.difference(lower)))}": needed.difference(lower),
            f"{', '.join(orphans)} and no boxes": orphans,
        }
        if problem := next((each for each, is_so in problems.items() if is_so), ""):
            problem = f"the query has {problem}; it has {', '.join(names)}"
            raise UsageError(problem, where=shown, expected=_EXPECTED, remedy="name columns so: SELECT file AS name")
        used = {"name", "image", "path", "subset", "iscrowd", *needed}
        self._used = {each: i for i, each in enumerate(lower) if each in used}
        self._others = {name: i for i, name in enumerate(names) if name.lower() not in used}

    def row(self, values: Sequence[Any], number: int) -> tuple[ParsedImage, bytes | None, str]:
        """Check a row, counted from 1: what it says of an image, and the image's bytes or path."""
        cells = {column: values[i] for column, i in self._used.items()}
        data, subset = cells.get("image"), cells.get("subset") or ""
        try:
            if data is not None and not isinstance(data, _BYTES):
                raise _wrong("image", data, "the bytes of a file")
            if subset and not subset_named(str(subset)):
                raise _wrong("subset", subset, "train, val, eval or test")
            path = "" if cells.get("path") is None else _text("path", cells["path"])
            name = _text("name", cells["name"]) if "name" in cells else _name_of(path)
            annotated = self._form != _LISTS or cells["boxes"] is not None
            extra = {key: _kept(values[i]) for key, i in self._others.items() if values[i] is not None}
            image = ParsedImage(
                name, 0, 0, self._boxes(cells), subset_named(str(subset)), annotated=annotated, extra=extra
            )
        except DataError as error:
            error.where = f"{self._shown}, row {number}"
            raise
        return image, None if data is None else bytes(data), path

    def _boxes(self, cells: Mapping[str, Any]) -> tuple[ParsedBox, ...]:
        labels, crowd = cells.get(self._label), cells.get("iscrowd")
        if self._form == _LISTS:
            boxes, labels, crowd = _list("boxes", cells["boxes"]), _list("labels", labels), _list("iscrowd", crowd)
            crowd = crowd or [None] * len(boxes)
        else:
            box = [cells[each] for each in self._form]
            is_null = all(each is None for each in box)
            if is_null and labels is not None:
                raise DataError("it has a label and no box")
            boxes, labels, crowd = ([], [], []) if is_null else ([box], [labels], [crowd])
        if not len(boxes) == len(labels) == len(crowd):
            raise DataError(f"it has {len(boxes)} boxes, {len(labels)} labels and {len(crowd)} iscrowd")
        return tuple(map(self._box, boxes, labels, crowd))

    def _box(self, box: Any, label: Any, crowd: Any) -> ParsedBox:
        if not isinstance(box, list | tuple) or len(box) != 4:
            raise _wrong("boxes", box, "four numbers [x, y, width, height]")
        a, b, c, d = map(_number, self._form if self._form != _LISTS else _LISTS * 4, box)
        if self._form == _XYXY:
            c, d = c - a, d - b
        if crowd not in (None, 0, 1):
            raise _wrong("iscrowd", crowd, "0 or 1")
        return ParsedBox(_text(self._label, label), (a, b, c, d), int(crowd or 0))


def _wrong(column: str, value: Any, expected: str) -> DataError:
    shown = f"'{value[:40]}'" if isinstance(value, str) else "NULL" if value is None else type(value).__name__
    return DataError(f"{column} is {shown}, and not {expected}")


def _list(column: str, value: Any) -> list[Any]:
    with suppress(ValueError):
        value = json.loads(value) if isinstance(value, str | bytes) else value
    if value is not None and not isinstance(value, list | tuple):
        raise _wrong(column, value, "a JSON list")
    return list(value or ())


def _text(column: str, value: Any) -> str:
    if value in (None, "") or isinstance(value, (bool, list, dict, float, *_BYTES)):
        raise _wrong(column, value, "a text")
    return str(value)


def _number(column: str, value: Any) -> float:
    try:
        return float(value if not isinstance(value, bool) else "")
    except (TypeError, ValueError):
        raise _wrong(column, value, "a number") from None


def _kept(value: Any) -> Any:
    """A value that JSON can hold; others as text, and bytes as `DIFFERS`."""
    if isinstance(value, _BYTES):
        return DIFFERS
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)
