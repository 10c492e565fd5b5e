"""Images and boxes out of a database: any that SQLAlchemy reaches, by the user's query.

Rows come in chunks and images go to disk at once: memory does not grow with the number of images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from tqdm import tqdm

from pipeline.data.coco import unsafe_name
from pipeline.data.fetch.credentials import redact
from pipeline.data.fetch.fetching import fetch
from pipeline.data.sources.database_columns import Columns, Row
from pipeline.data.sources.image_sink import ImageSink
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.data.sources.source import DRIVERS, DatabaseSource, FetchOptions
from pipeline.errors import DataError, MissingError, UsageError, did_you_mean

_ROWS = 20  # in memory at a time, with their images
_READ_ONLY = {  # PostgreSQL's is an option of SQLAlchemy's
    "sqlite": "PRAGMA query_only = ON",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
}
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_READING = re.compile(r"[\s(]*(select|with|values|table|from)\b", re.IGNORECASE)
_OWN_CLIENT = "run the query in the database's own client"


def load_database(source: DatabaseSource, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    """Take what a query gives: images, and their boxes as a COCO file.

    The query runs in a transaction that is never committed, and that can only read where the database supports that:
    PostgreSQL, SQLite, MySQL, MariaDB and Oracle do. Columns are known by their names, see
    `database_columns.EXPECTED`; rows of one name are one image with the boxes of all, and a NULL box is none. A
    relative path starts from the SQLite file's folder, or with other databases from the working folder. Files that are
    not images, and missing local paths, are skipped with their boxes. The same rows in any order give the same bytes.

    Args:
        source: The database and the query.
        images: The folder for images.
        annotations: The folder for `annotations.json`.
        options: How to fetch images that paths name.

    Raises:
        UsageError: The query or its columns cannot be used, or the database's driver is missing.
        MissingError: There is no such database, or it refuses the connection.
        DataError: A row cannot be used, there are no rows, none has an image, or the connection broke.
    """
    if not _READING.match(_COMMENTS.sub(" ", source.query)):
        problem = "the query does not start with SELECT"
        raise UsageError(problem, where=source.shown, expected="a query that only reads", remedy="write a SELECT")
    images.mkdir(parents=True, exist_ok=True)
    sink = ImageSink(images)
    folder = Path(source.url.database or "").parent if source.dialect == "sqlite" else Path()
    paths: dict[str, str] = {}
    with closing(_rows(source)) as rows:
        for row in rows:
            name = row.name or _name_of(row.path)
            where = f"{source.shown}, row {row.number}, '{name}'"
            content: bytes | Path | None = row.data
            problem = ""
            if row.data is None and row.path and paths.get(name) != row.path:
                paths[name] = row.path
                content = _file(row.path, folder, options, where)
                problem = "" if content else f"there is no file {redact(row.path)[:200]}"
            sink.add(
                name,
                content,
                boxes=row.boxes,
                subset=row.subset,
                extra=row.extra,
                annotated=row.annotated,
                where=where,
                problem=problem,
            )
    if not sink.has_entries:
        raise DataError("the query returns no rows", where=source.shown, remedy=_OWN_CLIENT)
    sink.write_annotations(annotations, url=source.shown)
    return sink.finish("database", source.shown)


def _name_of(path: str) -> str:
    """The name of an image of which only the path is known: a relative path itself, otherwise its last part."""
    if "://" in path:
        try:
            return unquote(urlsplit(path).path).rpartition("/")[2]
        except ValueError:  # not a URL: refused when it is fetched
            return unquote(path).rpartition("/")[2]
    return PurePosixPath(path).name if unsafe_name(path) else path


def _file(path: str, folder: Path, options: FetchOptions, where: str) -> Path | None:
    """The file at a row's path; None if there is none on this machine."""
    if "${" in path:  # data must not read the environment
        raise DataError("the path has a placeholder, which paths out of a database cannot have", where=where)
    is_remote = "://" in path and not path.lower().startswith("file://")
    url = path if "://" in path else str(folder / path)
    if "://" not in path and not os.path.exists(os.path.expanduser(url)):  # noqa: PTH110, PTH111 - these raise nothing
        return None
    try:
        found = fetch(url, options.cache)
    except MissingError as error:
        if is_remote:
            raise _unreachable(path, where, error) from None
        return None
    except (DataError, UsageError) as error:
        raise _unreachable(path, where, error) from None
    return found.path if found.path.is_file() else None


