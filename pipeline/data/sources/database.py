"""Images and boxes out of a database: any that SQLAlchemy reaches, by a query of the user's.

Rows come in chunks and images go to disk at once: memory does not grow with the number of images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from tqdm import tqdm

from pipeline.data.coco import write_coco
from pipeline.data.fetch.credentials import expand, redact
from pipeline.data.sources.database_columns import Columns, Row
from pipeline.data.sources.database_images import Gathering
from pipeline.data.sources.loaded_source import Raw
from pipeline.errors import DataError, MissingError, UsageError

ANNOTATIONS = "annotations.json"
# Packages for databases whose drivers do not come with the project.
_PACKAGES = {
    "postgresql": "psycopg[binary]",
    "mysql": "mysqlclient",
    "mariadb": "mysqlclient",
    "oracle": "oracledb",
    "mssql": "pyodbc",
    "duckdb": "duckdb-engine",
}
_READ_ONLY = {  # PostgreSQL's is an option of SQLAlchemy's
    "sqlite": "PRAGMA query_only = ON",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
}
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_READING = re.compile(r"[\s(]*(select|with|values|table|from)\b", re.IGNORECASE)


def is_database(url: str) -> bool:
    """Whether a URL is of a kind that SQLAlchemy has a dialect for, such as `sqlite:///a.db`.

    Raises:
        UsageError: The URL is one placeholder, `${NAME}`, and that environment variable is not set.
    """
    text = url if "://" in url else expand(url) if url.startswith("${") else ""
    scheme, found, _ = text.partition("://")
    dialect = scheme.partition("+")[0].lower()
    if not found or not re.fullmatch(r"[a-z][a-z0-9_]*", dialect):
        return False
    if dialect in {*_PACKAGES, "postgres"}:
        return True
    try:
        make_url(f"{dialect}://").get_dialect()
    except (NoSuchModuleError, ArgumentError):
        return False
    except ImportError:  # there is such a dialect, and something it needs is missing
        return True
    return True


def load_database(url: str, images: Path, markup: Path, *, query: str, cache: Path, rows_per_chunk: int = 20) -> Raw:
    """Take what a query gives: images into `images`, boxes into `markup/annotations.json`, a COCO file.

    The query runs in a transaction that is never committed, and that can only read where the database has such a
    thing: PostgreSQL, SQLite, MySQL, MariaDB and Oracle do. The columns are known by their names, see
    `columns.UNDERSTOOD`; rows of one name are one image with the boxes of all, and a NULL box is none.
    A relative path starts from the SQLite file's folder, or with other databases from the working folder. What is no
    picture, and a local path where there is nothing, is skipped with its boxes. The same rows in any order give the
    same bytes.

    Args:
        url: SQLAlchemy's, such as `postgresql://me:${PASSWORD}@host/name`. `${NAME}` comes from the environment; where
            there is no password, PostgreSQL's own `PGPASSWORD` and `.pgpass` count.
        images: Where the images go.
        markup: Where `annotations.json` goes.
        query: A SELECT.
        cache: Where images that paths name are kept, if they have to be fetched.
        rows_per_chunk: How many rows, with their images, are in memory at a time.

    Raises:
        UsageError: The URL, the query or its columns cannot be used, or the database's driver is missing.
        MissingError: There is no such database, or it does not let us in.
        DataError: A row cannot be used, there are none, none has an image, or the connection broke.
    """
    source = _Source.of(url)
    if not _READING.match(_COMMENTS.sub(" ", query)):
        raise UsageError("The query does not start with SELECT", where=source.shown, expected="a query that only reads")
    images.mkdir(parents=True, exist_ok=True)
    gathering = Gathering(images, cache, source.folder, source.shown)
    with closing(_rows(source, query, rows_per_chunk)) as rows:
        gathering.take(rows)
    dataset, skipped = gathering.dataset(), gathering.skipped
    if not dataset.images:
        why = f": {skipped[0].item}: {skipped[0].reason}" if skipped else ""
        problem = f"None of the query's images can be read{why}" if skipped else "The query returns nothing"
        raise DataError(problem, where=source.shown, remedy="run the query in the database's own client")
    write_coco(dataset, markup / ANNOTATIONS)
    count = len(dataset.images)
    return Raw("database", source.shown, "", count, gathering.bytes, skipped, gathering.renamed)


@dataclass(frozen=True, repr=False)
class _Source:
    """A database: its URL with all secrets, which texts those are, and the URL as it may be shown."""

    url: URL
    secrets: tuple[str, ...]
    shown: str

    @classmethod
    def of(cls, url: str) -> _Source:
        shown, secret = redact(url), expand(url)
        try:
            parsed = make_url(re.sub("^postgres(?=[+:])", "postgresql", secret))
        except (ArgumentError, ValueError):  # its message has the URL
            expected = "such as postgresql://user:${PASSWORD}@host:5432/name, or sqlite:///folder/file.db"
            raise UsageError("This is no database URL", where=shown, expected=expected) from None
        named = [os.environ.get(name, "") for name in re.findall(r"\$\{(\w+)\}", url)]
        values = [each for value in parsed.query.values() for each in ([value] if isinstance(value, str) else value)]
        texts = {each for each in (str(parsed.password or ""), *named, *values) if each}
        secrets = texts | {quote(each, safe="") for each in texts}
        return cls(parsed, tuple(sorted(secrets, key=lambda each: (-len(each), each))), shown)

    @property
    def dialect(self) -> str:
        return self.url.get_backend_name()

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return Path(self.url.database or "").parent if self.dialect == "sqlite" else Path()

    def said(self, error: SQLAlchemyError) -> str:
        """The database's own words, one line of them, without anything secret."""
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        text = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text[:300]


