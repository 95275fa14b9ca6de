"""Would the suite notice? Each safeguard is taken away in turn, and the check that rests on it must fail."""

import hashlib

import pytest

from service.hints import Hints
from service.jobs import Jobs
from service.settings import ServiceSettings
from service.uploads import Upload
from tests.chaos.oracle import unique_png
from tests.chaos.power import Disk
from tests.service.published import waiting
from worker.ledger import Lease, LeaseLost, Ledger, State, storage
from worker.ledger.broker import filesystem_broker


@pytest.fixture
def book(tmp_path):
    ledger = Ledger(None, tmp_path, lease_s=5.0)
    yield ledger
    ledger.close()


def accepted_input_survives(book: Ledger, tmp_path) -> bool:
    """Submit by the service's own code; cut the power right after the 202 could be sent; are the bytes there?"""
    hints = Hints(filesystem_broker(tmp_path))
    jobs = Jobs(book, hints, ServiceSettings(data_dir=tmp_path, free_space_reserve_bytes=0))
    import random

    content = unique_png(random.Random(1))
    disk = Disk(tmp_path)
    with disk.watched():
        staged = jobs.new_staging()
        staged.write_bytes(content)
        upload = Upload(staged, "a.png", len(content), hashlib.sha256(content).hexdigest(), b"{}")
        job = jobs.open(upload, None, "").job
    hints.close()
    disk.cut_power(book.storage.inputs)
    path = book.storage.input_path(job.id)
    return path.is_file() and path.read_bytes() == content


def published_bytes_survive(book: Ledger) -> bool:
    """Publish; cut the power after the commit; are all artifacts there as their rows say?"""
    job = waiting(book)
    disk = Disk(book.storage.data_dir)
    with disk.watched():
        lease = book.claim("w", job.id)
        assert lease is not None
        workspace = lease.new_workspace()
        (workspace / "meshes").mkdir()
        content = b"a mesh" * 1000
        (workspace / "meshes" / "frame_00000.ply").write_bytes(content)
        entry = {"name": "meshes/frame_00000.ply", "role": "mesh", "media_type": "model/ply", "bytes": len(content)}
        lease.publish({"artifacts": [{**entry, "sha256": hashlib.sha256(content).hexdigest()}]})
    disk.cut_power(book.storage.artifacts)
    paths = [book.storage.artifact_path(job.id, item.fence, item.name) for item in book.artifacts(job.id)]
    return all(path.is_file() and path.read_bytes() == content for path in paths)


def stale_writer_is_refused(book: Ledger) -> bool:
    """A writer that slept past its lease wakes up after another one has taken the job: may it publish?"""
    job = waiting(book)
    stale = book.claim("sleeps", job.id)
    assert stale is not None
    stale.new_workspace()
    with book.writing() as tx:
        from worker.ledger import schema

        past = book.now(tx).replace(year=2020)
        tx.execute(schema.jobs.update().where(schema.jobs.c.id == job.id).values(lease_until=past))
    assert book.reap() == [job.id]
    fresh = book.claim("awake", job.id)
    assert fresh is not None
    fresh.new_workspace()
    try:
        stale.publish({"artifacts": []})
    except LeaseLost:
        fresh.publish({"artifacts": []})
        return book.get(job.id).published_fence == fresh.fence
    return False


def test_with_all_safeguards_everything_is_kept(book, tmp_path):
    assert accepted_input_survives(book, tmp_path)
    assert published_bytes_survive(book)
    assert stale_writer_is_refused(book)


@pytest.mark.parametrize("safeguard", ["fsync_file", "fsync_directory"])
def test_without_an_fsync_an_accepted_input_is_lost(book, tmp_path, monkeypatch, safeguard):
    """The 202 promises bytes and name on the disk; each of the two needs its own fsync."""
    monkeypatch.setattr(storage, safeguard, lambda path: None)
    assert not accepted_input_survives(book, tmp_path)


@pytest.mark.parametrize("safeguard", ["fsync_file", "fsync_directory"])
def test_without_an_fsync_a_published_artifact_is_lost(book, monkeypatch, safeguard):
    monkeypatch.setattr(storage, safeguard, lambda path: None)
    assert not published_bytes_survive(book)


def test_without_the_fence_a_stale_writer_publishes(book, monkeypatch):
    """The one condition that keeps two attempts from both being the result."""
    from worker.ledger import schema

    def unfenced(self):
        table = schema.jobs
        return table.c.id == self.job_id, table.c.state.in_([State.RUNNING.value, State.CANCELLING.value])

    monkeypatch.setattr(Lease, "_mine", unfenced)
    assert not stale_writer_is_refused(book)


def test_without_the_commit_order_a_resumable_offset_promises_too_much(book, monkeypatch, tmp_path):
    """An offset that is committed before its bytes are fsynced is a hole in the file after a power cut."""
    from service.tus import _Writer
    from worker.ledger import Uploads

    def survives() -> bool:
        uploads = Uploads(book, 3600.0)
        upload = uploads.create("", 10)
        disk = Disk(tmp_path)
        with disk.watched():
            writer = _Writer(
                uploads.path(upload.id), upload, None, lambda: 1 << 40, 0, lambda at: uploads.advance(upload.id, at)
            )
            writer.write([b"0123456789"])
            writer.finish()
            writer.close()
        disk.cut_power(book.storage.uploads)
        return uploads.path(upload.id).stat().st_size >= uploads.get(upload.id).offset

    assert survives()
    monkeypatch.setattr(_Writer, "_commit", lambda self: self._advance(self._offset))
    assert not survives()
