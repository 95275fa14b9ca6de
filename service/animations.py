"""Two finished jobs as the input of a third: one archive of what is needed of them, the same bytes for the same two."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from service import delivery
from service.problems import Problem, out_of_disk
from worker import ledger
from worker.ledger import bundle

EPOCH = datetime(1980, 1, 1, tzinfo=UTC)
"""Of the files in the archive: a time would make a repeated request look like another one."""


def files_of(book: ledger.Ledger, identity: ledger.Job, expressions: ledger.Job) -> list[tuple[str, ledger.Artifact]]:
    """Name in the archive -> artifact. Raises the 422 of jobs that do not go together. Blocks."""
    if identity.model is None or identity.model != expressions.model:
        raise Problem(
            "models_differ",
            "The two reconstructions were made by different models, and a code means something to its own model only. "
            "Reconstruct both with the same `model`.",
        )
    found = []
    for part, job in ((bundle.IDENTITY, identity), (bundle.EXPRESSIONS, expressions)):
        try:
            wanted = bundle.wanted_of(book.artifacts(job.id), part)
        except KeyError as missing:
            raise Problem(
                "outputs_missing",
                f"{job.id} did not deliver {missing.args[0]}. Run it again with its default `outputs`.",
            ) from None
        found += [(f"{part}/{item.name}", item) for item in wanted]
    return found


def pack(book: ledger.Ledger, files: list[tuple[str, ledger.Artifact]], staged: Path, reserve_bytes: int) -> str:
    """Write the archive to `staged`; its sha256. Raises the 507 of a full disk, and JobDeleted. Blocks."""
    if book.storage.free_bytes() - sum(item.bytes for _, item in files) < reserve_bytes:
        raise out_of_disk()
    digest = hashlib.sha256()
    try:
        with staged.open("xb") as sink:
            for piece in delivery.zip_pieces(files, book.storage.open_artifact, bundle.ROOT, EPOCH):
                digest.update(piece)
                sink.write(piece)
    except FileNotFoundError:
        raise ledger.JobDeleted(files[0][1].job_id) from None
    return digest.hexdigest()
