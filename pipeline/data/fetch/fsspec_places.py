"""Places at fsspec URLs: how they are connected, and one form for all errors of the libraries that fsspec calls."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from pipeline.data.fetch.failures import TransientError, retried
from pipeline.data.fetch.partial_file import Validators
from pipeline.errors import MissingError, PipelineError, UsageError, did_you_mean

T = TypeVar("T")

# The project's extra that installs what fsspec needs for a kind of URL.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "sftp": "sftp", "ssh": "sftp"}
_EXTRAS |= dict.fromkeys(("az", "abfs", "abfss"), "azure")
_SSH = frozenset({"sftp", "ssh"})
_S3 = frozenset({"s3", "s3a"})
_WRAPPERS = frozenset(
    {"asynclocal", "async_wrapper", "asyncwrapper", "blockcache", "cached", "data", "dir", "filecache", "generic"}
    | {"libarchive", "local", "reference", "root", "simplecache", "tar", "zip"}
)  # file systems around others, and on this machine: both would avoid the checks made here
_ETAGS = ("ETag", "etag", "md5Hash", "crc32c", "content_md5", "checksum", "sha256")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
_DENIALS = frozenset(
    {"AuthenticationException", "ClientAuthenticationError", "CredentialRetrievalError", "DefaultCredentialsError"}
    | {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "RefreshError", "TokenRetrievalError"}
)


class Place:
    """A file or folder at an fsspec URL. Credentials come from the URL, the environment, or fsspec's configuration.

    Args:
        url: Such as `s3://bucket/prefix`; no connection is made yet.
        shown: The URL without secrets, for messages.
        timeout: Seconds to wait for an answer, where the kind of place has such a setting.
        backoff: Seconds before the second attempt at anything, about doubled for each further one.

    Raises:
        UsageError: fsspec does not know the URL's kind, or lacks the package for it.
    """

    def __init__(self, url: str, shown: str, timeout: float = 30.0, backoff: float = 0.5) -> None:
        self.url, self.shown, self._timeout, self._backoff = url, shown, timeout, backoff
        self.scheme = url.partition("://")[0].lower()
        self._kind = _kind(self.scheme, shown)
        self._lock = threading.Lock()
        self._system: Any = None
        self.path: str = str(self._kind._strip_protocol(url)).rstrip("/")

    @property
    def is_serial(self) -> bool:
        """Whether only one thread may use it at a time, as with paramiko's connections."""
        return self.scheme in _SSH

    def attempt(self, action: Callable[[Any], T], shown: str = "", arrived: Callable[[], int] = lambda: 0) -> T:
        """Call `action` with the connected file system, with retries, each over a new connection.

        Args:
            action: Takes the file system; a `TransientError` from it calls for another attempt.
            shown: The file that is asked for, for messages; empty for the place itself.
            arrived: How many bytes have come; with progress the attempts go on.

        Raises:
            MissingError: It failed each time, and nothing came.
            DataError: It failed each time, and a part came.
        """

        def once() -> T:
            system = None
            try:
                system = self._connected()
                return action(system)
            except TransientError:
                self._drop(system)
                raise

        return retried(once, shown=shown or self.shown, backoff=self._backoff, arrived=arrived)

    def _connected(self) -> Any:
        with self._lock:
            if self._system is None:
                with place_errors(self.shown):
                    self._system = self._connect()
            return self._system

    def _drop(self, failed: Any) -> None:
        """Forget a connection that failed; object stores keep none open."""
        with self._lock:
            if self._system is failed and not getattr(failed, "async_impl", False):
                self._system = None

    def _connect(self) -> Any:
        from fsspec.config import conf

        for noisy in ("botocore", "aiobotocore", "s3fs", "paramiko", "fsspec"):
            logging.getLogger(noisy).setLevel(logging.WARNING)  # at lower levels they log credentials and headers
        # No instance is shared, and no listing remembered: a place's contents, and who may see them, can change.
        options = self._kind._get_kwargs_from_urls(self.url) | {"skip_instance_cache": True}
        if self.scheme in _SSH:
            return _ssh(self._kind, self.url, options, self._timeout, conf)
        if self.scheme in _S3 and not any("config_kwargs" in conf.get(each, {}) for each in _S3):
            options["config_kwargs"] = {"retries": {"total_max_attempts": 1}, "connect_timeout": self._timeout}
        system = self._kind(**options, use_listings_cache=False)
        if hasattr(system, "retries"):
            system.retries = 1  # retries are made here, so that they are logged, and resume
        return system


