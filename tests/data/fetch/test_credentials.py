from __future__ import annotations

import pytest
import requests
from cases import cases

from pipeline.data.fetch.credentials import Access, expand, redact, redact_text, token_from
from pipeline.errors import DataError, UsageError


@cases(
    "url, shown",
    {
        "user, query, fragment": ("https://me:pw@host:8/a/b.zip?sig=x#f", "https://host:8/a/b.zip"),
        "nothing to hide": ("http://host/a.zip", "http://host/a.zip"),
        "at in a path": ("https://host:8/a@2x.png", "https://host:8/a@2x.png"),
        "plain path": ("/data/a?b.zip", "/data/a?b.zip"),
        "drive": ("C:/data/a@b.zip", "C:/data/a@b.zip"),
        "sample recipe": ("sample://shapes?seed=7", "sample://shapes?seed=7"),
        "file URL": ("file:///data/a.zip", "file:///data/a.zip"),
        "prefixed": ("api+https://me:pw@host/v1/items?token=pw", "api+https://host/v1/items"),
        "s3": ("s3://bucket/a/b@2x.zip?versionId=pw", "s3://bucket/a/b@2x.zip"),
        "sqlite, relative": ("sqlite:///data/a.db", "sqlite:///data/a.db"),
        "sqlite, absolute": ("sqlite:////data/a.db?key=pw", "sqlite:////data/a.db"),
        "database": ("postgresql+psycopg://me:pw@host:5432/db?password=pw", "postgresql+psycopg://host:5432/db"),
        "password with a slash": ("postgresql://me:p/w?#x@host/db", "postgresql://host/db"),
        "password like a port": ("postgresql://me:1/w@host/db", "postgresql://host/db"),
        "password with an at": ("mysql://me:p@w@host/db", "mysql://host/db"),
        "not a URL": ("http://[bad@host/a.zip", "http://host/a.zip"),
        "space before": ("  https://me:pw@host/a", "https://host/a"),
        "chain": ("zip://x::https://me:pw@host/a?pw", "zip://x::https://host/a"),
        "chain without a place": ("filecache::s3://me:pw@b/a", "filecache::s3://b/a"),
        "placeholders": ("https://${USER}:${PW}@host/${DAY}.zip?${SAS}", "https://host/${DAY}.zip"),
        "address": ("http://me:pw@[::1]:8080/api?key=pw", "http://[::1]:8080/api"),
        "address, at in a path": ("http://[::1]/a@2x.png", "http://[::1]/a@2x.png"),
        "address of a database": ("postgresql://me:p/w@[fe80::1%eth0]:5432/db", "postgresql://[fe80::1%eth0]:5432/db"),
        "colons in a password": ("postgresql://me:p::w@host/db", "postgresql://host/db"),
    },
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown


@cases(
    "text, shown",
    {
        "alone": ("https://me:pw@host/a?sig=pw", "https://host/a"),
        "within": ("Streets, https://me:pw@host/a?sig=pw, of Rome", "Streets, https://host/a, of Rome"),
        "several": ("by https://x.org/?key=pw and s3://me:pw@bucket/a", "by https://x.org/ and s3://bucket/a"),
        "brackets": ("[terms](https://x.org/by?token=pw). Free", "[terms](https://x.org/by). Free"),
        "end of a sentence": ("See https://x.org/by?token=pw.", "See https://x.org/by."),
        "quotes": ("<a href='https://x.org/?token=pw'>", "<a href='https://x.org/'>"),
        "fragment": ("https://x.org/#access_token=pw here", "https://x.org/ here"),
        "database": ("from postgresql://me:p/w@[::1]:5432/db", "from postgresql://[::1]:5432/db"),
        "chain": ("zip://a.png::https://me:pw@host/b.zip?pw", "zip://a.png::https://host/b.zip"),
        "none": ("Cats: 3 // dogs (me@x.org)", "Cats: 3 // dogs (me@x.org)"),
    },
)
def test_redact_text(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@cases(
    "url, whole",
    {
        "query, as it is": ("https://host/x.zip?token=${TOKEN}", "https://host/x.zip?token=a/b+c%3D"),
        "login": ("postgresql+psycopg://${ME}:${TOKEN}@host/db", "postgresql+psycopg://me:a%2Fb%2Bc%253D@host/db"),
        "login and path": ("https://me:${TOKEN}@host/${TOKEN}", "https://me:a%2Fb%2Bc%253D@host/a/b+c%3D"),
        "whole beginning": ("${PLACE}/a.zip", "s3://bucket/a.zip"),
        "nothing meant": ("/data/$HOME/{x}", "/data/$HOME/{x}"),
        "a value is not expanded again": ("${NESTED}", "${TOKEN}"),
    },
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


@cases(
    "url, yes",
    {
        "same host": ("https://host/other?x=1", True),
        "usual port in words": ("https://host:443/x", True),
        "capital letters": ("https://HOST/x", True),
        "unencrypted": ("http://host/x", False),
        "another port": ("https://host:8443/x", False),
        "longer name": ("https://host.evil.org/x", False),
        "host as user": ("https://host@evil.org/x", False),
        "host in the path": ("https://evil.org/https://host/x", False),
    },
)
def test_token_goes_to_the_own_origin_only(url: str, yes: bool) -> None:
    access = Access("https://host/items", "Bearer s3cret")
    assert signed(access, url) == ("Bearer s3cret" if yes else None)


@cases(
    "reference, url",
    {
        "from the root": ("/a.png", "https://host:8443/a.png"),
        "from the page": ("a.png", "https://host:8443/v1/a.png"),
        "query": ("?page=2", "https://host:8443/v1/items?page=2"),
        "elsewhere": ("https://other/a.png", "https://other/a.png"),
        "elsewhere, same scheme": ("//other/a.png", "https://other/a.png"),
        "a proxy took the scheme away": ("http://host/a.png?x", "https://host:8443/a.png?x"),
        "and kept the port": ("http://host:8443/a.png", "https://host:8443/a.png"),
        "another port": ("http://host:9/a.png", "http://host:9/a.png"),
        "another host, unencrypted": ("http://other/a.png", "http://other/a.png"),
    },
)
def test_absolute(reference: str, url: str) -> None:
    access = Access("https://host:8443/v1/items")
    assert access.absolute(reference, "https://host:8443/v1/items") == url
    with pytest.raises(DataError, match="no URL"):
        access.absolute("http://[x/", "https://host:8443/v1/items")


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


@cases(
    "value, match",
    {
        "empty": (" ", "TOKEN is not set"),
        "spaces": ("two s3cret words", "TOKEN holds no token"),
        "header injection": ("s3cret\r\nX-Evil: 1", "TOKEN holds no token"),
    },
)
def test_tokens_are_words(monkeypatch: pytest.MonkeyPatch, value: str, match: str) -> None:
    monkeypatch.setenv("TOKEN", "s3cret\n")
    assert (token_from("TOKEN"), token_from("")) == ("s3cret", "")
    monkeypatch.setenv("TOKEN", value)
    with pytest.raises(UsageError, match=match) as caught:
        token_from("TOKEN")
    assert "s3cret" not in str(caught.value)
