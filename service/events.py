"""The story of a job as Server-Sent Events, told from the table: a listener who comes back misses nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from service.schemas import artifact_path, rfc3339
from service.threads import in_ledger_thread
from worker import ledger

KEEP_ALIVE_S = 15.0
RETRY_MS = 2000
LAST_STATES = frozenset({*(state.value for state in ledger.TERMINAL), ledger.State.DELETED.value})


def event_text(event: ledger.Event) -> str:
    """One event in the wire format; JSON has no bare line breaks, so no data can forge a second event."""
    data: dict[str, Any] = {"at": rfc3339(event.at), **event.data}
    if event.type == "artifact":
        data["href"] = artifact_path(event.job_id, str(event.data.get("name", "")))
    return f"id: {event.seq}\nevent: {event.type}\ndata: {json.dumps(data)}\n\n"


def is_last(event: ledger.Event) -> bool:
    """Whether nothing can follow."""
    return event.type == "state" and event.data.get("state") in LAST_STATES


async def stream(
    book: ledger.Ledger, job_id: str, after: int, poll_s: float, stopping: asyncio.Event
) -> AsyncIterator[str]:
    """Events with a number above `after`, until the job has ended or the server stops."""
    yield f"retry: {RETRY_MS}\n\n"
    quiet_s = 0.0
    while not stopping.is_set():
        events = await in_ledger_thread(book.events_after, job_id, after)
        for event in events:
            yield event_text(event)
            after = event.seq
            if is_last(event):
                return
        if events:
            quiet_s = 0.0
            continue
        quiet_s += poll_s
        if quiet_s >= KEEP_ALIVE_S:
            yield ": still here\n\n"
            quiet_s = 0.0
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), poll_s)
