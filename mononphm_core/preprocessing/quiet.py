"""Native libraries that talk on standard error are kept from the user, other writers are not."""

import os
import re
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_CHATTER = re.compile(rb"^([IWEF]\d{4} |INFO: |WARNING: |.*(gl_context|XNNPACK|inference_feedback|absl::))")
_lock = threading.Lock()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what is written to file descriptor 2 inside the block; afterwards pass on all lines but log chatter.

    For short blocks only: set-up, the first call and the closing of a native library are where it talks. Python
    warnings raised inside (deprecations between third-party packages) are ignored.
    """
    with _lock:
        sys.stderr.flush()
        kept = os.dup(2)
        held = os.memfd_create("stderr") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDWR)
        os.dup2(held, 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.lseek(held, 0, os.SEEK_SET)
            text = os.read(held, 1 << 20)
            os.close(held)
            rest = b"".join(line for line in text.splitlines(keepends=True) if not _CHATTER.match(line))
            if rest.strip():
                os.write(kept, rest)
            os.close(kept)


@contextmanager
def without_plotting() -> Iterator[None]:
    """Inside, an import of matplotlib gets an empty stand-in: mediapipe imports it, for drawings that nobody asks here.

    Half a second of every start. Afterwards the name is free again, and whoever wants matplotlib gets the true one.
    """
    names = ("matplotlib", "matplotlib.pyplot")
    if any(name in sys.modules for name in names):
        yield
        return
    package, pyplot = (types.ModuleType(name) for name in names)
    package.__path__ = []
    package.pyplot = pyplot  # type: ignore[attr-defined]
    sys.modules.update(zip(names, (package, pyplot), strict=True))
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
