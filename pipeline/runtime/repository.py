"""What the git repository knows of commits that runs name: where it is kept, and what lies between two of them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pipeline.runtime.git import git

SCP = re.compile(r"(?P<host>[\w.@-]+):(?P<path>[^/].*)")  # git@host:group/project.git


def source_url(root: Path) -> str:
    """URL of the repository: its remote `origin`, without anything secret, or else the folder itself.

    Args:
        root: The checkout.
    """
    remote = (git(root, "config", "--get", "remote.origin.url") or "").strip()
    if not remote:
        return root.resolve().as_uri()
    if scp := SCP.fullmatch(remote):
        return f"ssh://{scp['host']}/{scp['path']}"
    parts = urlsplit(remote)
    if not parts.scheme:  # a folder
        return (root / remote).resolve().as_uri()
    user = parts.username if parts.scheme == "ssh" else None  # over HTTPS even the name alone may be a token
    host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    return urlunsplit((parts.scheme, f"{user}@{host}" if user else host, parts.path, "", ""))


def changed_between(root: Path, one: str, other: str) -> tuple[str, ...] | None:
    """The lines of `git diff --stat` between two commits, or None where the repository lacks one of them.

    Args:
        root: The checkout.
        one: A commit.
        other: Another.
    """
    if not one or not other:
        return None
    told = git(root, "diff", "--stat=100", "--no-color", "--no-ext-diff", "--no-textconv", one, other, "--")
    return None if told is None else tuple(told.splitlines())
