"""`mononphm submit FILE`: one file to a server; if wanted, wait and bring the artifacts back."""

from pathlib import Path
from typing import Any

import click

from mononphm_cli.client import Client, Job
from mononphm_cli.following import download, follow, print_job
from mononphm_cli.options import client_of, job_options, json_option, server_options, to_job_options
from mononphm_cli.progress import ByteView


@click.command("submit")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.option("--wait", "wait", is_flag=True, help="Stay until the job has ended, showing how far it is.")
@click.option(
    "--download",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Wait, then put the artifacts here, checksums verified.",
)
@click.option("--idempotency-key", metavar="TEXT", help="Same key and file: the same job, never a second one.")
@job_options
@server_options
@json_option
def command(
    file: Path,
    wait: bool,
    folder: Path | None,
    idempotency_key: str | None,
    server: str,
    key: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Send FILE, one video or image, to a server.

    Prints the job's id at once; with --wait or --download, stays until it has ended. Ctrl-C then leaves the job
    running: `mononphm jobs wait ID` comes back to it.
    """
    options = to_job_options(given)
    with client_of(server, key) as client:
        job = upload(client, file, options, idempotency_key)
        if not (wait or folder):
            print_job(job, as_json)
            return
        click.echo(f"job {job.id}", err=True)
        job = follow(client, job.id)
        files = download(client, job.id, folder) if folder else []
        print_job(job, as_json, files)


def upload(client: Client, file: Path, options: dict[str, Any], idempotency_key: str | None = None) -> Job:
    """Send a file with a moving bar."""
    with ByteView("upload", file.stat().st_size) as view:
        return client.submit(file, options, idempotency_key, view)
