"""The server about itself, what holds for every request, and the catalogue of errors."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from mononphm_core import errors as core
from mononphm_core.config import MediaLimits
from service import openapi, registry
from service.problems import CATALOGUE, from_exception, from_first_look
from service.routes.page import FOLDER
from service.schemas import Job as JobSchema
from service.schemas import StageName, StateName
from service.settings import ServiceSettings, is_loopback
from worker import ledger
from worker.ledger import LocalStorage
from worker.ledger.progress import SHARES

pytestmark = pytest.mark.anyio

SERVICE = Path(openapi.__file__).parent


# ---------------------------------------------------------------- limits, health, version, models


def test_the_api_refuses_exactly_what_decoding_would_refuse():
    """Two places hold the limits because the API imports no core; they must not drift apart."""
    ours, theirs = ServiceSettings(_env_file=None), MediaLimits()
    assert ours.max_upload_bytes == theirs.max_bytes
    for name in ("max_pixels", "min_side_px", "max_aspect", "max_duration_s", "max_frames"):
        assert getattr(ours, name) == getattr(theirs, name), name


async def test_limits_say_what_is_in_force_now(api, settings, book):
    shown = (await api.get("/limits")).json()
    assert shown["upload"]["max_bytes"] == settings.max_upload_bytes
    assert shown["queue"]["queued"] == 0


def check_of(answer, name):
    return answer.json()["checks"][name]["ok"]


async def test_readiness_names_each_thing_that_is_missing(api, book, monkeypatch):
    """An operator must see at once whether it is the database, the disk or the worker."""
    answer = await api.get("/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert [check_of(answer, name) for name in ("database", "storage", "worker")] == [True, True, False]
    book.worker_seen("w", None, {"child_ready": False})
    answer = await api.get("/health/ready")
    assert "loading" in answer.json()["checks"]["worker"]["detail"]
    book.worker_seen("w", {"name": "tiny"}, {"child_ready": True})
    answer = await api.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")

    def no_disk(self):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(LocalStorage, "free_bytes", no_disk)
    answer = await api.get("/health/ready")
    assert not check_of(answer, "storage") and check_of(answer, "database")

    def no_database(self):
        raise OperationalError("select 1", {}, Exception("password=secret"))

    monkeypatch.setattr(ledger.Ledger, "ping", no_database)
    answer = await api.get("/health/ready")
    assert not check_of(answer, "database")
    assert "secret" not in answer.text


async def test_a_silent_worker_is_not_ready(api, book, context):
    """A heartbeat that stopped is a worker that died."""
    book.worker_seen("w", {"name": "tiny"}, {"child_ready": True})
    context.settings.worker_fresh_s = 0.0001
    assert (await api.get("/health/ready")).status_code == 503


async def test_alive_needs_nothing_but_the_loop(api, monkeypatch):
    """Restarting the process does not cure a database."""

    def no_database(*_, **__):
        raise OperationalError("select 1", {}, Exception("down"))

    monkeypatch.setattr(ledger.Ledger, "ping", no_database)
    monkeypatch.setattr(ledger.Ledger, "get", no_database)
    assert (await api.get("/health/live")).json() == {"status": "alive"}
    answer = await api.get("/reconstructions/rec_x")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert "retry-after" in answer.headers


async def test_models_are_read_from_their_cards(api, tmp_path, monkeypatch):
    card = {
        "name": "tiny", "version": "2", "sha256": "ab" * 32, "licence": "CC0-1.0", "file": "model.safetensors",
        "latent_sizes": {"z_geo": 8, "z_app": 4, "z_exp": 53}, "expression_names": ["jawOpen"],
    }  # fmt: skip
    for name, text in {"tiny": json.dumps(card), "broken": "{", "odd": "[]"}.items():
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "card.json").write_text(text)
    monkeypatch.setattr(registry, "models_folders", lambda: [tmp_path / "models"])
    (shown,) = (await api.get("/models")).json()["items"]
    assert (shown["name"], shown["version"], shown["licence"]) == ("tiny", "2", "CC0-1.0")
    assert shown["latent_sizes"] == {"z_geo": 8, "z_app": 4, "z_exp": 53}
    assert shown["exports"] == ["blendshapes"]
    assert (await api.get("/models/tiny")).json() == shown
    assert (await api.get("/models/none")).json()["code"] == "model_not_found"
    assert (await api.get("/version")).json()["models"] == [{"name": "tiny", "version": "2", "sha256": "ab" * 32}]


# ---------------------------------------------------------------- every request


async def test_an_unknown_path_and_a_wrong_method_are_problems_too(api):
    assert (await api.get("/nothing/here")).status_code == 404
    answer = await api.put("/limits")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "[::2]", "evil.example:8000", "[", "a@b"]
)
async def test_a_foreign_host_name_gets_no_answer(api, host):
    """A web page whose name was pointed at 127.0.0.1 would otherwise read every job (DNS rebinding)."""
    answer = await api.get("/reconstructions", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "unknown_host")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:9"])
async def test_this_machine_is_called_by_its_names(api, host):
    assert (await api.get("/limits", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
async def test_a_page_of_another_site_can_change_nothing(api, headers):
    """A form on any web page can POST multipart to a loopback address without asking."""
    for method, path in [
        ("POST", "/reconstructions"),
        ("POST", "/reconstructions/x/cancel"),
        ("DELETE", "/reconstructions/x"),
    ]:
        answer = await api.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin")


async def test_our_own_page_may(api):
    answer = await api.post(
        "/reconstructions/x/cancel", headers={"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    )
    assert answer.status_code == 404


async def test_no_request_but_an_upload_may_have_a_large_body(api):
    answer = await api.post("/reconstructions/x/cancel", content=b"x" * 100_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_too_many_requests_at_once_hear_503(tmp_path, paths):
    """The answer is ours, with Retry-After, before the server's own limit is reached."""
    from service.middleware import Bounds
    from service.problems import Problem

    bounds = Bounds(None, max_requests=1, max_upload_bytes=1)  # type: ignore[arg-type]
    bounds.running = 1
    with pytest.raises(Problem) as refused:
        await bounds({"type": "http", "method": "GET", "path": "/", "headers": []}, None, None)  # type: ignore[arg-type]
    assert refused.value.status == 503 and "Retry-After" in refused.value.headers


