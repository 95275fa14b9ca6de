"""The waiting jobs as `scheduling` wants to see them, and the accounts that it decides by. SQL only; no decision here.

A claim looks at the heads of lines and at nothing else: one step down an index for each line, however many wait. It
sees `LINES_SEEN` lines on either side of a random point, so its cost has a bound; up to so many lines it sees them all.
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from worker.ledger import schema
from worker.ledger.scheduling import MEMORY_PATIENCE, Account, Head, Line, clock_s
from worker.ledger.states import State

_JOBS = schema.jobs
_ACCOUNTS = schema.accounts

LINES_SEEN = 128
"""Among more lines a claim is fair to those it sees, and over many claims it sees all alike."""

_PLACES = 8
"""Hexadecimal digits that say where a line stands among the others."""


def line_of(owner: str, model: str | None) -> str:
    """Name of the line that a job stands in, after digits that spread lines evenly. A model's name has no bar in it."""
    name = f"{owner}|{model or ''}"
    return f"{hashlib.sha256(name.encode()).hexdigest()[:_PLACES]}|{name}"


def anywhere() -> str:
    """A random point among the lines."""
    return f"{random.getrandbits(4 * _PLACES):0{_PLACES}x}"


def queues_waiting(tx: sa.Connection) -> Sequence[str]:
    """The queues that somebody waits in."""
    return list(tx.execute(sa.select(_JOBS.c.queue).where(_is_waiting()).distinct()).scalars())


def heads(
    tx: sa.Connection, queue: str, now: datetime, memory_bytes: int | None = None, without: Iterable[str] = (),
    middle: str = "",
) -> list[Head]:  # fmt: skip
    """The first job of the lines around `middle` that a worker with so much memory may take, of one queue."""
    candidate = _JOBS.alias()
    fits: list[sa.ColumnElement[bool]] = [candidate.c.id.not_in(list(without))]
    if memory_bytes is not None:
        tried_anyway = candidate.c.rank_at <= now - MEMORY_PATIENCE
        fits.append(sa.or_(candidate.c.memory_bytes <= memory_bytes, tried_anyway))
    sides = []
    for name, side in (("after", _JOBS.c.line >= middle), ("before", _JOBS.c.line < middle)):
        walk = _walk(queue, name, side)
        head = (
            sa.select(candidate.c.id)
            .where(candidate.c.state == State.QUEUED.value, candidate.c.queue == queue, candidate.c.line == walk.c.line)
            .where(*fits)
            .order_by(candidate.c.rank_at, candidate.c.id)
            .limit(1)
            .scalar_subquery()
        )
        columns = (_JOBS.c.id, _JOBS.c.owner, _JOBS.c.line, _JOBS.c.rank_at)
        sides.append(sa.select(*columns).join_from(walk, _JOBS, _JOBS.c.id == head))
    rows = tx.execute(sa.union_all(*sides))
    return [Head(row.id, row.owner, row.line.rpartition("|")[2], row.rank_at) for row in rows]


def _walk(queue: str, name: str, side: sa.ColumnElement[bool]) -> sa.CTE:
    """The names of the first lines on one side, each found from the one before by a step down the index."""
    here = (_is_waiting(), _JOBS.c.queue == queue, side)
    first = sa.select(sa.func.min(_JOBS.c.line).label("line"), sa.literal(1).label("seen")).where(*here)
    walk = first.cte(name, recursive=True)
    following = sa.select(sa.func.min(_JOBS.c.line)).where(*here, _JOBS.c.line > walk.c.line).scalar_subquery()
    onwards = (walk.c.line.is_not(None), walk.c.seen < LINES_SEEN)
    return walk.union_all(sa.select(following, walk.c.seen + 1).where(*onwards))


def lock(tx: sa.Connection, job_id: str) -> bool:
    """Take the row of a job that waits; False where somebody was faster."""
    query = sa.select(_JOBS.c.id).where(_JOBS.c.id == job_id, _is_waiting()).with_for_update(skip_locked=True)
    return tx.execute(query).first() is not None


def accounts(tx: sa.Connection, owners: Iterable[str]) -> dict[str, Account]:
    """The accounts of these owners, and the one that the clock shows."""
    named = sa.select(_ACCOUNTS).where(_ACCOUNTS.c.owner.in_(sorted(set(owners))))
    latest = sa.select(_ACCOUNTS).order_by(_ACCOUNTS.c.start_s.desc()).limit(1)
    return {row.owner: Account(row.start_s, row.finish_s) for query in (named, latest) for row in tx.execute(query)}


def charge(tx: sa.Connection, owner: str, expected_s: float) -> None:
    """Write down that a job of this owner begins. Last in its transaction: it locks the owner's account."""
    insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    tx.execute(insert(_ACCOUNTS).values(owner=owner, start_s=0.0, finish_s=0.0).on_conflict_do_nothing())
    mine = tx.execute(sa.select(_ACCOUNTS).where(_ACCOUNTS.c.owner == owner).with_for_update()).one()
    now_s = clock_s(accounts(tx, ()).values())
    _write(tx, owner, Account(mine.start_s, mine.finish_s).charged(now_s, expected_s))


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
