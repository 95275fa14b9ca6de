"""What an operator watches, in the text format of Prometheus. Labels are few and bounded: route patterns, never ids.

Counts of requests are of this process; everything about jobs is asked of the state of record when somebody looks.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker import ledger
from worker.ledger.broker import GPU_QUEUE, QUEUE

log = logging.getLogger(__name__)

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
LAG_TICK_S = 0.1
LAG_WINDOW_S = 60.0

Sample = tuple[str, dict[str, str], float]


class Figures:
    """Requests and loop lag of this process."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds: dict[str, list[int]] = {}
        """Route -> requests by bucket of BOUNDS_S, the last one for longer ones."""
        self.seconds_sum: Counter[str] = Counter()
        self.upload_bytes = 0
        self._lags: deque[float] = deque(maxlen=int(LAG_WINDOW_S / LAG_TICK_S))

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request."""
        method = method if method in METHODS else "other"
        self.requests[method, route, status] += 1
        buckets = self.seconds.setdefault(route, [0] * (len(BOUNDS_S) + 1))
        buckets[next((at for at, bound in enumerate(BOUNDS_S) if seconds <= bound), len(BOUNDS_S))] += 1
        self.seconds_sum[route] += seconds  # type: ignore[assignment]

    async def watch_loop(self) -> None:
        """How late the event loop is, for ever: everything that blocks it shows here."""
        while True:
            due = time.monotonic() + LAG_TICK_S
            await asyncio.sleep(LAG_TICK_S)
            self._lags.append(max(time.monotonic() - due, 0.0))

    def lag_s(self, share: float) -> float:
        """Below which this share of the last minute's delays lie; 1: the worst."""
        ordered = sorted(self._lags)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0

    def samples(self) -> Iterator[Sample]:
        """Requests, their duration, and the loop's lag."""
        for (method, route, status), count in sorted(self.requests.items()):
            yield "http_requests_total", {"method": method, "route": route, "status": str(status)}, count
        for route, buckets in sorted(self.seconds.items()):
            total = 0
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), buckets, strict=True):
                total += count
                yield "http_request_seconds_bucket", {"route": route, "le": bound}, total
            yield "http_request_seconds_sum", {"route": route}, self.seconds_sum[route]
            yield "http_request_seconds_count", {"route": route}, total
        for share in (0.5, 0.99, 1.0):
            yield "event_loop_lag_seconds", {"quantile": f"{share:g}"}, self.lag_s(share)


class Measured:
    """Around everything: one line in the log and one count for each request. Plain ASGI."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self.app = app
        self.figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, request_id = time.monotonic(), 500, ledger.new_id("req")

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            seconds = time.monotonic() - began
            route = str(getattr(scope.get("route"), "path", "unmatched"))
            self.figures.note(scope["method"], route, status, seconds)
            facts = {"request_id": request_id, "route": route, "status": status, "ms": round(1000 * seconds, 1)}
            if job_id := scope.get("path_params", {}).get("job_id"):
                facts["job_id"] = job_id
            caller = scope.get("state", {}).get("caller")
            if caller is not None and caller.key_id is not None:
                facts["key_id"] = caller.key_id
            log.info("%s", scope["method"], extra=facts)


def of_record(book: ledger.Ledger, outbox: ledger.Outbox, fresh_s: float) -> Iterator[Sample]:
    """Jobs, attempts, workers, webhooks and space, as they are now. Blocks."""
    counts = book.counts(parts=True)
    for state in ledger.State:
        yield "jobs", {"state": state.value}, counts.by_state.get(state, 0)
    yield "queue_oldest_seconds", {}, counts.oldest_queued_s
    for outcome, number in sorted(book.attempt_outcomes().items()):
        yield "attempts", {"outcome": outcome}, number
    workers = book.workers(fresh_s)
    yield "workers", {}, len(workers)
    yield "workers_ready", {}, sum(bool(worker.info.get("child_ready")) for worker in workers)
    yield "workers_busy", {}, sum(bool(worker.info.get("busy")) for worker in workers)
    jobs = book.open_by_queue()
    for queue in sorted({QUEUE, GPU_QUEUE, *jobs}):
        yield "queue_jobs", {"queue": queue}, jobs.get(queue, 0)
    for queue in sorted({QUEUE, GPU_QUEUE, *jobs}):
        yield "queue_workers", {"queue": queue}, sum(queue in worker.info.get("queues", ()) for worker in workers)
    backlog = outbox.backlog()
    yield "webhooks_waiting", {}, backlog.waiting
    yield "webhooks_oldest_seconds", {}, backlog.oldest_s
    yield "webhooks_given_up", {}, backlog.given_up
    yield "free_bytes", {}, book.storage.free_bytes()


HELP: dict[str, tuple[str, str]] = {
    "http_requests_total": ("counter", "Answered requests of this process."),
    "http_request_seconds": ("histogram", "How long answers took, to the last byte."),
    "event_loop_lag_seconds": ("gauge", "Delay of the event loop within the last minute: median, p99 and the worst."),
    "requests_running": ("gauge", "Requests that are being answered."),
    "event_streams": ("gauge", "Open event streams."),
    "uploads_running": ("gauge", "Uploads that are being received."),
    "jobs": ("gauge", "Jobs by state; deleted ones are tombstones."),
    "queue_oldest_seconds": ("gauge", "How long the oldest waiting job has waited."),
    "queue_jobs": ("gauge", "Jobs that wait or run, by queue."),
    "queue_workers": ("gauge", "Workers with a fresh sign of life that serve the queue."),
    "attempts": ("gauge", "Attempts of all jobs that were not deleted; expired: a lease ran out."),
    "workers": ("gauge", "Workers with a fresh sign of life."),
    "workers_ready": ("gauge", "Of these, those with their model loaded."),
    "workers_busy": ("gauge", "Of these, those with a job."),
    "webhooks_waiting": ("gauge", "Messages that were not delivered yet."),
    "webhooks_oldest_seconds": ("gauge", "Age of the oldest of them."),
    "webhooks_given_up": ("gauge", "Messages that were given up."),
    "free_bytes": ("gauge", "Free space on the data volume."),
}


def text_of(samples: Iterable[Sample]) -> str:
    """Samples as Prometheus reads them, each family under its help and type."""
    lines: list[str] = []
    told: set[str] = set()
    for name, labels, value in samples:
        family = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        family = family if family in HELP else name
        kind, said = HELP[family]
        if family not in told:
            told.add(family)
            lines += [f"# HELP mononphm_{family} {said}", f"# TYPE mononphm_{family} {kind}"]
        marked = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"mononphm_{name}{{{marked}}} {value:.10g}" if marked else f"mononphm_{name} {value:.10g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
