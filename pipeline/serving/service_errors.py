"""The one shape of all errors: `{"error": {"code", "message", ...}}`."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response


class ServiceError(Exception):
    """A request that is not served: HTTP status, a code for programs, a message for people, and further JSON values."""

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.body = {"error": {"code": code, "message": message, **details}}

    def response(self) -> Response:
        """The answer, with the headers that belong to its status."""
        headers: dict[str, str] = {}
        if self.status in {429, 503}:
            headers["Retry-After"] = "1"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if allowed := self.body["error"].get("allow"):
            headers["Allow"] = ", ".join(allowed)
        # what a client sent as a name may hold half a character
        text = json.dumps(self.body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        return Response(text, self.status, headers, media_type="application/json")


def unexpected_error() -> ServiceError:
    """The error of a fault in this program, whose traceback goes to the log."""
    return ServiceError(500, "internal_error", "an unexpected error, which the server's log has")


def too_long(limit: int) -> ServiceError:
    """The error of a body that is too long."""
    return ServiceError(413, "body_too_large", f"the body is longer than {limit} bytes", limit_bytes=limit)


def overloaded(what: str) -> ServiceError:
    """The error of a request that must be sent again."""
    return ServiceError(503, "overloaded", f"{what}; try again")
