"""Artifacts onto disk: each whole and verified, or not there at all."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import httpx

from mononphm_cli.client.http import Client
from mononphm_cli.client.models import Artifact
from mononphm_cli.failures import RemoteFailure, ServerUnreachable

ATTEMPTS = 4


def fetch_all(
    client: Client,
    job_id: str,
    folder: Path,
    on_bytes: Callable[[int], None] = lambda count: None,
    artifacts: list[Artifact] | None = None,
) -> list[Path]:
    """Download every artifact of a job below `folder` and return the files. One that is there already with the right
    checksum is not fetched again. RemoteFailure when bytes and checksum disagree."""
    listed = client.artifacts(job_id) if artifacts is None else artifacts
    return [fetch(client, job_id, artifact, folder, on_bytes) for artifact in listed]


def fetch(
    client: Client, job_id: str, artifact: Artifact, folder: Path, on_bytes: Callable[[int], None] = lambda count: None
) -> Path:
    """Download one artifact. It appears under its name only when its sha256 is the announced one; a broken transfer
    is resumed where it stopped."""
    target = folder / local_name(artifact.name)
    if target.is_file() and sha256_of(target) == artifact.sha256:
        on_bytes(artifact.bytes)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        digest = _transfer(client, job_id, artifact, part, on_bytes)
        if digest != artifact.sha256:
            raise RemoteFailure(
                f"{artifact.name}: the bytes that arrived have another sha256 than the server announced "
                f"({digest[:12]} instead of {artifact.sha256[:12]}). Nothing was kept; try again.",
                "checksum_mismatch",
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def local_name(name: str) -> Path:
    """An artifact's name as a relative path. RemoteFailure for a name that would leave the folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise RemoteFailure(f"the server names an artifact {name!r}: that is no name inside a folder.", "bad_name")
    return Path(*path.parts)


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _transfer(client: Client, job_id: str, artifact: Artifact, part: Path, on_bytes: Callable[[int], None]) -> str:
    digest, received = hashlib.sha256(), 0
    with part.open("wb") as sink:
        for attempt in range(ATTEMPTS):
            try:
                with client.open_artifact(job_id, artifact.name, start=received) as reply:
                    if received and reply.status_code != httpx.codes.PARTIAL_CONTENT:  # the whole file again
                        on_bytes(-received)
                        digest, received = hashlib.sha256(), 0
                        sink.seek(0)
                        sink.truncate()
                    for chunk in reply.iter_raw():
                        sink.write(chunk)
                        digest.update(chunk)
                        received += len(chunk)
                        on_bytes(len(chunk))
                break
            except httpx.TransportError as error:
                if attempt + 1 == ATTEMPTS:
                    raise ServerUnreachable(
                        f"{artifact.name}: the transfer broke off after {received} of {artifact.bytes} bytes "
                        f"({type(error).__name__}). Try again."
                    ) from error
        sink.flush()
        os.fsync(sink.fileno())
    return digest.hexdigest()
