"""Places behind fsspec URLs: how they are opened, and one form for all that can go wrong there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.data.fetch.failures import TransientError
from pipeline.data.fetch.known_hosts import known_hosts_policy
from pipeline.data.fetch.partial import Validators
from pipeline.errors import MissingError, PipelineError, UsageError

# How to install what fsspec needs for a kind of URL.
EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "sftp": "sftp",
    "ssh": "sftp",
}
_SSH = frozenset({"sftp", "ssh"})
_S3 = frozenset({"s3", "s3a"})
_WRAPPERS = frozenset(
    {"asynclocal", "async_wrapper", "asyncwrapper", "blockcache", "cached", "data", "dir", "filecache", "generic"}
    | {"libarchive", "local", "reference", "root", "simplecache", "tar", "zip"}
)  # what fsspec lays around other places, and what is on this machine: both would go around the checks made here
_ETAGS = ("ETag", "etag", "md5Hash", "crc32c", "content_md5", "checksum", "sha256")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
_REFUSALS = frozenset(
    {"AuthenticationException", "ClientAuthenticationError", "CredentialRetrievalError", "DefaultCredentialsError"}
    | {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "RefreshError", "TokenRetrievalError"}
)


class Place:
    """A file or folder behind an fsspec URL. Credentials come from the URL, the environment, or fsspec's configuration.

    Args:
        url: Such as `s3://bucket/prefix`; nothing is asked of the place yet.
        shown: Stands for the URL in messages.
        timeout: Seconds to wait for an answer, where the kind of place has such a setting.

    Raises:
        UsageError: fsspec does not know the URL's kind, or lacks the package for it.
    """

    def __init__(self, url: str, shown: str, timeout: float = 30.0) -> None:
        self.url, self.shown, self.timeout = url, shown, timeout
        self.scheme = url.partition("://")[0].lower()
        self._kind = _kind(self.scheme, shown)
        self._lock = threading.Lock()
        self._fs: Any = None
        self.path: str = str(self._kind._strip_protocol(url)).rstrip("/")

    @property
    def is_serial(self) -> bool:
        """Whether it is to be asked one thing at a time: paramiko's connections are not for several threads."""
        return self.scheme in _SSH

    def connected(self) -> Any:
        """The file system; the first call, and the first after a failure, connects."""
        with self._lock:
            if self._fs is None:
                with reaching(self.shown):
                    self._fs = self._connect()
            return self._fs

    def drop(self, failed: Any) -> None:
        """Forget a connection that failed, so that the next use makes a new one; object stores keep none open."""
        with self._lock:
            if self._fs is failed and not getattr(failed, "async_impl", False):
                self._fs = None

    def _connect(self) -> Any:
        from fsspec.config import conf

        for noisy in ("botocore", "aiobotocore", "s3fs", "paramiko", "fsspec"):
            logging.getLogger(noisy).setLevel(logging.WARNING)  # at lower levels they tell of credentials and headers
        # No instance is shared, and no listing remembered: what a place holds, and who may see it, can change.
        options = self._kind._get_kwargs_from_urls(self.url) | {"skip_instance_cache": True}
        if self.scheme in _SSH:
            return _ssh(self._kind, self.url, options, self.timeout, conf)
        if self.scheme in _S3 and not any("config_kwargs" in conf.get(each, {}) for each in _S3):
            options["config_kwargs"] = {"retries": {"total_max_attempts": 1}, "connect_timeout": self.timeout}
        system = self._kind(**options, use_listings_cache=False)
        if hasattr(system, "retries"):
            system.retries = 1  # trying again is done here, so that it is said, and goes on where it broke
        return system


@contextmanager
def reaching(shown: str) -> Iterator[None]:
    """Give all that a place may fail with one form, without the libraries' own messages, which may tell secrets.

    Raises:
        MissingError: There is no such thing there, or it is not to be had with these credentials.
        UsageError: The URL or the configuration cannot be right.
        TransientError: Anything else.
    """
    try:
        yield
    except (PipelineError, TransientError):
        raise
    except (FileNotFoundError, NotADirectoryError):
        remedy = "check the URL: the place's own name, the path, capital letters"
        raise MissingError("There is no such file or folder", where=shown, remedy=remedy) from None
    except (ValueError, TypeError, NotImplementedError, ImportError, AttributeError) as error:
        problem = f"The place cannot be read this way ({type(error).__name__})"
        raise UsageError(problem, where=shown, remedy="check the URL and fsspec's configuration") from None
    except Exception as error:  # noqa: BLE001, raised in another form: the libraries have kinds of their own
        if isinstance(error, PermissionError) or any(each.__name__ in _REFUSALS for each in type(error).__mro__):
            raise MissingError(
                f"The place does not let us in: {_said(error)}",
                where=shown,
                remedy="check the credentials in the environment, or in fsspec's configuration",
            ) from None
        raise TransientError(_said(error)) from None


def validators_of(info: dict[str, Any]) -> Validators:
    """What a place says of a file's version, in whatever words it uses for it."""
    etag = next((str(info[name]) for name in _ETAGS if info.get(name)), "")
    time = next((str(info[name]) for name in _TIMES if info.get(name)), "")
    size = info.get("size")
    return Validators(etag, time, int(size) if size is not None else -1)


def _kind(scheme: str, shown: str) -> Any:
    import fsspec  # only where a source lies elsewhere
    from fsspec.registry import known_implementations, registry

    known = sorted({*known_implementations, *registry, *EXTRAS} - _WRAPPERS)
    if scheme not in known or "::" in shown:
        near = get_close_matches(scheme, known, 1)
        raise UsageError(
            f"URLs of kind '{scheme}' cannot be read",
            where=shown,
            expected="a path, or a URL of kind file, http, https, s3, gs, az, sftp, or another that fsspec knows",
            remedy=f"did you mean {near[0]}?" if near else "check how the URL begins",
        )
    try:
        return fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        if scheme in EXTRAS:
            remedy = f"pip install '.[{EXTRAS[scheme]}]'"
        else:
            remedy = known_implementations.get(scheme, {}).get("err", "install fsspec's package for it")
        raise UsageError(f"A package for '{scheme}' URLs is missing", where=shown, remedy=remedy) from None


def _ssh(kind: Any, url: str, options: dict[str, Any], timeout: float, conf: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value:
            options[name] = unquote(value)  # which fsspec leaves to us
    options |= {"timeout": timeout, "banner_timeout": timeout, "auth_timeout": timeout}
    if not any("host_key_policy" in conf.get(each, {}) for each in _SSH):
        options["host_key_policy"] = known_hosts_policy()
    system = kind(**options)
    system.ftp.get_channel().settimeout(timeout)
    return system


def _said(error: BaseException) -> str:
    """The cause in words that hold no secret: the system's own, a server's code, or the error's name."""
    cause: BaseException | None = error
    while cause is not None:
        answer = getattr(cause, "response", None)
        if isinstance(answer, dict) and answer.get("Error", {}).get("Code"):
            return f"the server answered {answer['Error']['Code']}"
        cause = cause.__cause__
    if isinstance(error, OSError) and error.errno and error.strerror and type(error).__module__ == "builtins":
        return error.strerror.partition("\n")[0][:200]
    return type(error).__name__
