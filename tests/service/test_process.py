"""The API as a real process with a real socket: what only uvicorn, signals and broken connections can show."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.service.files import MULTIPART, multipart, png
from tests.service.published import waiting
from tests.service.test_events import told
from tests.service.test_jobs import Step
from worker.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
START_S = 60.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mononphm_cli.main", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting of the machine."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MONONPHM_")}
    return {**clean, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'worker'}", "OMP_NUM_THREADS": "1", **more}


def until(condition, timeout_s: float = START_S):
    """What `condition` returns once it is true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def unfinished(http: httpx.Client) -> int:
    """Jobs that wait or run."""
    queue = http.get("/limits").json()["queue"]
    return int(queue["queued"] + queue["running"])


class Api:
    """A running `mononphm api`."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.data = folder / "data"
        self.log = folder / "api.log"
        arguments = command("api", "--port", "0", "--data-dir", str(self.data))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log, env=environment(**settings), cwd=folder)
        self.url = until(self._address)
        self.port = int(self.url.rsplit(":", 1)[1])
        until(self._answers)

    def _address(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(r"http://\S+", self.log.read_text())
        return found.group(0) if found else None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/live").is_success
        except httpx.TransportError:
            return False

    def staged(self) -> list[Path]:
        return list((self.data / "staging").iterdir())

    def raw(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=15)
        return connection

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One process for the tests that do not end it."""
    started = Api(
        tmp_path_factory.mktemp("api"),
        MONONPHM_MAX_UPLOAD_BYTES=str(8 * MIB), MONONPHM_UPLOAD_IDLE_S="1.5", MONONPHM_EVENT_POLL_S="0.05",
    )  # fmt: skip
    yield started
    started.process.kill()
    started.process.wait()


def head(length: int, *more: str) -> bytes:
    lines = ["POST /reconstructions HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {MULTIPART['Content-Type']}",
             f"Content-Length: {length}", *more]  # fmt: skip
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer_on(connection: socket.socket) -> tuple[int, bytes]:
    """Status and everything until the server closes or falls silent."""
    received = b""
    connection.settimeout(10)
    try:
        while b"\r\n\r\n" not in received or (b"application/problem+json" in received and not received.endswith(b"}")):
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
    except (TimeoutError, ConnectionResetError):
        pass
    return int(received.split(b" ", 2)[1]), received


def test_an_upload_that_breaks_off_leaves_nothing_behind(api):
    """Closed politely or reset, early or late: no staged byte, no job, and the server goes on."""
    jobs = httpx.get(f"{api.url}/reconstructions").json()["items"]
    body = multipart([("file", "a.png", png() + b"x" * 3 * MIB)])
    for sent, linger in [(200, False), (2 * MIB, False), (2 * MIB, True), (len(body) - 3, False)]:
        with api.raw() as connection:
            connection.sendall(head(len(body)) + body[:sent])
            if sent > MIB:
                until(api.staged, 10)
            if linger:  # close with a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        until(lambda: not api.staged(), 10)
    assert httpx.get(f"{api.url}/reconstructions").json()["items"] == jobs
    assert list((api.data / "inputs").iterdir()) == []


