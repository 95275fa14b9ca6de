"""The decoder process: `python -m mononphm_core.io.decoder_child REQUEST`, the file on standard input.

It gives itself hard limits, loads what it needs, locks itself in (`limits.confine`), and only then looks at the
first byte of the file. What it says is `decoder_protocol`. It imports no torch and none of the product's types.
"""

import json
import os
import sys
from typing import Any

from mononphm_core.errors import MonoNPHMError
from mononphm_core.io import limits
from mononphm_core.io.decoder_protocol import Refusal, pack
from mononphm_core.io.limited_child import private_reply


def main() -> int:
    request = json.loads(sys.argv[1])
    reply = private_reply()
    bounds = request["limits"]
    limits.limit_resources(int(bounds["decode_memory_bytes"]), int(bounds["decode_seconds"]))

    def send(kind: str, raw: bytes = b"", **fields: Any) -> None:
        message = {"kind": kind, **fields}
        if raw:
            message["bytes"] = len(raw)
        reply.write(pack(message))
        reply.write(raw)
        reply.flush()

    try:
        _decode(request, send)
    except Refusal as refusal:
        send("error", error=refusal.error, message=str(refusal))
    except MonoNPHMError as refusal:
        send("error", error=type(refusal).__name__, message=str(refusal))
    except MemoryError:
        send("error", error="DecoderLimitExceeded", message=_memory_message(bounds))
    except BrokenPipeError:
        return 1
    except Exception as broken:  # hostile bytes find every exception there is
        send(
            "error",
            error="UnreadableMedia",
            message=f"The file cannot be decoded ({type(broken).__name__}): damaged or not what it claims. "
            "Export it again.",
        )
    return 0


def _decode(request: dict[str, Any], send: Any) -> None:
    file = os.fdopen(0, "rb")
    if request["is_video"] and request["container"] in _VIDEO:
        from mononphm_core.io.decoder_video import decode_video, prepare

        prepare()
        send("confined", **vars(limits.confine()))
        decode_video(file, request, send)
        return
    from mononphm_core.io import decoder_still

    ready = decoder_still.prepare(request["container"])
    send("confined", **vars(limits.confine()))
    if not ready:
        raise Refusal(
            "UnsupportedMedia",
            "HEIC images need the package pillow-heif, which is not installed here. Send a JPEG instead.",
        )
    decoder_still.decode_still(file, request, send)


_VIDEO = frozenset({"mp4", "matroska", "avi", "gif", "apng"})


def _memory_message(bounds: dict[str, Any]) -> str:
    return (
        f"Decoding needs more than the {bounds['decode_memory_bytes'] / 2**20:.0f} MiB it may use. "
        "Reduce the picture size and send the file again."
    )


if __name__ == "__main__":
    sys.exit(main())
