"""Which SSH servers are known: those in the user's own known_hosts file, as for the `ssh` command."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError


def known_hosts_policy() -> Any:
    """What paramiko is to do about a server's key: take those of `~/.ssh/known_hosts`, and refuse any other.

    fsspec's own default takes every key, so that a stranger in between is given the password.
    """
    paramiko: Any = import_module("paramiko")  # only where a source is read over SSH

    def missing_host_key(_policy: Any, _client: Any, hostname: str, key: Any) -> None:
        file = Path("~/.ssh/known_hosts").expanduser()
        known = paramiko.HostKeys(str(file)) if file.is_file() else paramiko.HostKeys()
        if not known.check(hostname, key):
            raise _unknown(hostname, key.get_name(), changed=known.lookup(hostname) is not None)

    kind = type("KnownHosts", (paramiko.MissingHostKeyPolicy,), {"missing_host_key": missing_host_key})
    return kind()


def _unknown(host: str, kind: str, *, changed: bool) -> UsageError:
    return UsageError(
        f"The server's {kind} key is {'not the one' if changed else 'not'} in the known_hosts file",
        where=host,
        expected="a server that ~/.ssh/known_hosts knows, as for the ssh command",
        remedy="connect once with ssh, and see that the fingerprint is right; or set FSSPEC_SFTP_HOST_KEY_POLICY",
    )
