"""`mononphm api`: the HTTP API alone, for scaling out or beside workers that run elsewhere."""

from pathlib import Path
from typing import Any

import click


@click.command("api")
@click.option("--host", help="Address to bind; default 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default 8000; 0: any free port.")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Shared with the workers.")
@click.option("--database-url", help="State of record; default: SQLite in the data directory.")
@click.option("--broker-url", help="Where hints go; default: files in the data directory.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--fd", type=int, hidden=True, help="A socket that listens already.")
def command(fd: int | None, **given: Any) -> None:
    """Start the HTTP API alone. It serves until it gets SIGTERM or Ctrl-C.

    What is not given here comes from the environment (MONONPHM_DATA_DIR, MONONPHM_PORT, ...), then from defaults that
    need no server.
    """
    from service.server import CannotServe, address_of, as_bound, bind, inherited, serve
    from service.settings import ServiceSettings
    from worker import logs

    settings = ServiceSettings(**{name: value for name, value in given.items() if value is not None})
    logs.configure(settings.log_level, behind=True)
    try:
        listener = bind(settings) if fd is None else inherited(fd)
    except CannotServe as error:
        raise click.ClickException(str(error)) from error
    settings = as_bound(settings, listener)
    with listener:
        click.echo(f"MonoNPHM API on {address_of(listener)} (data in {settings.data_dir.absolute()})")
        if not serve(settings, listener):
            raise click.ClickException("the API could not start; the log above says why")
