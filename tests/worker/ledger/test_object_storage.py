"""Inputs and artifacts in an object store: what a folder promises, it promises too. Against a real server."""

import hashlib
import os
import random

import pytest

from mononphm_core.errors import ConfigError
from tests.worker.helpers import open_script, written
from worker.ledger import LeaseLost, Ledger, State, StorageUnavailable, StoredBytesDamaged, UnsealedArtifact, sha256_of
from worker.ledger.objects import ObjectStorage
from worker.ledger.storage import LocalStorage
from worker.ledger.store_settings import configured_storage

MIB = 1 << 20


@pytest.fixture(params=["folder", "bucket"])
def book(request, tmp_path, monkeypatch):
    """A ledger on either store; its janitor runs on the same machine as its workers here."""
    opened = _ledger(request, tmp_path, monkeypatch, request.param)
    yield opened
    opened.close()


@pytest.fixture
def remote(request, tmp_path, monkeypatch):
    """A ledger on the object store."""
    opened = _ledger(request, tmp_path, monkeypatch, "bucket")
    yield opened
    opened.close()


def _ledger(request, tmp_path, monkeypatch, kind):
    if kind == "bucket":
        store, url = request.getfixturevalue("object_store"), request.getfixturevalue("bucket_url")
        for name, value in store.environment(url, patience_s=20).items():
            monkeypatch.setenv(name, value)
    return Ledger(None, tmp_path / "data", storage=configured_storage(tmp_path / "data"))


def worked(book, job, files):
    """Claim the job and write these files as the pipeline would; the lease and its manifest."""
    lease = book.claim("worker", job.id)
    workspace = lease.new_workspace()
    lease.bring_input(lambda: None)
    return lease, {"artifacts": [written(workspace, name, content) for name, content in files.items()]}


def content_of(book, job, name, first=0):
    reader = book.storage.open_artifact(book.artifact(job.id, name), first)
    try:
        return b"".join(iter(lambda: reader.read(3 * MIB), b""))
    finally:
        reader.close()


def some_bytes(size, seed=0):
    return random.Random(seed).randbytes(size)


FILES = {"result.bin": b"result", "meshes/frame_00000.ply": some_bytes(7 * MIB), "empty.json": b""}


def test_what_was_published_is_what_comes_back(book):
    """Of every size: nothing, one request, several parts. Any range of it, too."""
    job = open_script(book, {"steps": 1})
    lease, manifest = worked(book, job, FILES)
    assert lease.order.input_path.read_bytes() == b'{"steps": 1}'
    lease.publish(manifest)
    assert book.get(job.id).state is State.SUCCEEDED
    for name, content in FILES.items():
        assert content_of(book, job, name) == content
        assert book.artifact(job.id, name).sha256 == hashlib.sha256(content).hexdigest()
    assert content_of(book, job, "meshes/frame_00000.ply", first=6 * MIB) == FILES["meshes/frame_00000.ply"][6 * MIB :]
    assert book.storage.attempts(job.id) == [lease.fence]


def test_an_artifact_that_differs_from_its_manifest_is_not_published(book):
    job = open_script(book, {})
    lease, manifest = worked(book, job, FILES)
    manifest["artifacts"][0]["sha256"] = "0" * 64
    with pytest.raises(UnsealedArtifact):
        lease.publish(manifest)
    assert not book.artifacts(job.id)


def test_a_stale_writer_cannot_publish_and_leaves_nothing_behind(book):
    """It slept past its lease: another attempt owns the job. Its bytes go, the published ones stay."""
    job = open_script(book, {})
    stale, manifest = worked(book, job, {"result.bin": b"stale"})
    book.storage.seal(job.id, stale.fence, manifest["artifacts"])  # it had come as far as this
    _expire(book, job)
    fresh, good = worked(book, job, {"result.bin": b"fresh"})
    with pytest.raises(LeaseLost):
        stale.publish(manifest)
    fresh.publish(good)
    stale.abandon()
    assert content_of(book, job, "result.bin") == b"fresh"
    assert book.storage.attempts(job.id) == [fresh.fence]


def test_a_deletion_proves_that_every_byte_is_gone(book):
    job = open_script(book, {"steps": 1})
    lease, manifest = worked(book, job, FILES)
    lease.publish(manifest)
    proof = book.delete(job.id)
    assert proof.gone
    assert (proof.files, proof.bytes) == (1 + len(FILES), len(b'{"steps": 1}') + sum(map(len, FILES.values())))
    assert book.storage.held() == {}


