"""Watching a job on a server to its end, and bringing its files home: shared by `submit`, `jobs` and `demo`."""

import json
from pathlib import Path

import click

from mononphm_cli.client import Client, Job
from mononphm_cli.client.download import fetch_all
from mononphm_cli.failures import RemoteFailure
from mononphm_cli.progress import ByteView, ProgressView


def follow(client: Client, job_id: str, timeout_s: float | None = None) -> Job:
    """Show a job's progress until it succeeds. RemoteFailure, with the job's own code, if it fails or is cancelled."""
    with ProgressView("reconstruct") as view:

        def show(job: Job) -> None:
            view.update(job.percent, job.describe())

        job = client.wait(job_id, show, timeout_s)
    for warning in job.warnings:
        click.echo(f"note: {warning if isinstance(warning, str) else json.dumps(warning)}", err=True)
    require_success(job)
    return job


def require_success(job: Job) -> None:
    """RemoteFailure unless the job succeeded."""
    if job.state == "cancelled":
        raise RemoteFailure(f"job {job.id} was cancelled. `mononphm jobs retry {job.id}` starts it again.", "cancelled")
    if job.state == "failed":
        reason = job.error
        said = ". ".join(filter(None, [reason.title.rstrip("."), reason.detail])) if reason else "no reason given"
        again = f"\n`mononphm jobs retry {job.id}` tries again." if reason and reason.retryable else ""
        raise RemoteFailure(f"job {job.id} failed: {said}{again}", reason.code if reason else "")


def download(client: Client, job_id: str, folder: Path) -> list[Path]:
    """All artifacts of a job below `folder`, verified, with a moving bar."""
    artifacts = client.artifacts(job_id)
    with ByteView("download", sum(artifact.bytes for artifact in artifacts)) as view:
        return fetch_all(client, job_id, folder, view, artifacts)


def print_job(job: Job, as_json: bool, files: list[Path] | None = None) -> None:
    """The job on standard output."""
    if as_json:
        document = job.model_dump(mode="json")
        if files is not None:
            document["files"] = [str(file) for file in files]
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"{job.id}  {job.describe()}")
    if files:
        click.echo(f"{len(files)} files in {common_folder(files)}, checksums verified")


def common_folder(files: list[Path]) -> Path:
    """The folder that holds them all."""
    shared = files[0].parent
    while not all(file.is_relative_to(shared) for file in files):
        shared = shared.parent
    return shared
