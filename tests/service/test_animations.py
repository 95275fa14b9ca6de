"""POST /animations: A's head, B's expressions, a job like any other."""

import json
import zipfile

import pytest

from tests.service.published import MODEL, finished, ordinary_files, published_for, waiting
from worker.ledger import bundle

pytestmark = pytest.mark.anyio


def delivered(word: bytes) -> dict[str, tuple[str, str, bytes]]:
    """Everything that an animation takes of a job, and more."""
    return {
        **ordinary_files(),
        "identity.npz": ("identity", "application/x-npz", b"identity of " + word),
        "expressions.npz": ("expressions", "application/x-npz", b"expressions of " + word),
        "cameras.json": ("cameras", "application/json", b'"' + word + b'"'),
    }


@pytest.fixture
def two(book):
    return finished(book, delivered(b"a")), finished(book, delivered(b"b"))


async def asked(api, a, b, headers=None, **more):
    return await api.post("/animations", json={"identity": a.id, "expressions": b.id, **more}, headers=headers or {})


async def test_what_is_needed_of_both_becomes_the_input_of_a_new_job(api, book, two):
    """Who from A; what, how and through which camera from B; B's identity stays with B."""
    answer = await asked(api, *two, options={"mesh_format": "glb", "labels": ["x"]})
    assert answer.status_code == 202 and answer.headers["location"].startswith("/reconstructions/")
    job = answer.json()
    assert (job["state"], job["options"]["mesh_format"], job["options"]["labels"]) == ("queued", "glb", ["x"])
    record = book.get(job["id"])
    assert (record.kind, record.input.media_type) == ("animation", bundle.MEDIA_TYPE)
    with zipfile.ZipFile(book.storage.input_path(job["id"])) as bundled:
        names = set(bundled.namelist())
        assert bundled.read("animation/identity/identity.npz") == b"identity of a"
        assert bundled.read("animation/expressions/expressions.npz") == b"expressions of b"
    assert "animation/expressions/meshes/frame_00001.ply" in names
    assert "animation/expressions/identity.npz" not in names and "animation/identity/cameras.json" not in names


async def test_deleting_the_two_leaves_the_third_whole(api, book, two):
    job = (await asked(api, *two)).json()
    for source in two:
        await api.delete(f"/reconstructions/{source.id}")
    lease = book.claim("w", job["id"])
    assert lease is not None and zipfile.ZipFile(lease.order.input_path).testzip() is None


async def test_the_same_request_is_the_same_job(api, book, two):
    """The archive has no time in it, so a repetition is recognised by its bytes."""
    key = {"Idempotency-Key": "k"}
    first, again = [await asked(api, *two, headers=key) for _ in range(2)]
    assert first.json()["id"] == again.json()["id"]
    swapped = await asked(api, two[1], two[0], headers=key)
    assert (swapped.status_code, swapped.json()["code"]) == (409, "idempotency_conflict")
    assert len(list(book.storage.staging.iterdir())) == 0


async def test_jobs_that_do_not_go_together_are_refused_before_the_queue(api, book, two):
    """An unfinished one, one of another model, one without the needed files, one that is none."""
    (a, b), other = two, {**MODEL, "sha256": "cd" * 32}
    cases = [
        (await asked(api, a, waiting(book)), 409, "not_finished"),
        (
            await asked(api, a, finished(book, delivered(b"c"), model=other)),
            422,
            "models_differ",
        ),
        (await asked(api, a, finished(book, ordinary_files())), 422, "outputs_missing"),
        (await api.post("/animations", json={"identity": a.id, "expressions": "rec_none"}), 404, "job_not_found"),
        (await asked(api, a, b, options={"nonsense": 1}), 422, "invalid_options"),
        (await asked(api, a, b, more=1), 422, "invalid_request"),
    ]
    for answer, status, code in cases:
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert {job.kind for job in book.list().jobs} == {"reconstruction"}


async def test_nobody_animates_the_head_of_another_owner(api, book, context, settings, two):
    """Neither as who nor as what: both are asked for as their owner."""
    import httpx

    from service.app import create_app  # a second server over the same data, asking for keys

    theirs = published_for(book, "them", delivered(b"t"))
    keyed = create_app(settings.model_copy(update={"require_keys": True}))
    async with keyed.router.lifespan_context(keyed):
        mine = published_for(book, "me", delivered(b"m"))
        bearer = {"Authorization": f"Bearer {context.keys.create('k', owner='me')[1]}"}
        transport = httpx.ASGITransport(keyed)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=bearer) as client:
            assert (await asked(client, mine, theirs)).status_code == 404
            assert (await asked(client, theirs, mine)).status_code == 404
            assert (await asked(client, mine, mine)).status_code == 202


async def test_a_body_that_is_no_object_is_a_problem(api):
    for body in (b"", b"[]", b"{", json.dumps({"identity": 1}).encode()):
        answer = await api.post("/animations", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
