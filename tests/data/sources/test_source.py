"""A URL and its options become one kind of source, or are refused."""

from __future__ import annotations

import pytest

from pipeline.data.sources.source import ApiSource, DatabaseSource, FileSource, SampleSource, parse_source
from pipeline.errors import UsageError

KINDS = {
    "api+https://host/items": "api",
    "api+http://host/items": "api",
    "label-studio+https://host/projects/1": "label-studio",
    "CVAT+HTTPS://host/tasks/1": "cvat",
    "https://host/items.zip": FileSource,
    "s3+https://host/x": FileSource,
    "api+ftp://host/x": FileSource,
    "postgresql+psycopg://host/db": DatabaseSource,
    "postgres://host/db": DatabaseSource,  # as others write it
    "sqlite:///a.db": DatabaseSource,
    "mysql://host/db": DatabaseSource,  # its driver is missing
    "duckdb:///a.db": DatabaseSource,  # a dialect of another package
    "${GALLERY}": DatabaseSource,
    "https://host/a.db": FileSource,
    "s3://bucket/a": FileSource,
    "gs://bucket/a": FileSource,
    "file:///a.db": FileSource,
    "sample://shapes": SampleSource,
    "a.db": FileSource,
    "os.path://a": FileSource,
    "https://host/a%20b.avi?token=x.zip#f": FileSource,
    "": FileSource,
}


def test_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALLERY", "postgresql://host/db")
    sources = {url: parse_source(url) for url in KINDS}
    assert {url: each.kind if isinstance(each, ApiSource) else type(each) for url, each in sources.items()} == KINDS


def test_local_files() -> None:
    for url, is_local in {"a/b": True, "FILE:///a": True, "https://host/a": False, "memory://a": False}.items():
        source = parse_source(url)
        assert isinstance(source, FileSource)
        assert source.is_local is is_local


@pytest.mark.parametrize("url", ["api+http://", "api+http://[bad/x", "api+https:///x", "api+http://host:99999/x"])
def test_not_the_url_of_an_api(url: str) -> None:
    with pytest.raises(UsageError, match=r"not the URL of an API[\s\S]*expected: api\+https"):
        parse_source(url)


@pytest.mark.parametrize(
    ("url", "options", "problem"),
    [
        ("sample://shapes?images=1", {"sha256": "0" * 64}, "not a file"),
        ("sqlite:///a.db", {"sha256": "0" * 64, "query": "x"}, "not a file"),
        ("api+https://host/x", {"sha256": "0" * 64}, "not a file"),
        ("folder", {"query": "select 1"}, "not a database"),
        ("folder", {"api": {"items": "x"}}, "not an API"),
        ("cvat+https://host/tasks/1", {"api": {"items": "x"}}, r"cvat does not use api\.items"),
        ("label-studio+https://host/projects/1", {"api": {"boxes": "x"}}, r"label-studio does not use api\.boxes"),
    ],
)
def test_options_that_the_kind_does_not_have(url: str, options: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_source(url, **options)


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "planted/secret")
    database = parse_source("postgresql://me:${PASSWORD}@host/db?option=planted")
    for source in (database, parse_source("api+https://me:${PASSWORD}@host/${PASSWORD}")):
        assert isinstance(source, DatabaseSource | ApiSource)
        assert "planted" not in f"{source.shown}{source!r}"
    assert isinstance(database, DatabaseSource)
    assert set(database.secrets) == {"planted/secret", "planted%2Fsecret", "planted"}