# ---------------------------------------------------------------- the catalogue


def everything_raised() -> set[str]:
    """Codes that the service's source raises by name."""
    text = "".join(path.read_text("utf-8") for path in SERVICE.rglob("*.py"))
    return set(re.findall(r"Problem\(\s*\"([a-z_]+)\"", text))


def test_every_raised_code_has_a_status_and_none_is_left_over():
    """A code is public: one that nobody raises misleads, one without a status cannot be answered."""
    of_the_core = {"unsupported_media", "unreadable_media", "media_too_large", "media_too_small", "invalid_input"}
    assert everything_raised() <= set(CATALOGUE)
    assert set(CATALOGUE) <= everything_raised() | of_the_core


def family(root):
    return [root, *(deeper for child in root.__subclasses__() for deeper in family(child))]


@pytest.mark.parametrize("kind", family(ledger.LedgerError), ids=lambda kind: kind.__name__)
def test_every_refusal_of_the_ledger_has_a_public_answer(kind):
    """The map is total: only what a service never meets may be an internal error."""
    error = kind.__new__(kind)
    Exception.__init__(error, "x")
    error.job_id, error.state, error.wanted, error.key = "rec_x", "queued", "failed", "k"
    problem = from_exception(error)
    for_workers = (ledger.LeaseLost, ledger.UnsealedArtifact, ledger.StoredBytesDamaged)
    assert (problem.status >= 500) == (kind in (ledger.LedgerError, ledger.StorageUnavailable, *for_workers))


@pytest.mark.parametrize("kind", family(core.InputError), ids=lambda kind: kind.__name__)
def test_every_input_error_of_the_first_look_is_a_4xx_with_its_own_words(kind):
    problem = from_first_look(kind("The clip is made of cheese. Send another."))
    assert 400 <= problem.status < 500
    assert problem.detail == "The clip is made of cheese. Send another."


@pytest.mark.parametrize(
    "error",
    [ValueError("at /srv/secret"), MemoryError(), HTTPException(418), HTTPException(500), KeyError("k")],
    ids=repr,
)
def test_any_other_exception_is_answered_without_its_text(error):
    problem = from_exception(error)
    assert "secret" not in json.dumps(problem.document("/x"))
    assert problem.status in (400, 500)


def test_states_and_stages_are_those_of_the_ledger():
    """Said again in the schema so that the document lists them."""
    assert set(StateName.__args__) == {state.value for state in ledger.State} - {"deleted"}
    assert set(StageName.__args__) == set(SHARES)
    assert {field.name for field in dataclasses.fields(ledger.InputFacts)} == set(
        JobSchema.model_fields["input"].annotation.model_fields
    )


# ---------------------------------------------------------------- the OpenAPI document


def test_the_document_in_the_repository_is_that_of_the_routes():
    """`make openapi` was forgotten otherwise."""
    assert openapi.TARGET.read_text("utf-8") == openapi.document_text()


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_document_is_whole():
    """Version 3.1, no dangling reference, one id an operation, and no error without the problem schema."""
    document = json.loads(openapi.TARGET.read_text("utf-8"))
    assert document["openapi"].startswith("3.1")
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert len({op["operationId"] for op in operations}) == len(operations)
    for operation in operations:
        assert (operation["summary"] and operation["description"]) or operation["summary"]
        assert "500" in operation["responses"] and "503" in operation["responses"]
        for status, answer in operation["responses"].items():
            if status >= "400" and "content" in answer:
                assert set(answer["content"]) == {"application/problem+json"}, (operation["operationId"], status)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_document_promises_every_path_of_the_service_and_no_later_one():
    document = json.loads(openapi.TARGET.read_text("utf-8"))
    own = "/reconstructions/{job_id}"
    assert {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods} == {
        "POST /reconstructions", "GET /reconstructions", f"GET {own}", f"DELETE {own}", f"POST {own}/cancel",
        f"POST {own}/retry", f"GET {own}/events", f"GET {own}/artifacts", f"GET {own}/artifacts/{{name}}",
        f"HEAD {own}/artifacts/{{name}}", f"GET {own}/artifacts.zip", f"GET {own}/expressions", "GET /limits",
        "GET /metrics", "GET /health/live", "GET /health/ready", "OPTIONS /uploads", "POST /uploads",
        "POST /animations",
        "HEAD /uploads/{upload_id}", "PATCH /uploads/{upload_id}", "DELETE /uploads/{upload_id}",
        "GET /version", "GET /models", "GET /models/{name}", "GET /", "GET /docs",
        "GET /r/{job_id}",
    }  # fmt: skip


