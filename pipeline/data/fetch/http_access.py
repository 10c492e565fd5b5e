"""The token from the environment, sent to the endpoint's own host and to no other."""

from __future__ import annotations

import base64
import copy
import logging
import os
from collections.abc import Mapping
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

import requests

from pipeline.data.fetch.credentials import PLACEHOLDER, redact
from pipeline.data.fetch.failures import TransientError
from pipeline.data.fetch.http_responses import HttpStatusError, in_words, retry_after
from pipeline.errors import DataError, MissingError, PipelineError, UsageError

log = logging.getLogger(__name__)

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SHORTEST_SECRET = 4
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})  # another attempt may get another answer
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Access(requests.auth.AuthBase):
    """Signs requests to one origin. Its text never holds the secret.

    Args:
        endpoint: The URL whose scheme, host and port may see the secret. A user and password in it are such a secret.
        token: The secret; empty to sign nothing.
        scheme: The word before the token in the header.
        variable: Name of the environment variable that the token came from, for messages.
        setting: How a token is given, for messages.
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
        setting: str = "",
        hidden: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(endpoint)
        self.endpoint = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self.token, self._variable, self._setting = token, variable, setting
        self._origin = _origin(self.endpoint)
        self._header = f"{scheme} {token}" if token else ""
        self._hidden = dict(hidden or {}) | ({variable: token} if token else {})
        if parts.username is not None or parts.password is not None:
            if token:
                problem = "the URL has a user, and there is a token"
                raise UsageError(problem, where=self.shown(endpoint), remedy="use one of the two")
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            self._header = "Basic " + base64.b64encode(pair.encode()).decode()
        if self._header and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            log.warning("%s: the secret is sent unencrypted; use https where you can", self.shown(endpoint))

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request to the endpoint's origin; `requests` removes the header where it redirects elsewhere."""
        if self._header and self.owns(request.url or ""):
            request.headers["Authorization"] = self._header
        return request

    @property
    def auth(self) -> Access | None:
        """What signs a request, for `requests`; None, where there is no secret, leaves it to the user's netrc file."""
        return self if self._header else None

    def replace(self, token: str, scheme: str = "Bearer") -> None:
        """Sign with another token from now on."""
        self._header = f"{scheme} {token}"

    def unsigned(self) -> Access:
        """A copy that signs nothing."""
        other = copy.copy(self)
        other._header = ""
        return other

    def shown(self, url: str) -> str:
        """A URL as it may be shown: the name of its variable replaces a secret in its path."""
        text = redact(url)
        for name, value in self._hidden.items():
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, f"${{{name}}}").replace(quote(value, safe=""), f"${{{name}}}")
        return text

    def owns(self, url: str) -> bool:
        """Whether a URL has the endpoint's scheme, host and port."""
        return _origin(url) == self._origin

    def absolute(self, reference: str, base: str) -> str:
        """The absolute URL of a reference in a response.

        Servers behind a TLS proxy often call themselves `http://`: where only that differs, the endpoint's own
        scheme and port are taken, so that secrets stay encrypted.

        Raises:
            DataError: It is not a valid URL.
        """
        try:
            url = urljoin(base, reference.strip())
            own, found = urlsplit(self.endpoint), urlsplit(url)
            downgraded = (own.scheme, found.scheme) == ("https", "http") and found.port in {None, 80, own.port}
        except ValueError:
            problem, remedy = "the server gave something that is no URL", "check the server's answer"
            raise DataError(problem, where=self.shown(base), remedy=remedy) from None
        if downgraded and found.hostname == own.hostname:
            return urlunsplit((own.scheme, own.netloc, found.path, found.query, found.fragment))
        return url

    def refusal(self, status: int, url: str, where: str) -> PipelineError:
        """The error for a request that the server refuses."""
        remedy = f"set {self._setting} to the name of the environment variable that holds a token" * bool(self._setting)
        if self._variable:
            remedy = f"check the environment variable {self._variable}: is its token valid, and may it read this?"
        elif self._header:
            remedy = "check the user and the password"
        if status not in {401, 403} or not self.owns(url) or not remedy:
            return HttpStatusError(status, where)
        problem = f"the server answered {in_words(status)}"
        return UsageError(problem, where=where, expected="a token that may read this", remedy=remedy)


def check(response: requests.Response, access: Access, where: str) -> None:
    """Raise the error that a status stands for.

    Raises:
        UsageError: The endpoint wants another token.
        HttpStatusError: The server refuses for another reason.
        MissingError: It redirects where the request must not follow.
        TransientError: Another attempt may succeed.
    """
    status = response.status_code
    if status in _BUSY:
        raise TransientError(f"the server answered {in_words(status)}", retry_after(response))
    if 300 <= status < 400 and status != 304:
        problem, remedy = f"the server redirects elsewhere ({in_words(status)})", "name the URL that it redirects to"
        raise MissingError(problem, where=where, remedy=remedy)
    if status >= 400:
        raise access.refusal(status, response.url, where)


def token_from(variable: str) -> str:
    """The token in an environment variable; empty where no variable is named.

    Raises:
        UsageError: It is not set, or not valid in a header. The value is not shown.
    """
    if not variable:
        return ""
    token = os.environ.get(variable, "").strip()
    remedy = f"export {variable}=…"
    if not token:
        problem = f"the environment variable {variable} is not set"
        raise UsageError(problem, expected="the API's token", remedy=remedy)
    if not all("!" <= letter <= "~" for letter in token):
        problem = f"the environment variable {variable} holds no token"
        raise UsageError(problem, expected="letters without spaces", remedy=remedy)
    return token


def hidden_in(url: str) -> dict[str, str]:
    """The values of the environment variables that a URL names as `${NAME}`, by name."""
    return {name: os.environ.get(name, "") for name in sorted(set(PLACEHOLDER.findall(url)))}


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; of an invalid URL, an origin that no other has."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", "", -1
