"""POST /reconstructions: what is promised is durable, what is refused leaves nothing."""

import asyncio
import hashlib
import json

import pytest

from service.jobs import Jobs
from service.uploads import clean_filename
from tests.service.files import MULTIPART, multipart, png, png_that_claims
from tests.service.published import waiting
from worker.ledger import Ledger, LocalStorage, State

pytestmark = pytest.mark.anyio

MIB = 1 << 20


def form(content: bytes = b"", name: str = "face.png", **options):
    return {"files": {"file": (name, content or png())}, "data": {"options": json.dumps(options)}}


async def test_a_submitted_file_becomes_a_queued_job_that_says_where_to_look(api, book):
    content = png(seed=3)
    answer = await api.post("/reconstructions", **form(content, quality="draft", labels=["a"], max_frames=3))
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"] == f"/reconstructions/{job['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert job["state"] == "queued"
    assert job["queue_position"] == 1
    assert job["input"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert job["input"]["bytes"] == len(content)
    assert job["input"]["media_type"] == "image/png"
    assert job["options"]["quality"] == "draft"
    assert job["options"]["stages"] == [1]  # resolved: a still has one frame
    assert job["created_at"].endswith("Z")
    assert book.storage.input_path(job["id"]).read_bytes() == content
    assert (await api.get(answer.headers["location"])).json()["id"] == job["id"]


async def test_the_job_has_exactly_the_members_of_the_contract(api):
    """A client written against the contract must find these, and nothing else to depend on."""
    job = (await api.post("/reconstructions", **form())).json()
    assert set(job) == {
        "id",
        "state",
        "stage",
        "progress",
        "queue_position",
        "created_at",
        "started_at",
        "finished_at",
        "expires_at",
        "attempts",
        "input",
        "options",
        "model",
        "warnings",
        "error",
        "links",
    }
    assert set(job["progress"]) == {"percent", "step", "total", "frames_done", "frames_total"}
    assert set(job["input"]) == {
        "filename",
        "media_type",
        "bytes",
        "sha256",
        "width",
        "height",
        "frames",
        "fps",
        "duration_s",
        "rotation",
    }


async def test_the_202_comes_after_fsync_and_commit_and_the_hint_after_the_202(app, monkeypatch):
    """A crash after the answer must find the job; so the order is: bytes down, row down, answer, hint."""
    steps: list[str] = []

    def noted(owner, name, step):
        before = getattr(owner, name)

        def wrapper(*arguments, **named):
            result = before(*arguments, **named)
            steps.append(step)
            return result

        monkeypatch.setattr(owner, name, wrapper)

    noted(LocalStorage, "accept_input", "input on disk")
    noted(Ledger, "open_job", "committed")
    noted(Jobs, "hint", "hint")
    body = multipart([("file", "face.png", png())])
    sent = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return sent.pop(0) if sent else await asyncio.Event().wait()

    async def send(message):
        if message["type"] == "http.response.start":
            steps.append(f"answer {message['status']}")

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=b0undary")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/reconstructions", "raw_path": b"/reconstructions", "query_string": b"", "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    assert steps == ["input on disk", "committed", "answer 202", "hint"]


async def test_a_commit_that_fails_promises_nothing_and_leaves_nothing(api, monkeypatch, left_behind):
    """The client hears an incident id, never a path or a trace; the disk is as before."""

    def refuse(*_, **__):
        raise RuntimeError("secret detail in /etc/somewhere")

    monkeypatch.setattr(Ledger, "open_job", refuse)
    answer = await api.post("/reconstructions", **form())
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert answer.json()["incident"].startswith("inc_")
    assert "secret" not in answer.text and "/etc" not in answer.text
    assert left_behind() == []


async def test_a_dead_broker_costs_the_promise_nothing(api, context, monkeypatch):
    """The message is a hint; the row in the database is the job."""

    def unreachable(*_, **__):
        raise ConnectionError("no broker")

    monkeypatch.setattr(context.jobs.hints._app, "send_task", unreachable)
    answer = await api.post("/reconstructions", **form())
    assert answer.status_code == 202
    assert context.jobs.book.get(answer.json()["id"]).state is State.QUEUED


async def test_long_jobs_and_their_hints_go_to_workers_with_a_gpu_where_the_operator_wants_it(
    api, context, monkeypatch
):
    """A mixed fleet: a still is expected to take 15 s, so the bound decides where it waits."""
    hinted = []
    monkeypatch.setattr(context.jobs.hints._app, "send_task", lambda *_, queue, **__: hinted.append(queue))
    for bound_s in (None, 20.0, 10.0):
        monkeypatch.setattr(context.jobs.settings, "gpu_from_s", bound_s)
        assert (await api.post("/reconstructions", **form())).status_code == 202
    assert hinted == ["mononphm", "mononphm", "mononphm-gpu"]
    assert context.jobs.book.open_by_queue() == {"mononphm": 2, "mononphm-gpu": 1}


@pytest.mark.parametrize("options_first", [True, False])
async def test_the_order_of_the_parts_does_not_matter(api, options_first):
    parts = [("options", None, b'{"seed": 7}'), ("file", "a.png", png())]
    body = multipart(parts if options_first else parts[::-1])
    answer = await api.post("/reconstructions", content=body, headers=MULTIPART)
    assert answer.json()["options"]["seed"] == 7


async def test_a_file_larger_than_any_buffer_arrives_byte_for_byte(api, book):
    """Pieces of odd sizes, so that boundaries fall everywhere; the checksum is over what lies on the disk."""
    content = png() + bytes(range(256)) * 9000 + b"\r\n--b0undar" + b"\r\n--" * 500

    async def pieces():
        body = multipart([("file", "a.png", content)])
        for start in range(0, len(body), 60_013):
            yield body[start : start + 60_013]

    answer = await api.post("/reconstructions", content=pieces(), headers=MULTIPART)
    assert answer.status_code == 202
    stored = book.storage.input_path(answer.json()["id"]).read_bytes()
    assert stored == content
    assert answer.json()["input"]["sha256"] == hashlib.sha256(content).hexdigest()


HOSTILE_NAMES = {
    "../../../etc/passwd": "passwd",
    "..\\..\\windows\\system.ini": "system.ini",
    "/abs/olute.png": "olute.png",
    "..": "..",
    "": "upload",
    "a\x00b.png": "ab.png",
    "x\u202egnp.exe": "xgnp.exe",
    "<script>alert(1)<!-- .png": "<script>alert(1)<!-- .png",
    "Zoë 🙂 ファイル.png": "Zoë 🙂 ファイル.png",
    "n" * 5000: "n" * 200,
    "e\u0301.png": "é.png",
}


@pytest.mark.parametrize("raw,kept", HOSTILE_NAMES.items(), ids=range(len(HOSTILE_NAMES)))
async def test_a_hostile_file_name_is_only_ever_metadata(api, book, raw, kept):
    """No name decides where bytes go, and none carries folders, control or direction characters further."""
    body = multipart([("file", raw, png())])
    answer = await api.post("/reconstructions", content=body, headers=MULTIPART)
    if answer.status_code == 400:  # the parser itself refuses a header of that length or with that byte
        assert len(raw) > 1000 or "\x00" in raw
        return
    assert answer.status_code == 202
    assert answer.json()["input"]["filename"] == kept
    assert book.storage.input_path(answer.json()["id"]).is_file()


@pytest.mark.parametrize("raw", [b"a\r\nX-Evil: 1\r\n.png", b"\xff\xfe\x80.png", b"a\x1b[31m.png"])
def test_a_cleaned_name_has_no_control_characters_and_is_text(raw):
    """It will stand in logs, terminals and headers."""
    cleaned = clean_filename(raw)
    assert cleaned.isprintable()
    assert cleaned.encode("utf-8")


REFUSED = {
    "empty": (b"", 415, "unsupported_media"),
    "text": (b"hello, this is text", 415, "unsupported_media"),
    "playlist": (b"#EXTM3U\nfile:///etc/passwd\n", 415, "unsupported_media"),
    "markup": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_media"),
    "headless": (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, 422, "unreadable_media"),
    "sliver": (png(4, 400), 422, "media_too_small"),
    "bomb": (png_that_claims(60_000, 60_000), 413, "media_too_large"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_can_be_seen_to_be_unusable_is_refused_before_the_queue(api, left_behind, case):
    """By its content: every one of these is called face.png. Nothing of it stays."""
    content, status, code = REFUSED[case]
    answer = await api.post("/reconstructions", files={"file": ("face.png", content)})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert left_behind() == []
    assert (await api.get("/reconstructions")).json()["items"] == []


BAD_OPTIONS = {
    "unknown key": (b'{"qualty": "draft"}', "options.qualty"),
    "wrong type": (b'{"seed": "7"}', "options.seed"),
    "out of range": (b'{"max_frames": 0}', "options.max_frames"),
    "no JSON": (b"{quality", "options"),
    "no object": (b"[1]", "options"),
    "not a number": (b'{"start_s": NaN}', "options.start_s"),
    "together": (b'{"fps": 5, "stride": 2}', "options"),
    "webhook": (b'{"webhook_url": "https://printer.local/x"}', "options.webhook_url"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
async def test_each_wrong_option_is_named(api, left_behind, case):
    raw, where = BAD_OPTIONS[case]
    answer = await api.post(
        "/reconstructions", content=multipart([("file", "a.png", png()), ("options", None, raw)]), headers=MULTIPART
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_options")
    assert answer.json()["errors"][0]["where"].startswith(where)
    assert left_behind() == []


BAD_BODIES = {
    "no file": (multipart([("options", None, b"{}")]), 422, "invalid_request"),
    "two files": (multipart([("file", "a", png()), ("file", "b", png())]), 422, "invalid_request"),
    "unknown part": (multipart([("file", "a", png()), ("video", "b", b"x")]), 422, "invalid_request"),
    "two options": (multipart([("options", None, b"{}"), ("options", None, b"{}")]), 422, "invalid_request"),
    "endless options": (multipart([("options", None, b" " * 100_000)]), 422, "invalid_options"),
    "no end": (multipart([("file", "a", png())])[:-6], 400, "malformed_request"),
    "nothing": (b"", 400, "malformed_request"),
    "nonsense": (b"nonsense", 400, "malformed_request"),
    "endless epilogue": (multipart([("file", "a", png())]) + b"x" * 3_000_000, 413, "body_too_large"),
    "other boundary": (multipart([("file", "a", png())], "other"), 400, "malformed_request"),
    "endless header": (b"--b0undary\r\nX: " + b"y" * 100_000, 400, "malformed_request"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_a_body_that_is_not_the_agreed_form_is_refused(api, left_behind, case):
    body, status, code = BAD_BODIES[case]

    async def pieces():
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    answer = await api.post("/reconstructions", content=pieces(), headers=MULTIPART)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert left_behind() == []


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "multipart/mixed; boundary=x", "", "x" * 300])
async def test_another_content_type_is_refused_with_the_one_to_send(api, kind):
    answer = await api.post("/reconstructions", content=b"{}", headers={"Content-Type": kind})
    assert answer.status_code in (400, 415)
    assert "multipart" in answer.json()["detail"] or "boundary" in answer.json()["detail"]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_file_over_the_limit_is_refused_announced_or_not(api, settings, left_behind, announced):
    """A Content-Length is believed when it is too large and never when it is small enough: bytes are counted."""
    body = multipart([("file", "a.png", png() + b"x" * settings.max_upload_bytes)])

    async def unannounced():
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    answer = await api.post("/reconstructions", content=body if announced else unannounced(), headers=MULTIPART)
    assert (answer.status_code, answer.json()["code"]) == (413, "media_too_large")
    assert answer.json()["max_bytes"] == settings.max_upload_bytes
    assert left_behind() == []


async def test_a_file_of_exactly_the_limit_is_accepted(api, settings):
    """The limit is the largest size that works, not the smallest that does not."""
    content = png().ljust(settings.max_upload_bytes, b"\0")
    answer = await api.post("/reconstructions", files={"file": ("a.png", content)})
    assert answer.status_code == 202
    answer = await api.post("/reconstructions", files={"file": ("a.png", content + b"\0")})
    assert answer.status_code == 413


@pytest.mark.parametrize("when", ["before", "during"])
async def test_uploads_stop_before_the_disk_is_full(api, monkeypatch, left_behind, when):
    """The reserve belongs to the database and to running jobs."""
    looks = iter([10**12, 0]) if when == "during" else iter([0])
    monkeypatch.setattr(LocalStorage, "free_bytes", lambda self: next(looks, 0))
    answer = await api.post("/reconstructions", **form())
    assert (answer.status_code, answer.json()["code"]) == (507, "out_of_disk")
    assert left_behind() == []


async def test_a_full_queue_answers_503_with_the_time_to_come_back(api, book, settings, left_behind):
    """Before the upload: nobody should send gigabytes to hear no."""
    for _ in range(settings.max_queued):
        waiting(book)
    before = left_behind()
    answer = await api.post("/reconstructions", **form())
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    assert left_behind() == before


async def test_too_many_uploads_at_once_answer_503(api, context):
    context.uploads.taken = context.uploads.total
    answer = await api.post("/reconstructions", **form())
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    context.uploads.taken = 0
    assert (await api.post("/reconstructions", **form())).status_code == 202
    assert context.uploads.taken == 0


# ---------------------------------------------------------------- the same request twice


async def test_the_same_key_and_body_is_the_same_job(api, left_behind):
    """A client that lost the answer may simply send again."""
    first = await api.post("/reconstructions", **form(seed=1), headers={"Idempotency-Key": "k"})
    files = left_behind()
    second = await api.post("/reconstructions", **form(seed=1), headers={"Idempotency-Key": "k"})
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert left_behind() == files


@pytest.mark.parametrize("other", [form(png(seed=9), seed=1), form(seed=2)], ids=["other file", "other options"])
async def test_the_same_key_with_another_body_is_a_conflict(api, left_behind, other):
    await api.post("/reconstructions", **form(seed=1), headers={"Idempotency-Key": "k"})
    files = left_behind()
    answer = await api.post("/reconstructions", **other, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")
    assert left_behind() == files


async def test_duplicates_at_the_same_moment_open_one_job(api, book):
    """Eight racing copies of one request: the unique row decides, seven find its job, and one input stays."""
    answers = await asyncio.gather(
        *(api.post("/reconstructions", **form(seed=1), headers={"Idempotency-Key": "k"}) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert len(list(book.storage.inputs.iterdir())) == 1
    assert list(book.storage.staging.iterdir()) == []


async def test_without_a_key_two_submits_are_two_jobs(api):
    ids = {(await api.post("/reconstructions", **form())).json()["id"] for _ in range(2)}
    assert len(ids) == 2


async def test_the_key_of_a_deleted_job_answers_410(api, left_behind):
    """Opening it anew would undo a deletion that somebody asked for."""
    job = (await api.post("/reconstructions", **form(), headers={"Idempotency-Key": "k"})).json()
    await api.delete(job["links"]["self"])
    answer = await api.post("/reconstructions", **form(), headers={"Idempotency-Key": "k"})
    assert answer.status_code == 410
    assert left_behind() == []


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "käse".encode("latin-1"), "a b"])
async def test_a_key_that_is_no_key_is_refused(api, key):
    answer = await api.post("/reconstructions", **form(), headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
