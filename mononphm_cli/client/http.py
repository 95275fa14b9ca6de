"""Requests and polite retries.

Only what may safely be repeated is repeated: reads, and submits under one Idempotency-Key.
"""

import base64
import io
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from pydantic import ValidationError

from mononphm_cli.client import resumable
from mononphm_cli.client.events import Event, events_in
from mononphm_cli.client.models import Artifact, ArtifactList, Job, JobPage, Problem
from mononphm_cli.failures import RemoteFailure, ServerUnreachable

BUSY = frozenset({429, 502, 503, 504})
"""Answers that mean: the same again, later."""

RESUMABLE_BYTES = 8 << 20
"""From this size on a file is sent by a resumable upload."""

OnBytes = Callable[[int], None]
"""Told how many more bytes went over the wire; negative when an attempt starts again."""


@dataclass(frozen=True)
class Retries:
    """How often and how patiently: waits double from `first_wait_s`, shuffled, unless the server names a time."""

    attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def wait_s(self, attempt: int, retry_after: str | None) -> float:
        """Seconds before the next attempt; `retry_after` is the header (seconds), if the server sent one."""
        if retry_after is not None and retry_after.strip().isdigit():
            return min(float(retry_after), self.longest_wait_s)
        wait: float = min(self.first_wait_s * 2**attempt, self.longest_wait_s)
        return wait * random.uniform(0.5, 1.0)


