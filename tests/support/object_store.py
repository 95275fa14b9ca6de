"""A real S3-compatible server for tests (moto's), and between it and us, where wanted, a network that misbehaves."""

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

KEY_ID, SECRET = "tests", "not-a-secret-at-all"


@dataclass
class ObjectStore:
    """The server's address, and what a test asks of it behind our back."""

    endpoint: str
    _numbers: Any = field(default_factory=count)

    @classmethod
    @contextmanager
    def started(cls) -> Iterator["ObjectStore"]:
        """The server as a process of its own, on a free port of this machine."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            _until_open(port)
            yield cls(f"http://127.0.0.1:{port}")
        finally:
            process.kill()
            process.wait()

    def bucket(self, name: str, **more: Any) -> Any:
        """Our client of a bucket, under the prefix that `environment` names; impatient, for tests."""
        from worker.ledger.bucket import Bucket, Place

        usual = Place(
            bucket=name, prefix="heads/", endpoint=self.endpoint, region="us-east-1", access_key_id=KEY_ID,
            secret_access_key=SECRET, addressing="path", timeout_s=20.0, patience_s=30.0, part_bytes=5 << 20,
        )  # fmt: skip
        return Bucket(replace(usual, **more))

    def new_bucket(self) -> str:
        """`s3://…` of a fresh bucket."""
        name = f"bucket-{os.getpid()}-{next(self._numbers)}"
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}/heads"

    def environment(self, url: str, **more: object) -> dict[str, str]:
        """What an operator sets; `more` by its short name (`timeout_s=1`)."""
        wanted = {"url": url, "endpoint": self.endpoint, "access_key_id": KEY_ID, "secret_access_key": SECRET, **more}
        return {f"MONONPHM_STORAGE_{name.upper()}": str(value) for name, value in wanted.items()}

    def client(self) -> Any:
        """A client that knows nothing of ours: the oracle."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
        )  # fmt: skip

    def keys(self, url: str) -> list[str]:
        """Every object of a bucket."""
        found = self.client().list_objects_v2(Bucket=url.split("/")[2])
        return sorted(item["Key"] for item in found.get("Contents", []))

    def unfinished(self, url: str) -> list[str]:
        """Keys of the multipart uploads of a bucket that were not completed."""
        found = self.client().list_multipart_uploads(Bucket=url.split("/")[2])
        return sorted(item["Key"] for item in found.get("Uploads", []))


def _until_open(port: int, within_s: float = 120.0) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


FAULTS = ("error", "hang", "cut_request", "cut_answer", "lost_answer", "slow_answer", "damaged_request")
"""500 or 503 instead of an answer; no answer; the connection ends half-way there, or half-way back; the request is done
and its answer lost; a trickle; a flipped bit of a file on its way there (this server checks no signature: we do)."""


class Weather:
    """A proxy in front of a server: each request meets a fault with probability `badness`, by a seeded generator."""

    def __init__(self, endpoint: str, faults: tuple[str, ...] = FAULTS, badness: float = 0.3, seed: int = 0) -> None:
        host, port = endpoint.removeprefix("http://").split(":")
        self._server = (host, int(port))
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.faults, self.badness = faults, badness
        self.met: Counter[str] = Counter()
        self.hang_s = 3.0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.endpoint = "http://{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(30)
            request = _message(client)
            if request is None:
                return
            with self._lock:
                fault = self._random.choice(self.faults) if self._random.random() < self.badness else ""
                spot = self._random.random()
                self.met[fault or "none"] += 1
            self._answer(client, request, fault, spot)

    def _answer(self, client: socket.socket, request: bytes, fault: str, spot: float) -> None:
        body_at = request.index(b"\r\n\r\n") + 4
        if fault == "error":
            client.sendall(ERRORS[int(spot * len(ERRORS))])
        elif fault == "hang":
            time.sleep(self.hang_s)
        elif fault == "cut_request":
            self._ask(request[: int(spot * len(request))], wait=False)
        else:
            if fault == "damaged_request" and request.startswith(b"PUT") and len(request) > body_at:
                at = body_at + int(spot * (len(request) - body_at))
                request = request[:at] + bytes([request[at] ^ 1]) + request[at + 1 :]
            answer = self._ask(request)
            if fault == "cut_answer":
                client.sendall(answer[: int(spot * len(answer))])
            elif fault == "slow_answer":
                for at in range(min(len(answer), 40)):
                    client.sendall(answer[at : at + 1])
                    time.sleep(self.hang_s / 40)
            elif fault != "lost_answer":
                client.sendall(answer)

    def _ask(self, request: bytes, wait: bool = True) -> bytes:
        """What the server answers, as a message that ends with its connection."""
        with socket.create_connection(self._server, timeout=30) as server:
            server.sendall(request)
            if not wait:
                return b""
            return _message(server, is_head=request.startswith(b"HEAD")) or b""


ERRORS = tuple(
    b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    % (status, len(body), body)
    for status, body in (
        (b"500 Internal Server Error", b"<Error><Code>InternalError</Code></Error>"),
        (b"503 Slow Down", b"<Error><Code>SlowDown</Code></Error>"),
        (b"502 Bad Gateway", b"<html>a proxy in between says something in HTML</html>"),
    )
)


def _message(connection: socket.socket, is_head: bool = False) -> bytes | None:
    """One HTTP message with its body, by Content-Length or up to the end; `Expect: 100-continue` is granted."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, _ = data.partition(b"\r\n\r\n")
    names = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if names.get(b"expect", b"").lower() == b"100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = data.replace(b"\r\nExpect: 100-continue", b"", 1)
        head, _, _ = data.partition(b"\r\n\r\n")
    if is_head:
        return data
    length = int(names.get(b"content-length", b"0"))
    pieces, have = [data], len(data) - len(head) - 4
    while have < length:
        piece = connection.recv(1 << 20)
        if not piece:
            break
        pieces.append(piece)
        have += len(piece)
    return b"".join(pieces)
