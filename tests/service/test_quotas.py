"""What one owner may have at once, and the line that each request leaves in the log."""

import io
import json
import logging

import pytest

from tests.service.files import MULTIPART, multipart, png
from tests.service.published import ordinary_files, published_for, waiting
from worker import logs

pytestmark = pytest.mark.anyio


@pytest.fixture
def keyed(settings, context):
    """Headers of two owners on a server that asks for keys."""
    return {name: {"Authorization": f"Bearer {context.keys.create(name, owner=name)[1]}"} for name in ("a", "b")}


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"require_keys": True, "max_active_jobs_per_owner": 2})


async def submitted(api, headers, seed=0):
    body = multipart([("file", "a.png", png(seed=seed))])
    return await api.post("/reconstructions", content=body, headers={**MULTIPART, **headers})


async def test_one_owner_cannot_fill_the_queue_of_all(api, book, keyed):
    """429 with a time to come back; the other owner is served; an end makes room; `/limits` says it beforehand."""
    for seed in range(2):
        assert (await submitted(api, keyed["a"], seed)).status_code == 202
    refused = await submitted(api, keyed["a"], 2)
    assert (refused.status_code, refused.json()["code"], refused.json()["quota"]) == (
        429,
        "quota_exceeded",
        "active_jobs",
    )
    assert int(refused.headers["retry-after"]) > 0
    assert (await submitted(api, keyed["b"])).status_code == 202
    shown = (await api.get("/limits", headers=keyed["a"])).json()["quotas"]
    assert shown["active_jobs"] == {"limit": 2, "used": 2}
    (newest, _) = book.list(owner="a").jobs
    await api.post(f"/reconstructions/{newest.id}/cancel", headers=keyed["a"])
    assert (await submitted(api, keyed["a"], 2)).status_code == 202
    assert (await api.post(f"/reconstructions/{newest.id}/retry", headers=keyed["a"])).status_code == 429


async def test_stored_bytes_are_bounded_by_owner_and_freed_by_deletion(api, book, keyed, context):
    """Inputs and artifacts of the owner's own jobs, and nobody else's."""
    job = published_for(book, "a", ordinary_files())
    used = (await api.get("/limits", headers=keyed["a"])).json()["quotas"]["stored_bytes"]["used"]
    assert used == job.input.bytes + sum(item.bytes for item in book.artifacts(job.id))
    context.settings.max_stored_bytes_per_owner = used
    assert (await submitted(api, keyed["a"])).json()["quota"] == "stored_bytes"
    assert (await submitted(api, keyed["b"])).status_code == 202
    await api.delete(f"/reconstructions/{job.id}", headers=keyed["a"])
    assert (await submitted(api, keyed["a"])).status_code == 202


# ---------------------------------------------------------------- logs


async def test_every_request_is_one_line_with_its_job_and_its_key(api, book, keyed):
    """JSON, so that a machine reads it; the key's id, never the key; the id of the answer finds the line."""
    job = waiting(book, owner="a")
    sink = io.StringIO()
    handler = logging.StreamHandler(sink)
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.getLogger("service.metrics")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        answer = await api.get(f"/reconstructions/{job.id}", headers=keyed["a"])
    finally:
        logger.removeHandler(handler)
    line = json.loads(sink.getvalue())
    assert (line["job_id"], line["status"], line["route"]) == (job.id, 200, "/reconstructions/{job_id}")
    assert line["request_id"] == answer.headers["x-request-id"]
    secret = keyed["a"]["Authorization"].partition(".")[2]
    assert secret not in sink.getvalue() and line["key_id"].startswith("key_")
