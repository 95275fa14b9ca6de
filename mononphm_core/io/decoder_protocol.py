"""What the decoder process and its parent say to each other. Standard library only.

Request: one JSON object on the child's standard input. Reply: a stream of messages on its standard output, each a
4-byte big-endian length, that many bytes of JSON, and, if the JSON has `bytes`, that many raw bytes after it. The
parent trusts nothing in it beyond these shapes: the child reads hostile files.

Kinds: `info` (once), `step` (decoded so far), `frame` (+ raw RGB), `warning`, `error` (last), `end` (last).
"""

import json
import struct
from collections.abc import Callable
from typing import Any

MAX_HEADER_BYTES = 1 << 20

Send = Callable[..., None]


def pack(message: dict[str, Any]) -> bytes:
    """Length and JSON of one message."""
    body = json.dumps(message).encode()
    return struct.pack(">I", len(body)) + body


class Refusal(Exception):
    """The child's reason to stop, to be raised in the parent as the error class of that name."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error
