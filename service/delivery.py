"""Bytes of artifacts over HTTP: strong ETags, ranges, names that break no header (RFC 9110, 6266, 8187)."""

import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from service.problems import Problem
from service.threads import in_file_thread, next_of
from worker import ledger

CHUNK_BYTES = 256 << 10
_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


@dataclass(frozen=True)
class Span:
    """Bytes first .. last, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        return self.last - self.first + 1


def requested_span(header: str | None, size: int) -> Span | None:
    """The one range that a Range header asks for; None: the whole file (also for what we do not understand).

    Several ranges are answered with the whole file, as RFC 9110 allows. Raises the 416 of a range outside the file.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        wanted = int(last)
        span = Span(max(size - wanted, 0), size - 1) if wanted else Span(size, size - 1)
    else:
        span = Span(int(first), min(int(last), size - 1) if last else size - 1)
        if last and int(last) < int(first):
            return None
    if span.first >= size or span.length <= 0:
        raise Problem(
            "range_not_satisfiable",
            f"The file has {size} bytes; ask for a range inside it, or for all of it.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return span


def has_etag(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this entity (weak comparison)."""
    if header is None:
        return False
    return any(tag.strip() == "*" or tag.strip().removeprefix("W/") == etag for tag in header.split(","))


def content_disposition(name: str, kind: str = "attachment") -> str:
    """The header for a file name of any kind: an ASCII fallback, and the true name percent-encoded."""
    plain = name.rsplit("/", 1)[-1]
    ascii_name = re.sub(r"[^A-Za-z0-9._ -]", "_", plain)
    return f"{kind}; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(plain, safe='')}"


Open = Callable[[ledger.Artifact, int], ledger.Bytes]
"""`Storage.open_artifact`: the bytes of a file from some byte on."""


async def file_response(
    request: Request, artifact: ledger.Artifact, opened: Open, disposition: str = "attachment"
) -> Response:
    """One artifact: whole, in part, or just the news that it has not changed."""
    etag = f'"{artifact.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": content_disposition(artifact.name, disposition),
    }
    if has_etag(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    span = requested_span(wanted, artifact.bytes)
    status = 200
    if span is None:
        span = Span(0, artifact.bytes - 1)
    else:
        status = 206
        headers["Content-Range"] = f"bytes {span.first}-{span.last}/{artifact.bytes}"
    headers["Content-Length"] = str(span.length)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=artifact.media_type)
    file = await in_file_thread(_open, opened, artifact, span.first)
    pieces = _pieces(file, span.length, artifact.sha256 if span.length == artifact.bytes else None)
    return StreamingResponse(pieces, status, headers, media_type=artifact.media_type)


def redirect(request: Request, artifact: ledger.Artifact, link: str) -> Response:
    """To the object store, or the news that nothing has changed. The store's own answer has an ETag of its own."""
    headers = {"ETag": f'"{artifact.sha256}"', "Cache-Control": "no-store"}
    if has_etag(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(status_code=307, headers={**headers, "Location": link})


def _open(opened: Open, artifact: ledger.Artifact, first: int = 0) -> ledger.Bytes:
    try:
        return opened(artifact, first)
    except FileNotFoundError:
        raise Problem("artifact_not_found", "The file was removed a moment ago. GET the job again.") from None


async def _pieces(file: ledger.Bytes, length: int, sha256: str | None) -> AsyncIterator[bytes]:
    """The bytes as they come. Of a whole file the last piece is sent only if all have the checksum of the ETag: a
    client never takes damaged bytes for a complete answer."""
    digest, left = hashlib.sha256(), length

    def read_on() -> bytes:
        """In a thread, the checksum too: the event loop has other clients."""
        piece = file.read(min(CHUNK_BYTES, left))
        if not piece:
            raise OSError("an artifact is shorter than its record says")
        if sha256 is not None:
            digest.update(piece)
            if len(piece) == left and digest.hexdigest() != sha256:
                raise OSError("an artifact has another checksum than its record says")
        return piece

    try:
        while left > 0:
            piece = await in_file_thread(read_on)
            left -= len(piece)
            yield piece
    finally:
        await in_file_thread(file.close)


# ---------------------------------------------------------------- a bundle


class _Pipe(io.RawIOBase):
    """Where the archive is written, and taken from piece by piece: it never exists as a whole."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        self._waiting.append(piece)
        self._size += len(piece)
        return len(piece)

    def take(self, at_least: int = 1) -> bytes:
        if self._size < at_least:
            return b""
        taken, self._waiting, self._size = b"".join(self._waiting), [], 0
        return taken


def zip_pieces(
    files: Sequence[tuple[str, ledger.Artifact]], opened: Open, folder: str, made_at: datetime
) -> Iterator[bytes]:
    """A ZIP of these files below `folder`, stored uncompressed, as it is made. The same files give the same bytes.

    Raises FileNotFoundError, and OSError for a file whose bytes are not those of its checksum.
    """
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for name, artifact in files:
            entry = zipfile.ZipInfo(f"{folder}/{name}", made_at.astimezone(UTC).timetuple()[:6])
            entry.external_attr = 0o644 << 16
            digest = hashlib.sha256()
            with closing(opened(artifact, 0)) as source, archive.open(entry, "w", force_zip64=True) as sink:
                while piece := source.read(CHUNK_BYTES):
                    digest.update(piece)
                    sink.write(piece)
                    if ready := pipe.take(CHUNK_BYTES):
                        yield ready
            if digest.hexdigest() != artifact.sha256:
                raise OSError(f"{artifact.name} of {artifact.job_id} has another checksum than its record says")
    yield pipe.take()


async def streamed(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """A blocking iterator's pieces, each made in a thread."""
    try:
        while (piece := await in_file_thread(next_of, pieces)) is not None:
            if piece:
                yield piece
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            await in_file_thread(close)


# ---------------------------------------------------------------- expression codes as tables


def table_of(document: Any) -> str:
    """The frames of expressions.json as CSV: a row a frame, arrays spread row by row into `name_0`, `name_1` …"""
    rows = [dict(_spread("", frame)) for frame in _frames(document)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    sink = io.StringIO()
    writer = csv.DictWriter(sink, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def _frames(document: Any) -> list[Any]:
    frames = document.get("frames") if isinstance(document, dict) else document
    if not isinstance(frames, list):
        raise ValueError("expressions.json has no list of frames")
    return frames


def _spread(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _spread(f"{name}_{key}" if name else str(key), item)
    elif isinstance(value, list):
        for index, item in enumerate(_flat(value)):
            yield f"{name}_{index}", item
    else:
        yield name, value


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def text_of(artifact: ledger.Artifact, opened: Open) -> str:
    """A text file of ours as a whole. Raises the 404 of one that has just been removed. Blocks."""
    with closing(_open(opened, artifact)) as source:
        return b"".join(iter(lambda: source.read(CHUNK_BYTES) or b"", b"")).decode("utf-8")


def csv_as_json(text: str) -> dict[str, Any]:
    """A CSV of numbers as `columns` and `rows`."""
    header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    return {"columns": header, "rows": [[_number(cell) for cell in row] for row in rows]}


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def json_text(document: Any) -> str:
    """Compact strict JSON."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False)
