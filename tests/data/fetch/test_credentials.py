from __future__ import annotations

import pytest

from pipeline.data.fetch.credentials import expand, redact
from pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        pytest.param("https://me:pw@host:8/a/b.zip?sig=x#f", "https://host:8/a/b.zip", id="user, query, fragment"),
        pytest.param("http://host/a.zip", "http://host/a.zip", id="nothing to hide"),
        pytest.param("https://host:8/a@2x.png", "https://host:8/a@2x.png", id="at in a path"),
        pytest.param("/data/a?b.zip", "/data/a?b.zip", id="plain path"),
        pytest.param("C:/data/a@b.zip", "C:/data/a@b.zip", id="drive"),
        pytest.param("sample://shapes?seed=7", "sample://shapes?seed=7", id="sample recipe"),
        pytest.param("file:///data/a.zip", "file:///data/a.zip", id="file URL"),
        pytest.param("api+https://me:pw@host/v1/items?token=pw", "api+https://host/v1/items", id="prefixed"),
        pytest.param("s3://bucket/a/b@2x.zip?versionId=pw", "s3://bucket/a/b@2x.zip", id="s3"),
        pytest.param("sqlite:///data/a.db", "sqlite:///data/a.db", id="sqlite, relative"),
        pytest.param("sqlite:////data/a.db?key=pw", "sqlite:////data/a.db", id="sqlite, absolute"),
        pytest.param(
            "postgresql+psycopg://me:pw@host:5432/db?password=pw", "postgresql+psycopg://host:5432/db", id="database"
        ),
        pytest.param("postgresql://me:p/w?#x@host/db", "postgresql://host/db", id="password with a slash"),
        pytest.param("postgresql://me:1/w@host/db", "postgresql://host/db", id="password like a port"),
        pytest.param("mysql://me:p@w@host/db", "mysql://host/db", id="password with an at"),
        pytest.param("http://[bad@host/a.zip", "http://host/a.zip", id="not a URL"),
        pytest.param("  https://me:pw@host/a", "https://host/a", id="space before"),
        pytest.param("zip://x::https://me:pw@host/a?pw", "zip://x::https://host/a", id="chain"),
        pytest.param("filecache::s3://me:pw@b/a", "filecache::s3://b/a", id="chain without a place"),
        pytest.param("https://${USER}:${PW}@host/${DAY}.zip?${SAS}", "https://host/${DAY}.zip", id="placeholders"),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        pytest.param("https://host/x.zip?token=${TOKEN}", "https://host/x.zip?token=a/b+c%3D", id="query, as it is"),
        pytest.param(
            "postgresql+psycopg://${ME}:${TOKEN}@host/db", "postgresql+psycopg://me:a%2Fb%2Bc%253D@host/db", id="login"
        ),
        pytest.param(
            "https://me:${TOKEN}@host/${TOKEN}", "https://me:a%2Fb%2Bc%253D@host/a/b+c%3D", id="login and path"
        ),
        pytest.param("${PLACE}/a.zip", "s3://bucket/a.zip", id="whole beginning"),
        pytest.param("/data/$HOME/{x}", "/data/$HOME/{x}", id="nothing meant"),
        pytest.param("${NESTED}", "${TOKEN}", id="a value is not expanded again"),
    ],
)
def test_expand(monkeypatch: pytest.MonkeyPatch, url: str, whole: str) -> None:
    for name, value in {"TOKEN": "a/b+c%3D", "ME": "me", "PLACE": "s3://bucket", "NESTED": "${TOKEN}"}.items():
        monkeypatch.setenv(name, value)
    assert expand(url) == whole


@pytest.mark.parametrize("name", ["MY_TOKN", "", "MY TOKEN", "1"])
def test_missing_variable_is_named_and_no_value_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    with pytest.raises(UsageError) as caught:
        expand("https://u:${MY_TOKEN}@host/?a=${" + name + "}")
    assert f"'{name}'" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "host" not in str(caught.value)
    assert "MY_TOKEN" in str(caught.value) or name != "MY_TOKN"