def test_the_janitor_finds_what_crashes_left(book, tmp_path):
    """Input without a row, an attempt that lost, a deletion cut short: gone; published and running ones stay."""
    published = open_script(book, {})
    lease, manifest = worked(book, published, {"result.bin": b"kept"})
    lease.publish(manifest)
    running = open_script(book, {})
    at_work, half = worked(book, running, {"result.bin": b"half"})
    lost = open_script(book, {})
    loser, _ = worked(book, lost, {"result.bin": b"lost"})
    book.storage.seal(lost.id, loser.fence, [])
    _expire(book, lost)
    orphan = tmp_path / "orphan"
    orphan.write_bytes(b"never committed")
    book.storage.accept_input(orphan, "rec_orphan")
    book.sweep(orphan_grace_s=3600)
    assert set(book.storage.held()) == {published.id, running.id, lost.id, "rec_orphan"}, "it may just be accepted"
    book.sweep(orphan_grace_s=-3600)
    assert set(book.storage.held()) == {published.id, running.id, lost.id}
    assert book.storage.attempts(lost.id) == []
    assert content_of(book, published, "result.bin") == b"kept"
    at_work.publish(half)
    assert content_of(book, running, "result.bin") == b"half"


def test_a_retried_job_has_its_own_copy_of_the_input(book):
    """Deleting the first leaves the second whole."""
    first = open_script(book, {"steps": 4})
    book.request_cancel(first.id)
    again = book.retry(first.id)
    assert book.delete(first.id).gone
    lease, _ = worked(book, again, {})
    assert lease.order.input_path.read_bytes() == b'{"steps": 4}'


# ---------------------------------------------------------------- the object store alone


def test_an_attempts_own_disk_is_empty_again_when_it_has_ended(remote):
    """Published, failed, cancelled or swept: input and files on the worker's disk are copies, and go."""
    storage = remote.storage
    published = open_script(remote, {})
    lease, manifest = worked(remote, published, FILES)
    assert storage.left_over() == {(published.id, lease.fence)}
    lease.publish(manifest)
    assert list(storage.work.iterdir()) == []
    crashed = open_script(remote, {})
    worked(remote, crashed, FILES)
    remote.sweep()
    assert len(list(storage.work.iterdir())) == 1, "it is still at work"
    _expire(remote, crashed)
    remote.sweep()
    assert list(storage.work.iterdir()) == []


def test_an_upload_that_a_crash_left_unfinished_is_aborted(remote, object_store, bucket_url):
    """No list of objects shows its parts, and they are paid for: the janitor looks for them by name."""
    job = open_script(remote, {})
    lease, _ = worked(remote, job, {})
    client, name = object_store.client(), bucket_url.split("/")[2]
    key = f"heads/artifacts/{job.id}@{lease.fence}/result.bin"
    upload = client.create_multipart_upload(Bucket=name, Key=key)["UploadId"]
    client.upload_part(Bucket=name, Key=key, UploadId=upload, PartNumber=1, Body=b"half")
    remote.sweep()
    assert object_store.unfinished(bucket_url) == [key], "the attempt is still at work"
    _expire(remote, job)
    remote.sweep()
    assert object_store.unfinished(bucket_url) == []
    upload = client.create_multipart_upload(Bucket=name, Key=key)["UploadId"]
    assert remote.delete(job.id).gone
    assert object_store.unfinished(bucket_url) == []


def test_a_bucket_that_keeps_versions_keeps_none_of_a_deleted_job(remote, object_store, bucket_url):
    """Where versioning is on, deleting an object only hides it. A face must be gone, not hidden."""
    client, name = object_store.client(), bucket_url.split("/")[2]
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    job = open_script(remote, {})
    lease, manifest = worked(remote, job, {"result.bin": b"a face"})
    remote.storage.seal(job.id, lease.fence, manifest["artifacts"])
    lease.publish(manifest)  # written twice: two versions
    client.delete_object(Bucket=name, Key=f"heads/inputs/{job.id}/input")  # somebody's clumsy hand: a mark, no deletion
    assert remote.delete(job.id).gone
    left = client.list_object_versions(Bucket=name)
    assert not left.get("Versions") and not left.get("DeleteMarkers")


