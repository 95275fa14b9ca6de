"""Resumable uploads: whatever breaks on the way, the job gets the very bytes of the file, once."""

import base64
import hashlib
import itertools
import os
import random
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
import sqlalchemy as sa

from service import tus
from service.body import BATCH_PIECES
from tests.service.files import png
from worker.ledger import Uploads, schema

pytestmark = pytest.mark.anyio

TUS = {"Tus-Resumable": "1.0.0"}
FILE_EVENTS = {"open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir"}
"""Audit events of Python that name a path first."""
STREAM = {**TUS, "Content-Type": "application/offset+octet-stream"}


def pair(key: str, value: str) -> str:
    return f"{key} {base64.b64encode(value.encode()).decode()}"


async def begun(api, length: int, **headers: str) -> str:
    """The path of a new upload."""
    answer = await api.post("/uploads", headers={**TUS, "Upload-Length": str(length), **headers})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


async def patched(api, path: str, offset: int, content: bytes, **headers: str):
    return await api.patch(path, content=content, headers={**STREAM, "Upload-Offset": str(offset), **headers})


async def offset_of(api, path: str) -> int:
    answer = await api.head(path, headers=TUS)
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


async def sent(api, content: bytes, name: str = "a.png") -> str:
    """The id of a complete upload."""
    path = await begun(api, len(content), **{"Upload-Metadata": pair("filename", name)})
    assert (await patched(api, path, 0, content)).status_code == 204
    return path.rsplit("/", 1)[1]


async def test_a_file_sent_in_pieces_becomes_a_job_with_its_very_bytes(api, book, left_behind):
    """The protocol once around: announce, send, ask, send the rest, submit; the upload's own copy is gone then."""
    content = png(200, 200)
    path = await begun(api, len(content), **{"Upload-Metadata": pair("filename", "a/b\x00ü.png")})
    assert (await patched(api, path, 0, content[:100])).headers["upload-offset"] == "100"
    assert await offset_of(api, path) == 100
    assert (await patched(api, path, 100, content[100:])).status_code == 204
    answer = await api.post("/reconstructions", json={"upload_id": path[9:], "options": {"quality": "draft"}})
    assert answer.status_code == 202
    job = answer.json()
    assert (job["input"]["sha256"], job["input"]["filename"]) == (hashlib.sha256(content).hexdigest(), "bü.png")
    assert job["options"]["quality"] == "draft"
    assert book.storage.input_path(job["id"]).read_bytes() == content
    assert list(book.storage.uploads.iterdir()) == []


@pytest.mark.parametrize("seed", range(6))
async def test_however_it_is_cut_and_repeated_the_bytes_are_the_same(api, book, seed):
    """Good pieces between stale repeats and pieces from the future: only what continues the file is taken."""
    chance = random.Random(seed)
    content = chance.randbytes(chance.randint(1, 3000))
    path = await begun(api, len(content))
    edges = sorted({0, len(content), *(chance.randrange(len(content)) for _ in range(4))})
    for start, end in itertools.pairwise(edges):
        wrong = chance.randint(0, len(content))
        if wrong != start:
            assert (await patched(api, path, wrong, content[wrong : wrong + 10] or b"x")).status_code == 409
        assert (await patched(api, path, start, content[start:end])).status_code == 204
    assert await offset_of(api, path) == len(content)
    assert book.storage.upload_path(path[9:]).read_bytes() == content


async def test_bytes_above_the_committed_offset_never_count(api, book):
    """After a crash the file may be longer than the row says, with anything in it: that is cut off first."""
    content = png(100, 100)
    path = await begun(api, len(content))
    await patched(api, path, 0, content[:50])
    with book.storage.upload_path(path[9:]).open("ab") as file:
        file.write(b"half a batch that was never committed")
    assert await offset_of(api, path) == 50
    assert (await patched(api, path, 50, content[50:])).status_code == 204
    assert book.storage.upload_path(path[9:]).read_bytes() == content


