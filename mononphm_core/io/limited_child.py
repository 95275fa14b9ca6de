"""The frame of a process that opens one hostile file: limits, lock, answer. What is read is an argument.

Standard library only: whatever reading needs is imported by `warm_up`, while files can still be opened.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

from mononphm_core.io import limits
from mononphm_core.io.decoder_protocol import Refusal, pack

ByteFile = io.BufferedReader | io.BytesIO
Found = tuple[dict[str, Any], Iterable[Any]]
"""Fields of the header, and what lies after it: buffers in the header's order."""


def serve(warm_up: Callable[[], object], read: Callable[[ByteFile, dict[str, Any]], Found]) -> int:
    """Answer the request in `sys.argv[1]` about the file on standard input; returns the exit status.

    One `decoder_protocol` message with what `read` found, then its buffers; or one of kind `error`. Nothing of the file
    is looked at before `limits.confine`.
    """
    request = json.loads(sys.argv[1])
    reply = private_reply()
    limits.limit_resources(int(request["memory_bytes"]), int(request["cpu_seconds"]))
    try:
        warm_up()
        confined = vars(limits.confine())
        header, buffers = read(os.fdopen(0, "rb"), request)
        reply.write(pack({"kind": "found", "confined": confined, **header}))
        for buffer in buffers:
            reply.write(buffer)
    except Refusal as refusal:
        reply.write(pack({"kind": "error", "message": str(refusal)}))
    except MemoryError:
        reply.write(pack({"kind": "error", "message": "it needs more memory than a file of its size may"}))
    except BrokenPipeError:
        return 1
    except Exception as broken:  # hostile bytes find every exception there is
        said = " ".join(str(broken).split())[:300]
        reply.write(pack({"kind": "error", "message": f"it cannot be read ({type(broken).__name__}: {said})"}))
    reply.flush()
    return 0


def private_reply() -> BinaryIO:
    """The reply pipe under a number of its own; what libraries print goes nowhere."""
    reply = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return reply
