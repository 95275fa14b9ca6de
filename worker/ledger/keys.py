"""API keys: who asks, what for, and whose jobs are seen. A secret is shown once; only its digest is kept.

A key reads `key_06f….<43 characters>`: a public id to find the row by, and 256 random bits. So much chance needs no
slow hash: a single SHA-256 cannot be searched backwards. The comparison takes equally long wherever two digests differ.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from worker.ledger import schema
from worker.ledger.ids import new_id
from worker.ledger.ledger import Ledger

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
"""read: look and download; write: submit, cancel, retry, delete; admin: figures of the whole server (/metrics)."""

SECRET_BYTES = 32
USE_NOTED_EVERY = timedelta(minutes=1)
"""`last_used_at` is written no more often than this: a key in use must not make every read a write."""

_NOBODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Key:
    """One API key, without its secret."""

    id: str
    name: str
    """What the operator calls it."""
    owner: str
    """Whose jobs it opens and sees; several keys may share one."""
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class Keys:
    """The keys of one ledger. Every method is one short transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def create(
        self,
        name: str,
        scopes: Iterable[Scope] = ("read", "write"),
        owner: str | None = None,
        lifetime: timedelta | None = None,
    ) -> tuple[Key, str]:
        """A new key and the text that its holder sends; the text cannot be had again. `owner` None: one of its own."""
        key_id, secret = new_id("key"), secrets.token_urlsafe(SECRET_BYTES)
        with self._ledger.writing() as tx:
            now = self._ledger.now(tx)
            values = {
                "id": key_id, "name": name, "owner": key_id if owner is None else owner,
                "scopes": sorted(set(scopes), key=SCOPES.index), "digest": digest_of(secret), "created_at": now,
                "expires_at": now + lifetime if lifetime else None,
            }  # fmt: skip
            tx.execute(schema.api_keys.insert().values(values))
        return self.get(key_id), f"{key_id}.{secret}"

    def get(self, key_id: str) -> Key:
        """One key. Raises KeyError for an id that there is not."""
        table = schema.api_keys
        with self._ledger.reading() as tx:
            row = tx.execute(sa.select(table).where(table.c.id == key_id)).one_or_none()
        if row is None:
            raise KeyError(key_id)
        return _key_of(row)

    def list(self) -> Sequence[Key]:
        """All keys, revoked ones too, oldest first."""
        table = schema.api_keys
        with self._ledger.reading() as tx:
            return [_key_of(row) for row in tx.execute(sa.select(table).order_by(table.c.id))]

    def revoke(self, key_id: str) -> Key:
        """End a key now; a second time changes nothing. Raises KeyError for an id that there is not."""
        table = schema.api_keys
        with self._ledger.writing() as tx:
            open_key = (table.c.id == key_id, table.c.revoked_at.is_(None))
            tx.execute(table.update().where(*open_key).values(revoked_at=self._ledger.now(tx)))
        return self.get(key_id)

    def find(self, text: str) -> Key | None:
        """The living key that this text is; None for any other text. Never cached: a revoked key ends at once."""
        key_id, _, secret = text.partition(".")
        table = schema.api_keys
        with self._ledger.reading() as tx:
            row = tx.execute(sa.select(table).where(table.c.id == key_id)).one_or_none()
            now = self._ledger.now(tx)
        is_right = hmac.compare_digest(digest_of(secret), row.digest if row is not None else _NOBODY)
        if row is None or not is_right:
            return None
        if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
            return None
        if row.last_used_at is None or now - row.last_used_at > USE_NOTED_EVERY:
            with self._ledger.writing() as tx:
                tx.execute(table.update().where(table.c.id == key_id).values(last_used_at=now))
        return _key_of(row)


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _key_of(row: Any) -> Key:
    return Key(
        row.id, row.name, row.owner, tuple(row.scopes), row.created_at, row.expires_at, row.revoked_at, row.last_used_at
    )