async def test_an_offset_is_promised_only_after_its_bytes_are_on_the_disk(api, book, monkeypatch):
    """The order write, fsync, commit, answer: seen from inside, because a kill cannot show a missing fsync."""
    order = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), real(fd))[1])
    committed = Uploads.advance
    monkeypatch.setattr(Uploads, "advance", lambda *args: (order.append("commit"), committed(*args))[1])
    path = await begun(api, 10)
    order.clear()
    await patched(api, path, 0, b"0123456789")
    assert order == ["fsync", "commit"]


@pytest.mark.parametrize("algorithm", tus.ALGORITHMS)
async def test_a_piece_that_changed_on_its_way_is_discarded(api, algorithm):
    """460, and the offset stands where it was; the right bytes are taken then."""
    content = b"the bytes that were meant"
    path = await begun(api, len(content))
    digest = base64.b64encode(hashlib.new(algorithm, content).digest()).decode()
    checksum = {"Upload-Checksum": f"{algorithm} {digest}"}
    answer = await patched(api, path, 0, content.replace(b"meant", b"ment!"), **checksum)
    assert (answer.status_code, answer.json()["code"]) == (460, "checksum_mismatch")
    assert await offset_of(api, path) == 0
    assert (await patched(api, path, 0, content, **checksum)).status_code == 204


@pytest.mark.parametrize("value", ["", "md4 eA==", "sha1 eA==", "sha1 !", "sha256", "sha512 " + "A" * 88])
async def test_a_checksum_that_cannot_be_checked_is_refused(api, value):
    path = await begun(api, 3)
    assert (await patched(api, path, 0, b"abc", **{"Upload-Checksum": value})).json()["code"] == "unsupported_checksum"
    assert await offset_of(api, path) == 0


async def test_more_bytes_than_announced_are_refused(api):
    path = await begun(api, 5)
    assert (await patched(api, path, 0, b"123456")).status_code == 413
    assert await offset_of(api, path) == 0


async def test_only_one_request_writes_at_a_time(api, context):
    """A lock of the file system: it holds among processes, and a killed one leaves none behind."""
    path = await begun(api, 5)
    with context.jobs.resumable.locked(path[9:]):
        answer = await patched(api, path, 0, b"12345")
        assert (answer.status_code, answer.headers["retry-after"]) == (423, "1")
        assert (await api.delete(path, headers=TUS)).status_code == 423
    assert (await patched(api, path, 0, b"12345")).status_code == 204


async def test_an_upload_that_nobody_continues_expires_and_leaves_nothing(api, book, context, monkeypatch):
    """410 from then on; bytes and row go with the next round of the janitor."""
    path = await begun(api, 5)
    await patched(api, path, 0, b"123")
    table = schema.uploads
    with book.writing() as tx:
        past = book.now(tx).replace(year=2020)
        tx.execute(table.update().values(expires_at=past))
    assert (await api.head(path, headers=TUS)).status_code == 410
    assert (await patched(api, path, 3, b"45")).json()["code"] == "upload_gone"
    file = book.storage.upload_path(path[9:])
    os.utime(file, (time.time() - 7200,) * 2)
    assert context.jobs.clean_staging() == 1
    assert not file.exists()
    assert (await api.head(path, headers=TUS)).status_code == 404
    with book.reading() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 0


async def test_an_upload_without_a_byte_is_soon_forgotten(api):
    """Who never got the answer to their creation cannot delete it; it must not hold a place for a day."""
    path = await begun(api, 5)
    empty = parsedate_to_datetime((await api.head(path, headers=TUS)).headers["upload-expires"])
    await patched(api, path, 0, b"123")
    growing = parsedate_to_datetime((await api.head(path, headers=TUS)).headers["upload-expires"])
    assert timedelta(minutes=10) < empty - datetime.now(UTC) < timedelta(minutes=20)
    assert growing - datetime.now(UTC) > timedelta(hours=20)


