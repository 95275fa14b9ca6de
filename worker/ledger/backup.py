"""Backup of the embedded default, restore, and the proof that rows and bytes agree.

    FOLDER/ledger.sqlite3     the state of record at one moment, by SQLite's online backup: the service need not stop
    FOLDER/inputs, artifacts, uploads
    FOLDER/backup.json        schema revision, time, jobs by state, sha256 of the database

The database goes first. What is published after that moment is not in it; its bytes, if they came along, are orphans
and get swept. What was deleted after that moment has a row and no bytes: `agree` finds it, `restore` buries it again.
PostgreSQL and object stores have tools of their own (docs/operations.md); `agree` is for them, too.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from worker.ledger import database, schema
from worker.ledger.ledger import Ledger
from worker.ledger.records import Artifact, Job, job_of
from worker.ledger.states import State
from worker.ledger.storage import LocalStorage, fsync_directory, fsync_file, sha256_of, sha256_of_rest

DATABASE = "ledger.sqlite3"
ACCOUNT = "backup.json"
BYTES = ("inputs", "artifacts", "uploads")


class BackupError(Exception):
    """Nothing was changed: the message says what stands in the way."""


@dataclass(frozen=True)
class Agreement:
    """Rows against bytes."""

    jobs: int
    """Living ones."""
    files: int
    """Inputs and published artifacts whose checksum was compared."""
    damaged: tuple[str, ...]
    """Living jobs of which a file is missing or has another checksum."""
    undead: tuple[str, ...]
    """Deleted jobs of which bytes are left."""

    @property
    def holds(self) -> bool:
        return not self.damaged and not self.undead


def make(data_dir: Path, folder: Path) -> dict[str, Any]:
    """Write a backup of the server in `data_dir` to the new `folder`, while it runs. Returns the account."""
    source = data_dir / DATABASE
    if not source.is_file():
        raise BackupError(f"{data_dir} holds no {DATABASE}; PostgreSQL is saved by pg_dump (docs/operations.md)")
    if folder.exists():
        raise BackupError(f"{folder} exists; a backup never writes over another one")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _copy_database(source, partial / DATABASE)
    for name in BYTES:
        _copy_bytes(data_dir / name, partial / name)
    account = _account(partial)
    (partial / ACCOUNT).write_text(json.dumps(account, indent=2) + "\n", encoding="utf-8")
    fsync_file(partial / ACCOUNT)
    fsync_directory(partial)
    partial.rename(folder)
    fsync_directory(folder.parent.absolute())
    return account


def restore(folder: Path, data_dir: Path) -> Agreement:
    """Make the empty `data_dir` the server that `folder` is the backup of; then rows and bytes agree.

    Jobs that ran at that moment run again as soon as their lease is found expired; jobs that were deleted afterwards
    are deleted again, as far as their bytes tell.
    """
    if (data_dir / DATABASE).exists():
        raise BackupError(f"{data_dir} holds a server already; restore into an empty folder")
    account = json.loads((folder / ACCOUNT).read_text(encoding="utf-8")) if (folder / ACCOUNT).is_file() else None
    if account is None or sha256_of(folder / DATABASE) != account["sha256"]:
        raise BackupError(f"{folder} is no complete backup, or its database was altered")
    data_dir.mkdir(parents=True, exist_ok=True)
    for name in BYTES:
        _copy_bytes(folder / name, data_dir / name)
    shutil.copyfile(folder / DATABASE, data_dir / f"{DATABASE}.new")
    fsync_file(data_dir / f"{DATABASE}.new")
    (data_dir / f"{DATABASE}.new").rename(data_dir / DATABASE)
    fsync_directory(data_dir)
    book = Ledger(None, data_dir)
    try:
        found = agree(book)
        for job_id in found.damaged:
            book.delete(job_id)
        for job_id in found.undead:
            book.purge(job_id)
        return found
    finally:
        book.close()


def agree(book: Ledger) -> Agreement:
    """Compare every living job's files with their rows, and look for bytes of deleted ones. Reads all bytes; the inputs
    only where they lie in a folder, for a bucket hands them out to attempts alone."""
    table = schema.jobs
    with book.reading() as tx:
        rows = tx.execute(sa.select(table)).all()
    kept = book.storage.held()
    damaged, undead, jobs, files = [], [], 0, 0
    for job in map(job_of, rows):
        if job.state is State.DELETED:
            undead += [job.id] if job.id in kept else []
            continue
        jobs += 1
        checks = list(_checks(book, job))
        files += len(checks)
        if not all(checks):
            damaged.append(job.id)
    return Agreement(jobs, files, tuple(damaged), tuple(undead))


def _checks(book: Ledger, job: Job) -> Iterator[bool]:
    """For the input and each published artifact: whether its bytes are those of its row."""
    if job.input is not None and isinstance(book.storage, LocalStorage):
        path = book.storage.input_path(job.whole_id or job.id)
        yield path.is_file() and sha256_of(path) == job.input.sha256
    for artifact in book.artifacts(job.id):
        yield _stored_sha256(book, artifact) == artifact.sha256


def _stored_sha256(book: Ledger, artifact: Artifact) -> str | None:
    """Checksum of what the store gives; None where it has nothing of that name."""
    try:
        stored = book.storage.open_artifact(artifact)
    except FileNotFoundError:
        return None
    with closing(stored):
        return sha256_of_rest(stored)


def _copy_database(source: Path, target: Path) -> None:
    """Page by page, consistent, beside writers."""
    reader, writer = sqlite3.connect(f"file:{source}?mode=ro", uri=True), sqlite3.connect(target)
    try:
        reader.backup(writer)
        if writer.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            raise BackupError("SQLite finds the copy damaged")
        writer.execute("PRAGMA journal_mode=DELETE")
    finally:
        writer.close()
        reader.close()
    fsync_file(target)


def _copy_bytes(source: Path, target: Path) -> None:
    """Every file below, durable; what is deleted meanwhile is left out."""
    target.mkdir(parents=True, exist_ok=True)
    for folder, _, names in os.walk(source):
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            try:
                shutil.copy2(Path(folder) / name, place / name)
            except FileNotFoundError:
                continue
            fsync_file(place / name)
        fsync_directory(place)


def _account(folder: Path) -> dict[str, Any]:
    """What the backup holds, read from the backup itself."""
    connection = sqlite3.connect(f"file:{folder / DATABASE}?mode=ro&immutable=1", uri=True)
    try:
        jobs = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        connection.close()
    files = [path for name in BYTES for path in (folder / name).rglob("*") if path.is_file()]
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision,
        "newest_revision_known": database.head_revision(),
        "jobs": jobs,
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "sha256": sha256_of(folder / DATABASE),
    }
