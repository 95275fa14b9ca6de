"""`mononphm demo`, which `make demo` runs: one clip through the real API, queue and worker to verified files."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from mononphm_cli.client import Job
from mononphm_cli.client.download import sha256_of
from mononphm_cli.client.models import Artifact
from mononphm_cli.commands.submit import upload
from mononphm_cli.failures import RemoteFailure
from mononphm_cli.following import download, follow
from mononphm_cli.local_server import LocalServer
from mononphm_cli.options import client_of
from mononphm_cli.progress import ProgressView

SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sample.mp4"
"""A synthetic head, rendered by this project; no private person."""


@click.command("demo")
@click.option(
    "--input",
    "file",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="Your own clip or image; the shipped sample otherwise.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    metavar="DIR",
    help="The artifacts come into DIR/<job id>/.",
)
@click.option("--quality", type=click.Choice(["draft", "standard", "high"]), help="How much work is put in.")
@click.option("--max-frames", type=click.IntRange(1), metavar="N", help="At most so many, evenly thinned.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the private server; a free one otherwise.")
@click.option("--keep", is_flag=True, help="Leave the server up, to look at the result in a browser.")
def command(
    file: Path | None, output: Path, quality: str | None, max_frames: int | None, port: int | None, keep: bool
) -> None:
    """Send one clip through a real server to verified meshes and codes.

    Starts `mononphm up` on a private data directory, submits the clip over HTTP, shows the progress, downloads the
    artifacts and verifies their checksums. Whatever was started is stopped, also after Ctrl-C or a failure.
    """
    clip = file or SAMPLE
    if not clip.is_file():
        raise click.UsageError(f"the sample clip {clip} is not there: run this in a clone, or give --input FILE.")
    asked: dict[str, Any] = {"quality": quality, "max_frames": max_frames}
    options = {name: value for name, value in asked.items() if value is not None}
    with termination_is_an_interrupt(), LocalServer(port) as server:
        click.echo(f"starting API and worker on {server.url}", err=True)
        with ProgressView("start") as view:
            server.wait_until_ready(lambda seconds: view.update(0, f"loading the model, {seconds:.0f} s"))
            view.update(100, "ready")
        with client_of(server.url, None) as client:
            job = upload(client, clip, options)
            click.echo(f"job {job.id}: {clip.name}", err=True)
            job = follow(client, job.id)
            listed = client.artifacts(job.id)
            folder = output / job.id
            files = download(client, job.id, folder)
        verify(listed, folder)
        report(job, folder, files)
        page = f"{server.url}/r/{job.id}"
        if keep:
            click.echo(f"viewer    {page}")
            click.echo(f"the server stays up; stop it with: kill {server.keep()}; its data: {server.folder}")
        else:
            click.echo(f"viewer    {page} (the server stops now; KEEP=1 or --keep leaves it up)")


def verify(listed: list[Artifact], folder: Path) -> None:
    """RemoteFailure unless meshes and codes are there and every file on the disk has its announced sha256."""
    names = {artifact.name for artifact in listed}
    wanted = {
        "a mesh for at least one frame": any(name.startswith("meshes/") for name in names),
        "identity.npz": "identity.npz" in names,
        "expressions.npz": "expressions.npz" in names,
        "manifest.json": "manifest.json" in names,
    }
    missing = [name for name, there in wanted.items() if not there]
    if missing:
        raise RemoteFailure(f"the job succeeded without {', '.join(missing)}. Please report this.")
    empty = [artifact.name for artifact in listed if artifact.bytes == 0]
    if empty:
        raise RemoteFailure(f"empty artifacts: {', '.join(empty)}. Please report this.")
    altered = [artifact.name for artifact in listed if sha256_of(folder / artifact.name) != artifact.sha256]
    if altered:
        raise RemoteFailure(f"checksums differ on the disk: {', '.join(altered)}. Try again.", "checksum_mismatch")


def report(job: Job, folder: Path, files: list[Path]) -> None:
    """Where everything is."""
    meshes = sum(1 for file in files if file.parent.name == "meshes")
    click.echo(f"\njob       {job.id} succeeded: {meshes} meshes, {len(files)} files, all checksums verified")
    click.echo(f"meshes    {folder / 'meshes'}")
    click.echo(f"codes     {folder / 'identity.npz'}, {folder / 'expressions.npz'}")
    for name in ("preview.mp4", "preview.png"):
        if (folder / name).is_file():
            click.echo(f"preview   {folder / name}")


@contextmanager
def termination_is_an_interrupt() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does: through every `finally`."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
