"""What the world still has to be told: written in the transaction that ends a job, sent by somebody else, later.

So a receiver that is down delays nothing, and a crash between the end of a job and its message loses neither. A message
may arrive twice (a crash between sending and noting it); its id is the same then, and tells.
"""

import json
import secrets
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from worker.ledger import schema
from worker.ledger.ids import new_id
from worker.ledger.records import Job
from worker.ledger.states import State

if TYPE_CHECKING:
    from worker.ledger.ledger import Ledger

WAITS_S = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
"""After each attempt in vain, as the Standard Webhooks specification proposes; then it is given up."""

SENDING_S = 60.0
"""A message that was taken and neither noted as sent nor as failed for so long is taken again."""

OLD_SECRET_VALID = timedelta(hours=24)
"""How long a replaced secret still signs beside the new one."""


@dataclass(frozen=True)
class Message:
    """One message on its way."""

    id: str
    job_id: str
    owner: str
    url: str
    body: str
    attempts: int


@dataclass(frozen=True)
class Delivery:
    """What became of a job's message."""

    message_id: str
    outcome: str
    """waiting | delivered | given_up"""
    attempts: int
    next_at: datetime | None
    last_error: str | None


@dataclass(frozen=True)
class Backlog:
    """For metrics: how much is unsaid, and for how long at most."""

    waiting: int
    oldest_s: float
    given_up: int


def announce(tx: sa.Connection, job: Job, state: State, error: dict[str, Any] | None, at: datetime) -> None:
    """In the transaction that ends a job: write its message, if its options name somebody to tell."""
    if job.options is None or job.options.webhook_url is None:
        return
    body = {
        "type": f"reconstruction.{state.value}",
        "timestamp": at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": {
            "id": job.id, "state": state.value, "labels": job.options.labels, "error": error,
            "links": {"self": f"/reconstructions/{job.id}"},
        },
    }  # fmt: skip
    values = {
        "id": new_id("msg"), "job_id": job.id, "owner": job.owner, "url": job.options.webhook_url,
        "body": json.dumps(body), "created_at": at, "next_at": at, "attempts": 0,
    }  # fmt: skip
    tx.execute(schema.outbox.insert().values(values))


class Outbox:
    """The sender's side. Every method is one short transaction."""

    def __init__(self, ledger: "Ledger") -> None:
        self._ledger = ledger

    def take(self, limit: int = 8) -> Sequence[Message]:
        """Messages that are due, taken so that no other sender has them at the same time."""
        table = schema.outbox
        with self._ledger.writing() as tx:
            now = self._ledger.now(tx)
            query = sa.select(table).where(table.c.next_at <= now).order_by(table.c.next_at).limit(limit)
            rows = tx.execute(query.with_for_update(skip_locked=True)).all()
            again = now + timedelta(seconds=SENDING_S)
            for row in rows:
                taken = {"next_at": again, "attempts": row.attempts + 1}
                tx.execute(table.update().where(table.c.id == row.id).values(taken))
        return [Message(row.id, row.job_id, row.owner, row.url, row.body, row.attempts + 1) for row in rows]

    def delivered(self, message: Message) -> None:
        """The receiver has it."""
        self._note(message, outcome="delivered", next_at=None, last_error=None)

    def failed(self, message: Message, error: str, *, for_good: bool = False) -> bool:
        """An attempt in vain: wait longer each time, then give up. Whether it was given up."""
        if for_good or message.attempts > len(WAITS_S):
            self._note(message, outcome="given_up", next_at=None, last_error=error[:255])
            return True
        wait_s = WAITS_S[message.attempts - 1] * (0.9 + 0.2 * secrets.randbelow(1000) / 1000)
        with self._ledger.reading() as tx:
            again = self._ledger.now(tx) + timedelta(seconds=wait_s)
        self._note(message, next_at=again, last_error=error[:255])
        return False

    def delivery(self, job_id: str) -> Delivery | None:
        """How the message of an ended job fares; None: there is none."""
        table = schema.outbox
        with self._ledger.reading() as tx:
            row = tx.execute(sa.select(table).where(table.c.job_id == job_id)).first()
        if row is None:
            return None
        return Delivery(row.id, row.outcome or "waiting", row.attempts, row.next_at, row.last_error)

    def backlog(self) -> Backlog:
        """How much is unsaid."""
        table = schema.outbox
        waiting = sa.select(sa.func.count(), sa.func.min(table.c.created_at)).where(table.c.next_at.is_not(None))
        given_up = sa.select(sa.func.count()).where(table.c.outcome == "given_up")
        with self._ledger.reading() as tx:
            count, oldest = tx.execute(waiting).one()
            age = (self._ledger.now(tx) - oldest).total_seconds() if oldest is not None else 0.0
            return Backlog(count, max(age, 0.0), tx.execute(given_up).scalar_one())

    def secrets_of(self, owner: str) -> Sequence[str]:
        """The secrets that sign an owner's messages, the newest first; made when first asked for."""
        table = schema.webhook_secrets
        with self._ledger.writing() as tx:
            now = self._ledger.now(tx)
            row = tx.execute(sa.select(table).where(table.c.owner == owner)).one_or_none()
            if row is None:
                secret = _new_secret()
                tx.execute(table.insert().values(owner=owner, secret=secret, changed_at=now))
                return [secret]
        is_old_valid = row.previous is not None and now - row.changed_at < OLD_SECRET_VALID
        return [row.secret, row.previous] if is_old_valid else [row.secret]

    def rotate_secret(self, owner: str) -> str:
        """A new secret; the one before signs beside it for a day, so that receivers can change over."""
        table = schema.webhook_secrets
        old, new = self.secrets_of(owner)[0], _new_secret()
        with self._ledger.writing() as tx:
            values = {"secret": new, "previous": old, "changed_at": self._ledger.now(tx)}
            tx.execute(table.update().where(table.c.owner == owner).values(values))
        return new

    def _note(self, message: Message, **values: Any) -> None:
        table = schema.outbox
        with self._ledger.writing() as tx:
            tx.execute(table.update().where(table.c.id == message.id).values(values))


def _new_secret() -> str:
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()
