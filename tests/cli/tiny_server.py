"""A real HTTP server, small enough to read: the contract's routes over a dictionary, with faults on demand.

`python tiny_server.py` prints its port. `POST /_faults` sets what goes wrong next: {"busy": 2, "drop_after": 1000,
"fail_with": "no_face", "alter": "identity.npz", "stay": "running"}. `GET /_seen` tells what arrived.
"""

import email.parser
import email.policy
import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FILES = {
    "manifest.json": b'{"schema_version": 1}',
    "identity.npz": bytes(range(256)) * 40,
    "expressions.npz": b"codes" * 1000,
    "meshes/frame_00000.ply": b"ply\n" + b"v" * 50_000,
}

jobs: dict[str, dict[str, Any]] = {}
keys: dict[str, tuple[str, str]] = {}
faults: dict[str, Any] = {}
seen: list[dict[str, Any]] = []


def form_of(content_type: str, body: bytes) -> dict[str, tuple[str | None, bytes]]:
    """A multipart body as name -> (file name, bytes)."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    return {
        str(part.get_param("name", header="content-disposition")): (part.get_filename(), part.get_payload(decode=True))
        for part in message.iter_parts()
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, document: Any, **headers: str) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def problem(self, status: int, code: str, detail: str, **headers: str) -> None:
        self.answer(status, {"code": code, "title": code, "detail": detail, "status": status}, **headers)

    def busy(self) -> bool:
        if faults.get("busy", 0) > 0:
            faults["busy"] -= 1
            self.problem(503, "queue_full", "come back later", Retry_After="0")
            return True
        return False

    def job(self) -> dict[str, Any] | None:
        name = self.path.split("?")[0].split("/")[2]
        if name not in jobs:
            self.problem(404, "not_found", f"there is no job {name}")
        return jobs.get(name)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        seen.append({"method": "POST", "path": self.path, "key": self.headers.get("Idempotency-Key"),
                     "authorization": self.headers.get("Authorization")})  # fmt: skip
        if self.path == "/_faults":
            faults.clear()
            faults.update(json.loads(body))
            self.answer(200, {})
        elif self.busy():
            pass
        elif self.path == "/reconstructions":
            self.submit(body)
        elif (job := self.job()) is not None:
            job["state"] = "cancelled" if self.path.endswith("/cancel") else "queued"
            self.answer(202, job)

    def submit(self, body: bytes) -> None:
        form = form_of(self.headers["Content-Type"], body)
        name, content = form["file"]
        digest = hashlib.sha256(content).hexdigest()
        key = self.headers.get("Idempotency-Key", "")
        if key in keys and keys[key][1] != digest:
            self.problem(409, "idempotency_conflict", "this key was used for another body")
            return
        job_id = keys[key][0] if key in keys else f"rec_{len(jobs):04d}"
        keys[key] = (job_id, digest)
        facts = {"filename": name, "bytes": len(content), "sha256": digest}
        jobs.setdefault(job_id, {"id": job_id, "state": "queued", "polls": 0, "input": facts,
                                 "options": json.loads(form["options"][1]), "progress": {"percent": 0},
                                 "created_at": "2026-01-01T00:00:00Z"})  # fmt: skip
        if faults.pop("lose_answer", False):  # accepted, but the answer never arrives
            self.close_connection = True
            self.connection.close()
            return
        self.answer(202, jobs[job_id])

    def do_DELETE(self) -> None:
        if (job := self.job()) is not None:
            gone = job["state"] == "deleted"
            job["state"] = "deleted"
            if gone:
                self.problem(410, "gone", "deleted")
                return
            self.send_response(204)
            self.end_headers()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        parts = path.strip("/").split("/")
        seen.append({"method": "GET", "path": self.path})
        if path == "/_seen":
            self.answer(200, seen)
        elif path == "/page":
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"<html>")
        elif self.busy():
            pass
        elif path == "/reconstructions":
            self.listing()
        elif (job := self.job()) is None:
            pass
        elif len(parts) == 2:
            self.answer(200, self.advance(job))
        elif len(parts) == 3:
            rows = [
                {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in FILES.items()
            ]
            self.answer(200, {"items": rows})
        else:
            self.artifact("/".join(parts[3:]))

    def listing(self) -> None:
        query = dict(pair.split("=") for pair in self.path.partition("?")[2].split("&") if "=" in pair)
        newest = list(reversed(jobs.values()))
        start, count = int(query.get("cursor", 0)), min(int(query.get("limit", 20)), 2)  # pages of two
        following = str(start + count) if start + count < len(newest) else None
        self.answer(200, {"items": newest[start : start + count], "next_cursor": following})

    def advance(self, job: dict[str, Any]) -> dict[str, Any]:
        """Each look moves a job one station on."""
        job["polls"] += 1
        if job["state"] == "queued":
            job["state"], job["stage"] = "running", "stage1"
        elif job["state"] == "running" and not faults.get("stay"):
            job["progress"]["percent"] += 50
            if job["progress"]["percent"] >= 100:
                job["state"] = "failed" if faults.get("fail_with") else "succeeded"
                if faults.get("fail_with"):
                    job["error"] = {"code": faults["fail_with"], "title": "No", "detail": "and what to do"}
        return job

    def artifact(self, name: str) -> None:
        data = FILES[name]
        if faults.get("alter") == name:
            data = data[:-1] + b"\0"
        start = 0
        if self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        cut = faults.pop("drop_after", None) if len(data) > 10_000 and not start else None
        self.wfile.write(data[start:cut])
        if cut:
            self.close_connection = True


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
