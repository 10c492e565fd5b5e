from __future__ import annotations

import pytest
import requests

from pipeline.data.fetch.credentials import Access, expand, redact, token_from
from pipeline.errors import DataError, UsageError


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


def signed(access: Access, url: str) -> str | None:
    return access(requests.Request("GET", url).prepare()).headers.get("Authorization")


@pytest.mark.parametrize(
    ("url", "yes"),
    [
        pytest.param("https://host/other?x=1", True, id="same host"),
        pytest.param("https://host:443/x", True, id="usual port in words"),
        pytest.param("https://HOST/x", True, id="capital letters"),
        pytest.param("http://host/x", False, id="unencrypted"),
        pytest.param("https://host:8443/x", False, id="another port"),
        pytest.param("https://host.evil.org/x", False, id="longer name"),
        pytest.param("https://host@evil.org/x", False, id="host as user"),
        pytest.param("https://evil.org/https://host/x", False, id="host in the path"),
    ],
)
def test_token_goes_to_the_own_origin_only(url: str, yes: bool) -> None:
    access = Access("https://host/items", "Bearer s3cret")
    assert signed(access, url) == ("Bearer s3cret" if yes else None)


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        pytest.param("/a.png", "https://host:8443/a.png", id="from the root"),
        pytest.param("a.png", "https://host:8443/v1/a.png", id="from the page"),
        pytest.param("?page=2", "https://host:8443/v1/items?page=2", id="query"),
        pytest.param("https://other/a.png", "https://other/a.png", id="elsewhere"),
        pytest.param("//other/a.png", "https://other/a.png", id="elsewhere, same scheme"),
        pytest.param("http://host/a.png?x", "https://host:8443/a.png?x", id="a proxy took the scheme away"),
        pytest.param("http://host:8443/a.png", "https://host:8443/a.png", id="and kept the port"),
        pytest.param("http://host:9/a.png", "http://host:9/a.png", id="another port"),
        pytest.param("http://other/a.png", "http://other/a.png", id="another host, unencrypted"),
    ],
)
def test_absolute(reference: str, url: str) -> None:
    assert Access("https://host:8443/v1/items").absolute(reference, "https://host:8443/v1/items") == url


def test_invalid_url() -> None:
    with pytest.raises(DataError, match="no URL"):
        Access("https://host/").absolute("http://[x/", "https://host/")


def test_secrets_in_a_path_are_shown_by_name() -> None:
    access = Access("https://host/", "Bearer tokentoken", hidden={"TOKEN": "tokentoken", "KEY": "k/y-1", "V": "v1"})
    assert access.shown("https://host/k/y-1/k%2Fy-1/v1/tokentoken?k=1") == "https://host/${KEY}/${KEY}/v1/${TOKEN}"
    assert "tokentoken" not in f"{access} {access!r}"


def test_two_secrets() -> None:
    with pytest.raises(UsageError, match="use one") as caught:
        Access("https://me:s3cret@host/", "Bearer tokentoken")
    assert "s3cret" not in str(caught.value)


def test_unencrypted_token_is_told(caplog: pytest.LogCaptureFixture) -> None:
    Access("http://localhost/", "Bearer tokentoken")
    Access("http://host/")
    assert not caplog.text
    Access("http://host/", "Bearer tokentoken")
    assert "unencrypted" in caplog.text
    assert "tokentoken" not in caplog.text


@pytest.mark.parametrize(
    ("value", "match"),
    [
        pytest.param(" ", "TOKEN is not set", id="empty"),
        pytest.param("two s3cret words", "TOKEN holds no token", id="spaces"),
        pytest.param("s3cret\r\nX-Evil: 1", "TOKEN holds no token", id="header injection"),
    ],
)
def test_no_token(monkeypatch: pytest.MonkeyPatch, value: str, match: str) -> None:
    monkeypatch.setenv("TOKEN", value)
    with pytest.raises(UsageError, match=match) as caught:
        token_from("TOKEN")
    assert "s3cret" not in str(caught.value)


def test_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret\n")
    assert token_from("TOKEN") == "s3cret"
    assert token_from("") == ""
