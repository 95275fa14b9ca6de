"""One job on many workers: its parts are jobs of their own, and the whole waits for them.

A whole that waits is `running` without a lease. Its parts come in rounds; each round is opened by an attempt of the
whole (`divide`), and the end of the last part queues the whole again for its next attempt. Parts are claimed, leased,
retried and published like any job; nobody outside sees them.

Locks are taken in one order: part, then whole. What goes the other way (a cancelled whole stops its parts) is a chore
of its own (`tend`), which any worker does and which may be done twice.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from worker.ledger import scheduling, schema
from worker.ledger.errors import IllegalTransition, JobDeleted
from worker.ledger.ids import new_job_id
from worker.ledger.options import ReconstructionOptions
from worker.ledger.records import Job, PartSpec, job_of
from worker.ledger.states import TERMINAL, State

if TYPE_CHECKING:
    from worker.ledger.ledger import Ledger

log = logging.getLogger(__name__)

_jobs = schema.jobs
_LIVING = [state.value for state in State if state not in TERMINAL and state is not State.DELETED]
_ENDED = {State.SUCCEEDED.value, State.DELETED.value}
"""Wholes that need nothing of their parts any more. A failed or cancelled one keeps what succeeded: a retry goes on."""


def parts_of(tx: sa.Connection, whole_id: str) -> Sequence[Job]:
    """The parts that were not deleted, in the order of rounds and numbers."""
    query = sa.select(_jobs).where(_jobs.c.whole_id == whole_id, _jobs.c.state != State.DELETED.value)
    return [job_of(row) for row in tx.execute(query.order_by(_jobs.c.part_round, _jobs.c.part_number))]


def divide(ledger: "Ledger", tx: sa.Connection, whole: Job, specs: Sequence[PartSpec]) -> None:
    """Open the parts of the next round, those that are done already excepted, and let the whole wait for them.

    `whole` is locked and held by the caller. Its fence moves on: a heartbeat on its way would give it a lease again,
    and one that runs out.
    """
    done = {(part.part.round, part.part.number) for part in parts_of(tx, whole.id) if part.part is not None}
    row = tx.execute(sa.select(_jobs.c.options, _jobs.c.queue, _jobs.c.rank_at).where(_jobs.c.id == whole.id)).one()
    options = ReconstructionOptions.from_json(row.options).model_copy(update={"webhook_url": None, "labels": []})
    assert whole.input is not None
    for spec in specs:
        if (spec.round, spec.number) in done:
            continue
        part_id = new_job_id()
        ledger._insert_job(tx, part_id, whole.input, options, whole.owner, None, row.queue, "part")
        belongs: dict[str, Any] = {
            "whole_id": whole.id,
            "part_round": spec.round,
            "part_number": spec.number,
            "part": spec.to_json(),
        }
        belongs |= {"rank_at": row.rank_at, "expected_s": scheduling.part_s(options, spec.frames)}
        tx.execute(_jobs.update().where(_jobs.c.id == part_id).values(belongs))
    ledger.close_attempt(tx, whole, "divided")
    waits: dict[str, Any] = {
        "lease_until": None,
        "worker": None,
        "attempts": whole.attempts - 1,
        "fence": whole.fence + 1,
    }
    waits |= {"stage": specs[0].stage, "frames_done": 0, "frames_total": sum(spec.frames for spec in specs)}
    tx.execute(_jobs.update().where(_jobs.c.id == whole.id, _jobs.c.fence == whole.fence).values(**waits))
    settle(ledger, tx, whole.id)


def settle(ledger: "Ledger", tx: sa.Connection, whole_id: str) -> None:
    """A part ended: when it was the last one, the whole goes on, or ends as its parts did."""
    row = tx.execute(sa.select(_jobs).where(_jobs.c.id == whole_id).with_for_update()).one_or_none()
    if row is None or not _waits(row):
        return
    whole, query = job_of(row), sa.select(_jobs.c.state, _jobs.c.error).where(_jobs.c.whole_id == whole_id)
    parts = tx.execute(query.where(_jobs.c.state != State.DELETED.value).order_by(_jobs.c.id)).all()
    if any(part.state in _LIVING for part in parts):
        return
    error = next((part.error for part in parts if part.state == State.FAILED.value), None)
    if whole.state is State.CANCELLING:
        ledger.move(tx, whole, State.CANCELLED)
    elif error is not None:
        ledger.move(tx, whole, State.FAILED, error=error)
    else:
        ledger.move(tx, whole, State.QUEUED, dispatched_at=None)


def report(ledger: "Ledger", tx: sa.Connection, part: Job) -> None:
    """A part moved: so did the whole, by as much as it counts."""
    if part.whole_id is None or part.part is None:
        return
    row = tx.execute(sa.select(_jobs).where(_jobs.c.id == part.whole_id).with_for_update()).one_or_none()
    if row is None or not _waits(row):
        return
    same_round = (_jobs.c.whole_id == row.id, _jobs.c.part_round == part.part.round)
    percent, total = sa.func.avg(_jobs.c.percent), sa.func.count()
    mean, all_ = tx.execute(sa.select(percent, total).where(*same_round, _jobs.c.state != State.DELETED.value)).one()
    done = tx.execute(sa.select(total).where(*same_round, _jobs.c.state == State.SUCCEEDED.value)).scalar_one()
    share = float(mean) / 100.0
    first, last = part.part.percents
    values = {
        "stage": part.part.stage, "percent": round(max(row.percent, first + (last - first) * share), 2), "step": done,
        "total": all_, "frames_done": int(row.frames_total * share), "frames_total": row.frames_total,
    }  # fmt: skip
    tx.execute(_jobs.update().where(_jobs.c.id == row.id).values(values))
    ledger.append_event(tx, row.id, "progress", {**values, "message": f"{done} of {all_} parts"})


def adopt(tx: sa.Connection, earlier_id: str, whole_id: str) -> None:
    """What succeeded of an earlier try with the same input and options need not be done again."""
    succeeded = (_jobs.c.whole_id == earlier_id, _jobs.c.state == State.SUCCEEDED.value)
    tx.execute(_jobs.update().where(*succeeded).values(whole_id=whole_id))


def tend(ledger: "Ledger") -> int:
    """Bring parts and wholes into agreement: parts nobody waits for are stopped or deleted, wholes that nothing holds
    back go on. How many had to be touched."""
    part, whole = _jobs.alias("part"), _jobs.alias("whole")
    query = sa.select(
        part.c.id, part.c.state, whole.c.id.label("whole_id"), whole.c.state.label("whole_state"), whole.c.lease_until
    ).join_from(part, whole, part.c.whole_id == whole.c.id)
    with ledger.reading() as tx:
        rows = tx.execute(query.where(part.c.state != State.DELETED.value)).all()
    families: defaultdict[str, list[Any]] = defaultdict(list)
    for row in rows:
        families[row.whole_id].append(row)
    return sum(_tended(ledger, family) for family in families.values())


def _tended(ledger: "Ledger", family: list[Any]) -> int:
    state, waits = family[0].whole_state, family[0].lease_until is None
    living = [row.id for row in family if row.state in _LIVING]
    doomed = any(row.state in (State.FAILED.value, State.CANCELLED.value) for row in family)
    touched = 0
    if state in _ENDED:
        for row in family:
            touched += _tried(ledger.delete, row.id)
    elif state in (State.FAILED.value, State.CANCELLED.value) or (
        waits and (state == State.CANCELLING.value or (state == State.RUNNING.value and doomed))
    ):
        for part_id in living:
            touched += _tried(ledger.request_cancel, part_id)
    if waits and not living and state in (State.RUNNING.value, State.CANCELLING.value):
        with ledger.writing() as tx:
            settle(ledger, tx, family[0].whole_id)
        touched += 1
    return touched


def _tried(wish: Any, part_id: str) -> int:
    """1: it was granted. Somebody may have been faster."""
    try:
        wish(part_id)
    except (IllegalTransition, JobDeleted):
        return 0
    return 1


def _waits(row: Any) -> bool:
    return row.lease_until is None and row.state in (State.RUNNING.value, State.CANCELLING.value)


def needed(tx: sa.Connection, job: Job) -> Mapping[tuple[int, int], str]:
    """Round and number -> id of the finished parts whose results an attempt at `job` works on.

    A part names those of its siblings; the whole works on all of them.
    """
    finished = [part for part in parts_of(tx, job.whole_id or job.id) if part.state is State.SUCCEEDED]
    found = {(part.part.round, part.part.number): part.id for part in finished if part.part is not None}
    return found if job.part is None else {key: found[key] for key in job.part.needs}
