"""Who asks: API keys where they are required. Closed by default, so a route that forgets about keys is not open."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.body import Body
from service.problems import Problem
from service.threads import in_ledger_thread
from worker import ledger

PUBLIC_PATHS = frozenset({"/health/live", "/health/ready", "/openapi.json"})
"""What a load balancer and a stranger may ask; none of it says anything about anybody."""

PAGE_PATHS = re.compile(r"/|/r/[^/]+|/web/[^/]+")
"""The empty page: the same bytes for everybody and every job. What it shows, it asks for with a key."""

COOKIE = "mononphm_key"
"""Where the page keeps the key that its user typed, or that a shared link brought. Other sites' requests come without
it (SameSite=Strict), and those that would change something are refused before the gate."""

ADMIN_PATHS = frozenset({"/metrics"})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
BEARER = 'Bearer realm="mononphm"'
BASIC = 'Basic realm="mononphm: the key is the password"'
"""Programs send Bearer. A browser that opens a file's address asks its user for a password; the page asks by itself."""


@dataclass(frozen=True)
class Caller:
    """Whom a request comes from."""

    owner: str | None = None
    """Whose jobs are seen; None: keys are off, and all are."""
    key_id: str | None = None

    @property
    def opens_for(self) -> str:
        """The owner of what this caller opens."""
        return self.owner or ""


ANYBODY = Caller()


class Gate:
    """Before every route: 401 without a living key, 403 without its scope. Plain ASGI."""

    def __init__(self, app: ASGIApp, required: bool) -> None:
        self.app = app
        self.required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            caller = ANYBODY
            if self.required and not is_public(scope["method"], scope["path"]):
                try:
                    caller = await self._admitted(scope)
                except Problem:
                    await Body(Request(scope, receive)).drain()
                    raise
            scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)

    async def _admitted(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        text = presented(headers.get("authorization")) or Request(scope).cookies.get(COOKIE)
        challenge = {"WWW-Authenticate": BEARER if headers.get("sec-fetch-dest") == "empty" else f"{BEARER}, {BASIC}"}
        if text is None:
            raise Problem(
                "key_missing",
                "This server asks for an API key. Send `Authorization: Bearer <key>`; the operator makes keys with "
                "`mononphm keys create`.",
                headers=challenge,
            )
        keys: ledger.Keys = scope["app"].state.context.keys
        key = await in_ledger_thread(keys.find, text)
        if key is None:
            raise Problem(
                "key_invalid",
                "This API key is unknown, revoked or expired. Ask the operator for a new one.",
                headers=challenge,
            )
        wanted = scope_of(scope["method"], scope["path"])
        if wanted not in key.scopes:
            raise Problem(
                "scope_missing", f"This API key lacks the scope `{wanted}`. Use a key that has it.", scope=wanted
            )
        return Caller(key.owner, key.id)


def is_public(method: str, path: str) -> bool:
    """Whether anybody may ask this."""
    return path in PUBLIC_PATHS or (method in READING and PAGE_PATHS.fullmatch(path) is not None)


def scope_of(method: str, path: str) -> ledger.Scope:
    """What a request needs: admin for the figures of the whole server, read to look, write for everything else."""
    if path in ADMIN_PATHS:
        return "admin"
    return "read" if method in READING else "write"


def presented(header: str | None) -> str | None:
    """The key in an Authorization header; None where there is none."""
    match = re.fullmatch(r"(?i:(bearer|basic)) +(\S{1,512})", header or "")
    if match is None:
        return None
    if match[1].lower() == "bearer":
        return match[2]
    try:
        _, colon, password = base64.b64decode(match[2], validate=True).decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        return None
    return password if colon and password else None


async def caller_of(request: Request) -> Caller:
    """Whom the gate let in. Async, or it would cost a thread."""
    caller: Caller = request.state.caller
    return caller


Who = Annotated[Caller, Depends(caller_of)]
