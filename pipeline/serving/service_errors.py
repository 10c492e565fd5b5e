"""The one shape of all errors: `{"error": {"code", "message", ...}}`."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse


class ServiceError(Exception):
    """A request that is not served: HTTP status, a code for programs, a message for people, and further JSON values."""

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.body = {"error": {"code": code, "message": message, **details}}

    def response(self) -> JSONResponse:
        """The answer, with the headers that belong to its status."""
        headers: dict[str, str] = {}
        if self.status in {429, 503}:
            headers["Retry-After"] = "1"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if allowed := self.body["error"].get("allow"):
            headers["Allow"] = ", ".join(allowed)
        return JSONResponse(self.body, self.status, headers)


def unexpected_error() -> ServiceError:
    """The error of a fault in this program, whose traceback goes to the log."""
    return ServiceError(500, "internal_error", "an unexpected error, which the server's log has")


def overloaded(what: str) -> ServiceError:
    """The error of a request that must be sent again."""
    return ServiceError(503, "overloaded", f"{what}; try again")
