"""API keys: nobody in without one, nobody sees another's jobs, and no secret is kept."""

import base64
import hmac
import inspect
import re
from datetime import timedelta

import httpx
import pytest
import sqlalchemy as sa

from service.access import COOKIE, is_public, presented, scope_of
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.files import MULTIPART, multipart, png
from tests.service.published import ordinary_files, published_for
from worker.ledger import Keys, schema
from worker.ledger.keys import digest_of

pytestmark = pytest.mark.anyio

JOB = "/reconstructions/{job_id}"


@pytest.fixture
def settings(settings: ServiceSettings) -> ServiceSettings:
    """The same server, asking for keys."""
    return settings.model_copy(update={"require_keys": True})


@pytest.fixture
def keys(context) -> Keys:
    return context.keys


@pytest.fixture
def bearer(keys):
    """Make a key and the header that shows it."""
    return lambda name="k", *scopes, **more: {
        "Authorization": f"Bearer {keys.create(name, scopes or ('read', 'write'), **more)[1]}"
    }


def operations() -> list[tuple[str, str]]:
    document = create_app().openapi()
    return [(method.upper(), path) for path, found in document["paths"].items() for method in found]


def filled(path: str, job_id: str = "rec_x") -> str:
    return re.sub(r"\{\w+\}", "x", path.replace("{job_id}", job_id))


async def send(api: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    """A request that would be valid, but for who sends it."""
    if (method, path) == ("POST", "/reconstructions"):
        return await api.post(path, content=multipart([("file", "a.png", png())]), headers={**MULTIPART, **headers})
    return await api.request(method, path, headers=headers)


@pytest.mark.parametrize(("method", "path"), operations())
async def test_no_operation_answers_without_a_key_but_those_of_the_load_balancer(api, method, path):
    """The gate stands before all routes: one that forgets about keys is closed. The list of open ones is short."""
    answer = await api.request(method, filled(path))
    if is_public(method, filled(path)):
        assert answer.status_code != 401
    else:
        assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer")
    assert (await api.get("/nothing")).status_code == 401, "not even which paths exist"


@pytest.mark.parametrize(("method", "path"), [item for item in operations() if item[1].startswith(JOB)])
async def test_the_job_of_another_owner_is_as_good_as_none(api, book, bearer, method, path):
    """Every operation on a job, from the document: 404, the same words as for a job that never was; nothing changes."""
    mine, theirs = bearer("mine", owner="me"), bearer("theirs", owner="them")
    job = published_for(book, "them", ordinary_files())
    name = "manifest.json"
    for headers, expected in ((mine, 404), (theirs, None)):
        answer = await api.request(method, filled(path.replace("{name}", name), job.id), headers=headers)
        if expected:
            never = await api.request(method, filled(path.replace("{name}", name), "rec_never"), headers=headers)
            assert (answer.status_code, never.status_code) == (404, 404)
            assert answer.text.replace(job.id, "") == never.text.replace("rec_never", "")
            assert book.get(job.id, "them") == job
        else:
            assert answer.status_code != 404, "its owner finds it, so the 404 above was about the owner"


async def test_jobs_are_listed_and_counted_for_their_owner_alone(api, bearer):
    """Two owners and a second key of the first."""
    a, b = bearer("a", owner="a"), bearer("b", owner="b")
    a_too = bearer("a2", "read", owner="a")
    opened = (await send(api, "POST", "/reconstructions", a)).json()["id"]
    for headers, expected in ((a, [opened]), (a_too, [opened]), (b, [])):
        listed = (await api.get("/reconstructions", headers=headers)).json()["items"]
        assert [job["id"] for job in listed] == expected


async def test_an_idempotency_key_of_another_owner_finds_nothing(api, bearer):
    """Otherwise a guessed key would hand out somebody's job."""
    replies = [
        await send(api, "POST", "/reconstructions", {**bearer(name, owner=name), "Idempotency-Key": "same"})
        for name in ("a", "b")
    ]
    assert [reply.status_code for reply in replies] == [202, 202]
    assert replies[0].json()["id"] != replies[1].json()["id"]


@pytest.mark.parametrize(
    ("scope", "method", "path", "expected"),
    [
        ("read", "GET", "/reconstructions", 200), ("read", "POST", "/reconstructions", 403),
        ("read", "DELETE", "/reconstructions/rec_x", 403), ("write", "GET", "/reconstructions", 403),
        ("write", "DELETE", "/reconstructions/rec_x", 404), ("admin", "GET", "/reconstructions", 403),
    ],
)  # fmt: skip
async def test_a_key_does_what_its_scopes_say(api, bearer, scope, method, path, expected):
    answer = await send(api, method, path, bearer("k", scope))
    assert answer.status_code == expected


async def test_a_revoked_or_expired_key_ends_at_once(api, keys, bearer):
    """Nothing is cached: the next request after the revocation is refused."""
    key, text = keys.create("k")
    headers = {"Authorization": f"Bearer {text}"}
    assert (await api.get("/limits", headers=headers)).status_code == 200
    keys.revoke(key.id)
    answer = await api.get("/limits", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "key_invalid")
    late = bearer("late", lifetime=timedelta(microseconds=1))
    assert (await api.get("/limits", headers=late)).status_code == 401


async def test_a_browser_may_send_the_key_as_a_password(api, keys):
    """The page's own requests, pictures and streams carry it without a script that knows it."""
    _, text = keys.create("k")
    basic = base64.b64encode(f"anybody:{text}".encode()).decode()
    assert (await api.get("/limits", headers={"Authorization": f"Basic {basic}"})).status_code == 200


async def test_the_page_sends_the_key_as_a_cookie_and_asks_for_it_by_itself(api, keys):
    """Pictures and streams carry a cookie; a script's refused request must not open the browser's own password box."""
    _, text = keys.create("k", ("read",))
    with_cookie = {"Cookie": f"{COOKIE}={text}"}
    assert (await api.get("/limits", headers=with_cookie)).status_code == 200
    assert (await api.post("/uploads", headers=with_cookie)).json()["code"] == "scope_missing"
    foreign = {**with_cookie, "Origin": "http://elsewhere.example"}
    assert (await api.post("/uploads", headers=foreign)).json()["code"] == "cross_origin"
    refused = await api.get("/limits", headers={"Sec-Fetch-Dest": "empty"})
    assert (refused.status_code, "Basic" in refused.headers["www-authenticate"]) == (401, False)
    assert "Basic" in (await api.get("/limits")).headers["www-authenticate"]


async def test_the_empty_page_is_open_and_says_nothing_about_anybody(api, book):
    """A shared link must be able to bring its key: the same bytes for a job that exists and for one that never was."""
    job = published_for(book, "me", ordinary_files())
    here, nowhere = await api.get(f"/r/{job.id}"), await api.get("/r/rec_x")
    assert here.status_code == nowhere.status_code == 200
    assert here.content == nowhere.content
    assert (await api.get(f"/reconstructions/{job.id}")).status_code == 401
    assert not any(is_public("GET", path) for path in ("/r/", "/r/x/y", "/web/", "/docs", "/reconstructions", "//"))
    assert not is_public("POST", "/")


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer  x y", "Basic !!!", "Basic eA==", "Digest x", "bearer", "Bearer " + "x" * 600,
     "Basic " + base64.b64encode("ü:ü".encode()).decode()],
)  # fmt: skip
async def test_a_header_that_is_no_key_is_no_key(api, header):
    assert presented(header) is None
    answer = await api.get("/limits", headers={"Authorization": header.encode()})
    assert (answer.status_code, answer.json()["code"]) == (401, "key_missing")


