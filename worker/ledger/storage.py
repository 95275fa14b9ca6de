"""Where the bytes lie: a local directory by default, or an object store (objects.py), behind one small protocol.

    data_dir/staging/<anything>             uploads on their way in; nothing here is promised to anybody
    data_dir/uploads/<upload>               resumable uploads; their rows say how much of each counts
    data_dir/inputs/<job>/input             the accepted input, under a name of ours
    data_dir/artifacts/<job>/<fence>/…      what one attempt made; the published fence is in the database

Nothing is promised before its bytes and its directory entry are on the disk: `accept_input` and `seal` end with fsync.
"""

import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from worker.ledger.errors import UnsealedArtifact
from worker.ledger.failpoints import reach
from worker.ledger.records import Artifact

CHUNK_BYTES = 1 << 20
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Sealed:
    """One artifact whose bytes are on the disk and are those of its checksum."""

    name: str
    role: str
    media_type: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Removed:
    """Proof of a deletion: how much there was, and that a look afterwards found nothing."""

    files: int
    bytes: int
    gone: bool

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(self.files + other.files, self.bytes + other.bytes, self.gone and other.gone)


Check = Callable[[], None]
"""Asked now and then while bytes travel: raises what should end the journey (cancelled, lease lost, shutdown)."""


def never() -> None:
    """The check of a journey that nobody calls off."""


class Bytes(Protocol):
    """One stored file from some byte on. `read` gives at most `size` bytes, b"" at the end; it blocks."""

    def read(self, size: int, /) -> bytes | None: ...
    def close(self) -> None: ...


class Storage(Protocol):
    """All that API and worker ask of a place for bytes. What is kept elsewhere may raise StorageUnavailable."""

    @property
    def data_dir(self) -> Path: ...
    @property
    def staging(self) -> Path: ...
    @property
    def uploads(self) -> Path: ...

    def new_staging(self, name: str) -> Path: ...
    def upload_path(self, upload_id: str) -> Path: ...
    def free_bytes(self) -> int: ...
    def probe(self) -> None: ...

    def accept_input(self, staged: Path, job_id: str, sha256: str | None = None) -> None: ...
    def adopt_input(self, source: Path, job_id: str, sha256: str | None = None) -> None: ...
    def copy_input(self, job_id: str, new_job_id: str) -> None: ...

    def attempt_input(self, job_id: str, fence: int, of: str | None = None) -> Path: ...
    def bring_input(
        self, job_id: str, fence: int, sha256: str, check: Check = never, of: str | None = None
    ) -> None: ...
    def bring_artifact(self, artifact: Artifact, target: Path, check: Check = never) -> None: ...
    def new_workspace(self, job_id: str, fence: int) -> Path: ...
    def seal(self, job_id: str, fence: int, artifacts: list[dict[str, Any]], check: Check = never) -> list[Sealed]: ...

    def open_artifact(self, artifact: Artifact, first: int = 0) -> Bytes: ...
    def direct_link(self, artifact: Artifact, disposition: str) -> str | None: ...

    def discard_attempt(self, job_id: str, fence: int) -> Removed: ...
    def remove_job(self, job_id: str) -> Removed: ...
    def held(self) -> dict[str, set[int]]: ...
    def attempts(self, job_id: str) -> list[int]: ...
    def touched_at(self, job_id: str) -> float: ...
    def left_over(self) -> set[tuple[str, int]]: ...
    def tidy(self, job_id: str, fence: int) -> None: ...


class Scratch:
    """What lies on this machine's own disk wherever the rest is: uploads on their way in."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.staging = self.data_dir / "staging"
        self.uploads = self.data_dir / "uploads"
        for folder in (self.staging, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)

    def new_staging(self, name: str) -> Path:
        """A path for an upload on its way in; `name` is an id of ours, never the user's."""
        return self.staging / one_name(name)

    def upload_path(self, upload_id: str) -> Path:
        """Where the bytes of a resumable upload lie."""
        return self.uploads / one_name(upload_id)

    def free_bytes(self) -> int:
        """What an ordinary user may still write."""
        return shutil.disk_usage(self.data_dir).free

    def probe(self) -> None:
        """Write a file and remove it. Raises OSError."""
        probe = self.staging / f"probe-{os.getpid()}-{threading.get_ident()}"
        probe.write_bytes(b"probe")
        probe.unlink()


