"""A request's body as it arrives: in batches for a thread, with an end to patience, and forgotten politely."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from starlette.requests import Request

from service.problems import Problem

BATCH_BYTES = 1 << 20
"""What is handed to a thread at once: parsing, hashing and writing it takes about a millisecond."""

BATCH_PIECES = 256
"""However small they are: a client that sends byte by byte fills no memory with them."""

DRAIN_BYTES = 8 << 20
DRAIN_S = 2.0
"""How much of a refused body is read and forgotten, so that the client is still there to read the answer."""

IDLE_S = 60.0
"""Patience with a client that sends nothing, where no setting says otherwise."""


class Body:
    """The request's body in batches, and how to forget the rest of a refused one."""

    def __init__(self, request: Request, idle_s: float = IDLE_S) -> None:
        self.request = request
        self._idle_s = idle_s
        self._over = False
        """All of it came, or the client has left."""

    async def batches(self) -> AsyncGenerator[list[bytes], None]:
        """The body in batches of about BATCH_BYTES, each the pieces as they came: nothing is copied on the event loop.

        Raises Problem when it stops coming.
        """
        waiting: list[bytes] = []
        size = 0
        while not self._over:
            chunk = await self._next_chunk()
            waiting.append(chunk)
            size += len(chunk)
            if size >= BATCH_BYTES or len(waiting) >= BATCH_PIECES or self._over:
                yield waiting
                waiting, size = [], 0

    async def _next_chunk(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle_s):
                message = await self.request.receive()
        except TimeoutError:
            self._over = True
            raise Problem(
                "upload_timeout",
                f"Nothing arrived for {self._idle_s:g} s. Send the file again over a better connection.",
                headers={"Connection": "close"},
            ) from None
        if message["type"] != "http.request":
            self._over = True
            raise Problem("upload_aborted", "The connection ended before the whole file arrived. Send it again.")
        self._over = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    async def drain(self) -> None:
        """Read a little of what a refused client still sends; one that waits for `100 Continue` sends nothing."""
        if "expect" in self.request.headers:
            return
        left = DRAIN_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while left > 0 and not self._over:
                    message = await self.request.receive()
                    left -= len(message.get("body", b""))
                    self._over = message["type"] != "http.request" or not message.get("more_body", False)
