"""The API as a process: one socket, uvicorn with limits, and a stop that lets streams go."""

import gc
import logging
import os
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.settings import ServiceSettings, is_loopback
from worker import ledger

log = logging.getLogger(__name__)

BACKLOG = 128
HEADER_BYTES = 32 << 10
"""Of one request's line and headers."""

KEEP_ALIVE_S = 15
ABOVE_OUR_LIMIT = 64
"""uvicorn refuses with a text of its own; our problem document comes first."""


class CannotServe(Exception):
    """The address cannot or must not be bound; the message says what to do."""


def bind(settings: ServiceSettings) -> socket.socket:
    """A listening socket. Raises CannotServe, in words, when the port is taken."""
    host = settings.host.strip("[]")
    try:
        family = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, settings.port))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise CannotServe(
            f"cannot listen on {settings.host} port {settings.port}: {os.strerror(error.errno or 0)}. "
            "Stop what runs there, or choose another with --port (0: any free one)."
        ) from error
    return listener


def inherited(descriptor: int) -> socket.socket:
    """The listening socket that whoever started us has bound."""
    return socket.socket(fileno=descriptor)


def as_bound(settings: ServiceSettings, listener: socket.socket) -> ServiceSettings:
    """The settings with the address that is really bound: a socket that somebody else opened may reach further."""
    host = str(listener.getsockname()[0])
    if is_loopback(host) or settings.keys_required or settings.allow_remote_without_keys:
        return settings
    return settings.model_copy(update={"host": host})


def address_of(listener: socket.socket) -> str:
    """The URL of the page."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Tells the streams to end as soon as a signal comes, so that the stop need not wait for their listeners."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; what has been imported by then lives as long as the process, so the collector need not walk it."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        context = getattr(self._app.state, "context", None)
        if context is not None:
            context.stopping.set()
        super().handle_exit(sig, frame)


def serve(settings: ServiceSettings, listener: socket.socket) -> bool:
    """Serve until SIGTERM or SIGINT. False: the application could not start; the log says why."""
    ledger.tracing.begin("mononphm-api")
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        http="h11",  # the one with a limit on headers
        ws="none",
        limit_concurrency=settings.max_requests + ABOVE_OUR_LIMIT,
        timeout_graceful_shutdown=settings.shutdown_s,
        timeout_keep_alive=KEEP_ALIVE_S,
        h11_max_incomplete_event_size=HEADER_BYTES,
        backlog=BACKLOG,
        server_header=False,
        proxy_headers=False,
        access_log=False,
        log_config=None,
        lifespan="on",
    )
    server = Server(config, app)
    # uvicorn raises the signal again when it has stopped; a clean stop is no failure.
    before = {number: signal.signal(number, _heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return server.started


def _heard(number: int, frame: FrameType | None) -> None:
    pass
