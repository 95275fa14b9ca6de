"""Webhooks: told once the job has ended, signed, tried again, and never sent to a place that is not public."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import sqlalchemy as sa

from service.addresses import NotPublic, is_public, pinned_address, target_of
from service.webhooks import Sender
from tests.service.files import MULTIPART, multipart, png
from tests.service.inward_urls import INWARD
from tests.service.published import waiting
from worker.ledger import Outbox, failure_of, schema
from worker.ledger.outbox import WAITS_S

pytestmark = pytest.mark.anyio


class Receiver:
    """A real server that remembers, and answers as it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], str]] = []
        self.status = 204
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                outer.seen.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(outer.status)
                if outer.status in (301, 302, 307, 308):
                    self.send_header("Location", f"http://127.0.0.1:{outer.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver():
    started = Receiver()
    yield started
    started.close()


@pytest.fixture
def outbox(book) -> Outbox:
    return Outbox(book)


@pytest.fixture
async def sender(outbox):
    """One that may reach this machine: the receiver of the tests lives here."""
    made = Sender(outbox, allow_private=True)
    yield made
    await made.close()


def ended(book, url: str | None, owner: str = "", how: str = "failed"):
    """A job with this webhook that has come to its end."""
    job = waiting(book, owner=owner, labels=["l"], **({"webhook_url": url} if url else {}))
    lease = book.claim("w", job.id)
    if how == "failed":
        lease.fail(failure_of(MemoryError(), "stage1"))
    elif how == "cancelled":
        book.request_cancel(job.id)
        lease.cancelled()
    else:
        lease.new_workspace()
        lease.publish({"artifacts": []})
    return job


def due_now(book) -> None:
    with book.writing() as tx:
        past = book.now(tx).replace(year=2020)
        tx.execute(schema.outbox.update().where(schema.outbox.c.next_at.is_not(None)).values(next_at=past))


@pytest.mark.parametrize("how", ["succeeded", "failed", "cancelled"])
async def test_the_end_of_a_job_is_told_once_and_signed(book, outbox, sender, receiver, how):
    """Checked as a receiver would: HMAC-SHA256 of id.timestamp.body under the owner's secret."""
    job = ended(book, f"http://127.0.0.1:{receiver.port}/hook?a=1", "me", how)
    assert await sender.send_due() == 1
    assert await sender.send_due() == 0
    ((headers, body),) = receiver.seen
    document = json.loads(body)
    assert (document["type"], document["data"]["id"]) == (f"reconstruction.{how}", job.id)
    assert (document["data"]["labels"], (document["data"]["error"] or {}).get("code")) == (
        ["l"], "out_of_memory" if how == "failed" else None
    )  # fmt: skip
    (secret,) = outbox.secrets_of("me")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
    mac = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    assert headers["webhook-signature"] == "v1," + base64.b64encode(mac.digest()).decode()
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert outbox.backlog().waiting == 0


async def test_a_job_without_a_webhook_tells_nobody(book, outbox):
    ended(book, None)
    assert outbox.take() == []


async def test_a_deleted_job_tells_nobody_any_more(book, outbox):
    """Deletion removes what was still to be said about a person."""
    job = ended(book, "https://hooks.example.com/x")
    book.delete(job.id)
    assert outbox.take() == []


async def test_the_message_and_the_end_of_the_job_are_one_transaction(book, outbox, monkeypatch):
    """Were they two, a crash between them would lose the message, or tell of an end that was undone."""
    from worker.ledger import ledger as module

    def dies(*_):
        raise KeyboardInterrupt

    job = waiting(book, webhook_url="https://hooks.example.com/x")
    lease = book.claim("w", job.id)
    monkeypatch.setattr(module.outbox, "announce", dies)
    with pytest.raises(KeyboardInterrupt):
        lease.fail(failure_of(MemoryError(), "stage1"))
    monkeypatch.undo()
    assert book.get(job.id).state.value == "running" and outbox.take() == []
    lease.fail(failure_of(MemoryError(), "stage1"))
    assert [message.job_id for message in outbox.take()] == [job.id]


async def test_a_receiver_that_is_down_is_asked_again_under_the_same_id(book, outbox, sender, receiver):
    """Same id and body, new signature; each wait is longer; success ends it."""
    receiver.status = 500
    ended(book, f"http://127.0.0.1:{receiver.port}/")
    for _ in range(3):
        await sender.send_due()
        due_now(book)
    receiver.status = 200
    await sender.send_due()
    due_now(book)
    await sender.send_due()
    assert len(receiver.seen) == 4
    assert len({headers["webhook-id"] for headers, _ in receiver.seen}) == 1
    assert len({body for _, body in receiver.seen}) == 1
    assert outbox.backlog().waiting == 0


async def test_waits_grow_as_promised_and_end(book, outbox):
    """Closed form: 5 s, 5 min, 30 min … a day, each within a tenth; after the tenth attempt it is given up."""
    ended(book, "https://hooks.example.com/x")
    for number, wait_s in enumerate(WAITS_S, 1):
        (message,) = outbox.take()
        assert message.attempts == number
        assert not outbox.failed(message, "down")
        with book.reading() as tx:
            next_at = tx.execute(sa.select(schema.outbox.c.next_at)).scalar_one()
            waited = (next_at - book.now(tx)).total_seconds()
        assert 0.89 * wait_s - 1 <= waited <= 1.11 * wait_s
        due_now(book)
    (message,) = outbox.take()
    assert outbox.failed(message, "down")
    due_now(book)
    assert outbox.take() == [] and outbox.backlog().given_up == 1


async def test_a_receiver_that_says_gone_is_left_alone(book, outbox, sender, receiver):
    receiver.status = 410
    ended(book, f"http://127.0.0.1:{receiver.port}/")
    await sender.send_due()
    assert outbox.backlog().given_up == 1


async def test_the_job_says_whether_its_receiver_was_told(api, book, sender, receiver):
    """An operator asks "did you get it?"; the answer is in the job: nothing yet, waiting and why, delivered."""
    before = waiting(book, webhook_url=f"http://127.0.0.1:{receiver.port}/")
    assert "webhook" not in (await api.get(f"/reconstructions/{before.id}")).json()
    book.request_cancel(before.id)
    receiver.status = 500
    await sender.send_due()
    told = (await api.get(f"/reconstructions/{before.id}")).json()["webhook"]
    assert (told["outcome"], told["attempts"], told["last_error"]) == ("waiting", 1, "the receiver answered 500")
    assert told["message_id"] == receiver.seen[0][0]["webhook-id"]
    assert told["next_attempt_at"] is not None
    receiver.status = 200
    due_now(book)
    await sender.send_due()
    told = (await api.get("/reconstructions")).json()["items"][0]["webhook"]
    assert (told["outcome"], told["attempts"], told["next_attempt_at"]) == ("delivered", 2, None)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(book, outbox, sender, receiver, status):
    """The way round every check of an address."""
    receiver.status = status
    ended(book, f"http://127.0.0.1:{receiver.port}/first")
    await sender.send_due()
    assert len(receiver.seen) == 1 and outbox.backlog().waiting == 1


async def test_a_message_taken_by_a_sender_that_died_is_taken_again(book, outbox):
    """And by nobody else before: two senders never have it at once."""
    ended(book, "https://hooks.example.com/x")
    assert len(outbox.take()) == 1
    assert outbox.take() == []
    due_now(book)
    assert len(outbox.take()) == 1


async def test_a_receiver_that_never_answers_holds_nothing(book, outbox, monkeypatch):
    """One deadline for the whole delivery."""
    from service import webhooks

    monkeypatch.setattr(webhooks, "WHOLE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = Sender(outbox, allow_private=True)
        ended(book, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        await asyncio.wait_for(sender.send_due(), 10)
        await sender.close()
    assert outbox.backlog().waiting == 1


async def test_a_rotated_secret_signs_beside_its_predecessor_for_a_day(outbox, book):
    first = outbox.secrets_of("me")[0]
    second = outbox.rotate_secret("me")
    assert list(outbox.secrets_of("me")) == [second, first]
    with book.writing() as tx:
        past = book.now(tx).replace(year=2020)
        tx.execute(schema.webhook_secrets.update().values(changed_at=past))
    assert list(outbox.secrets_of("me")) == [second]
    assert outbox.secrets_of("somebody else") != [second]


# ---------------------------------------------------------------- where it may not be sent


def test_there_are_at_least_a_hundred_shapes():
    assert len({url for urls in INWARD.values() for url in urls}) >= 100


@pytest.mark.parametrize("group", INWARD)
async def test_a_url_that_leads_inside_reaches_nothing(book, outbox, group):
    """Refused by its shape, or by the addresses that its name has; no connection is ever opened."""

    async def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"a connection was opened to {request.url}")

    sender = Sender(outbox, transport=httpx.MockTransport(never))
    job = ended(book, "https://hooks.example.com/")
    for number, url in enumerate(INWARD[group], 1):
        with book.writing() as tx:
            tx.execute(schema.outbox.update().values(url=url, outcome=None, next_at=job.created_at))
        assert await sender.send_due() == 1
        with book.reading() as tx:
            outcome, attempts = tx.execute(sa.select(schema.outbox.c.outcome, schema.outbox.c.attempts)).one()
        assert (outcome, attempts) == ("given_up", number), (url, "refused for good, not tried again for two days")
    await sender.close()


@pytest.mark.parametrize("group", INWARD)
async def test_and_it_is_refused_when_it_is_submitted(api, book, group):
    """The user hears of it at once, by the name of the option."""
    for url in INWARD[group]:
        options = json.dumps({"webhook_url": url}).encode()
        body = multipart([("file", "a.png", png()), ("options", None, options)])
        answer = await api.post("/reconstructions", content=body, headers=MULTIPART)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_options"), url
        assert "webhook_url" in answer.json()["errors"][0]["where"]
    assert book.list().jobs == ()


@pytest.mark.parametrize(
    "answers",
    [["10.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::1"], ["169.254.169.254"], ["fe80::1%eth0"], ["nonsense"]],
)
async def test_a_public_name_with_a_private_address_is_refused(answers):
    """One private address among many is enough: a client library may choose that one."""

    async def resolve(host: str, port: int) -> list[str]:
        return answers

    with pytest.raises(NotPublic):
        await pinned_address(target_of("https://hooks.example.com/"), resolve)


async def test_the_name_is_asked_once_and_the_connection_goes_to_that_answer(book, outbox):
    """DNS rebinding: nobody asks for the second, private answer. The certificate is still the name's."""
    asked, opened = [], []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    async def answer(request: httpx.Request) -> httpx.Response:
        opened.append(
            (request.url.host, request.headers["host"], request.extensions["sni_hostname"], request.url.raw_path)
        )
        return httpx.Response(200)

    sender = Sender(outbox, resolve=resolve, transport=httpx.MockTransport(answer))
    ended(book, "https://Hooks.Example.com:8443/a%2Fb?q=1")
    await sender.send_due()
    await sender.close()
    assert asked == ["hooks.example.com"]
    assert opened == [("93.184.216.34", "hooks.example.com:8443", "hooks.example.com", b"/a%2Fb?q=1")]


@pytest.mark.parametrize(
    "url", ["https://hooks.example.com/x", "http://example.org", "https://93.184.216.34/", "https://[2606:2800:220::1]:8443/",
            "https://a.b-c.example.co.uk/?token=1"],
)  # fmt: skip
def test_an_ordinary_url_is_taken(url):
    """The list above must not be refused by refusing everything."""
    assert target_of(url).port in (80, 443, 8443)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:2800:220::1", "2a00::1"])
def test_public_addresses_are_public(address):
    assert is_public(address)
