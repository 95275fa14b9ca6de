"""Inputs and artifacts in an object store: for API and workers that share no disk.

    <prefix>inputs/<job>/input                the accepted input
    <prefix>artifacts/<job>@<fence>/<name>    what one attempt made; the published fence is in the database
    data_dir/work/<job>/<fence>/…             on the worker's own disk: the input and the files of a running attempt

The guarantees are those of the folder. An object exists whole or not at all; a job is committed after its input is
stored, and published after every artifact is; what lies under another fence is garbage that the janitor removes.
"""

import time
from pathlib import Path
from typing import Any

from worker.ledger.bucket import Bucket
from worker.ledger.errors import StorageUnavailable
from worker.ledger.records import Artifact
from worker.ledger.storage import (
    Bytes,
    Check,
    Removed,
    Scratch,
    Sealed,
    checked_files,
    never,
    one_name,
    remove_folder,
    remove_if_empty,
    safe_name,
    sha256_of,
)

INPUT_FENCE = 0
"""In `left_over`: an upload of the input, which belongs to no attempt (their fences begin at 1)."""

ABANDONED_S = 24 * 3600.0
"""An upload of an input that is not completed for so long never will be."""


class ObjectStorage(Scratch):
    """A bucket, or a part of one. API and workers must name the same; their data directories are their own."""

    def __init__(self, data_dir: Path, bucket: Bucket) -> None:
        super().__init__(data_dir)
        self.bucket = bucket
        self.work = self.data_dir / "work"
        self.work.mkdir(parents=True, exist_ok=True)

    def probe(self) -> None:
        """Raises StorageUnavailable, or OSError where this machine's own disk cannot be written."""
        super().probe()
        self.bucket.probe()

    def try_out(self) -> None:
        """Store, fetch and remove a file of several parts: every right that is needed. Raises what that raises."""
        source, prefix = self.staging / f"probe-{time.monotonic_ns()}", f"probe/{time.time_ns()}/"
        try:
            source.write_bytes(b"probe" * (self.bucket.place.part_bytes // 5 + 1))
            self.bucket.put_file(source, prefix + "file", digest := sha256_of(source))
            self.bucket.fetch(prefix + "file", source, digest)
            if not self.bucket.remove(prefix).gone:
                raise StorageUnavailable("what was removed is still there")
        finally:
            source.unlink(missing_ok=True)

    # ---------------------------------------------------------------- inputs

    def accept_input(self, staged: Path, job_id: str, sha256: str | None = None) -> None:
        """Store a staged file as the job's input; it is whole in the store, and gone here, when this returns."""
        self.adopt_input(staged, job_id, sha256)
        staged.unlink()

    def adopt_input(self, source: Path, job_id: str, sha256: str | None = None) -> None:
        """The same, of a file that stays."""
        self.bucket.put_file(source, _input_key(job_id), sha256 or sha256_of(source))

    def copy_input(self, job_id: str, new_job_id: str) -> None:
        """The same input for another job, copied inside the store. Raises FileNotFoundError."""
        self.bucket.copy(_input_key(job_id), _input_key(new_job_id))

    # ---------------------------------------------------------------- one attempt

    def attempt_input(self, job_id: str, fence: int, of: str | None = None) -> Path:
        """Where an attempt finds its input, or that of job `of`, once it was brought."""
        return self._scratch(job_id, fence) / "input"

    def bring_input(self, job_id: str, fence: int, sha256: str, check: Check = never, of: str | None = None) -> None:
        """Fetch the input to the attempt's own disk; checksums are compared. Raises FileNotFoundError."""
        self.bucket.fetch(_input_key(of or job_id), self.attempt_input(job_id, fence), sha256, check)

    def bring_artifact(self, artifact: Artifact, target: Path, check: Check = never) -> None:
        """Fetch a published file to this disk; checksums are compared. Raises FileNotFoundError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self.bucket.fetch(_artifact_key(artifact), target, artifact.sha256, check)

    def new_workspace(self, job_id: str, fence: int) -> Path:
        """An empty directory on this disk: what the pipeline writes there and lists is what may be published."""
        remove_folder(self._scratch(job_id, fence))
        workspace = self._scratch(job_id, fence) / "files"
        workspace.mkdir(parents=True)
        return workspace

    def seal(self, job_id: str, fence: int, artifacts: list[dict[str, Any]], check: Check = never) -> list[Sealed]:
        """Check each listed file against its size and sha256, and bring it to the store. Raises UnsealedArtifact."""
        workspace = self._scratch(job_id, fence) / "files"
        listed = checked_files(workspace, artifacts)
        prefix = _attempt_prefix(job_id, fence)
        self.bucket.put_files(
            [(workspace / item.name, prefix + item.name, item.sha256, {"ContentType": item.media_type})
             for item in listed],
            check,
        )  # fmt: skip
        return listed

    # ---------------------------------------------------------------- artifacts

    def open_artifact(self, artifact: Artifact, first: int = 0) -> Bytes:
        """The bytes of a published file from `first` on. Raises FileNotFoundError."""
        return self.bucket.open(_artifact_key(artifact), first)

    def direct_link(self, artifact: Artifact, disposition: str) -> str | None:
        """An address of the store's own that gives the bytes for a while; None where clients cannot reach it."""
        return self.bucket.link(_artifact_key(artifact), disposition, artifact.media_type)

    # ---------------------------------------------------------------- removal

    def discard_attempt(self, job_id: str, fence: int) -> Removed:
        """Remove what an attempt that did not win has written, here and in the store."""
        self._drop_scratch(job_id, fence)
        return self.bucket.remove(_attempt_prefix(job_id, fence))

    def remove_job(self, job_id: str) -> Removed:
        """Remove every byte of a job, and look again afterwards."""
        remove_folder(self.work / one_name(job_id))
        return self.bucket.remove(_input_key(job_id)) + self.bucket.remove(_attempts_prefix(job_id))

    def held(self) -> dict[str, set[int]]:
        """Ids under which bytes lie in the store, and the fences under which each job has written."""
        found: dict[str, set[int]] = {job_id: set() for job_id in self.bucket.folders("inputs/")}
        for name in self.bucket.folders("artifacts/"):
            job_id, _, fence = name.partition("@")
            if fence.isdigit():
                found.setdefault(job_id, set()).add(int(fence))
        return found

    def attempts(self, job_id: str) -> list[int]:
        """Fences under which a job has written to the store."""
        wanted = _attempts_prefix(job_id)
        found = {item.key[len(wanted) :].partition("/")[0] for item in self.bucket.objects(wanted)}
        return sorted(int(fence) for fence in found if fence.isdigit())

    def touched_at(self, job_id: str) -> float:
        """Seconds since 1970 of the last change of a job's objects, by the store's clock; 0 if there are none."""
        prefixes = (_input_key(job_id), _attempts_prefix(job_id))
        return max((item.touched_at for prefix in prefixes for item in self.bucket.objects(prefix)), default=0.0)

    def left_over(self) -> set[tuple[str, int]]:
        """Attempts that left files on this disk or unfinished uploads in the store, and inputs that never arrived."""
        found = {(folder.parent.name, int(folder.name)) for folder in self.work.glob("*/*") if folder.name.isdigit()}
        for key, _, _ in self.bucket.unfinished("artifacts/"):
            job_id, _, fence = key.split("/")[1].partition("@")
            if fence.isdigit():
                found.add((job_id, int(fence)))
        for key, _, begun_at in self.bucket.unfinished("inputs/"):
            if begun_at < time.time() - ABANDONED_S:
                found.add((key.split("/")[1], INPUT_FENCE))
        return found

    def tidy(self, job_id: str, fence: int) -> None:
        """Remove that; what the attempt has published stays."""
        if fence == INPUT_FENCE:
            self.bucket.abort(_input_key(job_id), time.time() - ABANDONED_S)
            return
        self._drop_scratch(job_id, fence)
        self.bucket.abort(_attempt_prefix(job_id, fence))

    def _scratch(self, job_id: str, fence: int) -> Path:
        return self.work / one_name(job_id) / str(int(fence))

    def _drop_scratch(self, job_id: str, fence: int) -> None:
        remove_folder(self._scratch(job_id, fence))
        remove_if_empty(self.work / one_name(job_id))


def _input_key(job_id: str) -> str:
    return f"inputs/{one_name(job_id)}/input"


def _attempts_prefix(job_id: str) -> str:
    return f"artifacts/{one_name(job_id)}@"


def _attempt_prefix(job_id: str, fence: int) -> str:
    return f"{_attempts_prefix(job_id)}{int(fence)}/"


def _artifact_key(artifact: Artifact) -> str:
    return _attempt_prefix(artifact.job_id, artifact.fence) + safe_name(artifact.name)
