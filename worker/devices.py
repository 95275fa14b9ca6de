"""One child for each GPU: whoever holds the lock of a device has it alone. The kernel frees it when its holder dies."""

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path


def lock_folder() -> Path:
    """Where the processes of this machine meet."""
    return Path(tempfile.gettempdir()) / f"mononphm-devices-{os.getuid()}"


def take_one(names: Sequence[str], folder: Path) -> int | None:
    """Index of the first device that nobody holds; it is ours until this process ends. None: all are taken.

    `names` are lasting ones (a GPU's UUID): indices differ from container to container.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for index, name in enumerate(names):
        handle = os.open(folder / f"{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        return index  # the handle stays open, and with it the lock
    return None
