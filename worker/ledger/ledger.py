"""The state of record. Whoever holds a job's current fence may write it; everybody else finds that zero rows changed.

The service opens, lists, cancels and deletes; a worker claims, reports and publishes through its `Lease`. Every method
is one transaction (deletion is two, and a crash may come between), safe from any thread and process.
"""

import base64
import binascii
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from worker.ledger import database, family, lines, outbox, presence, scheduling, schema, tracing
from worker.ledger.broker import QUEUE
from worker.ledger.errors import (
    IdempotencyConflict,
    IllegalTransition,
    InvalidCursor,
    JobDeleted,
    JobNotFound,
    StorageUnavailable,
)
from worker.ledger.failpoints import reach
from worker.ledger.failure import Failure, worker_lost
from worker.ledger.ids import new_job_id
from worker.ledger.lease import Lease
from worker.ledger.options import ReconstructionOptions
from worker.ledger.records import Artifact, Counts, Deletion, Event, InputFacts, Job, Page, WorkerSeen, job_of
from worker.ledger.states import ACTIVE, TERMINAL, State, may_become
from worker.ledger.storage import LocalStorage, Removed, Storage

log = logging.getLogger(__name__)

RECONSTRUCT = "mononphm.reconstruct"
"""Name of the Celery task whose only argument is a job id: a hint that a job waits."""

MAX_ATTEMPTS = 3
LEASE_S = 15.0

UNCHARGED = frozenset({"released", "expired"})
"""Ends of an attempt that are the fleet's doing: its owner's account of device time does not see them."""

ORPHAN_GRACE_S = 3600.0
"""Bytes without a row may be a job that is just being accepted; after so long they are garbage."""

_ACTIVE = schema.jobs.c.state.in_([State.RUNNING.value, State.CANCELLING.value])


