"""`mononphm jobs`: the jobs of a server."""

import json
from pathlib import Path

import click

from mononphm_cli.client import Job
from mononphm_cli.following import download, follow, print_job, require_success
from mononphm_cli.options import client_of, json_option, server_options


@click.group("jobs")
def command() -> None:
    """List, watch, download, cancel, retry or delete jobs on a server."""


@command.command("list")
@click.option("--state", type=click.Choice(["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]))
@click.option("--label", metavar="TEXT", help="Only jobs with this label.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most this many.")
@server_options
@json_option
def list_jobs(state: str | None, label: str | None, limit: int, server: str, key: str | None, as_json: bool) -> None:
    """Newest first."""
    with client_of(server, key) as client:
        jobs = list(client.jobs(state, label, limit))
    if as_json:
        click.echo(json.dumps([job.model_dump(mode="json") for job in jobs], indent=2))
        return
    if not jobs:
        click.echo("no jobs", err=True)
    for job in jobs:
        click.echo(_row(job))


def _row(job: Job) -> str:
    created = job.created_at.strftime("%Y-%m-%d %H:%M") if job.created_at else ""
    return f"{job.id}  {job.state:<10} {job.percent:3.0f} %  {created:<16}  {job.input.filename or ''}"


@command.command("show")
@click.argument("job_id")
@server_options
@json_option
def show(job_id: str, server: str, key: str | None, as_json: bool) -> None:
    """One job as it is now."""
    with client_of(server, key) as client:
        job = client.job(job_id)
    if as_json:
        print_job(job, as_json=True)
        return
    facts = {
        "id": job.id,
        "state": job.describe(),
        "percent": f"{job.percent:.0f}",
        "file": job.input.filename,
        "created": job.created_at,
        "finished": job.finished_at,
        "attempts": job.attempts,
        "options": json.dumps(job.options),
        "error": f"{job.error.code}: {job.error.detail or job.error.title}" if job.error else None,
    }
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{name:<9} {value}")
    for warning in job.warnings:
        click.echo(f"{'note':<9} {warning}")


@command.command("wait")
@click.argument("job_id")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), metavar="S", help="Give up waiting after this long.")
@server_options
@json_option
def wait(job_id: str, timeout_s: float | None, server: str, key: str | None, as_json: bool) -> None:
    """Stay until the job has ended; the exit code says how."""
    with client_of(server, key) as client:
        print_job(follow(client, job_id, timeout_s), as_json)


@command.command("download")
@click.argument("job_id")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder; the job's id if left out.",
)
@server_options
@json_option
def download_job(job_id: str, folder: Path | None, server: str, key: str | None, as_json: bool) -> None:
    """Fetch the artifacts of a succeeded job and verify their checksums."""
    with client_of(server, key) as client:
        job = client.job(job_id)
        if job.ended:
            require_success(job)
        else:
            raise click.UsageError(f"job {job_id} is {job.describe()}: `mononphm jobs wait {job_id}` first.")
        print_job(job, as_json, download(client, job.id, folder or Path(job.id)))


@command.command("expressions")
@click.argument("job_id")
@click.option("--format", "format_", type=click.Choice(["json", "csv"]), default="json", show_default=True)
@click.option("--space", type=click.Choice(["codes", "arkit"]), default="codes", show_default=True)
@server_options
def expressions(job_id: str, format_: str, space: str, server: str, key: str | None) -> None:
    """The expression codes frame by frame, on standard output."""
    with client_of(server, key) as client:
        click.echo(client.expressions(job_id, format_, space), nl=False)


@command.command("animate")
@click.argument("identity")
@click.argument("expressions")
@server_options
@json_option
def animate(identity: str, expressions: str, server: str, key: str | None, as_json: bool) -> None:
    """The head of job IDENTITY with the expressions of job EXPRESSIONS, as a new job."""
    with client_of(server, key) as client:
        print_job(client.animate(identity, expressions), as_json)


@command.command("cancel")
@click.argument("job_id")
@server_options
@json_option
def cancel(job_id: str, server: str, key: str | None, as_json: bool) -> None:
    """End a queued or running job. It is `cancelled` once the device is free."""
    with client_of(server, key) as client:
        print_job(client.cancel(job_id), as_json)


@command.command("retry")
@click.argument("job_id")
@server_options
@json_option
def retry(job_id: str, server: str, key: str | None, as_json: bool) -> None:
    """A failed or cancelled job again: same file, same options."""
    with client_of(server, key) as client:
        print_job(client.retry(job_id), as_json)


@command.command("delete")
@click.argument("job_id")
@server_options
def delete(job_id: str, server: str, key: str | None) -> None:
    """Remove a job's file and artifacts from the server for good."""
    with client_of(server, key) as client:
        client.delete(job_id)
    click.echo(f"{job_id}  deleted")
