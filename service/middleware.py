"""What holds for every request, before any route: who may ask, how much, and what each answer carries. Plain ASGI."""

import logging
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem, from_exception, retry_after

log = logging.getLogger(__name__)

SMALL_BODY_BYTES = 64 << 10
"""No request but an upload has more."""

API_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; "
    "connect-src 'self' blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
TUS_VERSION = "1.0.0"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SecurityHeaders:
    """Headers that every answer has; routes that serve the page set a policy of their own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
                headers.setdefault("Content-Security-Policy", API_POLICY)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class Problems:
    """Whatever escapes a route becomes a problem document, if nothing was sent yet; the trace goes to the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            problem = from_exception(error)
            if started:
                raise  # the connection breaks: the client must not take half an answer for a whole one
            await problem.response(scope["path"])(scope, receive, send)


class Guard:
    """Only for us: a foreign Host means DNS rebinding, a foreign Origin a web page that uses its visitor's network."""

    def __init__(self, app: ASGIApp, host_names: frozenset[str] | None) -> None:
        self.app = app
        self.host_names = host_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            if self.host_names is not None and _name_of(host) not in self.host_names:
                raise Problem(
                    "unknown_host",
                    "This server does not answer under that name. The operator can add it to MONONPHM_ALLOWED_HOSTS.",
                )
            if scope["method"] not in SAFE_METHODS and _is_foreign(headers, host):
                raise Problem("cross_origin", "Web pages of other sites may not do this. Use the page of this server.")
        await self.app(scope, receive, send)


class Tus:
    """What tus wants of every request and answer below /uploads: the version, and methods that proxies would block."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_tus(scope["path"]):
            await self.app(scope, receive, send)
            return
        meant = Headers(scope=scope).get("x-http-method-override", "").upper()
        if meant in ("PATCH", "DELETE", "HEAD"):
            scope = {**scope, "method": meant}

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = TUS_VERSION
            await send(message)

        await self.app(scope, receive, send_with_version)


def is_tus(path: str) -> bool:
    """Whether resumable uploads live at this path."""
    return path == "/uploads" or path.startswith("/uploads/")


class Bounds:
    """No more requests at once, and no larger bodies, than agreed. Counted, not believed."""

    def __init__(self, app: ASGIApp, max_requests: int, max_upload_bytes: int) -> None:
        self.app = app
        self.max_requests = max_requests
        self.max_upload_bytes = max_upload_bytes
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.running >= self.max_requests:
            raise Problem("busy", "Too many requests at once. Try again in a moment.", headers=retry_after(1))
        is_upload = (scope["method"] == "POST" and scope["path"] == "/reconstructions") or (
            scope["method"] == "PATCH" and is_tus(scope["path"])
        )
        limit = self.max_upload_bytes if is_upload else SMALL_BODY_BYTES
        declared = Headers(scope=scope).get("content-length", "")
        if not is_upload and declared.isdigit() and int(declared) > limit:
            raise self._too_large(limit)
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > limit:
                raise self._too_large(limit)
            return message

        self.running += 1
        try:
            await self.app(scope, counted, send)
        finally:
            self.running -= 1

    def _too_large(self, limit: int) -> Problem:
        return Problem("body_too_large", f"This request may have at most {limit} bytes of body. Send less.")


def _name_of(host: str) -> str:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    return f"[{name}]" if ":" in name else name


def _is_foreign(headers: Headers, host: str) -> bool:
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return True
    origin = headers.get("origin")
    return origin is not None and (origin == "null" or urlsplit(origin).netloc.lower() != host.lower())
