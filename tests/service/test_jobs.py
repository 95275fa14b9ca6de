"""Looking at jobs, listing, cancelling, running again, deleting."""

import pytest

from tests.service.files import png
from tests.service.published import finished, ordinary_files, waiting
from worker.ledger import State, failure_of

pytestmark = pytest.mark.anyio


def failed(book):
    """A job that ended without a result."""
    job = waiting(book)
    book.claim("w", job.id).fail(failure_of(MemoryError(), "stage1"))
    return book.get(job.id)


async def test_an_unknown_job_is_404_everywhere(api):
    """No path of a job may answer with anything else, whatever the id looks like."""
    for job_id in ("rec_none", "rec_%2e%2e", "x" * 300, "rec_'; drop table jobs;--"):
        for method, tail in [
            ("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/events"),
            ("GET", "/artifacts"), ("GET", "/artifacts/manifest.json"), ("GET", "/artifacts.zip"),
            ("GET", "/expressions"),
        ]:  # fmt: skip
            answer = await api.request(method, f"/reconstructions/{job_id}{tail}")
            assert answer.status_code in (404, 405), (method, job_id, tail)


async def test_a_failed_job_says_why_in_the_words_of_the_ledger(api, book):
    job = (await api.get(f"/reconstructions/{failed(book).id}")).json()
    assert job["state"] == "failed"
    assert job["error"]["code"] == "out_of_memory"
    assert job["error"]["retryable"] is True
    assert job["error"]["stage"] == "stage1"
    assert "retry" in job["links"] and "cancel" not in job["links"]


async def test_a_running_job_shows_how_far_it_is(api, book):
    job = waiting(book)
    lease = book.claim("w", job.id)
    lease.report(Step("stage1", 5, 10))
    shown = (await api.get(f"/reconstructions/{job.id}")).json()
    assert (shown["state"], shown["stage"], shown["queue_position"]) == ("running", "stage1", None)
    assert shown["progress"]["step"] == 5 and shown["progress"]["total"] == 10
    assert 0 < shown["progress"]["percent"] < 100
    assert shown["started_at"].endswith("Z") and shown["attempts"] == 1


class Step:
    def __init__(self, stage, step, total, message=""):
        self.stage, self.step, self.total, self.message = stage, step, total, message
        self.frames_done = self.frames_total = 0


# ---------------------------------------------------------------- lists


async def test_the_list_is_newest_first_and_pages_never_skip_or_repeat(api, book):
    """Also while new jobs arrive between two pages: a cursor is a place, not a number."""
    ids = [waiting(book).id for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = (await api.get("/reconstructions", params={"limit": 3, **({"cursor": cursor} if cursor else {})})).json()
        seen += [job["id"] for job in page["items"]]
        waiting(book)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]


async def test_the_list_can_be_narrowed(api, book):
    plain, labelled, done = waiting(book), waiting(book, labels=["holiday"]), failed(book)
    ask = lambda **params: api.get("/reconstructions", params=params)  # noqa: E731
    ids = lambda answer: [job["id"] for job in answer.json()["items"]]  # noqa: E731
    assert ids(await ask(state="failed")) == [done.id]
    assert ids(await ask(label="holiday")) == [labelled.id]
    assert ids(await ask(label="holiday", state="failed")) == []
    assert ids(await ask(created_after=plain.created_at.isoformat())) == [done.id, labelled.id]


@pytest.mark.parametrize(
    "params",
    [{"state": "deleted"}, {"state": "x"}, {"limit": 0}, {"limit": 201}, {"limit": "x"}, {"cursor": "rubbish"},
     {"cursor": "é"}, {"created_after": "yesterday"}, {"created_after": "2026-01-01T00:00:00"}],
    ids=str,
)  # fmt: skip
async def test_a_wrong_filter_is_named_and_refused(api, params):
    """A filter that was quietly ignored would show other people's idea of the list."""
    answer = await api.get("/reconstructions", params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


# ---------------------------------------------------------------- cancel


async def test_a_waiting_job_is_cancelled_at_once_and_again_without_harm(api, book):
    job = waiting(book)
    for _ in range(2):
        answer = await api.post(f"/reconstructions/{job.id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


async def test_a_running_job_is_cancelled_only_when_the_device_is_free(api, book):
    """`cancelling` until the worker says so: the next job must find the memory free."""
    job = waiting(book)
    lease = book.claim("w", job.id)
    for _ in range(2):
        answer = await api.post(f"/reconstructions/{job.id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    lease.cancelled()
    answer = await api.post(f"/reconstructions/{job.id}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


async def test_what_has_ended_cannot_be_cancelled(api, book):
    """Terminal states never change."""
    for job in (failed(book), finished(book, ordinary_files())):
        answer = await api.post(f"/reconstructions/{job.id}/cancel")
        assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
        assert answer.json()["detail"].startswith(f"It is {job.state.value}. GET the job: its `links`")
        assert book.get(job.id).state is job.state


# ---------------------------------------------------------------- retry


async def test_a_retry_is_a_new_job_with_the_same_input_and_options(api, book):
    old = failed(book)
    answer = await api.post(f"/reconstructions/{old.id}/retry")
    again = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/reconstructions/{again['id']}"
    assert again["id"] != old.id
    assert again["state"] == "queued"
    assert again["input"]["sha256"] == old.input.sha256
    assert again["links"]["retry_of"] == f"/reconstructions/{old.id}"
    assert book.get(old.id).state is State.FAILED


async def test_only_failed_and_cancelled_jobs_run_again(api, book):
    for job in (waiting(book), finished(book, ordinary_files())):
        answer = await api.post(f"/reconstructions/{job.id}/retry")
        assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")


async def test_a_retry_that_is_sent_twice_with_one_key_is_one_job(api, book):
    old = failed(book)
    ids = {
        (await api.post(f"/reconstructions/{old.id}/retry", headers={"Idempotency-Key": "r"})).json()["id"]
        for _ in "ab"
    }
    assert len(ids) == 1


# ---------------------------------------------------------------- delete


async def test_delete_proves_that_the_bytes_are_gone_and_leaves_a_tombstone(api, book, left_behind):
    """A face is biometric data: after the proof nothing of it is on the disk, and the id is never free again."""
    job = finished(book, ordinary_files())
    size = sum(
        (book.storage.data_dir / name).stat().st_size
        for name in left_behind()
        if (book.storage.data_dir / name).is_file()
    )
    proof = (await api.delete(f"/reconstructions/{job.id}")).json()
    assert proof["gone"] is True
    assert proof["bytes"] == size
    assert left_behind() == []
    for method, tail in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("GET", "/events"),
        ("GET", "/artifacts"),
        ("GET", "/artifacts/manifest.json"),
        ("HEAD", "/artifacts/manifest.json"),
        ("GET", "/artifacts.zip"),
        ("GET", "/expressions"),
    ]:
        answer = await api.request(method, f"/reconstructions/{job.id}{tail}")
        assert answer.status_code == 410, (method, tail)
    assert (await api.get("/reconstructions")).json()["items"] == []


async def test_a_running_job_can_be_deleted_and_its_worker_can_no_longer_write(api, book):
    from worker.ledger import LeaseLost

    job = waiting(book, png())
    lease = book.claim("w", job.id)
    assert (await api.delete(f"/reconstructions/{job.id}")).status_code == 200
    with pytest.raises(LeaseLost):
        lease.publish({"artifacts": []})