class Ledger:
    """The one door to jobs, for the service as for the worker. Brings the schema up to date when it is opened."""

    def __init__(
        self,
        database_url: str | None,
        data_dir: Path,
        *,
        storage: Storage | None = None,
        lease_s: float = LEASE_S,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> None:
        self.storage: Storage = storage or LocalStorage(data_dir)
        self.lease_s = lease_s
        self.max_attempts = max_attempts
        self.engine = database.make_engine(database_url or database.default_url(data_dir))
        database.upgrade(self.engine)

    def close(self) -> None:
        """Give the database connections back."""
        self.engine.dispose()

    def ping(self) -> None:
        """Raise what the database raises, if it does not answer."""
        with self.reading() as tx:
            tx.execute(sa.select(schema.jobs.c.id).limit(1)).all()

    # ---------------------------------------------------------------- opening

    def open_job(
        self,
        job_id: str,
        facts: InputFacts,
        options: ReconstructionOptions,
        *,
        idempotency_key: str | None = None,
        owner: str = "",
        retry_of: str | None = None,
        queue: str = QUEUE,
        kind: str = "reconstruction",
        within: Callable[[sa.Connection], None] = lambda tx: None,
    ) -> tuple[Job, bool]:
        """Queue a job whose input `storage.accept_input` already brought to the disk. Committed when this returns.

        The second value is False when the idempotency key was used before with the same input and options: the job is
        then the earlier one, and the caller removes the bytes of `job_id`. Raises IdempotencyConflict. `within` belongs
        to the same transaction, when there is a new job: what it raises undoes all.
        """
        digest = request_digest(facts, options)
        try:
            with self.writing() as tx:
                earlier = self._earlier(tx, owner, idempotency_key, digest)
                if earlier is None:
                    self._insert_job(tx, job_id, facts, options, owner, retry_of, queue, kind)
                    within(tx)
                    if idempotency_key is not None:
                        values = {
                            "owner": owner,
                            "key": idempotency_key,
                            "digest": digest,
                            "job_id": job_id,
                            "created_at": self.now(tx),
                        }
                        tx.execute(schema.idempotency.insert().values(values))
                return self._job(tx, earlier or job_id), earlier is None
        except sa.exc.IntegrityError:  # somebody was faster with the same key
            with self.reading() as tx:
                earlier = self._earlier(tx, owner, idempotency_key, digest)
                if earlier is None:
                    raise
                return self._job(tx, earlier), False

    def find_idempotent(self, owner: str, key: str, facts: InputFacts, options: ReconstructionOptions) -> Job | None:
        """The job that this key already opened with this body; None for a new key. Raises IdempotencyConflict."""
        with self.reading() as tx:
            earlier = self._earlier(tx, owner, key, request_digest(facts, options))
            return self._job(tx, earlier) if earlier else None

    def _earlier(self, tx: sa.Connection, owner: str, key: str | None, digest: str) -> str | None:
        if key is None:
            return None
        table = schema.idempotency
        row = tx.execute(sa.select(table).where(table.c.owner == owner, table.c.key == key)).one_or_none()
        if row is None:
            return None
        if row.digest != digest:
            raise IdempotencyConflict(key, row.job_id)
        return str(row.job_id)

    def _insert_job(
        self,
        tx: sa.Connection,
        job_id: str,
        facts: InputFacts,
        options: ReconstructionOptions,
        owner: str,
        retry_of: str | None,
        queue: str,
        kind: str,
    ) -> None:
        now = self.now(tx)
        resolved = options.resolved(facts.media_type.startswith("video/"))
        values = {
            "id": job_id, "kind": kind, "owner": owner, "queue": queue, "state": State.QUEUED.value,
            "percent": 0.0, "step": 0, "total": 0, "frames_done": 0, "frames_total": 0,
            "input": facts.to_json(), "options": options.to_json(), "resolved_options": resolved.to_json(),
            "warnings": [], "retry_of": retry_of, "retention_s": options.retention_hours * 3600.0,
            "rank_at": now - scheduling.HEAD_START[options.priority], "created_at": now, "attempts": 0, "fence": 0,
            "event_seq": 0, "traceparent": tracing.traceparent(), "line": lines.line_of(owner, options.model),
            "expected_s": scheduling.expected_s(options, facts),
            "memory_bytes": scheduling.memory_bytes(options, facts),
        }  # fmt: skip
        tx.execute(schema.jobs.insert().values(values))
        if options.labels:
            tx.execute(schema.job_labels.insert(), [{"job_id": job_id, "label": label} for label in options.labels])
        self.append_event(tx, job_id, "state", {"state": State.QUEUED.value, "percent": 0.0})

    # ---------------------------------------------------------------- looking

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """One job. Raises JobNotFound, and JobDeleted for a tombstone; with `owner`, somebody else's is not found.

        Parts of divided jobs are not found here: they are nobody's business.
        """
        with self.reading() as tx:
            job = self._job(tx, job_id)
        if (owner is not None and job.owner != owner) or job.whole_id is not None:
            raise JobNotFound(job_id)
        if job.state is State.DELETED:
            raise JobDeleted(job_id)
        return job

    def parts(self, job_id: str) -> Sequence[Job]:
        """The parts of a divided job, those of earlier rounds first; empty for any other."""
        with self.reading() as tx:
            return family.parts_of(tx, job_id)

    def list(
        self,
        *,
        state: State | None = None,
        label: str | None = None,
        created_after: datetime | None = None,
        owner: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Jobs, newest first; tombstones are not among them. Raises InvalidCursor."""
        table = schema.jobs
        query = sa.select(table).where(table.c.whole_id.is_(None)).order_by(table.c.id.desc()).limit(limit + 1)
        query = query.where(table.c.state == state.value if state else table.c.state != State.DELETED.value)
        if owner is not None:
            query = query.where(table.c.owner == owner)
        if created_after is not None:
            query = query.where(table.c.created_at > created_after)
        if label is not None:
            labels = schema.job_labels
            query = query.where(sa.exists().where(labels.c.job_id == table.c.id, labels.c.label == label))
        if cursor is not None:
            query = query.where(table.c.id < _from_cursor(cursor))
        with self.reading() as tx:
            jobs = [job_of(row) for row in tx.execute(query)]
        more = len(jobs) > limit
        return Page(tuple(jobs[:limit]), _to_cursor(jobs[limit - 1].id) if more else None)

    def events_after(self, job_id: str, seq: int = 0, limit: int = 500) -> Sequence[Event]:
        """The job's events with a number above `seq`, oldest first: what a reconnecting listener missed."""
        table = schema.events
        query = sa.select(table).where(table.c.job_id == job_id, table.c.seq > seq).order_by(table.c.seq).limit(limit)
        with self.reading() as tx:
            return [Event(row.job_id, row.seq, row.at, row.type, row.data) for row in tx.execute(query)]

    def artifacts(self, job_id: str) -> Sequence[Artifact]:
        """The published files of a job, in the manifest's order; empty until it succeeded."""
        table = schema.artifacts
        query = sa.select(table).where(table.c.job_id == job_id).order_by(table.c.position)
        with self.reading() as tx:
            return [_artifact_of(row) for row in tx.execute(query)]

    def artifact(self, job_id: str, name: str) -> Artifact | None:
        """One published file; None if there is none of that name."""
        table = schema.artifacts
        with self.reading() as tx:
            row = tx.execute(sa.select(table).where(table.c.job_id == job_id, table.c.name == name)).one_or_none()
        return None if row is None else _artifact_of(row)

    def queue_position(self, job_id: str) -> int | None:
        """1: the next to be taken, if nobody else comes (an estimate among several owners); None: not waiting."""
        table = schema.jobs
        with self.reading() as tx:
            mine = tx.execute(sa.select(table).where(table.c.id == job_id)).one_or_none()
            if mine is None or mine.state != State.QUEUED.value:
                return None
            earlier = sa.or_(
                table.c.rank_at < mine.rank_at, sa.and_(table.c.rank_at == mine.rank_at, table.c.id <= job_id)
            )
            of_mine = (table.c.state == State.QUEUED.value, table.c.queue == mine.queue, table.c.owner == mine.owner)
            jobs = tx.execute(sa.select(sa.func.count()).where(*of_mine, earlier)).scalar_one()
            own = scheduling.Line(mine.owner, jobs, mine.expected_s, mine.rank_at)
            others = lines.lines(tx, mine.queue)
            return scheduling.place(own, others, lines.accounts(tx, (line.owner for line in others)))

    def counts(self, owner: str | None = None, *, parts: bool = False) -> Counts:
        """How many jobs are in which state (tombstones too), and how long the oldest has waited.

        With `parts`, those of divided jobs count, too: what workers have to do.
        """
        table = schema.jobs
        whose = sa.and_(
            sa.true() if owner is None else table.c.owner == owner, sa.true() if parts else table.c.whole_id.is_(None)
        )
        oldest = sa.select(sa.func.min(table.c.created_at)).where(whose, table.c.state == State.QUEUED.value)
        with self.reading() as tx:
            rows = tx.execute(sa.select(table.c.state, sa.func.count()).where(whose).group_by(table.c.state)).all()
            since = tx.execute(oldest).scalar_one_or_none()
            age = (self.now(tx) - since).total_seconds() if since else 0.0
        return Counts({State(state): number for state, number in rows}, max(age, 0.0))

    def open_by_queue(self) -> dict[str, int]:
        """Jobs that wait or run, by the queue that they came to."""
        table = schema.jobs
        unfinished = [state.value for state in (State.QUEUED, *ACTIVE)]
        query = sa.select(table.c.queue, sa.func.count()).where(table.c.state.in_(unfinished)).group_by(table.c.queue)
        with self.reading() as tx:
            return {str(queue): int(number) for queue, number in tx.execute(query)}

    def stored_bytes(self, owner: str | None = None) -> int:
        """Bytes of inputs and published artifacts that were not deleted."""
        jobs, files = schema.jobs, schema.artifacts
        whose = (jobs.c.state != State.DELETED.value, sa.true() if owner is None else jobs.c.owner == owner)
        inputs = sa.select(sa.func.coalesce(sa.func.sum(jobs.c.input["bytes"].as_integer()), 0)).where(
            *whose, jobs.c.whole_id.is_(None)
        )
        made = sa.select(sa.func.coalesce(sa.func.sum(files.c.bytes), 0)).join(jobs, jobs.c.id == files.c.job_id)
        with self.reading() as tx:
            return int(tx.execute(inputs).scalar_one()) + int(tx.execute(made.where(*whose)).scalar_one())

    def attempt_outcomes(self) -> dict[str, int]:
        """How the attempts of all jobs that were not deleted ended; `running` for those that did not yet."""
        table = schema.attempts
        query = sa.select(sa.func.coalesce(table.c.outcome, "running"), sa.func.count()).group_by(table.c.outcome)
        with self.reading() as tx:
            return {str(outcome): int(number) for outcome, number in tx.execute(query)}

    # ---------------------------------------------------------------- the user's wishes

    def request_cancel(self, job_id: str) -> Job:
        """Ask a job to stop: a waiting one is cancelled now, a running one is `cancelling` until the device is free.

        Asking twice is fine. Raises JobNotFound, JobDeleted, and IllegalTransition once it has succeeded or failed.
        """
        with self.writing() as tx:
            job = self._living(tx, job_id)
            if job.state is State.QUEUED:
                self.move(tx, job, State.CANCELLED)
            elif job.state is State.RUNNING:
                self.move(tx, job, State.CANCELLING)
            elif job.state not in (State.CANCELLING, State.CANCELLED):
                raise IllegalTransition(job_id, job.state.value, State.CANCELLED.value)
            has_parts = bool(family.parts_of(tx, job_id))
        if has_parts:
            self.tend()
        with self.reading() as tx:
            return self._job(tx, job_id)

    def retry(self, job_id: str, *, idempotency_key: str | None = None) -> Job:
        """A failed or cancelled job again, same input and options, as a new job: terminal states never change.

        Of a divided job only what is missing is done again.
        Raises JobNotFound, JobDeleted, and IllegalTransition for any other state.
        """
        with self.reading() as tx:
            job = self._living(tx, job_id)
            row = tx.execute(
                sa.select(schema.jobs.c.options, schema.jobs.c.queue).where(schema.jobs.c.id == job_id)
            ).one()
        if job.state not in (State.FAILED, State.CANCELLED) or job.input is None:
            raise IllegalTransition(job_id, job.state.value, State.QUEUED.value)
        new_id = new_job_id()
        try:
            self.storage.copy_input(job_id, new_id)
        except FileNotFoundError:
            raise JobDeleted(job_id) from None
        options = ReconstructionOptions.from_json(row.options)
        again, created = self.open_job(
            new_id, job.input, options,
            idempotency_key=idempotency_key, owner=job.owner, retry_of=job_id, queue=row.queue, kind=job.kind,
            within=lambda tx: family.adopt(tx, job_id, new_id),
        )  # fmt: skip
        if not created:
            self.storage.remove_job(new_id)
        return again

    def delete(self, job_id: str) -> Deletion:
        """Remove every byte and fact of a job but a tombstone. A running attempt is fenced off and stops by itself.

        Raises JobNotFound, and JobDeleted when it already was.
        """
        with self.writing() as tx:
            job = self._living(tx, job_id)
            parts = [part.id for part in family.parts_of(tx, job_id)]
            self._entomb(tx, job)
        try:
            for part_id in parts:
                with suppress(JobDeleted):
                    self.delete(part_id)
            return self.purge(job_id)
        except StorageUnavailable as error:
            # The tombstone stands; the janitor removes the bytes when the store is back.
            log.warning("left to the janitor: %s", error)
            with self.reading() as tx:
                return Deletion(job_id, self._deleted_at(tx, job_id), 0, 0, gone=False)

    def purge(self, job_id: str) -> Deletion:
        """The second half of a deletion; the janitor repeats it where a crash came between."""
        removed = self.storage.remove_job(job_id)
        with self.writing() as tx:
            now = self.now(tx)
            if removed.gone:
                tx.execute(schema.jobs.update().where(schema.jobs.c.id == job_id).values(purged_at=now))
            deleted_at = self._deleted_at(tx, job_id)
        return Deletion(job_id, deleted_at, removed.files, removed.bytes, removed.gone)

    def _deleted_at(self, tx: sa.Connection, job_id: str) -> datetime:
        found: datetime = tx.execute(sa.select(schema.jobs.c.deleted_at).where(schema.jobs.c.id == job_id)).scalar_one()
        return found

    def _entomb(self, tx: sa.Connection, job: Job) -> None:
        now = self.now(tx)
        for table in (schema.events, schema.artifacts, schema.job_labels, schema.attempts, schema.outbox):
            tx.execute(table.delete().where(table.c.job_id == job.id))
        tx.execute(schema.uploads.delete().where(schema.uploads.c.job_id == job.id))
        empty: dict[str, Any] = {
            "input": None,
            "options": None,
            "resolved_options": None,
            "error": None,
            "model": None,
            "warnings": [],
        }
        self.move(
            tx,
            job,
            State.DELETED,
            deleted_at=now,
            fence=job.fence + 1,
            lease_until=None,
            worker=None,
            published_fence=None,
            **empty,
        )

    # ---------------------------------------------------------------- the worker's side

    def claim(
        self,
        worker: str,
        job_id: str | None = None,
        *,
        queues: Sequence[str] | None = None,
        warm: frozenset[str] = frozenset(),
        memory_bytes: int | None = None,
    ) -> Lease | None:
        """Take a waiting job: this one, or the one whose turn it is. None: there is none, or somebody was faster.

        The fence counter rises with every claim, so whatever an earlier attempt still writes is refused. `queues` (what
        it is there for first), `memory_bytes`: what the worker can serve; `warm`: the models that it has loaded.
        """
        table = schema.jobs
        with self.writing() as tx:
            now = self.now(tx)
            if job_id is None:
                found = self._take_next(tx, queues, warm, memory_bytes, now)
            else:
                found = job_id if lines.lock(tx, job_id) else None
            if found is None:
                return None
            job = self._job(tx, found)
            fence = job.fence + 1
            values = {
                "attempts": job.attempts + 1, "fence": fence, "worker": worker, "step": 0, "total": 0,
                "lease_until": now + timedelta(seconds=self.lease_s), "started_at": job.started_at or now,
            }  # fmt: skip
            self.move(tx, job, State.RUNNING, **values)
            tx.execute(schema.attempts.insert().values(job_id=found, fence=fence, worker=worker, started_at=now))
            row = tx.execute(sa.select(table.c.previous_failure, table.c.expected_s).where(table.c.id == found)).one()
            lease = Lease(self, self._job(tx, found), worker, row.previous_failure)
            lines.charge(tx, job.owner, row.expected_s)
            return lease

    def _take_next(
        self,
        tx: sa.Connection,
        queues: Sequence[str] | None,
        warm: frozenset[str],
        memory_bytes: int | None,
        now: datetime,
    ) -> str | None:
        """Lock the job whose turn it is; where another worker holds it already, the one after it."""
        groups = [lines.queues_waiting(tx)] if queues is None else [[queue] for queue in queues]
        taken: list[str] = []
        middle = lines.anywhere()
        while True:
            first, *others = [
                [head for queue in group for head in lines.heads(tx, queue, now, memory_bytes, taken, middle)]
                for group in groups
            ]
            heads = scheduling.within_reach(first, chain(*others), now)
            accounts = lines.accounts(tx, (head.owner for head in heads))
            chosen = scheduling.next_job(heads, accounts, warm)
            if chosen is None or lines.lock(tx, chosen.job_id):
                return chosen.job_id if chosen else None
            taken.append(chosen.job_id)

    def reap(self) -> Sequence[str]:
        """End the leases that ran out, and those of workers that died on this machine: another attempt, or
        `worker_lost` after too many. The ids that it touched."""
        table = schema.jobs
        touched = []
        widowed = self._widowed()
        if not widowed and not self._any_expired():  # looked for every second by every worker: no lock for nothing
            return []
        with self.writing() as tx:
            over = table.c.lease_until < self.now(tx)
            if widowed:
                over = sa.or_(over, sa.tuple_(table.c.id, table.c.fence).in_(widowed))
            query = sa.select(table).where(_ACTIVE, over).with_for_update(skip_locked=True)
            for row in tx.execute(query.order_by(table.c.owner, table.c.id)).all():  # accounts are locked in one order
                job = job_of(row)
                self.end_attempt(tx, job, "expired", worker_lost(job.attempts, job.stage))
                touched.append(job.id)
        return touched

    def _any_expired(self) -> bool:
        table = schema.jobs
        with self.reading() as tx:
            query = sa.select(table.c.id).where(_ACTIVE, table.c.lease_until < self.now(tx)).limit(1)
            return tx.execute(query).first() is not None

    def _widowed(self) -> Sequence[tuple[str, int]]:
        """(job, fence) of the attempts whose worker's process is seen to have died; no lease need run out for those."""
        jobs, workers = schema.jobs, schema.workers
        query = sa.select(jobs.c.id, jobs.c.fence, workers.c.info).join_from(
            jobs, workers, jobs.c.worker == workers.c.name
        )
        with self.reading() as tx:
            rows = tx.execute(query.where(_ACTIVE)).all()
        return [(row.id, row.fence) for row in rows if presence.has_died(row.info.get("presence"))]

    def end_attempt(self, tx: sa.Connection, job: Job, outcome: str, failure: Failure, *, again: bool = True) -> State:
        """After an attempt without a result: queued again, failed if the last, cancelled if that was the wish."""
        self.close_attempt(tx, job, outcome, failure)
        idle = {"lease_until": None, "worker": None, "previous_failure": failure.code}
        if job.state is State.CANCELLING:
            self.move(tx, job, State.CANCELLED, **idle)
            return State.CANCELLED
        if again and job.attempts < self.max_attempts:
            self.move(tx, job, State.QUEUED, dispatched_at=None, **idle)
            return State.QUEUED
        self.move(tx, job, State.FAILED, error=failure.to_json(), **idle)
        return State.FAILED

    def close_attempt(self, tx: sa.Connection, job: Job, outcome: str, failure: Failure | None = None) -> None:
        """Write down how the attempt with the job's current fence ended, and charge its owner what it really took."""
        table, now = schema.attempts, self.now(tx)
        values = {"ended_at": now, "outcome": outcome, "failure": failure.to_json() if failure else None}
        this = (table.c.job_id == job.id, table.c.fence == job.fence)
        tx.execute(table.update().where(*this).values(values))
        began = tx.execute(sa.select(table.c.started_at).where(*this)).scalar_one_or_none()
        expected_s = tx.execute(sa.select(schema.jobs.c.expected_s).where(schema.jobs.c.id == job.id)).scalar_one()
        if began is not None:
            actual_s = 0.0 if outcome in UNCHARGED else max((now - began).total_seconds(), 0.0)
            lines.settle(tx, job.owner, expected_s, actual_s)

    def tend(self) -> int:
        """Bring divided jobs and their parts into agreement (`family`); how many had to be touched."""
        return family.tend(self)

    def undispatched(
        self, older_than_s: float, *, queues: Sequence[str] | None = None, limit: int = 100
    ) -> Sequence[str]:
        """Waiting jobs without a hint within `older_than_s`, in their order: what the reconciler re-sends."""
        table = schema.jobs
        with self.reading() as tx:
            before = self.now(tx) - timedelta(seconds=older_than_s)
            stale = sa.or_(table.c.dispatched_at.is_(None), table.c.dispatched_at < before)
            query = sa.select(table.c.id).where(table.c.state == State.QUEUED.value, stale)
            if queues is not None:
                query = query.where(table.c.queue.in_(queues))
            return list(tx.execute(query.order_by(table.c.rank_at, table.c.id).limit(limit)).scalars())

    def mark_dispatched(self, job_id: str) -> None:
        """Note that a hint was sent just now."""
        with self.writing() as tx:
            tx.execute(schema.jobs.update().where(schema.jobs.c.id == job_id).values(dispatched_at=self.now(tx)))

    def worker_seen(self, name: str, model: dict[str, Any] | None = None, info: dict[str, Any] | None = None) -> None:
        """A worker's sign of life. `model` None: it has not loaded one (yet)."""
        table = schema.workers
        with self.writing() as tx:
            now = self.now(tx)
            values = {"last_seen": now, "model": model, "info": info or {}}
            if tx.execute(table.update().where(table.c.name == name).values(values)).rowcount == 0:
                tx.execute(table.insert().values(name=name, started_at=now, **values))

    def worker_gone(self, name: str) -> None:
        """A worker says goodbye."""
        with self.writing() as tx:
            tx.execute(schema.workers.delete().where(schema.workers.c.name == name))

    def workers(self, fresh_within_s: float = LEASE_S) -> Sequence[WorkerSeen]:
        """The workers that gave a sign of life within so many seconds."""
        table = schema.workers
        with self.reading() as tx:
            since = self.now(tx) - timedelta(seconds=fresh_within_s)
            rows = tx.execute(sa.select(table).where(table.c.last_seen >= since).order_by(table.c.name)).all()
        return [WorkerSeen(row.name, row.started_at, row.last_seen, row.model, row.info) for row in rows]

    # ---------------------------------------------------------------- the janitor's side

    def expired(self, limit: int = 100) -> Sequence[str]:
        """Finished jobs whose retention ended. Parts go with their whole."""
        table = schema.jobs
        with self.reading() as tx:
            done = table.c.state.in_([state.value for state in TERMINAL])
            query = (
                sa.select(table.c.id)
                .where(done, table.c.expires_at < self.now(tx), table.c.whole_id.is_(None))
                .order_by(table.c.id)
                .limit(limit)
            )
            return list(tx.execute(query).scalars())

    def sweep(self, orphan_grace_s: float = ORPHAN_GRACE_S) -> Removed:
        """Delete what expired, finish interrupted deletions, and remove bytes that no row accounts for."""
        removed = Removed(0, 0, True)
        for job_id in self.expired():
            try:
                proof = self.delete(job_id)
            except JobDeleted:
                continue
            removed += Removed(proof.files, proof.bytes, proof.gone)
        for job_id in self._unpurged():
            proof = self.purge(job_id)
            removed += Removed(proof.files, proof.bytes, proof.gone)
        for job_id, fences in sorted(self.storage.held().items()):
            removed += self._sweep_job(job_id, fences, orphan_grace_s)
        for job_id, fence in sorted(self.storage.left_over()):
            if not self._is_at_work(job_id, fence):
                self.storage.tidy(job_id, fence)
        with self.writing() as tx:
            silent_since = self.now(tx) - timedelta(seconds=orphan_grace_s)
            tx.execute(schema.workers.delete().where(schema.workers.c.last_seen < silent_since))
        return removed

    def _unpurged(self) -> Sequence[str]:
        table = schema.jobs
        unfinished = sa.select(table.c.id).where(table.c.state == State.DELETED.value, table.c.purged_at.is_(None))
        with self.reading() as tx:
            return list(tx.execute(unfinished).scalars())

    def _is_at_work(self, job_id: str, fence: int) -> bool:
        """Whether this attempt goes on; one that the ledger has not heard of yet, too."""
        with self.reading() as tx:
            try:
                job = self._job(tx, job_id)
            except JobNotFound:
                return False
        return fence > job.fence or (fence == job.fence and job.is_active)

    def _sweep_job(self, job_id: str, fences: set[int], orphan_grace_s: float) -> Removed:
        with self.reading() as tx:
            try:
                job = self._job(tx, job_id)
            except JobNotFound:
                old = time.time() - self.storage.touched_at(job_id) > orphan_grace_s
                return self.storage.remove_job(job_id) if old else Removed(0, 0, True)
        if job.state is State.DELETED:
            return self.storage.remove_job(job_id)
        removed = Removed(0, 0, True)
        for fence in sorted(fences):
            if fence != job.published_fence and not (fence == job.fence and job.is_active) and fence <= job.fence:
                removed += self.storage.discard_attempt(job_id, fence)
        return removed

    # ---------------------------------------------------------------- inside

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One consistent view."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction, durable when the block is left."""
        with self.engine.connect() as connection:
            connection = connection.execution_options(**{database.WRITE: True})
            with connection.begin():
                yield connection
                reach("commit.before")
            reach("commit.after")

    def now(self, tx: sa.Connection) -> datetime:
        """The time by which leases are judged: the database server's, or this machine's for a database file."""
        if tx.dialect.name == "sqlite":
            return datetime.now(UTC)
        return tx.execute(sa.select(sa.func.clock_timestamp())).scalar_one().astimezone(UTC)  # type: ignore[no-any-return]

    def move(self, tx: sa.Connection, job: Job, new: State, **values: Any) -> None:
        """Take the arrow job.state -> new and write the event; IllegalTransition when there is none (any more)."""
        table = schema.jobs
        if not may_become(job.state, new):
            raise IllegalTransition(job.id, job.state.value, new.value)
        if new in TERMINAL:
            now = self.now(tx)
            kept = tx.execute(sa.select(table.c.retention_s).where(table.c.id == job.id)).scalar_one()
            outbox.announce(tx, job, new, values.get("error"), now)
            values |= {"finished_at": now, "expires_at": now + timedelta(seconds=kept)}
        unchanged = (table.c.id == job.id, table.c.fence == job.fence, table.c.state == job.state.value)
        moved = tx.execute(table.update().where(*unchanged).values(state=new.value, **values)).rowcount
        if moved != 1:
            raise IllegalTransition(job.id, "changing", new.value)
        data = {"state": new.value, "stage": job.stage, "percent": values.get("percent", job.percent)}
        data["attempts"] = values.get("attempts", job.attempts)
        if values.get("error"):
            data["error"] = values["error"]
        self.append_event(tx, job.id, "state", data)
        if job.whole_id is not None and new in TERMINAL:
            family.settle(self, tx, job.whole_id)

    def append_event(self, tx: sa.Connection, job_id: str, kind: str, data: dict[str, Any]) -> None:
        """The next line of the job's story; the job's row hands out the numbers, so they have no gap."""
        table = schema.jobs
        step = (
            table.update()
            .where(table.c.id == job_id)
            .values(event_seq=table.c.event_seq + 1)
            .returning(table.c.event_seq)
        )
        seq = tx.execute(step).scalar_one()
        tx.execute(schema.events.insert().values(job_id=job_id, seq=seq, at=self.now(tx), type=kind, data=data))

    def _job(self, tx: sa.Connection, job_id: str) -> Job:
        row = tx.execute(sa.select(schema.jobs).where(schema.jobs.c.id == job_id)).one_or_none()
        if row is None:
            raise JobNotFound(job_id)
        return job_of(row)

    def _living(self, tx: sa.Connection, job_id: str) -> Job:
        query = sa.select(schema.jobs).where(schema.jobs.c.id == job_id).with_for_update()
        row = tx.execute(query).one_or_none()
        if row is None:
            raise JobNotFound(job_id)
        if row.state == State.DELETED.value:
            raise JobDeleted(job_id)
        return job_of(row)


def request_digest(facts: InputFacts, options: ReconstructionOptions) -> str:
    """What makes two requests the same: the bytes of the input and the options."""
    body = json.dumps([facts.sha256, options.to_json()], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()


def _to_cursor(job_id: str) -> str:
    return base64.urlsafe_b64encode(f"1:{job_id}".encode()).decode().rstrip("=")


def _from_cursor(cursor: str) -> str:
    try:
        version, _, job_id = (
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            .decode("ascii")
            .partition(":")
        )
    except (binascii.Error, ValueError):
        raise InvalidCursor("this cursor is not one of ours; leave it out to begin at the newest") from None
    if version != "1" or not job_id.isprintable() or not job_id:
        raise InvalidCursor("this cursor is not one of ours; leave it out to begin at the newest")
    return job_id


def _artifact_of(row: Any) -> Artifact:
    return Artifact(row.job_id, row.name, row.role, row.media_type, row.bytes, row.sha256, row.fence)