def _rows(source: _Source, query: str, rows_per_chunk: int) -> Generator[Row]:
    # PostgreSQL: a cursor on the server. Without parameters, a % in the query is a % for all drivers.
    options = {"stream_results": True, "yield_per": rows_per_chunk, "no_parameters": True}
    number = 0
    with _connected(source) as connection:
        try:
            result = connection.exec_driver_sql(query, execution_options=options)
            columns = Columns(tuple(result.keys()), source.shown)
        except SQLAlchemyError as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise _broke(source, error, 0) from None
            problem = f"The database refuses the query: {source.said(error)}"
            raise UsageError(problem, where=source.shown, remedy="run it in the database's own client") from None
        try:
            for number, values in enumerate(tqdm(result, desc="rows", unit="row", mininterval=0.5, ascii=True), 1):
                yield columns.row(values, number)
        except SQLAlchemyError as error:
            raise _broke(source, error, number) from None


def _broke(source: _Source, error: SQLAlchemyError, rows: int) -> DataError:
    problem = f"The query broke off after {rows} rows: {source.said(error)}"
    return DataError(problem, where=source.shown, remedy="run it again; nothing was published")


@contextmanager
def _connected(source: _Source) -> Iterator[Connection]:
    """A connection that only reads. Messages of the libraries are put in other words, and not chained."""
    _check_sqlite(source)
    try:
        engine = create_engine(source.url, poolclass=NullPool, hide_parameters=True)
    except (ImportError, NoSuchModuleError):
        package = _PACKAGES.get(source.dialect, "the one that SQLAlchemy's page on it names")
        problem = f"The package for '{source.url.drivername}' databases is missing"
        raise UsageError(problem, where=source.shown, remedy=f"pip install '{package}'") from None
    except (SQLAlchemyError, TypeError, ValueError):
        raise UsageError("The database URL has a setting that cannot be used", where=source.shown) from None
    try:
        connection = engine.connect().execution_options(postgresql_readonly=True)
        if source.dialect in _READ_ONLY:
            connection.exec_driver_sql(_READ_ONLY[source.dialect])
    except SQLAlchemyError as error:
        raise MissingError(
            f"The database cannot be opened: {source.said(error)}",
            where=source.shown,
            remedy="check the address, and the user and password in the environment",
        ) from None
    with connection:  # ends in a rollback
        yield connection


def _check_sqlite(source: _Source) -> None:
    """SQLite would make a new, empty file where there is none."""
    if source.dialect != "sqlite":
        return
    name = source.url.database or ""
    if name in {"", ":memory:"} or name.startswith("file:"):
        raise UsageError("The URL names no file", where=source.shown, expected="sqlite:///folder/file.db")
    path = Path(name)
    if not path.is_file():
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, beside, 1)
        hint = f"did you mean {path.with_name(near[0])}?" if near else "check the path"
        raise MissingError("There is no such database file", where=path, remedy=hint)
