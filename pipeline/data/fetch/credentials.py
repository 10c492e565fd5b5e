"""Secrets in URLs: named as `${NAME}`, read from the environment when used, and left out of what is shown."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from pipeline.errors import UsageError, did_you_mean

PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://([^/?#]*)([^?#]*)", re.DOTALL)
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.\-]*://)")  # fsspec's URLs of several parts
_LOGIN = re.compile(r"([^:/?#@]*):([^@]*)@", re.DOTALL)  # as SQLAlchemy reads it: a password may hold / ? and #
_WEB = ("http", "https")


def expand(url: str) -> str:
    """Replace `${NAME}` by the value of the environment variable. The result is to be used, never to be shown.

    Before the host, in the user and password, the value is percent-encoded; set it as it is. Elsewhere it is inserted
    unchanged, so that it may be a whole signed query.

    Raises:
        UsageError: A variable is not set, or its name is not valid. Names it, and shows no value.
    """
    match = _URL.match(url)
    login_end = match.start(2) + match[2].rfind("@") if match and "@" in match[2] else 0
    return PLACEHOLDER.sub(lambda found: _value(found, encoded=found.end() <= login_end), url)


def redact(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment, where tokens and signatures are.

    A plain path and a `sample://` recipe, which hold no secret, stay as they are, and so do other placeholders.
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


def _value(match: re.Match[str], *, encoded: bool) -> str:
    name = match[1]
    value = os.environ.get(name) if _NAME.fullmatch(name) else None
    if value is None:
        problem = f"the URL names the environment variable '{name}', which is not set"
        raise UsageError(problem, remedy=did_you_mean(name, os.environ, otherwise="set it before the run", cutoff=0.6))
    return quote(value, safe="") if encoded else value
