"""A source's URL and options, parsed once into one of a few kinds; options that the kind does not have are refused."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from pipeline.data.fetch.credentials import Access, expand, hidden_in, redact, token_from
from pipeline.data.fetch.http_client import HttpClient, Pace
from pipeline.data.sample import SampleSpec, parse_sample_url
from pipeline.data.sources.api_settings import ApiSettings, parse_settings
from pipeline.data.sources.video import Sampling
from pipeline.errors import UsageError

_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
# Packages for databases whose drivers do not come with the project.
DRIVERS = {
    "postgresql": "psycopg[binary]",
    "mysql": "mysqlclient",
    "mariadb": "mysqlclient",
    "oracle": "oracledb",
    "mssql": "pyodbc",
    "duckdb": "duckdb-engine",
}


@dataclass(frozen=True)
class FetchOptions:
    """How to fetch.

    Attributes:
        cache: The folder where downloads are kept, so that an interrupted one continues.
        timeout: Seconds to wait for a connection, and for each piece of an answer.
        backoff: Seconds before the second attempt at a request, doubled for each further one.
    """

    cache: Path
    timeout: float = 30.0
    backoff: float = 0.5


@dataclass(frozen=True)
class SampleSource:
    """The embedded sample, `sample://…`."""

    shown: str
    recipe: SampleSpec


@dataclass(frozen=True)
class FileSource:
    """A folder, an archive, or one image, annotation file or clip: a path or any URL that fsspec knows.

    Attributes:
        url: With placeholders such as `${NAME}` in it.
        is_local: Whether it is a path on this machine.
        sha256: What the digest of the one file must be; empty to accept any.
        sampling: Which frames of clips to take; None to skip clips.
    """

    url: str
    is_local: bool
    sha256: str = ""
    sampling: Sampling | None = None


@dataclass(frozen=True, repr=False)
class DatabaseSource:
    """A database that SQLAlchemy reaches, and a query.

    Attributes:
        url: With all secrets.
        shown: Without them.
        secrets: The secrets, the longest first.
        query: The SELECT that gives images.
    """

    url: URL
    shown: str
    secrets: tuple[str, ...]
    query: str

    @property
    def dialect(self) -> str:
        """The kind of database, such as `sqlite`."""
        return self.url.get_backend_name()


@dataclass(frozen=True, repr=False)
class ApiSource:
    """An HTTP API.

    Attributes:
        endpoint: Its URL, with all secrets.
        shown: The source's URL without them.
        hidden: Values that must not be shown, by the names of their environment variables.
        settings: How to read it.
    """

    endpoint: str
    shown: str
    hidden: Mapping[str, str]
    settings: ApiSettings
    cache_name: str

    prefix: ClassVar[str] = "api"
    title: ClassVar[str] = "an API"
    allowed: ClassVar[str] = ""  # settings that the kind uses; empty for all
    defaults: ClassVar[Mapping[str, Any]] = {}

    def client(self, options: FetchOptions) -> HttpClient:
        """A client of the API. The token comes from the variable in the settings, or from the product's usual one.

        Raises:
            UsageError: The variable is not set.
        """
        variable, scheme = self.settings.token_env, self.settings.token_scheme
        if not variable and "@" not in urlsplit(self.endpoint).netloc:
            variable, scheme = self._usual_token(scheme)
        access = Access(self.endpoint, token_from(variable), scheme, variable, "api.token_env", self.hidden)
        return HttpClient(access, Pace(self.settings.requests_per_second), options.timeout, options.backoff)

    def _usual_token(self, scheme: str) -> tuple[str, str]:
        return "", scheme


class HttpApiSource(ApiSource):
    """An API whose answers the settings describe, `api+https://host/path`."""


@dataclass(frozen=True, repr=False)
class LabelStudioSource(ApiSource):
    """A Label Studio project, `label-studio+https://host/projects/12`."""

    with_unannotated: bool = field(default=False, kw_only=True)

    prefix: ClassVar[str] = "label-studio"
    title: ClassVar[str] = "a Label Studio project"
    allowed: ClassVar[str] = "image metadata token_env token_scheme requests_per_second max_page_mb"
    defaults: ClassVar[Mapping[str, Any]] = {"image": ".", "token_scheme": "Token", "max_page_mb": 512}

    def _usual_token(self, scheme: str) -> tuple[str, str]:
        return "LABEL_STUDIO_API_KEY", scheme


class CvatSource(ApiSource):
    """A CVAT project or task, `cvat+https://host/projects/7` or `cvat+https://host/tasks/7`."""

    prefix: ClassVar[str] = "cvat"
    title: ClassVar[str] = "a CVAT export"
    allowed: ClassVar[str] = "token_env token_scheme requests_per_second wait_minutes"

    def _usual_token(self, scheme: str) -> tuple[str, str]:
        if os.environ.get("CVAT_TOKEN") and not os.environ.get("CVAT_ACCESS_TOKEN"):
            return "CVAT_TOKEN", "Token"
        return "CVAT_ACCESS_TOKEN", scheme


Source = SampleSource | FileSource | DatabaseSource | HttpApiSource | LabelStudioSource | CvatSource
_APIS: tuple[type[ApiSource], ...] = (HttpApiSource, LabelStudioSource, CvatSource)


def parse_source(
    url: str,
    *,
    sha256: str = "",
    query: str = "",
    api: Mapping[str, str] = _NO_SETTINGS,
    sampling: Sampling | None = None,
    with_unannotated: bool = False,
) -> Source:
    """Parse a source's URL and its options.

    Args:
        url: `sample://…`; an API's, `api+https://…`, `label-studio+https://…` or `cvat+https://…`; a database's as
            SQLAlchemy takes it; or a path or any URL that fsspec knows. `${NAME}` stands for an environment variable.
        sha256: Of a single file: what its digest must be.
        query: Of a database: the SELECT that gives images.
        api: Of an API: see `ApiSettings`.
        sampling: Of clips: which frames to take; None to skip clips.
        with_unannotated: Of Label Studio: whether to take tasks that nobody annotated.

    Raises:
        UsageError: The URL or an option is wrong, the source's kind does not have an option, or an environment
            variable is not set.
    """
    text = expand(url)
    kind = next((each for each in _APIS if _is_api(text, each)), None)
    dialect = "" if kind or text.startswith("sample:") else _database_dialect(text)
    if query and not dialect:
        raise UsageError("a query was given, and the source is not a database", remedy="leave the query empty")
    if api and not kind:
        raise UsageError("API settings were given, and the source is not an API", remedy="begin its URL with api+https")
    if sha256 and (kind or dialect or text.startswith("sample:")):
        raise UsageError("a SHA-256 was given, and the source is not a file", remedy="leave the SHA-256 out")
    if kind:
        return _api_source(kind, url, text, api, with_unannotated)
    if dialect:
        return _database_source(url, text, query)
    if text.startswith("sample:"):
        return SampleSource(url, parse_sample_url(text))
    return FileSource(url, "://" not in text or text.lower().startswith("file:"), sha256, sampling)


def _is_api(text: str, kind: type[ApiSource]) -> bool:
    prefix, plus, rest = text.partition("+")
    return bool(plus) and prefix.lower() == kind.prefix and rest.lower().startswith(("http://", "https://"))


def _api_source(
    kind: type[ApiSource], url: str, text: str, api: Mapping[str, str], with_unannotated: bool
) -> HttpApiSource | LabelStudioSource | CvatSource:
    shown, endpoint = redact(url), text.partition("+")[2]
    try:
        complete = bool(urlsplit(endpoint).hostname) and urlsplit(endpoint).port != 0
    except ValueError:
        complete = False
    if not complete:
        expected = "api+https://host/path, label-studio+https://host/projects/12 or cvat+https://host/tasks/7"
        raise UsageError("this is not the URL of an API", where=shown, expected=expected)
    settings = parse_settings(api, allowed=kind.allowed.split(), source=kind.title, defaults=kind.defaults)
    cache_name = f"{kind.prefix}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    common = (endpoint, shown, hidden_in(url), settings, cache_name)
    if kind is LabelStudioSource:
        return LabelStudioSource(*common, with_unannotated=with_unannotated)
    return CvatSource(*common) if kind is CvatSource else HttpApiSource(*common)


def _database_dialect(text: str) -> str:
    """The dialect of a URL that SQLAlchemy has one for, such as `sqlite:///a.db`; otherwise empty."""
    scheme, found, _ = text.partition("://")
    dialect = scheme.partition("+")[0].lower()
    if not found or not re.fullmatch(r"[a-z][a-z0-9_]*", dialect):
        return ""
    if dialect in {*DRIVERS, "postgres"}:
        return dialect
    try:
        make_url(f"{dialect}://").get_dialect()
    except (NoSuchModuleError, ArgumentError):
        return ""
    except ImportError:  # the dialect exists, and a package that it needs is missing
        pass
    return dialect


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