async def test_terminated_is_gone(api, book):
    path = await begun(api, 5)
    await patched(api, path, 0, b"123")
    assert (await api.delete(path, headers=TUS)).status_code == 204
    assert list(book.storage.uploads.iterdir()) == []
    assert (await api.head(path, headers=TUS)).status_code == 404


async def test_the_server_says_what_it_can_and_speaks_one_version(api):
    """OPTIONS needs no version; everything else does; every answer names it, errors too."""
    answer = await api.options("/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-extension"] == "creation,checksum,expiration,termination"
    assert (answer.headers["tus-version"], answer.headers["tus-max-size"]) == ("1.0.0", str(4 << 20))
    for method, path in (
        ("POST", "/uploads"),
        ("HEAD", "/uploads/x"),
        ("PATCH", "/uploads/x"),
        ("DELETE", "/uploads/x"),
    ):
        for version in ({}, {"Tus-Resumable": "0.2.2"}):
            answer = await api.request(method, path, headers=version)
            assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")
            assert answer.headers["tus-resumable"] == "1.0.0"


async def test_a_method_that_a_proxy_would_block_may_travel_in_a_header(api):
    path = await begun(api, 3)
    meant = {**STREAM, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert (await api.post(path, content=b"abc", headers=meant)).status_code == 204
    assert (await api.get(path, headers={**TUS, "X-HTTP-Method-Override": "HEAD"})).headers["upload-offset"] == "3"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400), ({"Upload-Length": "-1"}, 400), ({"Upload-Length": "1e3"}, 400), ({"Upload-Length": "9" * 16}, 400),
        ({"Upload-Length": str(5 << 20)}, 413), ({"Upload-Defer-Length": "1"}, 400),
        ({"Upload-Length": "1", "Upload-Metadata": "filename !!"}, 400),
        ({"Upload-Length": "1", "Upload-Metadata": "a eA==,a eA=="}, 400),
        ({"Upload-Length": "1", "Upload-Metadata": "a " + "A" * 5000}, 400),
    ],
    ids=str,
)  # fmt: skip
async def test_an_announcement_that_makes_no_sense_opens_nothing(api, book, headers, status):
    assert (await api.post("/uploads", headers={**TUS, **headers})).status_code == status
    assert list(book.storage.uploads.iterdir()) == []


async def test_one_owner_may_not_open_uploads_without_end(api, context):
    """429 with Retry-After; finishing or giving one up makes room."""
    context.settings.max_open_uploads = 2
    first, _ = await begun(api, 1), await begun(api, 1)
    answer = await api.post("/uploads", headers={**TUS, "Upload-Length": "1"})
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_uploads")
    assert int(answer.headers["retry-after"]) > 0
    await api.delete(first, headers=TUS)
    await begun(api, 1)


async def test_a_full_disk_is_said_before_anything_is_sent(api, book, monkeypatch):
    monkeypatch.setattr(type(book.storage), "free_bytes", lambda self: 10)
    assert (await api.post("/uploads", headers={**TUS, "Upload-Length": "11"})).status_code == 507


async def test_an_upload_that_is_not_complete_is_no_job(api):
    path = await begun(api, 100)
    await patched(api, path, 0, b"x" * 40)
    answer = await api.post("/reconstructions", json={"upload_id": path[9:]})
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_incomplete")
    assert "40 of 100" in answer.json()["detail"]


