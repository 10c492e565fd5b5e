"""Secrets in URLs: named as `${NAME}`, taken from the environment when used, left out when shown."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from urllib.parse import quote

from pipeline.errors import UsageError

_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://([^/?#]*)([^?#]*)", re.DOTALL)
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.\-]*://)")  # fsspec's URLs of several parts
_LOGIN = re.compile(r"([^:/?#@]*):([^@]*)@", re.DOTALL)  # as SQLAlchemy reads it: a password may hold / ? and #
_WEB = ("http", "https")


def expand(url: str) -> str:
    """Put the values of environment variables in the place of their names, written `${NAME}`.

    Before the host, where user and password stand, a value is percent-encoded: give it as it is. Anywhere else it is
    taken over unchanged, so that it may be a whole signed query. What comes out is to be used, never to be shown.

    Raises:
        UsageError: A variable is not set, or its name cannot be one. Names it, and shows no value.
    """
    login = _login_end(url)
    return _PLACEHOLDER.sub(lambda match: _value(match, encoded=match.end() <= login), url)


def redact(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment, where tokens and signatures travel.

    A plain path, and a `sample://` recipe, which holds no secret, come back as they are. So do placeholders like
    `${NAME}` in what is left.
    """
    return "::".join(_redacted(part) for part in _CHAIN.split(url.strip()))


def _redacted(url: str) -> str:
    match = _URL.match(url)
    if match is None or match[1].lower() == "sample":
        return url
    scheme, host, path = match.groups()
    if "@" in host:
        return f"{scheme}://{host.rpartition('@')[2]}{path}"
    login = _LOGIN.match(url, match.start(2))
    # With a web scheme, digits after the colon are a port, and an @ further on is part of the path.
    if login and not (scheme.lower().endswith(_WEB) and re.fullmatch(r"\d*", host.rpartition(":")[2])):
        return _redacted(f"{scheme}://{url[login.end() :]}")
    return f"{scheme}://{host}{path}"


def _login_end(url: str) -> int:
    """Where the part with user and password ends; 0 where there is none."""
    match = _URL.match(url)
    return match.start(2) + match[2].rfind("@") if match and "@" in match[2] else 0


def _value(match: re.Match[str], *, encoded: bool) -> str:
    name = match[1]
    value = os.environ.get(name) if _NAME.fullmatch(name) else None
    if value is None:
        near = get_close_matches(name, os.environ, 1)
        hint = f"set it, or did you mean {near[0]}?" if near else "set it before the run"
        raise UsageError(f"The URL names the environment variable '{name}', which is not set", remedy=hint)
    return quote(value, safe="") if encoded else value
