"""A source's URL and options, parsed once into one of a few kinds; options that the kind does not have are refused."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from pipeline.data.fetch.credentials import Access, expand, hidden_in, redact, token_from
from pipeline.data.fetch.http_client import HttpClient, Pace
from pipeline.data.sample import SampleSpec, parse_sample_url
from pipeline.data.sources.api_settings import ApiSettings, parse_settings
from pipeline.data.sources.video import Sampling
from pipeline.errors import UsageError


@dataclass(frozen=True)
class FetchOptions:
    """How to fetch."""

    cache: Path  # where downloads are kept, so that an interrupted one continues
    timeout: float = 30.0  # seconds to wait for a connection, and for each piece of an answer
    backoff: float = 0.5  # seconds before the second attempt at a request, doubled for each further one


@dataclass(frozen=True)
class SampleSource:
    """The embedded sample, `sample://…`."""

    shown: str
    recipe: SampleSpec


@dataclass(frozen=True)
class FileSource:
    """A folder, an archive, or one image, annotation file or clip: a path or any URL that fsspec knows."""

    url: str  # with placeholders such as `${NAME}` in it
    is_local: bool  # whether it is a path on this machine
    sha256: str = ""  # what the digest of the one file must be; empty to accept any
    sampling: Sampling | None = None  # which frames of clips to take; None to skip clips
    member: str = ""  # of a folder, the file in it that alone is read as annotations; empty for all


@dataclass(frozen=True, repr=False)
class DatabaseSource:
    """A database that SQLAlchemy reaches, and a query."""

    url: URL  # with all secrets
    shown: str  # without them
    secrets: tuple[str, ...]  # the longest first
    query: str  # the SELECT that gives images


@dataclass(frozen=True, repr=False)
class ApiSource:
    """An HTTP API whose answers the settings describe, a Label Studio project, or a CVAT project or task."""

    kind: str  # `api`, `label-studio` or `cvat`
    endpoint: str  # with all secrets
    shown: str  # the source's URL without them
    hidden: Mapping[str, str]  # values that must not be shown, by the names of their environment variables
    settings: ApiSettings
    cache_name: str
    with_unannotated: bool = False  # whether to take tasks that nobody annotated

    def client(self, options: FetchOptions) -> HttpClient:
        """A client of the API; a `UsageError` if the environment variable of the token is not set."""
        variable = self.settings.token_env
        token = token_from(variable)
        header = f"{self.settings.token_scheme} {token}" if token else ""
        unset = "set api.token_env to the name of the environment variable that holds a token"
        remedy = f"check the token in the environment variable {variable}" if variable else unset
        access = Access(self.endpoint, header, remedy, {**self.hidden, variable: token})
        return HttpClient(access, Pace(self.settings.requests_per_second), options.timeout, options.backoff)


Source = SampleSource | FileSource | DatabaseSource | ApiSource
# Settings that a kind of API uses, where it does not use all.
_USED = {
    "label-studio": {"image", "metadata", "token_env", "token_scheme", "requests_per_second"},
    "cvat": {"token_env", "token_scheme", "requests_per_second", "wait_minutes"},
}


def parse_source(
    url: str,
    *,
    sha256: str = "",
    query: str = "",
    api: Mapping[str, str] | None = None,
    sampling: Sampling | None = None,
    with_unannotated: bool = False,
) -> Source:
    """Parse a source's URL, in which `${NAME}` stands for an environment variable, and its options.

    Only clips use `sampling`, and only Label Studio uses `with_unannotated`.

    Raises:
        UsageError: The URL or an option is wrong or does not fit, or an environment variable is not set.
    """
    text = expand(url)
    is_sample = text.startswith("sample:")
    api_url = re.fullmatch(r"(api|label-studio|cvat)\+(https?://.*)", text, re.IGNORECASE | re.DOTALL)
    is_database = not (is_sample or api_url) and _is_database(text)
    if query and not is_database:
        raise UsageError("a query was given, and the source is not a database", remedy="leave the query empty")
    if api and not api_url:
        raise UsageError("API settings were given, and the source is not an API", remedy="begin its URL with api+https")
    if sha256 and (is_sample or api_url or is_database):
        raise UsageError("a SHA-256 was given, and the source is not a file", remedy="leave the SHA-256 out")
    if api_url:
        return _api_source(api_url[1].lower(), url, api_url[2], api or {}, with_unannotated)
    if is_database:
        return _database_source(url, text, query)
    if is_sample:
        return SampleSource(url, parse_sample_url(text))
    return FileSource(url, "://" not in text or text.lower().startswith("file:"), sha256, sampling)


def _api_source(kind: str, url: str, endpoint: str, api: Mapping[str, str], with_unannotated: bool) -> ApiSource:
    host = ""
    with suppress(ValueError):
        parts = urlsplit(endpoint)
        host = parts.netloc if parts.hostname and parts.port != 0 else ""
    if not host:
        expected = "api+https://host/path, label-studio+https://host/projects/12 or cvat+https://host/tasks/7"
        raise UsageError("this is not the URL of an API", where=redact(url), expected=expected)
    defaults = {"image": ".", "token_scheme": "Token"} if kind == "label-studio" else {}
    if "token_env" not in api and "@" not in host:
        if kind == "label-studio":
            defaults["token_env"] = "LABEL_STUDIO_API_KEY"  # noqa: S105 - its name
        elif kind == "cvat" and os.environ.get("CVAT_TOKEN") and not os.environ.get("CVAT_ACCESS_TOKEN"):
            defaults = {"token_env": "CVAT_TOKEN", "token_scheme": "Token"}  # the older kind
        elif kind == "cvat":
            defaults["token_env"] = "CVAT_ACCESS_TOKEN"  # noqa: S105 - its name
    cache_name = f"{kind}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    settings = parse_settings({**defaults, **api})
    used = _USED.get(kind, set(api))
    if unused := sorted(set(api) - used):
        raise UsageError(f"{kind} does not use api.{unused[0]}", expected=f"some of {', '.join(sorted(used))}")
    return ApiSource(kind, endpoint, redact(url), hidden_in(url), settings, cache_name, with_unannotated)


def _is_database(text: str) -> bool:
    """Whether SQLAlchemy has a dialect for a URL such as `sqlite:///a.db`."""
    match = re.match(r"([a-z][a-z0-9_]*)(\+[^:/]*)?://", text, re.IGNORECASE)
    if match is None:
        return False
    try:
        make_url(f"{match[1].lower()}://").get_dialect()
    except (NoSuchModuleError, ArgumentError):
        return match[1].lower() in {"postgres", "duckdb"}  # another spelling, and a package that may be missing
    return True


def _database_source(url: str, text: str, query: str) -> DatabaseSource:
    try:
        parsed = make_url(re.sub("^postgres(?=[+:])", "postgresql", text))
    except (ArgumentError, ValueError):  # the message holds the URL
        expected = "such as postgresql://user:${PASSWORD}@host:5432/name, or sqlite:///folder/file.db"
        raise UsageError("this is not a database URL", where=redact(url), expected=expected) from None
    values = [value for group in parsed.normalized_query.values() for value in group]
    texts = {each for each in (str(parsed.password or ""), *hidden_in(url).values(), *values) if each}
    secrets = sorted(texts | {quote(each, safe="") for each in texts}, key=lambda each: (-len(each), each))
    return DatabaseSource(parsed, redact(url), tuple(secrets), query)