async def test_an_upload_makes_one_job_and_says_which(api, book):
    """A lost answer: with the same Idempotency-Key the same 202, without it a 409 that names the job."""
    upload_id = await sent(api, png())
    body, key = {"upload_id": upload_id, "options": {}}, {"Idempotency-Key": "k1"}
    first = await api.post("/reconstructions", json=body, headers=key)
    again = await api.post("/reconstructions", json=body, headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"] and again.headers["idempotent-replayed"] == "true"
    other = await api.post("/reconstructions", json=body)
    assert (other.status_code, other.json()["code"], other.json()["job_id"]) == (409, "upload_used", first.json()["id"])
    changed = await api.post("/reconstructions", json={**body, "options": {"seed": 1}}, headers=key)
    assert (changed.status_code, changed.json()["code"]) == (409, "idempotency_conflict")
    assert len(book.list().jobs) == 1
    assert (await patched(api, f"/uploads/{upload_id}", 0, b"")).json()["code"] == "upload_used"


async def test_deleting_the_job_deletes_what_the_upload_knew(api, book):
    """The row of a spent upload holds a file name; the proof of deletion would lie otherwise."""
    upload_id = await sent(api, png(), "me and my face.png")
    job = (await api.post("/reconstructions", json={"upload_id": upload_id})).json()
    await api.delete(f"/reconstructions/{job['id']}")
    with book.reading() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(schema.uploads)).scalar_one() == 0


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"[]", b"{}", b'{"upload_id": 1}', b'{"upload_id": "x", "more": 1}',
     b'{"upload_id": "x", "options": []}', b'{"upload_id": "' + b"x" * 70 + b'"}', b"\xff"],
    ids=repr,
)  # fmt: skip
async def test_a_document_that_is_no_request_is_refused(api, document):
    answer = await api.post("/reconstructions", content=document, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


@pytest.mark.parametrize("upload_id", ["up_none", "..", "../ledger.sqlite3", "a/b", "\0", "%2e%2e"])
async def test_an_id_that_is_none_of_ours_touches_no_file(api, upload_id):
    answer = await api.post("/reconstructions", json={"upload_id": upload_id})
    assert (answer.status_code, answer.json()["code"]) == (404, "upload_not_found")


async def test_a_file_that_is_no_picture_is_refused_as_when_sent_at_once(api, book):
    """And the upload stays, so that nothing is half-done."""
    upload_id = await sent(api, b"not a picture at all")
    answer = await api.post("/reconstructions", json={"upload_id": upload_id})
    assert answer.status_code in (415, 422)
    assert list(book.storage.inputs.iterdir()) == []
    assert book.storage.upload_path(upload_id).exists()


async def test_no_file_is_touched_on_the_event_loop(api, settings, monkeypatch):
    """The last close of a removed gibibyte takes as long as a slow request, and every status request waits for it."""
    touched: list[str] = []
    loop_thread, data_dir = threading.get_ident(), str(settings.data_dir.resolve())
    locked = Uploads.locked

    def hear(event: str, arguments: tuple) -> None:
        ours = event == "fcntl.flock" or (event in FILE_EVENTS and str(arguments[0]).startswith(data_dir))
        if watching and ours and threading.get_ident() == loop_thread:
            touched.append(event)

    @contextmanager
    def lock(self, upload_id):
        with locked(self, upload_id):
            yield
        touched.extend(["left the lock"] if threading.get_ident() == loop_thread else [])

    monkeypatch.setattr(Uploads, "locked", lock)
    watching = True
    sys.addaudithook(hear)  # it stays for as long as the process, and does nothing after this test
    try:
        upload_id = await sent(api, png(seed=1))
        await api.delete(f"/uploads/{upload_id}", headers=TUS)
        upload_id = await sent(api, png(seed=2))
        job = (await api.post("/reconstructions", json={"upload_id": upload_id})).json()
        await api.post("/reconstructions", files={"file": ("a.png", png(seed=3))})
        await api.post("/reconstructions", files={"file": ("a.txt", b"refused")})
        assert (await api.delete(f"/reconstructions/{job['id']}")).json()["gone"]
    finally:
        watching = False
    assert touched == []


async def test_a_body_that_comes_byte_by_byte_fills_no_memory(api, book):
    """Each piece is an object of its own: a batch is bounded in their number, not only in their bytes."""

    async def drip():
        for byte in content:
            yield bytes([byte])

    content, batches = png(), []
    write = tus._Writer.write
    path = await begun(api, len(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tus._Writer, "write", lambda self, batch: batches.append(len(batch)) or write(self, batch))
        assert (await patched(api, path, 0, drip())).status_code == 204
    assert max(batches) <= BATCH_PIECES < len(content)
    assert book.storage.upload_path(path[9:]).read_bytes() == content
