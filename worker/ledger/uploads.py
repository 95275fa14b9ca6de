"""Resumable uploads: a row says how much of each file is on the disk, and the file never promises more.

`offset` is committed after the bytes below it are fsynced; what lies above it is cut off before more is written. A
crash costs at most the bytes since the last commit. The job that an upload becomes takes its bytes; the row stays until
it expires, so that a client whose answer got lost learns the job's id.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from worker.ledger import schema
from worker.ledger.errors import UploadGone, UploadLocked, UploadNotFound, UploadUsed
from worker.ledger.ids import new_id
from worker.ledger.ledger import ORPHAN_GRACE_S, Ledger
from worker.ledger.storage import fsync_directory

EMPTY_LIFETIME_S = 900.0
"""Without a first byte an upload is soon forgotten: its client never heard of it, and it counts among the open ones."""


@dataclass(frozen=True)
class Resumable:
    """One upload as it is on the disk."""

    id: str
    owner: str
    length: int
    offset: int
    metadata: str
    """As tus sent it: `filename <base64>,…`."""
    created_at: datetime
    expires_at: datetime
    sha256: str | None
    """Of the whole, once a job took it."""
    job_id: str | None

    @property
    def is_complete(self) -> bool:
        return self.offset == self.length


class Uploads:
    """The resumable uploads of one ledger. Every method blocks; a PATCH holds `locked` while it writes."""

    def __init__(self, ledger: Ledger, lifetime_s: float) -> None:
        self._ledger = ledger
        self._lifetime = timedelta(seconds=lifetime_s)

    def path(self, upload_id: str) -> Path:
        """Where its bytes lie."""
        return self._ledger.storage.upload_path(upload_id)

    def create(self, owner: str, length: int, metadata: str = "") -> Resumable:
        """A new empty upload, durable when this returns."""
        upload_id = new_id("up")
        path = self.path(upload_id)
        path.touch(exist_ok=False)
        fsync_directory(path.parent)
        with self._ledger.writing() as tx:
            now = self._ledger.now(tx)
            values = {
                "id": upload_id, "owner": owner, "length": length, "offset": 0, "metadata": metadata,
                "created_at": now, "expires_at": now + min(self._lifetime, timedelta(seconds=EMPTY_LIFETIME_S)),
            }  # fmt: skip
            tx.execute(schema.uploads.insert().values(values))
        return self.get(upload_id)

    def get(self, upload_id: str, owner: str | None = None) -> Resumable:
        """One upload. Raises UploadNotFound (also for somebody else's), and UploadGone once it has expired."""
        table = schema.uploads
        with self._ledger.reading() as tx:
            row = tx.execute(sa.select(table).where(table.c.id == upload_id)).one_or_none()
            now = self._ledger.now(tx)
        if row is None or (owner is not None and row.owner != owner):
            raise UploadNotFound(upload_id)
        if row.expires_at <= now:
            raise UploadGone(upload_id)
        return _upload_of(row)

    def open_ones(self, owner: str) -> int:
        """How many uploads of an owner are on their way."""
        table = schema.uploads
        with self._ledger.reading() as tx:
            mine = (table.c.owner == owner, table.c.job_id.is_(None), table.c.expires_at > self._ledger.now(tx))
            return int(tx.execute(sa.select(sa.func.count()).where(*mine)).scalar_one())

    @contextmanager
    def locked(self, upload_id: str) -> Iterator[None]:
        """Be the only writer, among all processes of this machine. Raises UploadLocked and UploadGone."""
        try:
            descriptor = os.open(self.path(upload_id), os.O_RDWR)
        except FileNotFoundError:
            raise UploadGone(upload_id) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UploadLocked(upload_id) from None
            yield
        finally:
            os.close(descriptor)

    def advance(self, upload_id: str, offset: int) -> Resumable:
        """Note that the bytes below `offset` are on the disk; more time to send the rest."""
        table = schema.uploads
        with self._ledger.writing() as tx:
            values = {"offset": offset, "expires_at": self._ledger.now(tx) + self._lifetime}
            if tx.execute(table.update().where(table.c.id == upload_id).values(values)).rowcount != 1:
                raise UploadGone(upload_id)
        return self.get(upload_id)

    def use(self, tx: sa.Connection, upload_id: str, job_id: str, sha256: str) -> None:
        """In the transaction that opens the job: the upload is spent. Raises UploadUsed if it already was."""
        table = schema.uploads
        unused = (table.c.id == upload_id, table.c.job_id.is_(None))
        if tx.execute(table.update().where(*unused).values(job_id=job_id, sha256=sha256)).rowcount != 1:
            used_by = tx.execute(sa.select(table.c.job_id).where(table.c.id == upload_id)).scalar_one_or_none()
            raise UploadUsed(upload_id, str(used_by)) if used_by else UploadGone(upload_id)

    def terminate(self, upload_id: str) -> None:
        """Remove row and bytes."""
        with self._ledger.writing() as tx:
            tx.execute(schema.uploads.delete().where(schema.uploads.c.id == upload_id))
        self.path(upload_id).unlink(missing_ok=True)

    def sweep(self, grace_s: float = ORPHAN_GRACE_S) -> int:
        """Remove what has expired, was spent, or has no row (a crash between two steps); how many files went."""
        table = schema.uploads
        with self._ledger.writing() as tx:
            tx.execute(table.delete().where(table.c.expires_at <= self._ledger.now(tx)))
            wanted = set(tx.execute(sa.select(table.c.id).where(table.c.job_id.is_(None))).scalars())
        removed = 0
        for path in self._ledger.storage.uploads.iterdir():
            try:
                if path.name not in wanted and time.time() - path.stat().st_mtime > grace_s:
                    path.unlink()
                    removed += 1
            except FileNotFoundError:
                continue
        return removed


def _upload_of(row: Any) -> Resumable:
    return Resumable(
        row.id, row.owner, row.length, row.offset, row.metadata, row.created_at, row.expires_at, row.sha256, row.job_id
    )
