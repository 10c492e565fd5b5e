"""One file over HTTP into a `PartialFile`: continued where it broke, and never taken for whole when it was cut."""

from __future__ import annotations

import re

import requests

from pipeline.data.fetch.failures import TransientError
from pipeline.data.fetch.http_responses import HttpStatusError, body_chunks, body_length
from pipeline.data.fetch.partial_file import PartialFile, Validators, byte_bar

_CHUNK = 1 << 14  # bytes; a chunk that is incomplete when the connection breaks is lost


def resume_headers(part: PartialFile, unless: Validators) -> dict[str, str]:
    """Headers that ask for the rest of a partial file, or for a file that differs from the version `unless`."""
    headers = {"Accept-Encoding": "identity"}  # in compressed bodies, lengths and ranges would mean something else
    if part.size and part.validators.if_range:
        return headers | {"Range": f"bytes={part.size}-", "If-Range": part.validators.if_range}
    return headers | unless.conditions


def receive(
    response: requests.Response, part: PartialFile, unless: Validators, max_bytes: int, where: str, *, quiet: bool
) -> Validators | None:
    """Add a successful response to a partial file, or start the file anew with it.

    Returns:
        The file's version, or None where the server still has the version `unless`.

    Raises:
        DataError: The file is larger than `max_bytes`, or cannot be written.
        HttpStatusError: The response holds no file.
        TransientError: Another attempt may succeed.
    """
    status = response.status_code
    if status == 304 and unless.conditions:
        return None
    if status == 416:  # the bytes here are not the beginning of the server's file
        part.reset(Validators())
        raise TransientError("the server has another file than the one begun")
    if status == 206:
        if not _continues(response, part):
            part.reset(Validators())
            raise TransientError("the server sent another piece than the one asked for")
    elif status != 200:  # such as 202, whose body says that the file is being prepared
        raise HttpStatusError(status, where)
    else:
        headers = response.headers
        validators = Validators(headers.get("ETag", ""), headers.get("Last-Modified", ""), body_length(response))
        if unless.same_version(validators):
            return None
        part.reset(validators)
    total = part.validators.size
    try:
        with byte_bar(part.target.name, total, part.size, quiet=quiet) as bar:
            for chunk in body_chunks(response, max_bytes, where, "use a smaller file", _CHUNK, before=part.size):
                part.write(chunk)
                bar.update(len(chunk))
    finally:
        part.flush()
    if 0 <= total != part.size:
        raise TransientError(f"the download was cut: {part.size} of {total} bytes came")
    return part.validators


def _continues(response: requests.Response, part: PartialFile) -> bool:
    """Whether a 206 response starts where the partial file ends, and is of the same version."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != part.size:
        return False
    total = part.validators.size
    same_size = match[2] == "*" or total < 0 or int(match[2]) == total
    return same_size and response.headers.get("ETag", part.validators.etag) == part.validators.etag