@contextmanager
def place_errors(shown: str) -> Iterator[None]:
    """Replace errors of a place, whose messages may hold secrets, and do not chain them.

    Raises:
        MissingError: There is no such thing there, or these credentials give no access to it.
        UsageError: The URL or the configuration is wrong.
        TransientError: Anything else.
    """
    try:
        yield
    except (PipelineError, TransientError):
        raise
    except (FileNotFoundError, NotADirectoryError):
        remedy = "check the URL: the bucket or host, the path, capital letters"
        raise MissingError("there is no such file or folder", where=shown, remedy=remedy) from None
    except (ValueError, TypeError, NotImplementedError, ImportError, AttributeError) as error:
        problem = f"the place cannot be read this way ({type(error).__name__})"
        raise UsageError(problem, where=shown, remedy="check the URL and fsspec's configuration") from None
    except Exception as error:  # noqa: BLE001, raised in another form: the libraries have kinds of their own
        if isinstance(error, PermissionError) or any(each.__name__ in _DENIALS for each in type(error).__mro__):
            remedy = "check the credentials in the environment, or in fsspec's configuration"
            raise MissingError(f"access is denied: {_cause(error)}", where=shown, remedy=remedy) from None
        raise TransientError(_cause(error)) from None


def version_of(info: dict[str, Any]) -> Validators:
    """A file's version from its fsspec info, where each kind of place has other keys."""
    etag = next((str(info[name]) for name in _ETAGS if info.get(name)), "")
    time = next((str(info[name]) for name in _TIMES if info.get(name)), "")
    size = info.get("size")
    return Validators(etag, time, int(size) if size is not None else -1)


def _kind(scheme: str, shown: str) -> Any:
    import fsspec  # only where a source is remote
    from fsspec.registry import known_implementations, registry

    known = sorted({*known_implementations, *registry, *_EXTRAS} - _WRAPPERS)
    if scheme not in known or "::" in shown:
        raise UsageError(
            f"URLs of kind '{scheme}' cannot be read",
            where=shown,
            expected="a path, or a URL of kind file, http, https, s3, gs, az, sftp, or another that fsspec knows",
            remedy=did_you_mean(scheme, known, otherwise="check how the URL begins", cutoff=0.6),
        )
    try:
        return fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        if scheme in _EXTRAS:
            remedy = f"pip install '.[{_EXTRAS[scheme]}]'"
        else:
            remedy = known_implementations.get(scheme, {}).get("err", "install fsspec's package for it")
        raise UsageError(f"a package for '{scheme}' URLs is missing", where=shown, remedy=remedy) from None


def _ssh(kind: Any, url: str, options: dict[str, Any], timeout: float, conf: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value:
            options[name] = unquote(value)  # fsspec does not
    options |= {"timeout": timeout, "banner_timeout": timeout, "auth_timeout": timeout}
    if not any("host_key_policy" in conf.get(each, {}) for each in _SSH):
        options["host_key_policy"] = _known_hosts_policy()
    system = kind(**options)
    system.ftp.get_channel().settimeout(timeout)
    return system


def _known_hosts_policy() -> Any:
    """The policy by which paramiko takes the server keys of `~/.ssh/known_hosts`, and refuses any other.

    fsspec's own default takes every key, and so gives the password to any server in between.
    """
    paramiko: Any = import_module("paramiko")  # only where a source is read over SSH

    def missing_host_key(_policy: Any, _client: Any, hostname: str, key: Any) -> None:
        file = Path("~/.ssh/known_hosts").expanduser()
        known = paramiko.HostKeys(str(file)) if file.is_file() else paramiko.HostKeys()
        if known.check(hostname, key):
            return
        changed = known.lookup(hostname) is not None
        raise UsageError(
            f"the server's {key.get_name()} key is {'not the one' if changed else 'not'} in the known_hosts file",
            where=hostname,
            expected="a server that ~/.ssh/known_hosts lists, as for the ssh command",
            remedy="connect once with ssh, and check the fingerprint; or set FSSPEC_SFTP_HOST_KEY_POLICY",
        )

    return type("KnownHosts", (paramiko.MissingHostKeyPolicy,), {"missing_host_key": missing_host_key})()


def _cause(error: BaseException) -> str:
    """The cause in words without secrets: the system's own, a server's code, or the error's name."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Code"):
            return f"the server answered {response['Error']['Code']}"
        cause = cause.__cause__
    if isinstance(error, OSError) and error.errno and error.strerror and type(error).__module__ == "builtins":
        return error.strerror.partition("\n")[0][:200]
    return type(error).__name__
