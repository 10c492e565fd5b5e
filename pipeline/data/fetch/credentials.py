"""Secrets from the environment: `${NAME}` in URLs, and tokens. They go to their own host only, and are never shown."""

from __future__ import annotations

import base64
import logging
import os
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

import requests

from pipeline.errors import DataError, UsageError, did_you_mean

log = logging.getLogger(__name__)

_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://([^/?#]*)([^?#]*)", re.DOTALL)
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{1,31}://\S*[^\s.,;:!?)\]}>'\"]")  # without the punctuation after it
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.\-]*://)")  # fsspec's URLs of several parts
# As SQLAlchemy reads it: a password may hold / ? and #. An address in brackets is no login.
_LOGIN = re.compile(r"(?!\[[0-9A-Fa-f:.]+(?:%\w+)?\])([^:/?#@]*):([^@]*)@", re.DOTALL)
_WEB = ("http", "https")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SHORTEST_SECRET = 4  # shorter values would blank out parts of other words
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def expand(url: str) -> str:
    """Replace `${NAME}` by the value of the environment variable. The result is to be used, never to be shown.

    Before the host, in the user and password, the value is percent-encoded; set it as it is. Elsewhere it is inserted
    unchanged, so that it may be a whole signed query.
    """
    match = _URL.match(url)
    login_end = match.start(2) + match[2].rfind("@") if match and "@" in match[2] else 0

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in os.environ:
            problem = f"the URL names the environment variable '{name}', which is not set"
            remedy = did_you_mean(name, os.environ, otherwise="set it before the run", cutoff=0.6)
            raise UsageError(problem, remedy=remedy)
        return quote(os.environ[name], safe="") if found.end() <= login_end else os.environ[name]

    return _PLACEHOLDER.sub(value, url)


def redact(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment, where tokens and signatures are.

    A plain path and a `sample://` recipe, which hold no secret, stay as they are, and so do other placeholders.
    """
    return "::".join(_redacted(part) for part in _CHAIN.split(url.strip()))


def redact_text(text: str) -> str:
    """A text as it may be shown: `redact` of each URL in it."""
    return _IN_TEXT.sub(lambda found: redact(found[0]), text)


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


def hidden_in(url: str) -> dict[str, str]:
    """The values of the environment variables that a URL names as `${NAME}`, by name."""
    return {name: os.environ.get(name, "") for name in sorted(set(_PLACEHOLDER.findall(url)))}


def token_from(variable: str) -> str:
    """The token in an environment variable, valid in a header; empty where no variable is named."""
    if not variable:
        return ""
    token = os.environ.get(variable, "").strip()
    if not token or not all("!" <= letter <= "~" for letter in token):
        problem = f"the environment variable {variable} {'holds no token' if token else 'is not set'}"
        raise UsageError(problem, expected="the API's token, without spaces", remedy=f"export {variable}=…")
    return token


class Access(requests.auth.AuthBase):
    """Signs requests to the scheme, host and port of one URL. Its text never holds the secret.

    The header is the value of `Authorization`: by default the user and password of the URL, and a `UsageError` if there
    are both. `hidden` are values that must not be shown as part of a URL, by the name of their environment variable.
    """

    def __init__(
        self, endpoint: str, header: str = "", remedy: str = "", hidden: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(endpoint)
        self.endpoint = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self.header, self.remedy, self.hidden = header, remedy, hidden or {}
        if parts.username is not None or parts.password is not None:
            self.remedy = "check the user and the password"
            if header:
                problem = "the URL has a user, and there is a token"
                raise UsageError(problem, where=self.shown(endpoint), remedy="use one of the two")
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            self.header = "Basic " + base64.b64encode(pair.encode()).decode()
        if self.header and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            log.warning("%s: the secret is sent unencrypted; use https where you can", self.shown(endpoint))

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request to the endpoint's origin; `requests` removes the header where it redirects elsewhere."""
        if self.header and self.owns(request.url or ""):
            request.headers["Authorization"] = self.header
        return request

    def shown(self, url: str) -> str:
        """A URL as it may be shown: the name of its variable replaces a secret in its path."""
        text = redact(url)
        for name, value in self.hidden.items():
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, f"${{{name}}}").replace(quote(value, safe=""), f"${{{name}}}")
        return text

    def owns(self, url: str) -> bool:
        """Whether a URL has the endpoint's scheme, host and port."""
        return _origin(url) == _origin(self.endpoint)

    def absolute(self, reference: str, base: str) -> str:
        """The absolute URL of a reference in a response.

        Servers behind a TLS proxy often call themselves `http://`: where only that differs, the endpoint's own
        scheme and port are taken, so that secrets stay encrypted.
        """
        try:
            url = urljoin(base, reference.strip())
            own, found = urlsplit(self.endpoint), urlsplit(url)
            downgraded = (own.scheme, found.scheme) == ("https", "http") and found.port in {None, 80, own.port}
        except ValueError:
            raise DataError("the server gave something that is no URL", where=self.shown(base)) from None
        if downgraded and found.hostname == own.hostname:
            return urlunsplit(found._replace(scheme=own.scheme, netloc=own.netloc))
        return url


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; of an invalid URL, an origin that no other has."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", "", -1