def test_an_upload_that_falls_silent_is_given_up(api):
    """Slots and staging are not held by clients that stopped talking."""
    body = multipart([("file", "a.png", png() + b"x" * MIB)])
    with api.raw() as connection:
        connection.sendall(head(len(body)) + body[: MIB // 2])
        status, received = answer_on(connection)
    assert status == 408
    assert b"upload_timeout" in received
    assert api.staged() == []


def test_a_refusal_can_be_read_by_a_client_that_is_still_sending(api):
    """A connection that is reset too early would show a network error instead of the reason."""
    body = multipart([("file", "a.png", png() + b"x" * 14 * MIB)])
    answer = httpx.post(f"{api.url}/reconstructions", content=body, headers=MULTIPART)
    assert (answer.status_code, answer.json()["code"]) == (413, "media_too_large")
    assert api.staged() == []


def test_a_client_that_asks_first_sends_nothing_in_vain(api):
    """`Expect: 100-continue` with a body over the limit: the refusal comes before a single byte of it."""
    with api.raw() as connection:
        connection.sendall(head(100 * MIB, "Expect: 100-continue"))
        status, received = answer_on(connection)
    assert status == 413
    assert not received.startswith(b"HTTP/1.1 100")


def test_headers_are_bounded(api):
    """A request that never gets to its end of headers must not eat memory."""
    with api.raw() as connection:
        try:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-A: " + b"y" * 300_000)
        except (ConnectionResetError, BrokenPipeError):
            return
        try:
            assert answer_on(connection)[0] in (400, 431)
        except IndexError:  # closed without an answer
            pass
    assert httpx.get(f"{api.url}/health/live").is_success


def test_memory_does_not_grow_with_the_upload(tmp_path):
    """The file is streamed to the disk: a large one costs no more memory than a small one."""
    api = Api(tmp_path, MONONPHM_FREE_SPACE_RESERVE_BYTES="0")
    try:
        process = psutil.Process(api.process.pid)
        httpx.post(f"{api.url}/reconstructions", files={"file": ("a.png", png())}).raise_for_status()
        before = process.memory_info().rss
        digest, size = hashlib.sha256(), 192 * MIB
        opening, closing = (
            multipart([("file", "a.png", b"")]).split(b"\r\n\r\n")[0] + b"\r\n\r\n",
            b"\r\n--b0undary--\r\n",
        )
        highest = before

        def pieces():
            nonlocal highest
            yield opening
            for start in range(0, size, MIB):
                piece = (png() if start == 0 else b"").ljust(MIB, b"\7")
                digest.update(piece)
                highest = max(highest, process.memory_info().rss)
                yield piece
            yield closing

        answer = httpx.post(f"{api.url}/reconstructions", content=pieces(), headers=MULTIPART, timeout=60)
        assert answer.status_code == 202
        assert answer.json()["input"]["sha256"] == digest.hexdigest()
        assert highest - before < 40 * MIB  # two batches, thread stacks and what the allocator keeps
    finally:
        api.process.kill()
        api.process.wait()


def test_events_arrive_while_the_work_goes_on_and_resume(api):
    """A worker in another process reports; a listener that lost its connection hears the rest, once."""
    book = Ledger(None, api.data)
    try:
        job = waiting(book)
        lease = book.claim("w", job.id)
        seen: list[dict] = []
        steps = iter(range(1, 20))

        def listen(count: int) -> None:
            headers = {"Last-Event-ID": str(seen[-1]["id"])} if seen else {}
            with httpx.stream(
                "GET", f"{api.url}/reconstructions/{job.id}/events", headers=headers, timeout=20
            ) as stream:
                text = ""
                for piece in stream.iter_text():
                    text += piece
                    complete, _, text = text.rpartition("\n\n")
                    seen.extend(told(complete))
                    if len(seen) >= count:
                        return
                    lease._reported_at = 0.0
                    lease.report(Step("stage1", next(steps), 20))

        listen(4)
        listen(8)
        lease.cancel_requested()
        assert [event["id"] for event in seen] == list(range(1, len(seen) + 1))
        percents = [event["percent"] for event in seen]
        assert percents == sorted(percents)
    finally:
        book.close()


def test_a_stop_is_quick_and_clean_even_with_listeners(tmp_path):
    """Streams never end by themselves; a deployment must not wait for them, nor cut an answer in half."""
    api = Api(tmp_path)
    book = Ledger(None, api.data)
    job = waiting(book)
    with httpx.stream("GET", f"{api.url}/reconstructions/{job.id}/events", timeout=20) as stream:
        pieces = stream.iter_text()
        next(pieces)
        api.process.send_signal(signal.SIGTERM)
        for _ in pieces:  # ends properly: no exception, and none for silence
            pass
    assert api.process.wait(60) == 0
    assert "Traceback" not in api.log.read_text()
    book.close()


def test_what_was_accepted_is_there_after_a_kill(tmp_path):
    """kill -9 right after the 202: the job, its input and its key survive."""
    api = Api(tmp_path)
    content = png(seed=5)
    request = {"files": {"file": ("a.png", content)}, "headers": {"Idempotency-Key": "k"}}
    job = httpx.post(f"{api.url}/reconstructions", **request).json()
    api.process.kill()
    api.process.wait()
    again = Api(tmp_path)
    try:
        assert httpx.get(f"{again.url}/reconstructions/{job['id']}").json()["state"] == "queued"
        assert (again.data / "inputs" / job["id"] / "input").read_bytes() == content
        assert httpx.post(f"{again.url}/reconstructions", **request).json()["id"] == job["id"]
    finally:
        assert again.stop() == 0


# ---------------------------------------------------------------- the command line


def run(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, env=environment(**more))


@pytest.mark.parametrize("name", ["api", "up"])
def test_a_taken_port_is_said_in_words(tmp_path, name):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(name, "--port", port, "--data-dir", str(tmp_path / "d"))
    assert done.returncode == 1
    assert port in done.stderr and "--port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["api", "up"])
def test_an_address_of_another_machine_is_refused_in_words(tmp_path, name):
    done = run(name, "--host", "192.0.2.1", "--port", "0", "--data-dir", str(tmp_path / "d"))
    assert done.returncode == 1
    assert "192.0.2.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_as_soon_as_others_can_reach_the_address_a_key_is_asked_for(tmp_path):
    """Also when the socket was bound by somebody else; a key from the command line opens, and its revocation closes."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port, log = listener.getsockname()[1], tmp_path / "api.log"
        arguments = command("api", "--fd", str(listener.fileno()), "--data-dir", str(tmp_path / "d"))
        with log.open("wb") as sink:
            process = subprocess.Popen(
                arguments, stdout=sink, stderr=sink, env=environment(), cwd=tmp_path, pass_fds=[listener.fileno()]
            )
        url = f"http://127.0.0.1:{port}/reconstructions"
        try:
            until(lambda: alive(f"http://127.0.0.1:{port}"))
            assert "mononphm keys create" in log.read_text(), "a server that nobody can use should say so"
            assert httpx.get(url).status_code == 401
            store = ("--data-dir", str(tmp_path / "d"))
            made = json.loads(run("keys", "create", "laptop", "--json", *store).stdout)
            bearer = {"Authorization": f"Bearer {made['key']}"}
            assert httpx.get(url, headers=bearer).status_code == 200
            assert made["key"].partition(".")[2] not in run("keys", "list", "--json", *store).stdout
            assert run("keys", "revoke", made["id"], *store).returncode == 0
            assert httpx.get(url, headers=bearer).status_code == 401
        finally:
            process.kill()
            process.wait()


def alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live").is_success
    except httpx.TransportError:
        return False


def test_one_command_brings_everything_up_keeps_it_up_and_takes_it_down(tmp_path):
    """API and worker under one parent: a job runs, killed children come back, and nothing outlives the parent."""
    log = tmp_path / "up.log"
    settings = {"MONONPHM_PIPELINE": "tiny_pipeline:run", "MONONPHM_DEVICE": "none"}
    with log.open("wb") as sink:
        up = subprocess.Popen(
            command("up", "--port", "0", "--data-dir", str(tmp_path / "d")), stdout=sink, stderr=sink,
            env=environment(**settings),
        )  # fmt: skip
    family: list[psutil.Process] = []
    try:
        url = until(lambda: re.search(r"http://\S+", log.read_text())).group(0)
        until(lambda: "is ready" in log.read_text())
        with_child = psutil.Process(up.pid).children(recursive=True)
        second = run("up", "--port", "0", "--data-dir", str(tmp_path / "d"))
        assert second.returncode == 1 and "another `mononphm up`" in second.stderr

        book = Ledger(None, tmp_path / "d")
        job = waiting(book, b"{}")
        book.close()
        until(lambda: httpx.get(f"{url}/reconstructions/{job.id}").json()["state"] == "succeeded")
        result = httpx.get(f"{url}/reconstructions/{job.id}/artifacts/result.bin")
        assert f'"{hashlib.sha256(result.content).hexdigest()}"' == result.headers["etag"]

        def process(word: str) -> psutil.Process | None:
            alive = (p for p in psutil.Process(up.pid).children() if p.status() != psutil.STATUS_ZOMBIE)
            return next((p for p in alive if word in p.cmdline()), None)

        for word in ("api", "worker"):
            victim = until(lambda word=word: process(word))
            victim.kill()
            until(lambda word=word, victim=victim: (now := process(word)) and now.pid != victim.pid)
        assert until(lambda: healthy(url))
        family = psutil.Process(up.pid).children(recursive=True)
        assert len(with_child) >= 2
    finally:
        up.send_signal(signal.SIGINT)
        code = up.wait(40)
    assert code == 0, log.read_text()
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert "Traceback" not in log.read_text()


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").is_success
    except httpx.TransportError:
        return False


def test_what_up_started_does_not_outlive_a_killed_parent(tmp_path):
    """kill -9 of the launcher, as an out-of-memory killer does it: no orphan keeps the port or the device."""
    log = tmp_path / "up.log"
    settings = {"MONONPHM_PIPELINE": "tiny_pipeline:run", "MONONPHM_DEVICE": "none"}
    with log.open("wb") as sink:
        up = subprocess.Popen(
            command("up", "--port", "0", "--data-dir", str(tmp_path / "d")), stdout=sink, stderr=sink,
            env=environment(**settings),
        )  # fmt: skip
    until(lambda: "is ready" in log.read_text())
    family = [p for p in psutil.Process(up.pid).children(recursive=True) if "redis" not in p.name()]
    redis = [p for p in psutil.Process(up.pid).children() if "redis" in p.name()]
    up.kill()
    up.wait()
    try:
        until(lambda: not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], 30)
    finally:
        for process in [*family, *redis]:
            if process.is_running():
                process.kill()


def test_the_page_can_be_read_before_any_job(api):
    """The first thing that a newcomer opens."""
    assert "Drop a video" in httpx.get(api.url).text
    assert json.loads(httpx.get(f"{api.url}/openapi.json").text)["openapi"].startswith("3.1")