class Client:
    """One server. Raises RemoteFailure with the server's own words, ServerUnreachable when there is no answer."""

    def __init__(
        self,
        server: str,
        key: str | None = None,
        retries: Retries | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.server = server.rstrip("/")
        self._retries = retries or Retries()
        self._sleep = sleep
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._http = httpx.Client(
            base_url=self.server, headers=headers, timeout=httpx.Timeout(30.0, connect=5.0), follow_redirects=True
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    # ---- jobs -----------------------------------------------------------------------------------------------------

    def submit(
        self,
        path: Path,
        options: dict[str, Any],
        idempotency_key: str | None = None,
        on_bytes: OnBytes = lambda count: None,
    ) -> Job:
        """Upload one file and open a job. After a lost answer the same key finds the same job.

        A small file is streamed with the request; a large one goes by a resumable upload.
        """
        key = idempotency_key or str(uuid.uuid4())
        if path.stat().st_size >= RESUMABLE_BYTES:
            body = {"upload_id": resumable.upload(self, path, on_bytes), "options": options}
            job = self._open("/reconstructions", body, key)
            resumable.forget(self, path)
            return job

        def send() -> httpx.Response:
            with _Counted(path, on_bytes) as source:
                try:
                    reply = self._http.post(
                        "/reconstructions",
                        files={"file": (path.name, source, "application/octet-stream")},
                        data={"options": json.dumps(options)},
                        headers={"Idempotency-Key": key},
                        timeout=httpx.Timeout(60.0, connect=5.0),
                    )
                except httpx.TransportError:
                    on_bytes(-source.total)
                    raise
                if reply.status_code in BUSY:
                    on_bytes(-source.total)
                return reply

        return Job.model_validate(self._json(self._repeat(send)))

    def job(self, job_id: str) -> Job:
        """The job as it is now."""
        return Job.model_validate(self._json(self._get(_job_path(job_id))))

    def jobs(self, state: str | None = None, label: str | None = None, limit: int = 20) -> Iterator[Job]:
        """At most `limit` jobs, newest first, over as many pages as that takes."""
        cursor: str | None = None
        left = limit
        while left > 0:
            wanted = {"state": state, "label": label, "cursor": cursor, "limit": str(min(left, 100))}
            reply = self._get("/reconstructions", {name: value for name, value in wanted.items() if value})
            page = JobPage.model_validate(self._json(reply))
            yield from page.items[:left]
            left -= len(page.items)
            cursor = page.next_cursor
            if not cursor or not page.items:
                return

    def animate(
        self, identity: str, expressions: str, options: dict[str, Any] | None = None, idempotency_key: str | None = None
    ) -> Job:
        """The head of one finished job with the expressions of another, as a new job."""
        body = {"identity": identity, "expressions": expressions, "options": options or {}}
        return self._open("/animations", body, idempotency_key or str(uuid.uuid4()))

    def _open(self, path: str, body: dict[str, Any], key: str) -> Job:
        return Job.model_validate(
            self._json(self._repeat(lambda: self._http.post(path, json=body, headers={"Idempotency-Key": key})))
        )

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """The job's story, each event once and in order, over as many connections as it takes; ends with the job."""
        breaks = 0
        while True:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            try:
                with self._http.stream("GET", f"{_job_path(job_id)}/events", headers=headers) as reply:
                    if reply.status_code == httpx.codes.NO_CONTENT:
                        return
                    if not reply.is_success:
                        reply.read()
                        raise failure_of(reply)
                    for event in events_in(reply.iter_lines()):
                        after, breaks = event.id, 0
                        yield event
                        if event.is_last:
                            return
            except httpx.TransportError as error:
                breaks += 1
                if breaks >= self._retries.attempts:
                    raise self._unreachable(error) from error
                self.pause(breaks)

    def expressions(self, job_id: str, format: str = "json", space: str = "codes") -> str:
        """The codes frame by frame as JSON or CSV text; `space="arkit"` for ARKit-52 where the model maps to it."""
        return self._get(f"{_job_path(job_id)}/expressions", {"format": format, "space": space}).text

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of a queued or running job; asking twice is the same as once."""
        return Job.model_validate(self._json(self._repeat(lambda: self._http.post(f"{_job_path(job_id)}/cancel"))))

    def retry(self, job_id: str) -> Job:
        """A failed or cancelled job again. Sent once: a second one could start a second attempt."""
        return Job.model_validate(self._json(self._once(lambda: self._http.post(f"{_job_path(job_id)}/retry"))))

    def delete(self, job_id: str) -> None:
        """Remove a job's bytes. Already gone is gone."""
        reply = self._repeat(lambda: self._http.delete(_job_path(job_id)), accept=frozenset({410}))
        reply.read()

    def wait(
        self, job_id: str, on_change: Callable[[Job], None] = lambda job: None, timeout_s: float | None = None
    ) -> Job:
        """Poll until the job ends. Asks often while things move and seldom while they do not (0.3 s to 3 s)."""
        started = time.monotonic()
        pause, last = 0.3, ""
        while True:
            job = self.job(job_id)
            on_change(job)
            if job.ended:
                return job
            if timeout_s is not None and time.monotonic() - started > timeout_s:
                raise RemoteFailure(
                    f"job {job_id} is still {job.state} after {timeout_s:g} s. It goes on without this command: "
                    f"`mononphm jobs wait {job_id}`.",
                    "time_budget_exceeded",
                )
            now = f"{job.state} {job.stage} {job.progress}"
            pause = 0.3 if now != last else min(pause * 1.5, 3.0)
            last = now
            self._sleep(pause)

    # ---- artifacts ------------------------------------------------------------------------------------------------

    def artifacts(self, job_id: str) -> list[Artifact]:
        """The files of a succeeded job, with their checksums."""
        reply = self._json(self._get(f"{_job_path(job_id)}/artifacts"))
        return ArtifactList.model_validate(reply).items

    @contextmanager
    def open_artifact(self, job_id: str, name: str, start: int = 0) -> Iterator[httpx.Response]:
        """The bytes of one file from `start` on, as a stream."""
        path = f"{_job_path(job_id)}/artifacts/{quote(name)}"
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with self._http.stream("GET", path, headers=headers) as reply:
            if not reply.is_success:
                reply.read()
                raise failure_of(reply)
            yield reply

    def download_zip(self, job_id: str, target: Path) -> None:
        """Everything in one archive; it appears under its name only when it is whole."""
        part = target.with_name(f".{target.name}.part")
        try:
            with part.open("wb") as sink, self._http.stream("GET", f"{_job_path(job_id)}/artifacts.zip") as reply:
                if not reply.is_success:
                    reply.read()
                    raise failure_of(reply)
                for piece in reply.iter_raw():
                    sink.write(piece)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    # ---- resumable uploads ----------------------------------------------------------------------------------------

    def begin_upload(self, length: int, filename: str) -> str:
        """The path of a new upload."""
        name = base64.b64encode(filename.encode("utf-8", "replace")).decode()
        headers = {**resumable.TUS, "Upload-Length": str(length), "Upload-Metadata": f"filename {name}"}
        reply = self._repeat(lambda: self._http.post("/uploads", headers=headers))
        return urlsplit(reply.headers["Location"]).path

    def upload_offset(self, address: str) -> int:
        """How many bytes of an upload are safe on the server."""
        reply = self._repeat(lambda: self._http.head(address, headers=resumable.TUS))
        return int(reply.headers["Upload-Offset"])

    def end_upload(self, address: str) -> None:
        """Give an upload up; gone is gone."""
        self._repeat(lambda: self._http.delete(address, headers=resumable.TUS), accept=frozenset({404, 410}))

    def patch(self, address: str, piece: bytes, headers: dict[str, str]) -> httpx.Response:
        """Send one piece, once."""
        return self._http.patch(address, content=piece, headers=headers)

    @staticmethod
    def refusal(reply: httpx.Response) -> RemoteFailure:
        """The server's problem document as an exception."""
        return failure_of(reply)

    def pause(self, breaks: int) -> None:
        """Wait before the next attempt, longer each time."""
        self._sleep(self._retries.wait_s(breaks, None))

    # ---- server ---------------------------------------------------------------------------------------------------

    def is_up(self, path: str = "/health/ready") -> bool:
        """One question, no retries."""
        try:
            return self._http.get(path, timeout=5.0).is_success
        except httpx.TransportError:
            return False

    def facts(self, path: str) -> dict[str, Any]:
        """What the server says of itself at `/limits`, `/version`, `/models` or `/models/<name>`."""
        document: dict[str, Any] = self._json(self._get(path))
        return document

    def metrics(self) -> str:
        """Figures in Prometheus' text format; with keys, scope admin."""
        return self._get("/metrics").text

    # ---- how ------------------------------------------------------------------------------------------------------

    def _get(self, path: str, query: dict[str, str] | None = None) -> httpx.Response:
        return self._repeat(lambda: self._http.get(path, params=query))

    def _once(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            reply = send()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if not reply.is_success:
            raise failure_of(reply)
        return reply

    def _repeat(self, send: Callable[[], httpx.Response], accept: frozenset[int] = frozenset()) -> httpx.Response:
        for attempt in range(self._retries.attempts):
            is_last = attempt + 1 == self._retries.attempts
            try:
                reply = send()
            except httpx.TransportError as error:
                if is_last:
                    raise self._unreachable(error) from error
                self._sleep(self._retries.wait_s(attempt, None))
                continue
            if reply.is_success or reply.status_code in accept:
                return reply
            if is_last or reply.status_code not in BUSY:
                raise failure_of(reply)
            self._sleep(self._retries.wait_s(attempt, reply.headers.get("Retry-After")))
        raise AssertionError("Retries.attempts must be at least 1")

    def _unreachable(self, error: httpx.TransportError) -> ServerUnreachable:
        return ServerUnreachable(
            f"no answer from {self.server} ({type(error).__name__}: {error}).\n"
            "Start one here with `mononphm up`, or name another with --server URL."
        )

    def _json(self, reply: httpx.Response) -> Any:
        try:
            return reply.json()
        except ValueError as error:
            raise RemoteFailure(
                f"{self.server} answered {reply.status_code} with something that is no JSON: is it a MonoNPHM server?",
                status=reply.status_code,
            ) from error


class _Counted(io.BufferedReader):
    """A file for httpx to read that says how much was read."""

    def __init__(self, path: Path, on_bytes: OnBytes) -> None:
        super().__init__(io.FileIO(path))
        self._on_bytes = on_bytes
        self.total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        self.total += len(chunk)
        self._on_bytes(len(chunk))
        return chunk


def _job_path(job_id: str) -> str:
    return f"/reconstructions/{quote(job_id, safe='')}"


def failure_of(reply: httpx.Response) -> RemoteFailure:
    """The server's problem document as an exception; other bodies are quoted briefly."""
    try:
        problem = Problem.model_validate(reply.json())
    except (ValueError, ValidationError):
        problem = Problem(title=f"HTTP {reply.status_code} {reply.reason_phrase}", detail=reply.text.strip()[:200])
    said = ". ".join(filter(None, [problem.title.rstrip("."), problem.detail])) or f"HTTP {reply.status_code}"
    return RemoteFailure(said, problem.code, reply.status_code)
