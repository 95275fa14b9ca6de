"""Resumable uploads as tus 1.0 has them (https://tus.io/protocols/resumable-upload): headers read, bytes written.

What counts is on the disk: bytes are fsynced before the offset that covers them is committed, and a PATCH begins by
cutting off whatever lies above it.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers

from service.body import Body
from service.middleware import TUS_VERSION
from service.problems import Problem, out_of_disk
from service.threads import in_file_thread
from worker import ledger
from worker.ledger.failpoints import reach

EXTENSIONS = "creation,checksum,expiration,termination"
ALGORITHMS = ("sha1", "sha256")
MAX_METADATA = 4096
CHECKPOINT_BYTES = 32 << 20
"""After so many bytes the offset is committed, so that a crash costs no more than these."""


@dataclass(frozen=True)
class Checksum:
    """What the bytes of one PATCH should hash to."""

    algorithm: str
    digest: bytes


def require_version(headers: Headers) -> None:
    """Raise the 412 of a client that speaks another tus."""
    if headers.get("tus-resumable") != TUS_VERSION:
        raise Problem(
            "tus_version",
            f"Send `Tus-Resumable: {TUS_VERSION}`; this server speaks no other version.",
            headers={"Tus-Version": TUS_VERSION},
        )


def number_in(headers: Headers, name: str) -> int:
    """A header that must be a number. Raises the 400 of any other."""
    text = headers.get(name, "")
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise Problem("malformed_request", f"{name} must be a number of bytes. Let a tus client make the request.")
    return int(text)


def metadata_in(headers: Headers) -> str:
    """Upload-Metadata, checked. Raises the 400 of one that cannot be read."""
    text = headers.get("upload-metadata", "")
    if len(text) > MAX_METADATA:
        raise Problem("malformed_request", f"Upload-Metadata is longer than {MAX_METADATA} bytes. Shorten it.")
    try:
        metadata_of(text)
    except ValueError:
        raise Problem(
            "malformed_request", "Upload-Metadata is a list of `key base64` pairs. Let a tus client make it."
        ) from None
    return text


def metadata_of(text: str) -> dict[str, bytes]:
    """`filename d29ybGQ=,is_draft` as keys and values. Raises ValueError."""
    found: dict[str, bytes] = {}
    for pair in filter(None, (item.strip() for item in text.split(","))):
        key, _, value = pair.partition(" ")
        if key in found or not key.isascii() or not key.isprintable():
            raise ValueError(key)
        found[key] = base64.b64decode(value, validate=True)
    return found


def checksum_in(headers: Headers) -> Checksum | None:
    """Upload-Checksum. Raises the 400 of an algorithm that is not offered."""
    text = headers.get("upload-checksum")
    if text is None:
        return None
    algorithm, _, encoded = text.partition(" ")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        digest = b""
    if algorithm not in ALGORITHMS or len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        raise Problem(
            "unsupported_checksum", f"Upload-Checksum is one of {', '.join(ALGORITHMS)} and its digest in base64."
        )
    return Checksum(algorithm, digest)


def headers_of(upload: ledger.Resumable) -> dict[str, str]:
    """What every answer about an upload says."""
    return {"Upload-Offset": str(upload.offset), "Upload-Expires": format_datetime(upload.expires_at, usegmt=True)}


async def append(
    body: Body, path: Path, upload: ledger.Resumable, checksum: Checksum | None, free_bytes: Callable[[], int],
    reserve_bytes: int, advance: Callable[[int], Any],
) -> None:  # fmt: skip
    """Write a PATCH's bytes behind the upload's offset; `advance` is told each offset that is on the disk.

    When the connection breaks, what arrived counts; with a checksum, all of the PATCH or nothing. Raises Problem.
    """
    writer = await in_file_thread(_Writer, path, upload, checksum, free_bytes, reserve_bytes, advance)
    try:
        async with aclosing(body.batches()) as batches:
            async for batch in batches:
                await in_file_thread(writer.write, batch)
        await in_file_thread(writer.finish)
    except Problem:
        await in_file_thread(writer.keep)
        await body.drain()
        raise
    finally:
        await in_file_thread(writer.close)


class _Writer:
    """One PATCH on the disk."""

    def __init__(
        self, path: Path, upload: ledger.Resumable, checksum: Checksum | None, free_bytes: Callable[[], int],
        reserve_bytes: int, advance: Callable[[int], Any],
    ) -> None:  # fmt: skip
        self._file = path.open("r+b", buffering=0)
        self._file.truncate(upload.offset)
        self._file.seek(upload.offset)
        self._length = upload.length
        self._offset = self._committed = self._looked_at = upload.offset
        self._checksum = checksum
        self._digest = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
        self._free_bytes = free_bytes
        self._reserve_bytes = reserve_bytes
        self._advance = advance

    def write(self, batch: list[bytes]) -> None:
        """Append one batch. Raises Problem for more bytes than were announced, and for a full disk."""
        size = sum(map(len, batch))
        if self._offset + size > self._length:
            raise Problem("body_too_large", f"The upload was announced as {self._length} bytes; this would be more.")
        if self._offset == self._looked_at or self._offset - self._looked_at >= CHECKPOINT_BYTES:
            self._looked_at = self._offset
            if self._free_bytes() - size < self._reserve_bytes:
                raise out_of_disk()
        written = os.writev(self._file.fileno(), batch)
        rest = memoryview(b"".join(batch))[written:] if written < size else memoryview(b"")
        while rest:  # a disk that is nearly full: on until it says what is wrong
            rest = rest[self._file.write(rest) :]
        self._offset += size
        if self._digest is not None:
            for piece in batch:
                self._digest.update(piece)
        elif self._offset - self._committed >= CHECKPOINT_BYTES:
            self._commit()

    def finish(self) -> None:
        """All bytes came. Raises the 460 of bytes that are not those of the checksum."""
        if self._checksum is not None and self._digest is not None and self._digest.digest() != self._checksum.digest:
            raise Problem("checksum_mismatch", "The bytes changed on their way; they were discarded. Send them again.")
        self._commit()

    def keep(self) -> None:
        """The PATCH ended early: what arrived counts, unless a checksum covers it as a whole."""
        if self._digest is not None:
            self._file.truncate(self._committed)
        elif self._offset > self._committed:
            self._commit()

    def close(self) -> None:
        self._file.close()

    def _commit(self) -> None:
        reach("fsync_file.before")
        os.fsync(self._file.fileno())
        reach("fsync_file.after")
        self._advance(self._offset)
        self._committed = self._offset