@pytest.mark.parametrize("text", ["x", ".", "key_x.", ".x", "key_x.y", "a.b.c", "'; drop table api_keys;--.x", "\0.\0"])
async def test_a_text_that_is_no_key_opens_nothing(keys, text):
    assert keys.find(text) is None


async def test_a_key_with_one_letter_changed_opens_nothing(keys):
    """Id and secret both decide; the secret of another key does not open either."""
    (one, first), (_, second) = keys.create("one"), keys.create("two")
    secret = first.partition(".")[2]
    wrong = secret[:-2] + ("AA" if secret[-2:] != "AA" else "BB")
    assert keys.find(f"{one.id}.{wrong}") is None
    assert keys.find(f"{one.id}.{second.partition('.')[2]}") is None
    assert keys.find(first) is not None


async def test_no_secret_is_in_the_database(book, keys):
    """Whoever reads the file, a backup or its write-ahead log must not be able to ask as anybody."""
    secrets = [keys.create(f"k{n}")[1].partition(".")[2] for n in range(3)]
    with book.reading() as tx:
        rows = [str(row) for row in tx.execute(sa.select(schema.api_keys))]
    files = [path.read_bytes() for path in book.storage.data_dir.glob("ledger.sqlite3*")]
    for secret in secrets:
        assert not any(secret in row for row in rows)
        assert not any(secret.encode() in data for data in files)
        assert any(digest_of(secret) in row for row in rows)
        assert len(secret) >= 43, "256 bits"


async def test_digests_are_compared_in_constant_time(keys, monkeypatch):
    """The one comparison goes through hmac.compare_digest, for a key that there is not as well; no `==` beside it."""
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    _, text = keys.create("k")
    assert keys.find(text) is not None and keys.find("key_none.secret") is None
    assert [len(a) == len(b) == 64 for a, b in compared] == [True, True]
    assert "digest ==" not in inspect.getsource(Keys.find)


async def test_on_loopback_nobody_is_asked(migrated, tmp_path, paths):
    """The default of one machine and one user stays as simple as it was."""
    assert not ServiceSettings(host="127.0.0.1").keys_required
    assert ServiceSettings(host="0.0.0.0").keys_required
    assert ServiceSettings(host="127.0.0.1", require_keys=True).keys_required
    assert not ServiceSettings(host="0.0.0.0", allow_remote_without_keys=True).keys_required


def test_what_changes_nothing_needs_read_and_everything_else_write():
    assert {scope_of(method, "/reconstructions") for method in ("GET", "HEAD", "OPTIONS")} == {"read"}
    assert {scope_of(method, "/x") for method in ("POST", "PATCH", "PUT", "DELETE", "ODD")} == {"write"}
    assert scope_of("GET", "/metrics") == "admin"


async def test_an_upload_of_another_owner_is_as_good_as_none(api, bearer):
    """Neither looked at, continued, ended nor submitted."""
    tus = {"Tus-Resumable": "1.0.0"}
    mine, theirs = bearer("mine", owner="me"), bearer("theirs", owner="them")
    opened = await api.post("/uploads", headers={**tus, "Upload-Length": "3", **theirs})
    path = opened.headers["location"]
    stream = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    for method, more in (("HEAD", {}), ("PATCH", stream), ("DELETE", {})):
        answer = await api.request(method, path, headers={**tus, **more, **mine}, content=b"abc" if more else b"")
        assert answer.status_code == 404, method
    assert (await api.post("/reconstructions", json={"upload_id": path[9:]}, headers=mine)).status_code == 404
    assert (await api.head(path, headers={**tus, **theirs})).headers["upload-offset"] == "0"
