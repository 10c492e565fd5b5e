"""One shape for all errors, known paths alone, and pages that ask nobody else: what stands before BentoML's server.

BentoML answers errors in several shapes, counts a metric for each path that a client makes up, loads a tag manager
in its index page, and takes `GET /info` for a mistake. `{"error": {"code", "message", ...}}` is the shape of all here.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import did_you_mean

log = logging.getLogger(__name__)

_CODES = {404: "not_found", 405: "method_not_allowed", 429: "too_many_requests", 503: "overloaded", 504: "timeout"}
_MESSAGES = {
    429: "too many requests at once; try again",
    500: "an unexpected error, which the server's log has",
    503: "the service cannot answer now; try again",
    504: "the answer took too long",
}
# BentoML's own start of the page lets every browser that is not on this machine ask validator.swagger.io about the API.
_START = re.compile(r"<script [^>]*swagger-initializer\.js[^>]*>\s*</script>")
_START_ALONE = """<script>
window.onload = () => {
  window.ui = SwaggerUIBundle({
    url: "./docs.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null, layout: "StandaloneLayout",
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  });
};
</script>"""
_TAGS = re.compile(r"<!-- Google Tag Manager.*?<!-- End Google Tag Manager[^>]*-->", re.DOTALL)


class ServiceError(Exception):
    """A request that is not served: HTTP status, a code for programs, a message for people, and further JSON values."""

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message, **details}}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that belong to the status."""
        allowed = self.body["error"].get("allow")
        return ({"Retry-After": "1"} if self.status in {429, 503} else {}) | (
            {"Allow": ", ".join(allowed)} if allowed else {}
        )

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body, self.status, self.headers)


def unexpected_error() -> ServiceError:
    """The error of a fault in this program, whose traceback goes to the log."""
    return ServiceError(500, "internal_error", _MESSAGES[500])


class OuterApp:
    """ASGI application around BentoML's server.

    `methods` are those of each path; paths below a `prefix`, such as the files of the index page, are served too.
    """

    def __init__(
        self, app: ASGIApp, methods: Mapping[str, Iterable[str]], prefixes: tuple[str, ...], index: Path
    ) -> None:
        self._app = app
        self._methods = {path: frozenset(allowed) for path, allowed in methods.items()}
        self._prefixes = prefixes
        self._methods |= {"/": frozenset({"GET"}), "/ui": frozenset({"GET"}), "/docs": frozenset({"GET"})}
        page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
        api_page = _START.sub(_START_ALONE, _TAGS.sub("", index.read_text(encoding="utf-8")))
        self._pages = {"/": page, "/ui": page, "/docs": api_page}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] == "/ui/":  # from where the page's relative links would miss
            await RedirectResponse("../ui")(scope, receive, send)
            return
        try:
            scope, receive = self._routed(scope, receive)
        except ServiceError as error:
            await error.response()(scope, receive, send)
            return
        if scope["path"] in self._pages:
            await HTMLResponse(self._pages[scope["path"]])(scope, receive, send)
            return
        shaped = _ShapedAnswer(send)
        try:
            await self._app(scope, receive, shaped.send)
        except Exception:
            log.exception("an unexpected error at %s", scope["path"])
            if not shaped.started:
                await unexpected_error().response()(scope, receive, send)

    def _routed(self, scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
        """The request as BentoML takes it: without a slash at the end, and POST where GET asks the same."""
        path, method = scope["path"], scope["method"]
        if path.startswith(self._prefixes):
            return scope, receive
        plain = path.rstrip("/") or "/"
        allowed = self._methods.get(plain)
        if allowed is None:
            hint = did_you_mean(plain, self._methods, otherwise=f"there are: {', '.join(sorted(self._methods))}")
            raise ServiceError(404, "not_found", f"there is no path '{path[:80]}': {hint}")
        if plain != path:
            scope = {**scope, "path": plain, "raw_path": plain.encode()}
        if method in allowed or (method == "HEAD" and "GET" in allowed) or method == "OPTIONS":
            return scope, receive
        if method == "GET" and plain in GETTABLE:
            return {**scope, "method": "POST"}, receive
        listed = sorted(allowed | ({"GET"} if plain in GETTABLE else set()))
        raise ServiceError(
            405, "method_not_allowed", f"{plain} takes {' and '.join(listed)}, not {method}", allow=listed
        )


GETTABLE = frozenset({"/info", "/test_data", "/test_result"})
"""Paths without parameters, which may be asked for by GET, too."""


class _ShapedAnswer:
    """Passes an answer on; the body of an error that has another shape is replaced."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self._start: Message = {}  # of an error, until the first bytes of its body tell its shape
        self._body = b""

    async def send(self, message: Message) -> None:
        """Take a message of the application."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
            return
        self.started = True
        if not self._start:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if _is_shaped(self._body):
            await self._send(self._start)
            await self._send({**message, "body": self._body})
            self._start = {}
        elif not message.get("more_body"):
            await self._replace()

    async def _replace(self) -> None:
        status, said = self._start["status"], _text_of(self._body)
        message = _MESSAGES.get(status) or said or "the request was not served"
        error = ServiceError(status, _CODES.get(status, "internal_error" if status >= 500 else "bad_request"), message)
        response = error.response()
        kept = [pair for pair in self._start["headers"] if pair[0].lower() not in _OWN_HEADERS]
        headers = [*response.raw_headers, *kept]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.body})


_OWN_HEADERS = {b"content-type", b"content-length", b"retry-after"}


def _is_shaped(body: bytes) -> bool:
    return body.startswith(b'{"error":{"code":')


def _text_of(body: bytes) -> str:
    """What another shape of error says."""
    try:
        content = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")[:200]
    content = content[0] if isinstance(content, list) and content else content
    return str(content.get("error") or content.get("detail") or "")[:200] if isinstance(content, dict) else ""
