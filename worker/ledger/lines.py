"""The waiting jobs as `scheduling` wants to see them, and the accounts that it decides by. SQL only; no decision here.

A claim looks at the head of every line and at nothing else: one step down an index for each line, however many wait.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from worker.ledger import schema
from worker.ledger.scheduling import MEMORY_PATIENCE, Account, Head, Line, clock_s
from worker.ledger.states import State

_JOBS = schema.jobs
_ACCOUNTS = schema.accounts


def line_of(owner: str, model: str | None) -> str:
    """Name of the line that a job stands in; a model's name has no bar in it."""
    return f"{owner}|{model or ''}"


def queues_waiting(tx: sa.Connection) -> Sequence[str]:
    """The queues that somebody waits in."""
    return list(tx.execute(sa.select(_JOBS.c.queue).where(_is_waiting()).distinct()).scalars())


def heads(
    tx: sa.Connection, queue: str, now: datetime, memory_bytes: int | None = None, without: Iterable[str] = ()
) -> list[Head]:
    """The first job of every line of a queue that a worker with so much memory may take."""
    here = (_is_waiting(), _JOBS.c.queue == queue)
    first = sa.select(sa.func.min(_JOBS.c.line).label("line")).where(*here)
    lines = first.cte("lines", recursive=True)
    following = sa.select(sa.func.min(_JOBS.c.line)).where(*here, _JOBS.c.line > lines.c.line).scalar_subquery()
    lines = lines.union_all(sa.select(following).where(lines.c.line.is_not(None)))
    candidate = _JOBS.alias()
    fits: list[sa.ColumnElement[bool]] = [candidate.c.id.not_in(list(without))]
    if memory_bytes is not None:
        tried_anyway = candidate.c.rank_at <= now - MEMORY_PATIENCE
        fits.append(sa.or_(candidate.c.memory_bytes <= memory_bytes, tried_anyway))
    head = (
        sa.select(candidate.c.id)
        .where(candidate.c.state == State.QUEUED.value, candidate.c.queue == queue, candidate.c.line == lines.c.line)
        .where(*fits)
        .order_by(candidate.c.rank_at, candidate.c.id)
        .limit(1)
        .scalar_subquery()
    )
    query = sa.select(_JOBS.c.id, _JOBS.c.owner, _JOBS.c.line, _JOBS.c.rank_at).join_from(
        lines, _JOBS, _JOBS.c.id == head
    )
    return [Head(row.id, row.owner, row.line.rpartition("|")[2], row.rank_at) for row in tx.execute(query)]


def lock(tx: sa.Connection, job_id: str) -> bool:
    """Take the row of a job that waits; False where somebody was faster."""
    query = sa.select(_JOBS.c.id).where(_JOBS.c.id == job_id, _is_waiting()).with_for_update(skip_locked=True)
    return tx.execute(query).first() is not None


def accounts(tx: sa.Connection) -> dict[str, Account]:
    """Every owner's account."""
    return {row.owner: Account(row.start_s, row.finish_s) for row in tx.execute(sa.select(_ACCOUNTS))}


def charge(tx: sa.Connection, owner: str, expected_s: float, known: Mapping[str, Account]) -> None:
    """Write down that a job of this owner begins. Last in its transaction: it locks the owner's account."""
    insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    tx.execute(insert(_ACCOUNTS).values(owner=owner, start_s=0.0, finish_s=0.0).on_conflict_do_nothing())
    mine = tx.execute(sa.select(_ACCOUNTS).where(_ACCOUNTS.c.owner == owner).with_for_update()).one()
    after = Account(mine.start_s, mine.finish_s).charged(clock_s(known.values()), expected_s)
    _write(tx, owner, after)


def settle(tx: sa.Connection, owner: str, expected_s: float, actual_s: float) -> None:
    """Write down what a job really took. Locks the owner's account."""
    mine = tx.execute(sa.select(_ACCOUNTS).where(_ACCOUNTS.c.owner == owner).with_for_update()).one_or_none()
    if mine is not None:
        _write(tx, owner, Account(mine.start_s, mine.finish_s).settled(expected_s, actual_s))


def _write(tx: sa.Connection, owner: str, account: Account) -> None:
    values = {"start_s": account.start_s, "finish_s": account.finish_s}
    tx.execute(_ACCOUNTS.update().where(_ACCOUNTS.c.owner == owner).values(values))


def lines(tx: sa.Connection, queue: str) -> list[Line]:
    """Each owner's waiting jobs of a queue, in sum."""
    average, first = sa.func.avg(_JOBS.c.expected_s), sa.type_coerce(sa.func.min(_JOBS.c.rank_at), schema.UtcDateTime)
    query = sa.select(_JOBS.c.owner, sa.func.count(), average, first).where(_is_waiting(), _JOBS.c.queue == queue)
    return [
        Line(owner, int(jobs), float(mean), at) for owner, jobs, mean, at in tx.execute(query.group_by(_JOBS.c.owner))
    ]


def _is_waiting() -> sa.ColumnElement[bool]:
    return _JOBS.c.state == State.QUEUED.value
