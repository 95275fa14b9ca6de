"""An upload on its way from the socket to the disk: parsed, counted and hashed as it comes, never whole in memory.

The bytes of `file` go to one staging file on the data volume (never to the system's temp folder, which may be small or
memory). Whatever ends the upload early removes that file.
"""

import hashlib
import re
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastapi.concurrency import contextmanager_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.body import Body
from service.problems import Problem, out_of_disk
from service.threads import in_file_thread

MAX_OPTIONS_BYTES = 64 << 10
OVERHEAD_BYTES = 128 << 10
"""What a multipart body may have besides the file: the options, headers, boundaries."""

SPACE_CHECK_BYTES = 32 << 20


@dataclass(frozen=True)
class Upload:
    """One file that arrived whole, in staging."""

    path: Path
    filename: str
    size: int
    sha256: str
    options_json: bytes
    """As sent; `{}` where the request had none."""


@dataclass(frozen=True)
class UploadLimits:
    """What an upload may cost."""

    max_bytes: int
    reserve_bytes: int
    idle_s: float


@asynccontextmanager
async def received(
    request: Request, staged: Path, limits: UploadLimits, free_bytes: Callable[[], int]
) -> AsyncIterator[Upload]:
    """Receive a multipart request with `file` and `options` into `staged`.

    When the block is left the staging file is gone, unless it was moved away. Raises Problem for everything that can be
    wrong with the request, its size, its pace or the disk.
    """
    body = Body(request, limits.idle_s)
    async with contextmanager_in_threadpool(_gone_afterwards(staged)):
        try:
            upload = await _receive(body, staged, limits, free_bytes)
        except Problem:
            await body.drain()
            raise
        yield upload


async def _receive(body: Body, staged: Path, limits: UploadLimits, free_bytes: Callable[[], int]) -> Upload:
    boundary = _boundary(body.request)
    _check_declared(body.request, limits, await in_file_thread(free_bytes))
    async with contextmanager_in_threadpool(await in_file_thread(_new_file, staged)) as file:
        receiver = _Receiver(file, boundary, limits, free_bytes)
        async with aclosing(body.batches()) as batches:
            async for batch in batches:
                await in_file_thread(receiver.feed, batch)
        return await in_file_thread(receiver.finish, staged)


@contextmanager
def _gone_afterwards(staged: Path) -> Iterator[None]:
    try:
        yield
    finally:
        staged.unlink(missing_ok=True)


def _new_file(staged: Path) -> BinaryIO:
    return staged.open("xb")


def clean_filename(raw: bytes | None) -> str:
    """What the user called the file, as harmless metadata: no folders, control or direction characters, 200 at most."""
    text = unicodedata.normalize("NFC", (raw or b"").decode("utf-8", "replace"))
    text = re.split(r"[/\\]", text)[-1]
    text = "".join(
        letter for letter in text if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    )
    return text.strip()[:200] or "upload"


def _boundary(request: Request) -> bytes:
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise Problem(
            "unsupported_content_type",
            "Send the request as multipart/form-data with the parts `file` and, if wanted, `options` (JSON).",
        )
    boundary = parameters.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise Problem(
            "malformed_request", "The Content-Type has no usable boundary. Let the HTTP library make the body."
        )
    return boundary


def _check_declared(request: Request, limits: UploadLimits, free_bytes: int) -> None:
    declared = request.headers.get("content-length", "")
    length = int(declared) if declared.isascii() and declared.isdigit() else 0
    if length > limits.max_bytes + OVERHEAD_BYTES:
        raise too_large(limits.max_bytes)
    if free_bytes - length < limits.reserve_bytes:
        raise out_of_disk()


def too_large(max_bytes: int) -> Problem:
    return Problem(
        "media_too_large",
        f"The file is larger than {max_bytes} bytes, the most that is accepted here. Cut or re-encode the clip.",
        max_bytes=max_bytes,
    )


class _Receiver:
    """The multipart parser's callbacks. Fed in threads, one batch after the other."""

    def __init__(self, file: BinaryIO, boundary: bytes, limits: UploadLimits, free_bytes: Callable[[], int]) -> None:
        self._file = file
        self._limits = limits
        self._free_bytes = free_bytes
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._next_space_check = 0
        self._other_bytes = 0
        self._filename: str | None = None
        self._options: bytearray | None = None
        self._part = ""
        self._header_name, self._header_value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    def feed(self, batch: list[bytes]) -> None:
        """Parse, hash and write one batch. Raises Problem."""
        if self._bytes >= self._next_space_check and not self._ended:
            self._next_space_check = self._bytes + SPACE_CHECK_BYTES
            if self._free_bytes() - sum(map(len, batch)) < self._limits.reserve_bytes:
                raise out_of_disk()
        try:
            for piece in batch:
                if self._ended:
                    self._count_other(len(piece))
                else:
                    self._parser.write(piece)
        except FormParserError as error:
            raise Problem("malformed_request", "The multipart body is broken. Let the HTTP library make it.") from error

    def finish(self, staged: Path) -> Upload:
        """The whole upload. Raises Problem when the body ended too early or lacks its file."""
        if not self._ended:
            raise Problem("malformed_request", "The multipart body ends before its last boundary. Send it again.")
        if self._filename is None:
            raise Problem("invalid_request", "The request has no part `file`. Send one video or image under that name.")
        self._file.flush()
        options = bytes(self._options if self._options is not None else b"{}")
        return Upload(staged, self._filename, self._bytes, self._digest.hexdigest(), options)

    def _on_part_begin(self) -> None:
        self._headers, self._part = {}, ""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._count_other(len(self._header_name) + len(self._header_value))
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"").decode("latin-1")
        _, parameters = parse_options_header(disposition)
        name = parameters.get(b"name", b"")
        if name == b"file":
            if self._filename is not None:
                raise Problem("invalid_request", "The request has two parts `file`. Send one file a request.")
            self._filename = clean_filename(parameters.get(b"filename"))
        elif name == b"options":
            if self._options is not None:
                raise Problem("invalid_request", "The request has two parts `options`. Send one JSON object.")
            self._options = bytearray()
        else:
            known = "Send `file` and `options` only; everything that can be chosen is a key of `options`."
            raise Problem("invalid_request", f"The request has a part that is not known here. {known}")
        self._part = name.decode()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self._part == "file":
            self._bytes += len(piece)
            if self._bytes > self._limits.max_bytes:
                raise too_large(self._limits.max_bytes)
            self._digest.update(piece)
            self._file.write(piece)
        elif self._options is not None:
            self._options += piece
            if len(self._options) > MAX_OPTIONS_BYTES:
                raise Problem("invalid_options", f"`options` is longer than {MAX_OPTIONS_BYTES} bytes. Shorten it.")

    def _on_end(self) -> None:
        self._ended = True

    def _count_other(self, size: int) -> None:
        self._other_bytes += size
        if self._other_bytes > OVERHEAD_BYTES:
            raise Problem(
                "body_too_large", "The request has too much besides the file. Send `file` and `options` only."
            )
