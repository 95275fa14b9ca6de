"""Users that never give up, and a list outside the system of what they were promised: fsynced before anything else."""

import base64
import hashlib
import json
import os
import random
import struct
import threading
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

PATIENCE_S = 1800.0
"""A server that is killed faster than it starts answers nobody for minutes; after the storm it must."""


@dataclass(frozen=True)
class Promise:
    """A 202 that a user has seen."""

    job_id: str
    sha256: str
    key: str
    at: float


def unique_png(chance: random.Random) -> bytes:
    """A valid small picture that no other is like."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + chance.randbytes(80) for _ in range(80))
    header = struct.pack(">IIBBBBB", 80, 80, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Users:
    """Some threads that submit, whatever happens to the server, until they are told to stop."""

    def __init__(self, url: str, ledger_file: Path, count: int, pause_s: float, seed: int) -> None:
        self.promises: list[Promise] = []
        self.surprises: list[str] = []
        """Answers that no client should ever get."""
        self._url, self._pause_s = url, pause_s
        self._list = ledger_file.open("ab", buffering=0)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(random.Random(seed + n),)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No new wishes; those that were begun are brought to their 202."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._list.close()

    def _run(self, chance: random.Random) -> None:
        with httpx.Client(base_url=self._url, timeout=20.0) as http:
            while not self._stop.is_set():
                content, key = unique_png(chance), f"{chance.getrandbits(96):x}"
                job_id = self._insist(http, content, key, resumable=chance.random() < 0.3)
                if job_id is not None:
                    self._note(Promise(job_id, hashlib.sha256(content).hexdigest(), key, time.time()))
                self._stop.wait(self._pause_s)

    def _insist(self, http: httpx.Client, content: bytes, key: str, resumable: bool) -> str | None:
        """Submit under one Idempotency-Key until a 202 comes, however often the server dies in between."""
        deadline = time.monotonic() + PATIENCE_S
        upload: str | None = None
        while time.monotonic() < deadline:
            try:
                if resumable:
                    upload = self._sent(http, content, upload)
                    body = {"upload_id": upload.rsplit("/", 1)[1]}
                    answer = http.post("/reconstructions", json=body, headers={"Idempotency-Key": key})
                    if answer.status_code in (404, 410):
                        upload = None
                        continue
                else:
                    files = {"file": ("a.png", content, "image/png")}
                    answer = http.post("/reconstructions", files=files, headers={"Idempotency-Key": key})
            except (httpx.TransportError, _NotYet):
                time.sleep(0.1)
                continue
            if answer.status_code == 202:
                return str(answer.json()["id"])
            if answer.status_code not in (409, 423, 503):
                self.surprises.append(f"{answer.status_code} {answer.text[:300]}")
                return None
            time.sleep(0.2)
        self.surprises.append(f"no 202 within {PATIENCE_S:g} s")
        return None

    def _sent(self, http: httpx.Client, content: bytes, upload: str | None) -> str:
        """All bytes by tus, in two pieces, going on from wherever the server says it is."""
        tus = {"Tus-Resumable": "1.0.0"}
        if upload is None:
            begun = http.post("/uploads", headers={**tus, "Upload-Length": str(len(content))})
            if begun.status_code != 201:
                raise _NotYet
            upload = begun.headers["location"]
        while True:
            state = http.head(upload, headers=tus)
            if state.status_code != 200:
                raise _NotYet
            offset = int(state.headers["upload-offset"])
            if offset == len(content):
                return upload
            piece = content[offset : offset + len(content) // 2 + 1]
            checksum = "sha1 " + base64.b64encode(hashlib.sha1(piece).digest()).decode()
            headers = {**tus, "Upload-Offset": str(offset), "Upload-Checksum": checksum}
            headers["Content-Type"] = "application/offset+octet-stream"
            if http.patch(upload, content=piece, headers=headers).status_code not in (204, 409, 423):
                raise _NotYet

    def _note(self, promise: Promise) -> None:
        with self._lock:
            self._list.write(json.dumps(asdict(promise)).encode() + b"\n")
            os.fsync(self._list.fileno())
            self.promises.append(promise)


class _NotYet(Exception):
    """The server is away or was killed in between; try again."""
