"""Large files by tus 1.0: in pieces with checksums, from where a broken connection or a closed laptop left off.

Where an upload stands is asked of the server; only its address is kept, in the user's cache folder, for the next run.
"""

import hashlib
import json
import os
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from mononphm_cli.failures import RemoteFailure, ServerUnreachable

if TYPE_CHECKING:
    from mononphm_cli.client.http import Client

PIECE_BYTES = 8 << 20
"""What is sent and checked at once; a break costs at most as much."""

PATIENCE = 8
"""Breaks in a row without a byte of progress, before it is given up."""

TUS = {"Tus-Resumable": "1.0.0"}


def upload(client: "Client", path: Path, on_bytes: Callable[[int], None]) -> str:
    """Bring a file to the server, resuming an earlier attempt at the same file; the upload's id. RemoteFailure."""
    address, offset = _found(client, path)
    on_bytes(offset)
    size, breaks = path.stat().st_size, 0
    with path.open("rb") as source:
        while offset < size:
            source.seek(offset)
            reached = _send(client, address, offset, source.read(PIECE_BYTES))
            if reached is None:
                breaks += 1
                if breaks > PATIENCE:
                    raise ServerUnreachable(
                        f"the upload broke off {breaks} times at {offset} of {size} bytes. "
                        "The same command goes on there."
                    )
                client.pause(breaks)
                reached = client.upload_offset(address)
            else:
                breaks = 0
            on_bytes(reached - offset)
            offset = reached
    return address.rsplit("/", 1)[1]


def forget(client: "Client", path: Path) -> None:
    """The upload has become a job: the next one of the same file is another."""
    known = _known()
    if known.pop(_name(client, path), None) is not None:
        _keep(known)


def _send(client: "Client", address: str, offset: int, piece: bytes) -> int | None:
    """The offset after one piece; None if the connection broke, the server was busy, or bytes changed on their way."""
    headers = {
        **TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset),
        "Upload-Checksum": "sha256 " + b64encode(hashlib.sha256(piece).digest()).decode(),
    }  # fmt: skip
    try:
        reply = client.patch(address, piece, headers)
    except httpx.TransportError:
        return None
    if reply.status_code in (409, 423, 429, 460, 502, 503, 504):
        return None
    if not reply.is_success:
        raise client.refusal(reply)
    return int(reply.headers["Upload-Offset"])


def _found(client: "Client", path: Path) -> tuple[str, int]:
    """Address and offset of the upload of this file: an earlier one if the server still has it, else a new one."""
    known, name = _known(), _name(client, path)
    if name in known:
        try:
            return known[name], client.upload_offset(known[name])
        except RemoteFailure as failure:
            if isinstance(failure, ServerUnreachable):
                raise
    address = client.begin_upload(path.stat().st_size, path.name)
    _keep({**known, name: address})
    return address, 0


def _name(client: "Client", path: Path) -> str:
    """Changes when the file does."""
    info = path.stat()
    return f"{client.server} {path.resolve()} {info.st_size} {info.st_mtime_ns}"


def _store() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mononphm" / "uploads.json"


def _known() -> dict[str, str]:
    try:
        known = json.loads(_store().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _keep(known: dict[str, str]) -> None:
    """Best effort: without the file a later run starts again."""
    store = _store()
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        fresh = store.with_name(f".{store.name}.{os.getpid()}.{time.monotonic_ns()}")
        fresh.write_text(json.dumps(known), "utf-8")
        fresh.replace(store)
    except OSError:
        return
