"""The uploads of a request: their limits, refusals, and the files of a multipart body."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import JSONResponse

from pipeline.errors import DataError
from pipeline.serving.decoding import MAX_PIXELS

FIELD = "images"
MEDIA_TYPE = "multipart/form-data"


@dataclass(frozen=True)
class UploadLimits:
    """Limits of one request, and of all requests together.

    Attributes:
        body_bytes: Length of one request's body.
        images: Images in one request.
        pixels: Pixels of one image, by its header.
        held_bytes: Bytes of the bodies of all unfinished requests; above it a request gets a 503.
    """

    body_bytes: int = 32 * 2**20
    images: int = 32
    pixels: int = MAX_PIXELS
    held_bytes: int = 2**30

    def to_dict(self) -> dict[str, int]:
        """Return the limits of one request."""
        return {name: value for name, value in asdict(self).items() if name != "held_bytes"}


@dataclass(frozen=True)
class UploadedFile:
    """One uploaded file: its bytes, and the sender's name for it, which is used in messages only."""

    data: bytes
    name: str


class UploadRefusedError(DataError):
    """A request that is not served.

    Args:
        status: HTTP status.
        code: Short name of the reason, for programs.
        message: The reason, for people.
        details: Further JSON values, for instance which image it is.
    """

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message, **details}}

    def response(self) -> JSONResponse:
        """The answer. It closes the connection, since the rest of the body may be unread."""
        headers = {"Connection": "close"}
        if self.status == 503:
            headers["Retry-After"] = "1"
        return JSONResponse(self.body, self.status, headers)


def check_headers(headers: Mapping[str, str], limits: UploadLimits) -> None:
    """Refuse by the headers alone, before a byte of the body is read.

    Raises:
        UploadRefusedError: The body is no multipart form, or its announced length is above the limit.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE:
        given = f"not {media_type}" if media_type else "and has no content type"
        message = f"the body must be {MEDIA_TYPE} with files named '{FIELD}', {given}"
        raise UploadRefusedError(415, "unsupported_media_type", message)
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.body_bytes:
        raise too_long(limits.body_bytes)


def too_long(limit: int) -> UploadRefusedError:
    """The refusal of a body of more than `limit` bytes."""
    return UploadRefusedError(413, "body_too_large", f"the body is longer than {limit} bytes", limit_bytes=limit)


async def read_files(headers: Headers, body: AsyncGenerator[bytes, None], limits: UploadLimits) -> list[UploadedFile]:
    """Read the files of a multipart form, all of which must be named `images`.

    A part without a file name is refused: it could be text, JSON or a URL.

    Args:
        headers: The request's headers.
        body: The request's body, of limited length.
        limits: How many files there may be.

    Raises:
        UploadRefusedError: The body is not a proper form, has no file or too many, or has another part.
    """
    parser = _InMemoryParser(headers, body, max_files=limits.images + 1, max_fields=1)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many(limits.images) from error
        raise UploadRefusedError(
            400, "malformed_form", f"the multipart form cannot be read: {error.message}"
        ) from error
    if not parser.closed:
        raise UploadRefusedError(400, "malformed_form", "the multipart form ends before its last boundary")
    parts = form.multi_items()
    for index, (name, part) in enumerate(parts):
        if not isinstance(part, UploadFile):
            message = f"part {index} ('{name}') is not a file: give it a file name"
            raise UploadRefusedError(400, "not_a_file", message, index=index)
        if name != FIELD:
            message = f"part {index} is named '{name}': files must be named '{FIELD}'"
            raise UploadRefusedError(400, "unexpected_field", message, index=index)
    if not parts:
        raise UploadRefusedError(400, "no_images", f"the form has no file named '{FIELD}'")
    if len(parts) > limits.images:
        raise _too_many(limits.images)
    files = [UploadedFile(await part.read(), part.filename or "") for _, part in parts if isinstance(part, UploadFile)]
    await form.close()
    return files


def _too_many(limit: int) -> UploadRefusedError:
    return UploadRefusedError(413, "too_many_images", f"more than {limit} images in one request", limit_images=limit)


class _InMemoryParser(MultiPartParser):
    """Starlette's parser without temporary files. It notes whether the form is complete."""

    spool_max_size = 2**40
    closed = False

    def on_end(self) -> None:
        """Note that the last boundary was read."""
        self.closed = True