def _unreachable(path: str, where: str, error: DataError | MissingError | UsageError) -> DataError:
    problem = f"the image {redact(path)} cannot be fetched: {error.problem}"
    return DataError(problem, where=where, remedy="run it again, downloads are kept; or exclude the row in the query")


def _rows(source: DatabaseSource) -> Generator[Row]:
    # PostgreSQL: a cursor on the server. Without parameters, a % in the query is a % for all drivers.
    options = {"stream_results": True, "yield_per": _ROWS, "no_parameters": True}
    number = 0
    with _connected(source) as connection:
        try:
            result = connection.exec_driver_sql(source.query, execution_options=options)
            columns = Columns(tuple(result.keys()), source.shown)
        except SQLAlchemyError as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise _broke(source, error, 0) from None
            problem = f"the database refuses the query: {_message(source, error)}"
            raise UsageError(problem, where=source.shown, remedy=_OWN_CLIENT) from None
        try:
            for number, values in enumerate(tqdm(result, desc="rows", unit="row", mininterval=0.5, ascii=True), 1):
                yield columns.row(values, number)
        except SQLAlchemyError as error:
            raise _broke(source, error, number) from None


def _message(source: DatabaseSource, error: SQLAlchemyError) -> str:
    """The first line of the database's own message, without secrets."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    text = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    for secret in source.secrets:
        text = text.replace(secret, "***")
    return text[:300]


def _broke(source: DatabaseSource, error: SQLAlchemyError, rows: int) -> DataError:
    problem = f"the query broke off after {rows} rows: {_message(source, error)}"
    return DataError(problem, where=source.shown, remedy="run it again; nothing was published")


@contextmanager
def _connected(source: DatabaseSource) -> Iterator[Connection]:
    """A connection that only reads. Messages of the libraries are reworded, and not chained."""
    _check_sqlite(source)
    try:
        engine = create_engine(source.url, poolclass=NullPool, hide_parameters=True)
    except (ImportError, NoSuchModuleError):
        package = DRIVERS.get(source.dialect, "the one that SQLAlchemy's page on it names")
        problem = f"the package for '{source.url.drivername}' databases is missing"
        raise UsageError(problem, where=source.shown, remedy=f"pip install '{package}'") from None
    except (SQLAlchemyError, TypeError, ValueError):
        raise UsageError("the database URL has a setting that cannot be used", where=source.shown) from None
    try:
        connection = engine.connect().execution_options(postgresql_readonly=True)
        if source.dialect in _READ_ONLY:
            connection.exec_driver_sql(_READ_ONLY[source.dialect])
    except SQLAlchemyError as error:
        raise MissingError(
            f"the database cannot be opened: {_message(source, error)}",
            where=source.shown,
            remedy="check the address, and the user and password in the environment",
        ) from None
    with connection:  # ends in a rollback
        yield connection


def _check_sqlite(source: DatabaseSource) -> None:
    """SQLite would create a missing file."""
    if source.dialect != "sqlite":
        return
    name = source.url.database or ""
    if name in {"", ":memory:"} or name.startswith("file:"):
        raise UsageError("the URL names no file", where=source.shown, expected="sqlite:///folder/file.db")
    path = Path(name)
    if not path.is_file():
        beside = sorted(each.name for each in path.parent.iterdir()) if path.parent.is_dir() else []
        remedy = did_you_mean(path.name, beside, otherwise="check the path")
        raise MissingError("there is no such database file", where=path, remedy=remedy)
