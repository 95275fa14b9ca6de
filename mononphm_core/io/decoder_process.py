"""The parent's side of the limited decoder process: start it, listen to it, end it whatever happens.

The child is `python -m mononphm_core.io.decoder_child` with an empty environment, a session of its own and the open
file as standard input. It is killed when its wall-clock limit passes, when the caller leaves, and when this
process dies. Nothing it says is believed beyond the sizes that the limits allow.
"""

import json
import logging
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mononphm_core import errors
from mononphm_core.config import FrameSelection, MediaLimits
from mononphm_core.io.decoder_protocol import MAX_HEADER_BYTES
from mononphm_core.io.sniff import SniffedMedia

log = logging.getLogger(__name__)

Message = tuple[dict[str, Any], bytearray]
"""What the decoder said, and the raw bytes that came with it."""

_TICK_SECONDS = 0.5
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "LC_ALL": "C.UTF-8"}


class DecoderProcess:
    """One decoder process for one file; leaving the `with` block always ends it."""

    def __init__(
        self, path: str | Path, sniffed: SniffedMedia, selection: FrameSelection, limits: MediaLimits, *, probe: bool
    ) -> None:
        self._limits = limits
        self._request = json.dumps(
            {
                "container": sniffed.container,
                "is_video": sniffed.is_video,
                "media_type": sniffed.media_type,
                "selection": asdict(selection),
                "limits": asdict(limits),
                "probe": probe,
            }
        )
        self._path = Path(path)

    def __enter__(self) -> "DecoderProcess":
        with self._path.open("rb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "mononphm_core.io.decoder_child", self._request],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
                close_fds=True,
            )
        self._deadline = time.monotonic() + 30.0 + 2.0 * self._limits.decode_seconds
        return self

    def __exit__(self, *exception: object) -> None:
        self._kill()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def messages(self) -> Iterator[Message]:
        """All messages with their raw bytes, an empty one at every quiet tick; raises what the decoder refused with."""
        while True:
            head = yield from self._read(4)
            length = struct.unpack(">I", head)[0]
            if length > MAX_HEADER_BYTES:
                raise errors.UnreadableMedia("The decoder's answer is not readable.")
            message = json.loads((yield from self._read(length)))
            size = int(message.get("bytes", 0))
            if size > 3 * self._limits.max_side_px**2:
                raise errors.UnreadableMedia("The decoder sent a picture of another size than it announced.")
            raw = (yield from self._read(size)) if size else bytearray()
            if message["kind"] == "error":
                raise _refusal(str(message["error"]), str(message["message"]))
            if message["kind"] == "confined":
                log.debug("decoder process confined: %s", message)
                continue
            yield message, raw
            if message["kind"] == "end":
                return

    def _read(self, size: int) -> Generator[Message, None, bytearray]:
        """Exactly `size` bytes from the process, with a tick to the caller while it is silent."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        buffer = bytearray(size)
        view, done = memoryview(buffer), 0
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while done < size:
                if time.monotonic() > self._deadline:
                    raise errors.DecoderLimitExceeded(
                        f"Decoding took longer than {2 * self._limits.decode_seconds:.0f} s. "
                        "Send a shorter or smaller clip."
                    )
                if not selector.select(_TICK_SECONDS):
                    yield {"kind": "tick"}, bytearray()
                    continue
                count = os.readv(descriptor, [view[done:]])
                if count == 0:
                    raise self._died()
                done += count
        return buffer

    def _died(self) -> errors.MonoNPHMError:
        code = self._process.wait(timeout=10)
        log.warning("decoder process ended with code %s before its answer was complete", code)
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return errors.DecoderLimitExceeded(
                f"Decoding needs more than the {self._limits.decode_seconds:.0f} s of processor time it may use. "
                "Send a shorter or smaller clip."
            )
        return errors.UnreadableMedia("The decoder crashed on this file: it is damaged. Export it again.")

    def _kill(self) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


_REFUSALS: dict[str, type[errors.MonoNPHMError]] = {
    cls.__name__: cls
    for cls in (
        errors.UnsupportedMedia,
        errors.UnreadableMedia,
        errors.MediaTooLarge,
        errors.MediaTooSmall,
        errors.ConfigError,
        errors.DecoderLimitExceeded,
    )
}


def _refusal(name: str, message: str) -> errors.MonoNPHMError:
    return _REFUSALS.get(name, errors.UnreadableMedia)(message)
