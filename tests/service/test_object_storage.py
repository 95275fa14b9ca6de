"""The API on an object store: every promise about files holds, and a store that is away is said to be away."""

import hashlib
import zipfile
from io import BytesIO

import httpx
import pytest

from tests.service import test_artifacts
from tests.service.files import png
from tests.service.published import finished, ordinary_files
from tests.service.test_animations import asked, delivered
from tests.service.test_artifacts import DATA, ETAG
from tests.service.test_submitting import form
from tests.service.test_uploads import sent
from tests.support.object_store import Weather
from worker.ledger import State

pytestmark = pytest.mark.anyio

# The same promises as of a folder, by the same tests.
test_lists_and_checksums = test_artifacts.test_every_listed_file_has_the_announced_size_and_checksum
test_head = test_artifacts.test_head_has_the_headers_of_get_and_no_body
test_ranges = test_artifacts.test_a_range_is_that_slice_of_the_file
test_if_range = test_artifacts.test_if_range_resumes_only_the_same_file
test_if_none_match = test_artifacts.test_what_the_client_has_is_not_sent_again
test_the_archive = test_artifacts.test_the_archive_holds_every_file_under_one_folder
test_the_codes = test_artifacts.test_the_codes_come_as_delivered_or_as_a_table


@pytest.fixture(autouse=True)
def weather(object_store, bucket_url, monkeypatch):
    """The store of these tests, reached through a network that is fine until a test says otherwise."""
    between = Weather(object_store.endpoint, faults=("error",), badness=0.0)
    given = object_store.environment(bucket_url, endpoint=between.endpoint, timeout_s=5, patience_s=0.5)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    yield between
    between.close()


@pytest.fixture
def job(book):
    return finished(book, ordinary_files())


@pytest.fixture
def url(job):
    return f"/reconstructions/{job.id}/artifacts/identity.npz"


def lies_at(object_store, bucket_url, job_id):
    key = f"heads/inputs/{job_id}/input"
    return object_store.client().get_object(Bucket=bucket_url.split("/")[2], Key=key)["Body"].read()


async def test_a_submitted_file_is_in_the_store_when_the_202_comes(api, object_store, bucket_url, left_behind):
    """However it came: in one request, in a resumable upload. Nothing of it stays on the API's disk."""
    content = png(seed=5)
    posted = (await api.post("/reconstructions", **form(content))).json()["id"]
    upload = await sent(api, content)
    resumed = (await api.post("/reconstructions", json={"upload_id": upload, "options": {}})).json()["id"]
    for job_id in (posted, resumed):
        assert lies_at(object_store, bucket_url, job_id) == content
    assert left_behind() == []
    assert (await api.delete(f"/reconstructions/{posted}")).json()["gone"]
    assert object_store.keys(bucket_url) == [f"heads/inputs/{resumed}/input"]


async def test_an_animation_is_bundled_from_what_lies_in_the_store(api, book, object_store, bucket_url):
    two = finished(book, delivered(b"a")), finished(book, delivered(b"b"))
    made = (await asked(api, *two)).json()
    with zipfile.ZipFile(BytesIO(lies_at(object_store, bucket_url, made["id"]))) as bundled:
        assert bundled.read("animation/identity/identity.npz") == b"identity of a"


async def test_who_asks_for_it_is_sent_to_the_store_itself(api, book, url, monkeypatch, object_store, tmp_path):
    """307 to a signed address that needs no key of ours, where clients reach the store; else simply the bytes."""
    here = await api.get(url, params={"direct": "true"})
    assert here.status_code == 200 and here.content == DATA
    monkeypatch.setattr(type(book.storage), "direct_link", book_with_public_address(book, object_store))
    there = await api.get(url, params={"direct": "true"})
    assert there.status_code == 307 and there.headers["etag"] == ETAG
    fetched = httpx.get(there.headers["location"])
    assert fetched.content == DATA
    assert fetched.headers["content-disposition"].startswith('attachment; filename="identity.npz"')
    assert (await api.get(url, params={"direct": "true"}, headers={"If-None-Match": ETAG})).status_code == 304
    assert (await api.get(url)).status_code == 200, "who does not ask is not sent away"


def book_with_public_address(book, object_store):
    """`direct_link` as it is with MONONPHM_STORAGE_PUBLIC_ENDPOINT set."""
    public = object_store.bucket(book.storage.bucket.place.bucket, public_endpoint=object_store.endpoint)
    return lambda self, artifact, disposition: public.link(
        f"artifacts/{artifact.job_id}@{artifact.fence}/{artifact.name}", disposition, artifact.media_type
    )


async def test_while_the_store_is_away_everything_says_so_and_nothing_is_promised(
    api, book, weather, left_behind, object_store, bucket_url
):
    """503 with a time to come again, no job without its input, and a deletion that is not called done."""
    done = finished(book, ordinary_files())
    weather.badness = 1.0
    refused = await api.post("/reconstructions", **form())
    assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert [found.id for found in book.list().jobs] == [done.id] and left_behind() == []
    got = await api.get(f"/reconstructions/{done.id}/artifacts/identity.npz")
    assert (got.status_code, got.json()["code"]) == (503, "storage_unavailable")
    ready = await api.get("/health/ready")
    assert not ready.json()["checks"]["storage"]["ok"] and ready.json()["checks"]["database"]["ok"]
    deleted = (await api.delete(f"/reconstructions/{done.id}")).json()
    assert not deleted["gone"]
    assert (await api.get(f"/reconstructions/{done.id}")).status_code == 410
    weather.badness = 0.0
    assert object_store.keys(bucket_url) != []
    book.sweep()
    assert object_store.keys(bucket_url) == []
    assert book.counts().by_state == {State.DELETED: 1}


async def test_bytes_that_rotted_in_the_store_are_never_a_complete_answer(
    api, book, url, job, object_store, bucket_url
):
    """The answer breaks off: no client takes it for the file, although the store calls it a success."""
    artifact = book.artifact(job.id, "identity.npz")
    rotten = bytes([DATA[0] ^ 1]) + DATA[1:]
    key = f"heads/artifacts/{job.id}@{artifact.fence}/identity.npz"
    object_store.client().put_object(Bucket=bucket_url.split("/")[2], Key=key, Body=rotten)
    answer = await api.get(url)
    assert hashlib.sha256(answer.content).hexdigest() not in (artifact.sha256, hashlib.sha256(rotten).hexdigest())
    assert len(answer.content) < int(answer.headers["content-length"])
