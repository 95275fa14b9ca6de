"""`mononphm keys`: who may use this server. Works on the state of record itself, beside a running server or without."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from mononphm_cli.options import json_option


def store_options(command: Any) -> Any:
    """Where the keys are kept: the same database as the server's."""
    command = click.option("--database-url", help="State of record; default: SQLite in the data directory.")(command)
    return click.option(
        "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="The server's; default ./mononphm-data."
    )(command)


@contextmanager
def opened(data_dir: Path | None, database_url: str | None) -> Iterator[tuple[Any, Any]]:
    """The keys and the outbox of that server."""
    from service.settings import ServiceSettings
    from worker.ledger import Keys, Ledger, Outbox

    given = {"data_dir": data_dir, "database_url": database_url}
    settings = ServiceSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    book = Ledger(settings.database_url, settings.data_dir)
    try:
        yield Keys(book), Outbox(book)
    finally:
        book.close()


@click.group("keys")
def command() -> None:
    """Create, list or revoke API keys.

    A server that other machines can reach asks every request for one. Programs send `Authorization: Bearer KEY`;
    `mononphm submit` and `mononphm jobs` take `--key` or MONONPHM_KEY; a browser asks for it as a password.
    """


@command.command("create")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(["read", "write", "admin"]), default=("read", "write"),
    show_default=True, help="read: look and download. write: submit, cancel, delete. admin: /metrics. Repeatable.",
)  # fmt: skip
@click.option(
    "--owner", help="See and open the jobs of this owner (as `list` shows it); '' are those made without keys. "
    "Left out: an owner of its own.",
)  # fmt: skip
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="End after so many days; default: never.")
@store_options
@json_option
def create(
    name: str,
    scopes: tuple[Any, ...],
    owner: str | None,
    days: float | None,
    data_dir: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Make a key called NAME and print it. It is shown this once: only its digest is kept."""
    lifetime = None if days is None else timedelta(days=days)
    with opened(data_dir, database_url) as (keys, _):
        key, text = keys.create(name, scopes, owner, lifetime)
    if as_json:
        click.echo(json.dumps({**facts(key), "key": text}, indent=2))
        return
    click.echo(f"{key.id} for {name!r}: {', '.join(key.scopes)}. Keep it now, it is not shown again:", err=True)
    click.echo(text)


@command.command("list")
@store_options
@json_option
def list_keys(data_dir: Path | None, database_url: str | None, as_json: bool) -> None:
    """All keys, oldest first; never their secrets."""
    with opened(data_dir, database_url) as (keys, _):
        found = [facts(key) for key in keys.list()]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("no keys", err=True)
    for key in found:
        state = "revoked" if key["revoked_at"] else f"expires {key['expires_at'][:10]}" if key["expires_at"] else "open"
        used = (key["last_used_at"] or "never")[:16].replace("T", " ")
        owner = key["owner"] or "''"
        click.echo(f"{key['id']}  {state:<18} {'+'.join(key['scopes']):<16} used {used}  {owner:<30}  {key['name']}")


@command.command("revoke")
@click.argument("key_id")
@store_options
def revoke(key_id: str, data_dir: Path | None, database_url: str | None) -> None:
    """End the key with this id, at once. The jobs that it opened stay."""
    with opened(data_dir, database_url) as (keys, _):
        try:
            keys.revoke(key_id.partition(".")[0])
        except KeyError:
            raise click.UsageError(f"there is no key {key_id}; `mononphm keys list` shows those there are.") from None
    click.echo(f"{key_id.partition('.')[0]}  revoked")


@command.command("webhook-secret")
@click.option("--owner", default="", help="Whose webhooks; left out: those of jobs made without keys.")
@click.option("--rotate", is_flag=True, help="Make a new one; the old one signs beside it for a day.")
@store_options
def webhook_secret(owner: str, rotate: bool, data_dir: Path | None, database_url: str | None) -> None:
    """Print the secret that signs an owner's webhooks, for whoever receives them (Standard Webhooks)."""
    with opened(data_dir, database_url) as (_, outbox):
        click.echo(outbox.rotate_secret(owner) if rotate else outbox.secrets_of(owner)[0])


def facts(key: Any) -> dict[str, Any]:
    """A key as plain JSON."""
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in asdict(key).items()}
