"""How much memory a worker may give to a job: what the machine, or the container around us, has to spare."""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def spare_bytes(pid: int | None, cgroup: Path = CGROUP) -> int:
    """What a job may use: what is free now, and what process `pid`, which will do it, already holds."""
    available = int(psutil.virtual_memory().available)
    room = _room_of_container(cgroup)
    return (available if room is None else min(available, room)) + _resident_bytes(pid)


def _room_of_container(cgroup: Path) -> int | None:
    """Bytes below the limit of cgroup version 2; None: no limit (or another system). Page cache counts as free."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(int(limit) - used + int(stat.get("inactive_file", 0)), 0)


def _resident_bytes(pid: int | None) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid is not None else 0
    except psutil.Error:
        return 0