# ---------------------------------------------------------------- the page


VENDORED = {"three.js", "three.LICENSE.md"}


async def test_the_page_and_all_that_it_names_come_from_this_server(api):
    """No other host is asked, so it works without a network; and the policy would not let it ask."""
    for path in ("/", "/r/rec_x", "/docs"):
        answer = await api.get(path)
        assert answer.headers["content-type"].startswith("text/html")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        for asset in re.findall(r"(?:src|href)=\"(/web/[^\"]+)\"", answer.text):
            assert (await api.get(asset)).status_code == 200
    for file in FOLDER.iterdir():
        text = file.read_text("utf-8")
        if file.name in VENDORED:  # it names pages in its messages; the policy keeps it from asking them
            continue
        assert not re.search(r"(?:https?:)?//(?!www\.w3\.org)[a-z0-9-]+\.[a-z]{2,}", text), file.name
        for module in re.findall(r"from \"([^\"]+)\"", text):
            assert (await api.get(module)).headers["content-type"].startswith("text/javascript")


def test_the_page_never_makes_markup_from_text():
    """File names and messages are hostile; whatever becomes HTML from a string would run."""
    for file in FOLDER.glob("*.js"):
        text = file.read_text("utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), (
            file.name
        )
    for file in FOLDER.glob("*.html"):
        assert not re.search(r"<script>|<style|\son\w+=|\sstyle=|javascript:", file.read_text("utf-8")), file.name


def test_the_vendored_build_is_the_pinned_one_and_carries_its_licence():
    """`npm ci && npm run build` in web/ makes it; nobody edits it by hand, and its authors are named."""
    lock = json.loads((FOLDER.parent.parent / "web" / "package-lock.json").read_text())
    revision = lock["packages"]["node_modules/three"]["version"].split(".")[1]
    built = (FOLDER / "three.js").read_text("utf-8")
    assert f'"{revision}"' in built
    assert "SPDX-License-Identifier: MIT" in built[:200]
    assert "Permission is hereby granted" in (FOLDER / "three.LICENSE.md").read_text()


async def test_a_page_file_is_sent_once(api):
    answer = await api.get("/web/style.css", headers={"Accept-Encoding": "identity"})
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    again = {"Accept-Encoding": "identity", "If-None-Match": answer.headers["etag"]}
    assert (await api.get("/web/style.css", headers=again)).status_code == 304


async def test_a_page_file_travels_compressed_to_those_who_can_read_that(api):
    """The drawing library is four times smaller so; another ETag, for the bytes are others."""
    packed = await api.get("/web/three.js", headers={"Accept-Encoding": "br, gzip"})
    plain = await api.get("/web/three.js", headers={"Accept-Encoding": "identity"})
    assert packed.content == plain.content  # the client unpacks
    assert int(packed.headers["content-length"]) < 0.3 * int(plain.headers["content-length"])
    assert packed.headers["etag"] != plain.headers["etag"]
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("name", ["../app.py", "..%2fapp.py", "%2e%2e%2fsettings.py", "nothing.js", "index.html%00"])
async def test_only_the_page_s_own_files_are_served(api, name):
    assert (await api.get(f"/web/{name}")).status_code == 404


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "host,expected",
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_loopback_is_recognised(host, expected):
    assert is_loopback(host) is expected


def test_host_names_are_open_only_where_the_address_is():
    """On loopback the names of this machine; elsewhere what the operator says, or any."""
    assert ServiceSettings(host="127.0.0.1").host_names == {"localhost", "127.0.0.1", "[::1]"}
    assert ServiceSettings(host="127.0.0.1", allowed_hosts="Head.example").host_names >= {"head.example", "localhost"}
    assert ServiceSettings(host="0.0.0.0").host_names is None
    assert ServiceSettings(host="127.0.0.1", allowed_hosts="*").host_names is None


def test_staging_is_swept_of_what_nobody_touches(context_free_jobs):
    """Uploads that died with their process must not fill the disk; running ones must stay."""
    import os
    import time

    jobs = context_free_jobs
    old, new = jobs.new_staging(), jobs.new_staging()
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    assert jobs.clean_staging() == 1
    assert not old.exists() and new.exists()


@pytest.fixture
def context_free_jobs(context):
    return context.jobs
