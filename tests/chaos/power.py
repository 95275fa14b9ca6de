"""What a power cut leaves of a directory: files as long as they were when last fsynced, names that their directory knew
when *it* was last fsynced. kill -9 cannot show a missing fsync, because the page cache survives it; this can.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock


class Disk:
    """Follows every fsync below a folder, and can then cut the power."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[int, int] = {}
        """Inode -> bytes that are on the disk."""
        self._names: dict[int, dict[str, int]] = {}
        """Inode of a directory -> the names, and their inodes, that are on the disk."""
        for path in [folder, *folder.rglob("*")]:
            self._learn(path)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Notice the fsyncs of this block."""
        real = os.fsync

        def noticed(descriptor: int) -> None:
            real(descriptor)
            self._learn(Path(f"/proc/self/fd/{descriptor}").readlink())

        with mock.patch("os.fsync", noticed):
            yield

    def cut_power(self, *folders: Path) -> None:
        """Leave below these folders what is on the disk, and nothing else."""
        for folder in folders:
            self._cut(folder)

    def _learn(self, path: Path) -> None:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            self._names[info.st_ino] = {child.name: child.stat().st_ino for child in path.iterdir()}
        else:
            self._sizes[info.st_ino] = info.st_size

    def _cut(self, folder: Path) -> None:
        known = self._names.get(folder.stat().st_ino, {})
        for child in list(folder.iterdir()):
            info = child.stat()
            if known.get(child.name) != info.st_ino:
                _forget(child)
            elif child.is_dir():
                self._cut(child)
            else:
                os.truncate(child, min(self._sizes.get(info.st_ino, 0), info.st_size))


def _forget(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            _forget(child)
        path.rmdir()
    else:
        path.unlink()
