"""Who asks: the token from the environment, sent to the endpoint's own host and to no other."""

from __future__ import annotations

import base64
import copy
import logging
import os
import re
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit

import requests

from pipeline.data.fetch.credentials import redact
from pipeline.errors import DataError, UsageError

logger = logging.getLogger(__name__)

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SHORTEST_SECRET = 4
_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Access(requests.auth.AuthBase):
    """Signs requests to one origin. Its text never holds the secret.

    Args:
        endpoint: The URL whose scheme, host and port may see the secret. A user and password in it are such a secret.
        token: The secret; empty to sign nothing.
        scheme: What stands before it.
        variable: Name of the environment variable it came from, for messages.
        hidden: Values that must not be shown where they are part of a URL, by the name of their environment variable.

    Raises:
        UsageError: There are both a token and a password.
    """

    def __init__(
        self,
        endpoint: str,
        token: str = "",
        scheme: str = "Bearer",
        variable: str = "",
        hidden: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(endpoint)
        self.endpoint = _without_user(parts)
        self.variable = variable
        self._origin = _origin(self.endpoint)
        self.token = token
        self._header = f"{scheme} {token}" if token else ""
        self._hidden = dict(hidden or {}) | ({variable: token} if token else {})
        if parts.username is not None or parts.password is not None:
            if token:
                raise UsageError(
                    "The URL has a user, and there is a token", where=self.shown(endpoint), remedy="use one"
                )
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            self._header = "Basic " + base64.b64encode(pair.encode()).decode()
        if self._header and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            logger.warning("%s: the token travels unencrypted; use https where you can", self.shown(endpoint))

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request, if it goes to the endpoint's origin; `requests` takes the header off where it redirects."""
        if self._header and self.owns(request.url or ""):
            request.headers["Authorization"] = self._header
        return request

    def replace(self, token: str, scheme: str = "Bearer") -> None:
        """Sign with another token from now on."""
        self._header = f"{scheme} {token}"

    def unsigned(self) -> Access:
        """The same, signing nothing."""
        other = copy.copy(self)
        other._header = ""
        return other

    def shown(self, url: str) -> str:
        """A URL as it may be shown; what is secret in its path stands there by the name of its variable."""
        text = redact(url)
        for name, value in self._hidden.items():
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, f"${{{name}}}").replace(quote(value, safe=""), f"${{{name}}}")
        return text

    def owns(self, url: str) -> bool:
        """Whether a URL is of the endpoint's scheme, host and port."""
        return _origin(url) == self._origin

    def absolute(self, reference: str, base: str) -> str:
        """A URL that the server gave, made whole.

        Servers behind a TLS proxy often call themselves `http://`: where only that differs, the endpoint's own
        scheme and port are taken, so that what is secret stays encrypted.

        Raises:
            DataError: It cannot be a URL.
        """
        try:
            url = urljoin(base, reference.strip())
            own, found = urlsplit(self.endpoint), urlsplit(url)
            downgraded = (own.scheme, found.scheme) == ("https", "http") and found.port in {None, 80, own.port}
        except ValueError:
            raise DataError("The server gave something that is no URL", where=self.shown(base)) from None
        if downgraded and found.hostname == own.hostname:
            return urlunsplit((own.scheme, own.netloc, found.path, found.query, found.fragment))
        return url

    def refusal(self, status: int, url: str) -> UsageError:
        """The error for a request that the server did not allow (401 or 403)."""
        if self.variable:
            remedy = f"check the environment variable {self.variable}: is its token valid, and may it read this?"
        elif self._header:
            remedy = "check the user and the password"
        else:
            remedy = "set api.token_env to the name of the environment variable that holds a token"
        problem = f"The server answered {status} {HTTPStatus(status).phrase}"
        return UsageError(problem, where=self.shown(url), expected="a token that may read this", remedy=remedy)


def token_from(variable: str, environment: Mapping[str, str] | None = None) -> str:
    """The token in an environment variable; nothing where no variable is named.

    Raises:
        UsageError: It is not set, or cannot be sent. The value is not shown.
    """
    if not variable:
        return ""
    token = (os.environ if environment is None else environment).get(variable, "").strip()
    if not token:
        raise UsageError(
            f"The environment variable {variable} is not set", expected="the API's token", remedy=f"export {variable}=…"
        )
    if not all("!" <= letter <= "~" for letter in token):
        raise UsageError(f"The environment variable {variable} holds no token", expected="letters without spaces")
    return token


def hidden_in(url: str) -> dict[str, str]:
    """The values of the environment variables that a URL names as `${NAME}`, by name."""
    return {name: os.environ.get(name, "") for name in sorted(set(_PLACEHOLDER.findall(url)))}


def _without_user(parts: SplitResult) -> str:
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; of what is no URL, one that is nobody's."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", "", -1
