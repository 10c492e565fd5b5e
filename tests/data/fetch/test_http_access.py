from __future__ import annotations

import pytest
import requests

from pipeline.data.fetch.http_access import Access, token_from
from pipeline.errors import DataError, UsageError


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
    access = Access("https://host/items", "s3cret")
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
    access = Access("https://host/", "tokentoken", "Bearer", "TOKEN", hidden={"KEY": "k/y-1", "V": "v1"})
    assert access.shown("https://host/k/y-1/k%2Fy-1/v1/tokentoken?k=1") == "https://host/${KEY}/${KEY}/v1/${TOKEN}"
    assert "tokentoken" not in f"{access} {access!r}"


def test_two_secrets() -> None:
    with pytest.raises(UsageError, match="use one") as caught:
        Access("https://me:s3cret@host/", "tokentoken")
    assert "s3cret" not in str(caught.value)


def test_unencrypted_token_is_told(caplog: pytest.LogCaptureFixture) -> None:
    Access("http://localhost/", "tokentoken")
    Access("http://host/")
    assert not caplog.text
    Access("http://host/", "tokentoken")
    assert "unencrypted" in caplog.text
    assert "tokentoken" not in caplog.text


@pytest.mark.parametrize(
    ("value", "match"),
    [
        pytest.param(None, "TOKEN is not set", id="missing"),
        pytest.param(" ", "TOKEN is not set", id="empty"),
        pytest.param("two s3cret words", "TOKEN holds no token", id="spaces"),
        pytest.param("s3cret\r\nX-Evil: 1", "TOKEN holds no token", id="header injection"),
    ],
)
def test_no_token(monkeypatch: pytest.MonkeyPatch, value: str | None, match: str) -> None:
    if value is not None:
        monkeypatch.setenv("TOKEN", value)
    with pytest.raises(UsageError, match=match) as caught:
        token_from("TOKEN")
    assert "s3cret" not in str(caught.value)


def test_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret\n")
    assert token_from("TOKEN") == "s3cret"
    assert token_from("") == ""
