"""One engine per process: SQLite in WAL mode with synchronous=FULL, or PostgreSQL by URL; schema by migrations."""

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

log = logging.getLogger(__name__)

WRITE = "mononphm_write"
"""Execution option of a connection that will write: SQLite then takes its one write lock at BEGIN, not half-way."""

BUSY_TIMEOUT_S = 30.0

IDLE_IN_TRANSACTION_S = 60.0
"""PostgreSQL ends a transaction of ours that is silent for so long: a process that was stopped in the middle of one
must not hold its rows locked until somebody notices."""

_MIGRATION_LOCK = 0x6D6F6E6F  # any constant: processes that migrate the same PostgreSQL meet here


def default_url(data_dir: Path) -> str:
    """The embedded default: one file in the data directory."""
    return f"sqlite:///{data_dir.absolute() / 'ledger.sqlite3'}"


def make_engine(url: str, idle_in_transaction_s: float = IDLE_IN_TRANSACTION_S) -> sa.Engine:
    """An engine that is safe for threads and for several processes; call it after any fork, never before."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = sa.create_engine(parsed, pool_pre_ping=True)
        sa.event.listen(engine, "connect", partial(_bound_silence, round(1000 * idle_in_transaction_s)))
        return engine
    if not parsed.database or parsed.database == ":memory:":
        raise ValueError("the ledger needs a database file: several processes share it")
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _bound_silence(milliseconds: int, connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:  # by SET and not in the connection's options, which poolers refuse
        cursor.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}")
    connection.commit()


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:  # the switch to WAL ignores the busy timeout when two processes race for it
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")  # a deleted job's facts leave the file, too


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def migration_config() -> Config:
    """Alembic's configuration without a file: the scripts lie beside this module."""
    config = Config()
    config.set_main_option("script_location", os.fspath(Path(__file__).parent / "migrations"))
    return config


def head_revision() -> str:
    """The newest revision that this code knows."""
    head = ScriptDirectory.from_config(migration_config()).get_current_head()
    assert head is not None
    return head


def current_revision(engine: sa.Engine) -> str | None:
    """The revision that the database is at; None: empty."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def knows(revision: str) -> bool:
    """Whether this code has that revision's script; what it does not have is newer."""
    return revision in {script.revision for script in ScriptDirectory.from_config(migration_config()).walk_revisions()}


def upgrade(engine: sa.Engine) -> None:
    """Bring the schema to the newest revision. Processes that start together wait for each other.

    A schema that is newer than this code stays as it is: revisions only add what older code may ignore (a test holds
    them to it), so the two versions work side by side while one takes the other's place.
    """
    current = current_revision(engine)
    if current == head_revision():
        return
    if current is not None and not knows(current):
        log.warning("the schema is at %s, newer than this program, which knows %s", current, head_revision())
        return
    with _migrating(engine) as config:
        command.upgrade(config, "head")


def downgrade(engine: sa.Engine, revision: str) -> None:
    """Take the schema back to an older revision; what newer ones added is dropped. ValueError for an unknown one."""
    if revision != "base" and not knows(revision):
        raise ValueError(f"no revision {revision}: this program knows up to {head_revision()}")
    with _migrating(engine) as config:
        command.downgrade(config, revision)


@contextmanager
def _migrating(engine: sa.Engine) -> Iterator[Config]:
    """Alembic's configuration with a connection in one transaction, alone with the schema.

    SQLite alters a table by copying it and dropping the old one, which would delete by cascade every row that refers
    to it: references are not enforced meanwhile, and checked at the end.
    """
    config = migration_config()
    with engine.connect() as connection:
        connection = connection.execution_options(**{WRITE: True})
        sqlite = connection.connection.dbapi_connection if connection.dialect.name == "sqlite" else None
        if sqlite is not None:
            sqlite.execute("PRAGMA foreign_keys=OFF")  # without effect inside a transaction
        try:
            with connection.begin():
                if sqlite is None:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                config.attributes["connection"] = connection
                yield config
                if sqlite is not None and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
                    raise RuntimeError(f"a migration left {len(broken)} references to nothing; it was undone")
        finally:
            if sqlite is not None:
                sqlite.execute("PRAGMA foreign_keys=ON")
