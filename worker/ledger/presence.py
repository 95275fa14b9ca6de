"""Whether a process that said where it runs has died. Only the machine it ran on can tell; others wait for its lease.

A process is named by its machine's boot, its PID namespace, its number and its start (proc(5), fields 3 and 22 of
`stat`): numbers are given out again, the four together are not. Where there is no /proc nothing is known of anybody.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROC = Path("/proc")


def here(pid: int | None = None) -> dict[str, Any] | None:
    """What names a process of this machine (default: this one); None where the system does not tell."""
    pid = pid or os.getpid()
    machine, stat = _machine(), _stat(pid)
    return {"machine": machine, "pid": pid, "start": stat[1]} if machine and stat else None


def has_died(presence: Mapping[str, Any] | None) -> bool:
    """True only where it is certain: the process ran on this machine, in this boot and namespace, and is no more."""
    machine = _machine()
    if not presence or not machine or presence.get("machine") != machine:
        return False
    stat = _stat(int(presence["pid"]))
    return stat is None or stat[0] in "ZX" or stat[1] != presence["start"]


def _machine() -> str | None:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{os.uname().nodename} {boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return None


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start (clock ticks since the boot); None: there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])
