"""`mononphm database`: backup, restore, check and schema of the state of record (docs/operations.md)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mononphm_cli.options import json_option

FOLDER = click.Path(path_type=Path, file_okay=False)


def data_dir_option(command: Any) -> Any:
    """The server's own folder."""
    return click.option(
        "--data-dir", type=FOLDER, default=Path("mononphm-data"), show_default=True, envvar="MONONPHM_DATA_DIR",
        help="The server's data directory.",
    )(command)  # fmt: skip


def database_option(command: Any) -> Any:
    """The state of record, where it is no file in that folder."""
    return click.option(
        "--database-url", envvar="MONONPHM_DATABASE_URL", help="State of record; default: SQLite in the data directory."
    )(command)


@contextmanager
def explained() -> Iterator[None]:
    """What stands in the way is said, not traced."""
    from worker.ledger.backup import BackupError

    try:
        yield
    except BackupError as error:
        raise click.ClickException(f"{error}.") from None


@click.group("database")
def command() -> None:
    """Back up, restore, check or take back the state of record."""


@command.command("backup")
@click.argument("folder", metavar="FOLDER", type=FOLDER)
@data_dir_option
@json_option
def backup(folder: Path, data_dir: Path, as_json: bool) -> None:
    """Write a backup of the embedded default (SQLite and bytes) to the new FOLDER. The server may go on."""
    from worker.ledger.backup import make

    with explained():
        account = make(data_dir, folder)
    said = f"{folder}  {sum(account['jobs'].values())} jobs, {account['files']} files, {account['bytes'] / 1e6:.1f} MB"
    click.echo(json.dumps(account, indent=2) if as_json else said)


@command.command("restore")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False, exists=True))
@data_dir_option
@json_option
def restore(folder: Path, data_dir: Path, as_json: bool) -> None:
    """Make an empty data directory the server that FOLDER is the backup of."""
    from worker.ledger.backup import restore as bring_back

    with explained():
        found = bring_back(folder, data_dir)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    click.echo(f"{data_dir}  {found.jobs} jobs, {found.files} files compared")
    for job_id in (*found.damaged, *found.undead):
        click.echo(f"{job_id}  deleted: its bytes were gone or should have been")


@command.command("check")
@data_dir_option
@database_option
@json_option
def check(data_dir: Path, database_url: str | None, as_json: bool) -> int:
    """Compare every file with its row, and look for bytes of deleted jobs. Exit code 1 if they disagree."""
    from worker.ledger.backup import agree
    from worker.ledger.ledger import Ledger

    book = Ledger(database_url, data_dir)
    try:
        found = agree(book)
    finally:
        book.close()
    if as_json:
        click.echo(json.dumps({"holds": found.holds, **asdict(found)}, indent=2))
    else:
        click.echo(f"{found.jobs} jobs, {found.files} files compared")
        for job_id in found.damaged:
            click.echo(f"{job_id}  a file is missing or altered")
        for job_id in found.undead:
            click.echo(f"{job_id}  deleted, and bytes are left")
    return 0 if found.holds else 1


@command.command("revision")
@data_dir_option
@database_option
def revision(data_dir: Path, database_url: str | None) -> None:
    """Show the schema's revision, and the newest one that this program knows."""
    from worker.ledger import database

    engine = database.make_engine(database_url or database.default_url(data_dir))
    try:
        click.echo(f"{database.current_revision(engine) or 'empty'}  newest known: {database.head_revision()}")
    finally:
        engine.dispose()


@command.command("downgrade")
@click.argument("revision", metavar="REVISION")
@data_dir_option
@database_option
def downgrade(revision: str, data_dir: Path, database_url: str | None) -> None:
    """Take the schema back to REVISION. What newer revisions added is dropped: back up first, stop the service."""
    from worker.ledger import database

    engine = database.make_engine(database_url or database.default_url(data_dir))
    try:
        database.downgrade(engine, revision)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    finally:
        engine.dispose()
    click.echo(f"schema at {revision}")
