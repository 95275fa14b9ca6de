"""What a route can ask for: the state of record, the settings, and the few counters of this process."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from service.jobs import Jobs
from service.metrics import Figures
from service.problems import Problem, retry_after
from service.settings import ServiceSettings
from worker import ledger


class Slots:
    """So many at once; the next one hears 503."""

    def __init__(self, total: int, what: str) -> None:
        self.total = total
        self.what = what
        self.taken = 0

    def check(self) -> None:
        """Raise the 503 when there is none left."""
        if self.taken >= self.total:
            raise Problem("busy", f"{self.total} {self.what} run already. Try again shortly.", headers=retry_after(5))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take a slot while the block runs; `check` first."""
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


@dataclass
class Context:
    """One running API process."""

    settings: ServiceSettings
    jobs: Jobs
    keys: ledger.Keys
    outbox: ledger.Outbox
    figures: Figures
    uploads: Slots
    streams: Slots
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server was told to stop: streams end so that it can."""


async def context_of(request: Request) -> Context:
    """The context of the application that serves this request. Async, or it would cost a thread."""
    context: Context = request.app.state.context
    return context


Here = Annotated[Context, Depends(context_of)]
