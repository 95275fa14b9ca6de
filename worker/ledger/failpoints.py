"""Places where a test may have the process die: around every fsync, commit, rename, publication and acknowledgement.

Without MONONPHM_FAILPOINTS in the environment `reach` does nothing. With it (`*:0.002`, or `commit.before:0.05,…`) the
process kills itself with that probability whenever it passes there, as kill -9 would, after noting the name in the file
MONONPHM_FAILPOINTS_LOG. Only `make chaos` and its tests set them.
"""

import os
import random
import signal
from pathlib import Path

NAMES = (
    "fsync_file.before", "fsync_file.after", "fsync_directory.before", "fsync_directory.after",
    "rename.before", "rename.after", "commit.before", "commit.after",
    "publish.before_seal", "publish.before_commit", "publish.after_commit",
    "accept.before_202", "hint.before", "hint.after", "ack.before", "ack.after", "remove.before", "remove.after",
)  # fmt: skip

STORE_NAMES = ("put.before", "put.after", "complete.before", "complete.after")
"""The same for an object store; a local folder passes none of them."""

VARIABLE = "MONONPHM_FAILPOINTS"


def _armed() -> dict[str, float]:
    """Name -> probability. Raises ValueError for a name that is none, so that no test waits for a place in vain."""
    pairs = [item.partition(":") for item in os.environ.get(VARIABLE, "").split(",") if item]
    unknown = {name for name, _, _ in pairs} - {*NAMES, *STORE_NAMES, "*"}
    if unknown:
        raise ValueError(f"{VARIABLE} names {sorted(unknown)}")
    return {
        known: float(probability)
        for name, _, probability in pairs
        for known in ((*NAMES, *STORE_NAMES) if name == "*" else (name,))
    }


_ARMED = _armed()


def reach(name: str) -> None:
    """Pass this place, or die here."""
    if _ARMED and random.random() < _ARMED.get(name, 0.0):
        _die(name)


def _die(name: str) -> None:
    log = os.environ.get(f"{VARIABLE}_LOG")
    if log:
        with Path(log).open("a") as file:
            file.write(f"{name} {os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)
