"""After the storm: what was promised, against what is there."""

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import sqlalchemy as sa

from tests.chaos.oracle import Promise
from worker.ledger import Ledger, State, Uploads, schema


@dataclass
class Verdict:
    """Everything that should be empty, and a few figures."""

    lost: list[str] = field(default_factory=list)
    """Promised, and not there or never ended."""
    twice: list[str] = field(default_factory=list)
    """Published or ended more than once, or two jobs for one Idempotency-Key."""
    wrong_bytes: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    """Files that no row accounts for, after the janitor."""
    surprises: list[str] = field(default_factory=list)
    """Answers that no client should ever get, and wishes that never got their 202."""
    poisoned: int = 0
    """Ended as `worker_lost` because three attempts in a row were killed: promised and kept, only not done."""
    succeeded: int = 0

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.twice or self.wrong_bytes or self.orphans or self.surprises)


def judge(url: str, book: Ledger, promises: list[Promise], patience_s: float) -> Verdict:
    """Wait until every promised job has ended, then look at all of them, at their bytes, and at what lies about.

    `patience_s` is how long not one job may end before the rest counts as lost.
    """
    verdict = Verdict()
    fewest, deadline = _unended(book), time.monotonic() + patience_s
    while fewest and time.monotonic() < deadline:
        time.sleep(0.2)
        unended = _unended(book)
        if unended < fewest:
            fewest, deadline = unended, time.monotonic() + patience_s
    with httpx.Client(base_url=url, timeout=30.0) as http:
        for promise in promises:
            _judge_job(http, book, promise, verdict)
    for key, number in Counter(promise.key for promise in promises).items():
        if number > 1:
            verdict.twice.append(f"key {key} was promised {number} times")
    jobs = Counter(promise.job_id for promise in promises)
    verdict.twice += [f"{job_id} was promised for {number} wishes" for job_id, number in jobs.items() if number > 1]
    _judge_files(book, verdict)
    return verdict


def _unended(book: Ledger) -> int:
    counts = book.counts()
    return counts.queued + counts.running


def _judge_job(http: httpx.Client, book: Ledger, promise: Promise, verdict: Verdict) -> None:
    answer = http.get(f"/reconstructions/{promise.job_id}")
    if answer.status_code != 200 or answer.json()["input"]["sha256"] != promise.sha256:
        verdict.lost.append(f"{promise.job_id}: {answer.status_code}")
        return
    job = answer.json()
    ends = [event for event in book.events_after(promise.job_id, limit=100_000) if event.type == "state"]
    if sum(event.data["state"] in ("succeeded", "failed", "cancelled") for event in ends) > 1:
        verdict.twice.append(promise.job_id)
    if job["state"] == "failed" and job["error"]["code"] == "worker_lost":
        verdict.poisoned += 1
        return
    if job["state"] != "succeeded":
        verdict.lost.append(f"{promise.job_id}: {job['state']} {job['error']}")
        return
    verdict.succeeded += 1
    listed = http.get(f"/reconstructions/{promise.job_id}/artifacts").json()["items"]
    told = [
        event.data["name"] for event in book.events_after(promise.job_id, limit=100_000) if event.type == "artifact"
    ]
    if sorted(told) != sorted(item["name"] for item in listed):
        verdict.twice.append(f"{promise.job_id}: published {told}")
    for item in listed:
        content = http.get(item["href"]).content
        if hashlib.sha256(content).hexdigest() != item["sha256"]:
            verdict.wrong_bytes.append(f"{promise.job_id} {item['name']}")
        if item["name"] == "result.txt" and content.decode().split()[0] != promise.sha256:
            verdict.wrong_bytes.append(f"{promise.job_id}: made from other bytes")


def _judge_files(book: Ledger, verdict: Verdict) -> None:
    """Run the janitors without grace; then every file must be one that a row names."""
    book.sweep(orphan_grace_s=0.0)
    Uploads(book, 1.0).sweep(grace_s=0.0)
    storage = book.storage
    with book.reading() as tx:
        jobs = {row.id: row for row in tx.execute(sa.select(schema.jobs))}
        artifacts = {
            storage.artifact_path(row.job_id, row.fence, row.name) for row in tx.execute(sa.select(schema.artifacts))
        }
        uploads = set(tx.execute(sa.select(schema.uploads.c.id)).scalars())
    expected = artifacts | {storage.upload_path(name) for name in uploads}
    expected |= {storage.input_path(job_id) for job_id, row in jobs.items() if row.state != State.DELETED.value}
    for folder in (storage.inputs, storage.artifacts, storage.uploads):
        verdict.orphans += [str(path) for path in _files(folder) if path not in expected]
    missing = [path for path in artifacts if not path.is_file()]
    verdict.lost += [f"{path} is published and not there" for path in missing]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
