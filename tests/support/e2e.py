"""How the end-to-end tests speak to a server: plain httpx, nothing of our own client."""

import json
import time
from pathlib import Path
from typing import Any

import httpx

JOB_SECONDS = 240.0
STATIONS = ["decoding", "preprocessing", "stage1", "stage2", "meshing", "exporting"]
FACE_BOX = (178, 72, 272, 176)
"""left, top, right, bottom of the face in the portrait, pixels: brow to chin, cheek to cheek; from MediaPipe alone."""


def submit(server: str, path: Path, **options: Any) -> dict[str, Any]:
    """POST a file; the 202's job."""
    with path.open("rb") as file:
        reply = httpx.post(
            f"{server}/reconstructions",
            files={"file": (path.name, file)},
            data={"options": json.dumps({"quality": "draft", **options})},
            timeout=60,
        )
    assert reply.status_code == 202, reply.text
    assert reply.headers["Location"].endswith(reply.json()["id"])
    return reply.json()


def follow(server: str, job_id: str) -> list[dict[str, Any]]:
    """Every look at a job until it has ended; the last one is the end."""
    looks: list[dict[str, Any]] = []
    deadline = time.monotonic() + JOB_SECONDS
    while time.monotonic() < deadline:
        looks.append(httpx.get(f"{server}/reconstructions/{job_id}", timeout=30).json())
        if looks[-1]["state"] in ("succeeded", "failed", "cancelled"):
            return looks
        time.sleep(0.3)
    raise AssertionError(f"still {looks[-1]['state']} in {looks[-1]['stage']} after {JOB_SECONDS:.0f} s")


def fetch(server: str, job_id: str, folder: Path) -> list[dict[str, Any]]:
    """Download every artifact below `folder`; the list."""
    listed = httpx.get(f"{server}/reconstructions/{job_id}/artifacts", timeout=30).json()["items"]
    for artifact in listed:
        target = folder / artifact["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(httpx.get(f"{server}{artifact['href']}", timeout=60).raise_for_status().content)
    return listed


class Delivered:
    """A finished job and its files."""

    def __init__(self, server: str, path: Path, folder: Path, **options: Any) -> None:
        self.looks = follow(server, submit(server, path, **options)["id"])
        self.job = self.looks[-1]
        assert self.job["state"] == "succeeded", self.job["error"]
        self.folder = folder
        self.artifacts = fetch(server, self.job["id"], folder)
        self.manifest = json.loads((folder / "manifest.json").read_text())