class LocalStorage(Scratch):
    """A directory of this machine. API and worker must see the same one."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.inputs = self.data_dir / "inputs"
        self.artifacts = self.data_dir / "artifacts"
        for folder in (self.inputs, self.artifacts):
            folder.mkdir(parents=True, exist_ok=True)

    def accept_input(self, staged: Path, job_id: str, sha256: str | None = None) -> None:
        """Move a staged file to its job, bytes and directory entries on the disk when this returns."""
        target = self.input_path(job_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        fsync_file(staged)
        reach("rename.before")
        staged.replace(target)
        reach("rename.after")
        fsync_directory(target.parent)
        fsync_directory(self.inputs)

    def copy_input(self, job_id: str, new_job_id: str) -> None:
        """The same input for another job. Raises FileNotFoundError."""
        self.adopt_input(self.input_path(job_id), new_job_id)

    def adopt_input(self, source: Path, job_id: str, sha256: str | None = None) -> None:
        """A durable file as a job's input, too: a second name for the bytes where the file system can, else a copy."""
        target = self.input_path(job_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, target)
            fsync_file(target)
        fsync_directory(target.parent)
        fsync_directory(self.inputs)

    def attempt_input(self, job_id: str, fence: int, of: str | None = None) -> Path:
        """Where an attempt finds its input, or that of job `of`: here it is the input itself."""
        return self.input_path(of or job_id)

    def bring_input(self, job_id: str, fence: int, sha256: str, check: Check = never, of: str | None = None) -> None:
        """Nothing to do: the input lies where it is read."""

    def bring_artifact(self, artifact: Artifact, target: Path, check: Check = never) -> None:
        """A published file under a second name where the file system can, else a copy. Raises FileNotFoundError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        source = self.artifact_path(artifact.job_id, artifact.fence, artifact.name)
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, target)

    def input_path(self, job_id: str) -> Path:
        """Where the input of this job lies, or would lie."""
        return self.inputs / one_name(job_id) / "input"

    def attempt_dir(self, job_id: str, fence: int) -> Path:
        """Where the attempt with this fence writes."""
        return self.artifacts / one_name(job_id) / str(int(fence))

    def new_workspace(self, job_id: str, fence: int) -> Path:
        """An empty directory for one attempt: what the pipeline writes there and lists is what may be published."""
        workspace = self.attempt_dir(job_id, fence)
        if workspace.exists():
            shutil.rmtree(workspace)
        workspace.mkdir(parents=True)
        fsync_directory(workspace.parent)
        fsync_directory(self.artifacts)
        return workspace

    def seal(self, job_id: str, fence: int, artifacts: list[dict[str, Any]], check: Check = never) -> list[Sealed]:
        """Check each listed file against its size and sha256, drop what is not listed, and bring the rest to the disk.

        `manifest.json` cannot list itself; where it exists, it is added here. Raises UnsealedArtifact.
        """
        workspace = self.attempt_dir(job_id, fence)
        listed = checked_files(workspace, artifacts)
        names = {item.name for item in listed}
        for path in sorted(workspace.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(workspace).as_posix() not in names:
                path.unlink()
        for item in listed:
            fsync_file(workspace / item.name)
        for folder in [path for path in workspace.rglob("*") if path.is_dir()] + [
            workspace,
            workspace.parent,
            self.artifacts,
        ]:
            fsync_directory(folder)
        return listed

    def artifact_path(self, job_id: str, fence: int, name: str) -> Path:
        """The file of a published artifact; ValueError for a name that would leave the attempt's folder."""
        return self.attempt_dir(job_id, fence) / safe_name(name)

    def open_artifact(self, artifact: Artifact, first: int = 0) -> Bytes:
        """The bytes of a published file from `first` on. Raises FileNotFoundError."""
        file = self.artifact_path(artifact.job_id, artifact.fence, artifact.name).open("rb", buffering=0)
        file.seek(first)
        return file

    def direct_link(self, artifact: Artifact, disposition: str) -> str | None:
        """An address that gives the bytes without us: a folder has none."""
        return None

    def discard_attempt(self, job_id: str, fence: int) -> Removed:
        """Remove what an attempt that did not win has written."""
        removed = remove_folder(self.attempt_dir(job_id, fence))
        remove_if_empty(self.artifacts / one_name(job_id))
        return removed

    def remove_job(self, job_id: str) -> Removed:
        """Remove every byte of a job, and look again afterwards."""
        removed = remove_folder(self.inputs / one_name(job_id)) + remove_folder(self.artifacts / one_name(job_id))
        fsync_directory(self.inputs)
        fsync_directory(self.artifacts)
        return removed

    def held(self) -> dict[str, set[int]]:
        """Ids under which bytes lie here, and the fences under which each job has written."""
        jobs = {path.name for folder in (self.inputs, self.artifacts) for path in folder.iterdir()}
        return {job_id: set(self.attempts(job_id)) for job_id in jobs}

    def attempts(self, job_id: str) -> list[int]:
        """Fences under which a job has written."""
        folder = self.artifacts / one_name(job_id)
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []

    def touched_at(self, job_id: str) -> float:
        """Seconds since 1970 of the last change of the job's folders; 0 if there are none."""
        folders = [self.inputs / one_name(job_id), self.artifacts / one_name(job_id)]
        return max((folder.stat().st_mtime for folder in folders if folder.exists()), default=0.0)

    def left_over(self) -> set[tuple[str, int]]:
        """Attempts beside whose result something lies that is none: never, where the workspace becomes the result."""
        return set()

    def tidy(self, job_id: str, fence: int) -> None:
        """Remove that."""


