"""The records of runs as files in a store: JSON that is written once and checked when it is read.

A record ends in a line of its own. One that does not was cut while it was written, and counts as not written.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.errors import IntegrityError, MissingError, UsageError
from pipeline.runtime.manifest import SCHEMA, StepRecord, notebook_key
from pipeline.runtime.store.artifact_store import Store

ATTEMPT = re.compile(r"(?P<step>\w+)\.(?P<number>\d+)\.(?P<moment>started|ended)\.json")

log = logging.getLogger(__name__)


def attempt_key(run: str, record: StepRecord, moment: str) -> str:
    """Key of the record that an attempt `started` or `ended`."""
    return f"runs/{run}/attempts/{record.step}.{record.attempt:03}.{moment}.json"


def dump(content: Mapping[str, Any]) -> bytes:
    """A record's bytes."""
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def is_cut(content: bytes) -> bool:
    """Whether a record was cut while it was written; one that is damaged otherwise is not."""
    if content.endswith(b"}\n") or content[:1] not in (b"", b"{"):
        return False
    try:
        json.loads(content)
    except ValueError:
        return True
    return False


def content_of(store: Store, key: str) -> bytes:
    """A record's bytes.

    Raises:
        MissingError: The run was removed since its records were listed.
    """
    try:
        return store.files.read(key)
    except FileNotFoundError as error:
        raise MissingError(
            f"run {key.split('/')[1]} is being removed", where=store.files.location(key), remedy="look again"
        ) from error


def parse(store: Store, key: str, content: bytes) -> dict[str, Any]:
    """A record's values, of this schema or an older one.

    Raises:
        IntegrityError: It is no JSON object.
        UsageError: A newer version wrote it.
    """
    try:
        values = json.loads(content)
    except ValueError as error:
        raise unreadable(store, key, str(error)) from error
    if not isinstance(values, dict):
        raise unreadable(store, key, "it is no JSON object")
    schema = values.get("schema", 1)
    if not isinstance(schema, int):
        raise unreadable(store, key, "its schema is no number")
    if schema > SCHEMA:
        raise UsageError(
            f"a record of {key.split('/')[1]} was written by a newer version of the pipeline",
            where=store.files.location(key),
            expected=f"manifest schema {SCHEMA} or older, found {schema}",
            remedy="update the pipeline",
        )
    return values


def read_attempt(store: Store, key: str) -> StepRecord | None:
    """An attempt's record, or None if it was cut."""
    content = content_of(store, key)
    if is_cut(content):
        log.warning("a record was cut off while it was written, and does not count: %s", key)
        return None
    values = parse(store, key, content)
    try:
        return _relocated(store, key, StepRecord.from_json(values))
    except (TypeError, AttributeError) as error:
        raise unreadable(store, key, str(error)) from error


def unreadable(store: Store, key: str, why: str) -> IntegrityError:
    """The error for a damaged record."""
    return IntegrityError(
        f"a record cannot be read: {why}",
        where=store.files.location(key),
        expected=f"JSON of manifest schema {SCHEMA} or older",
        remedy="move a damaged run's folder out of the store",
    )


def _relocated(store: Store, key: str, record: StepRecord) -> StepRecord:
    """The record with the store's present URLs: it may have been moved or copied since."""
    run = key.split("/")[1] if key.startswith("runs/") else key.rpartition("/")[2].rpartition(".")[0]
    origin = record.reused_from or f"{run}/{record.made_by}"
    notebook, page = (store.files.location(notebook_key(origin, suffix)) for suffix in ("ipynb", "html"))
    return replace(
        record,
        inputs={name: store.located(each) for name, each in record.inputs.items()},
        outputs={name: store.located(each) for name, each in record.outputs.items()},
        notebook=record.notebook and notebook,
        report=record.report and page,
    )