def test_a_file_of_any_size_is_never_whole_in_memory(object_store, bucket_url, tmp_path):
    """64 MiB there and back cost a few parts of 5 MiB: measured in a process of its own."""
    import subprocess
    import sys

    code = (
        "import resource, sys, pathlib; from worker.ledger.store_settings import configured_storage\n"
        "from worker.ledger.storage import sha256_of\n"
        "place = pathlib.Path(sys.argv[1]); s = configured_storage(place); b = s.bucket\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "small = place / 'small'; small.write_bytes(b'x'); b.put_file(small, 'warm', sha256_of(small))\n"
        "before = peak()\n"
        "source = place / 'source'\n"
        "with source.open('wb') as f:\n"
        "    for i in range(64): f.write(bytes([i]) * (1 << 20))\n"
        "b.put_file(source, 'large', sha256_of(source)); b.fetch('large', place / 'back', sha256_of(source))\n"
        "print((peak() - before) >> 10)"
    )
    environment = {**os.environ, **object_store.environment(bucket_url, part_bytes=5 << 20)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 56, "MiB: five parts, what signing them needs, and the allocator's slack"
    assert sha256_of(tmp_path / "back") == sha256_of(tmp_path / "source")


def test_bytes_that_rot_in_the_store_are_noticed_by_whoever_fetches_them(remote, object_store, bucket_url):
    """The worker does not reconstruct from another clip than the user sent."""
    job = open_script(remote, {})
    key = f"heads/inputs/{job.id}/input"
    object_store.client().put_object(Bucket=bucket_url.split("/")[2], Key=key, Body=b"[]")
    with pytest.raises(StoredBytesDamaged):
        worked(remote, job, {})


def test_a_link_gives_the_bytes_to_anybody_for_a_while(object_store, bucket_url, monkeypatch, tmp_path):
    """Signed, expiring, with name and type; none where clients are not said to reach the store."""
    import httpx

    for name, value in object_store.environment(bucket_url).items():
        monkeypatch.setenv(name, value)
    book = Ledger(None, tmp_path, storage=configured_storage(tmp_path))
    job = open_script(book, {})
    lease, manifest = worked(book, job, FILES)
    lease.publish(manifest)
    artifact = book.artifact(job.id, "meshes/frame_00000.ply")
    assert book.storage.direct_link(artifact, "attachment") is None
    monkeypatch.setenv("MONONPHM_STORAGE_PUBLIC_ENDPOINT", object_store.endpoint)
    link = configured_storage(tmp_path).direct_link(artifact, 'attachment; filename="frame_00000.ply"')
    assert "X-Amz-Expires=300" in link and "X-Amz-Signature=" in link
    answer = httpx.get(link, headers={"Range": "bytes=100-199"})
    assert answer.status_code == 206 and answer.content == FILES["meshes/frame_00000.ply"][100:200]
    assert answer.headers["content-disposition"] == 'attachment; filename="frame_00000.ply"'
    book.close()


def test_secrets_come_from_files_and_settings_that_cannot_be_are_refused(
    object_store, bucket_url, tmp_path, monkeypatch
):
    given = object_store.environment(bucket_url)
    secret = tmp_path / "secret"
    secret.write_text(given.pop("MONONPHM_STORAGE_SECRET_ACCESS_KEY") + "\n")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MONONPHM_STORAGE_SECRET_ACCESS_KEY_FILE", str(secret))
    storage = configured_storage(tmp_path)
    assert isinstance(storage, ObjectStorage)
    storage.probe()
    monkeypatch.setenv("MONONPHM_STORAGE_SECRET_ACCESS_KEY", "twice")
    with pytest.raises(ConfigError, match="not both"):
        configured_storage(tmp_path)
    monkeypatch.delenv("MONONPHM_STORAGE_SECRET_ACCESS_KEY_FILE")
    monkeypatch.setenv("MONONPHM_STORAGE_URL", "https://bucket")
    with pytest.raises(ConfigError, match="s3://"):
        configured_storage(tmp_path)
    monkeypatch.delenv("MONONPHM_STORAGE_URL")
    assert isinstance(configured_storage(tmp_path), LocalStorage), "nothing set: the folder"


def test_a_bucket_is_made_where_that_is_wished(object_store, tmp_path, monkeypatch):
    """By whoever comes first; the others find it."""
    for name, value in object_store.environment("s3://made-by-us/x", create="true").items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        configured_storage(tmp_path).probe()


def test_the_doctor_tries_every_right_that_is_needed(object_store, bucket_url, tmp_path, monkeypatch):
    """Before the first user does: store in parts, fetch, remove; and it says which setting to correct."""
    from mononphm_cli.commands import doctor

    for name, value in object_store.environment(bucket_url).items():
        monkeypatch.setenv(name, value)
    assert doctor.check_storage(tmp_path).state == doctor.OK
    assert object_store.keys(bucket_url) == []
    monkeypatch.setenv("MONONPHM_STORAGE_URL", "s3://nowhere-at-all")
    found = doctor.check_storage(tmp_path)
    assert found.state == doctor.FAIL and "NoSuchBucket" in found.said and "MONONPHM_STORAGE_" in found.next_step


def test_a_bucket_that_is_not_there_is_said_at_once(object_store, tmp_path):
    """A typo in the address is no reason to wait for ten minutes."""
    bucket = object_store.bucket("no-such-bucket", patience_s=600.0)
    source = tmp_path / "file"
    source.write_bytes(b"x")
    with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
        bucket.put_file(source, "key", sha256_of(source))
    with pytest.raises(StorageUnavailable):
        bucket.probe()


def _expire(book, job):
    """The lease of a job runs out now."""
    import sqlalchemy as sa

    from worker.ledger import schema

    with book.writing() as tx:
        past = book.now(tx).replace(year=2020)
        tx.execute(sa.update(schema.jobs).where(schema.jobs.c.id == job.id).values(lease_until=past))
    assert book.reap() == [job.id]