def fsync_file(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    reach("fsync_file.before")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    reach("fsync_file.after")


def fsync_directory(path: Path) -> None:
    """Bring a directory's entries to the disk: without it a rename may be forgotten."""
    reach("fsync_directory.before")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    reach("fsync_directory.after")


def sha256_of(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return sha256_of_rest(file)


def sha256_of_rest(file: Bytes) -> str:
    """Checksum of what is still to be read, in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def safe_name(name: str) -> str:
    """`name` if it stays below its folder (`meshes/frame_00000.ply`); ValueError otherwise."""
    parts = PurePosixPath(name).parts
    if (
        not parts
        or name != "/".join(parts)
        or any(part in ("..", ".", "/") or "\\" in part or "\0" in part for part in parts)
    ):
        raise ValueError(f"not a name of an artifact: {name!r}")
    return name


def one_name(name: str) -> str:
    """`name` if it is a single one; ValueError otherwise."""
    if "/" in safe_name(name):
        raise ValueError(f"not one name: {name!r}")
    return name


def _described(workspace: Path, name: str, role: str, media_type: str) -> Sealed:
    path = workspace / name
    return Sealed(name, role, media_type, path.stat().st_size, sha256_of(path))


def checked_files(workspace: Path, artifacts: list[dict[str, Any]]) -> list[Sealed]:
    """Each listed file, as it lies in the workspace and as its manifest describes it. Raises UnsealedArtifact.

    `manifest.json` cannot list itself; where it exists, it is added.
    """
    listed = [_checked(workspace, entry) for entry in artifacts]
    names = {item.name for item in listed}
    if len(names) != len(listed):
        raise UnsealedArtifact("an artifact name is listed twice")
    if MANIFEST not in names and (workspace / MANIFEST).is_file():
        listed.insert(0, _described(workspace, MANIFEST, "manifest", "application/json"))
    return listed


def _checked(workspace: Path, entry: dict[str, Any]) -> Sealed:
    try:
        name = safe_name(entry["name"])
        path = workspace / name
        if not stat.S_ISREG(path.lstat().st_mode) or not path.resolve().is_relative_to(workspace.resolve()):
            raise UnsealedArtifact(f"{name} is not a plain file of its workspace")
        found = _described(workspace, name, str(entry["role"]), str(entry["media_type"]))
    except FileNotFoundError:
        raise UnsealedArtifact(f"{entry['name']} is listed but was not written") from None
    except (KeyError, ValueError, TypeError) as error:
        raise UnsealedArtifact(f"an artifact is not described as it must be: {error}") from None
    if (found.bytes, found.sha256) != (entry["bytes"], entry["sha256"]):
        raise UnsealedArtifact(f"{name} on the disk differs from what its manifest says")
    return found


def _files_below(folder: Path) -> Iterator[os.stat_result]:
    for path in folder.rglob("*"):
        info = path.lstat()
        if not stat.S_ISDIR(info.st_mode):
            yield info


def remove_folder(folder: Path) -> Removed:
    """Remove a folder with all that is in it, and look again afterwards."""
    if not folder.exists():
        return Removed(0, 0, True)
    infos = list(_files_below(folder))
    reach("remove.before")
    shutil.rmtree(folder, ignore_errors=True)
    reach("remove.after")
    return Removed(len(infos), sum(info.st_size for info in infos), not folder.exists())


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless something is in it, or it is not there."""
    try:
        folder.rmdir()
    except OSError:
        pass
