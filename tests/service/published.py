"""A finished job as a worker would leave it: claimed, written and published through the ledger's real code."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from worker.ledger import InputFacts, Job, Ledger, ReconstructionOptions, new_job_id
from worker.ledger.broker import QUEUE

MODEL = {"name": "tiny", "version": "1", "sha256": "ab" * 32, "licence": "CC0-1.0"}


def waiting(
    book: Ledger, content: bytes = b"not looked at", filename: str = "clip.mp4", *, owner: str = "", **options: Any
) -> Job:
    """A job that nobody has taken yet."""
    job_id = new_job_id()
    staged = book.storage.new_staging(job_id)
    staged.write_bytes(content)
    book.storage.accept_input(staged, job_id)
    facts = InputFacts(filename, "video/mp4", len(content), hashlib.sha256(content).hexdigest())
    wanted = ReconstructionOptions.model_validate_json(json.dumps(options))
    return book.open_job(job_id, facts, wanted, queue=QUEUE, owner=owner)[0]


def finished(book: Ledger, files: dict[str, tuple[str, str, bytes]], **more: Any) -> Job:
    """A succeeded job with these files: name -> role, media type, bytes."""
    return published_for(book, "", files, **more)


def published_for(
    book: Ledger, owner: str, files: dict[str, tuple[str, str, bytes]], filename: str = "clip.mp4", **more: Any
) -> Job:
    """The same, for this owner."""
    job = waiting(book, filename=filename, owner=owner)
    lease = book.claim("a-worker", job.id)
    assert lease is not None
    workspace = lease.new_workspace()
    for name, (_, _, content) in files.items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    entries = [
        {"name": name, "role": role, "media_type": kind, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, (role, kind, data) in files.items()
    ]
    manifest = {"model": MODEL, "artifacts": entries, "warnings": [], **more}
    (workspace / "manifest.json").write_text(json.dumps(manifest))
    lease.publish(manifest)
    return book.get(job.id)


def ply(
    vertices: list[tuple[float, float, float]], colours: list[tuple[int, int, int]], faces: list[tuple[int, ...]]
) -> bytes:
    """A binary PLY with vertex colours."""
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\nproperty float x\nproperty float y\n"
        "property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    body = b"".join(struct.pack("<3f3B", *v, *c) for v, c in zip(vertices, colours, strict=True))
    return header.encode() + body + b"".join(struct.pack("<B3i", 3, *face) for face in faces)


TETRAHEDRON = ply(
    [(0.0, 0.0, 500.0), (100.0, 0.0, 500.0), (0.0, 100.0, 500.0), (0.0, 0.0, 400.0)],
    [(200, 150, 130), (200, 150, 130), (90, 60, 50), (220, 180, 160)],
    [(0, 1, 2), (0, 3, 1), (0, 2, 3), (1, 3, 2)],
)

EXPRESSIONS = {
    "frames": [
        {
            "frame_index": index,
            "timestamp_s": index / 25,
            "z_exp": [0.25, -1.5],
            "rotation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        }
        for index in range(3)
    ]
}


def ordinary_files() -> dict[str, tuple[str, str, bytes]]:
    """A small set with every kind of name."""
    return {
        "expressions.json": ("expressions", "application/json", json.dumps(EXPRESSIONS).encode()),
        "identity.npz": ("identity", "application/x-npz", bytes(range(256)) * 40),
        "meshes/frame_00000.ply": ("mesh", "model/ply", TETRAHEDRON),
        "meshes/frame_00001.ply": ("mesh", "model/ply", TETRAHEDRON),
    }


def path_of(book: Ledger, job: Job, name: str) -> Path:
    """Where a published file lies."""
    found = book.artifact(job.id, name)
    assert found is not None
    return book.storage.artifact_path(found.job_id, found.fence, found.name)
