"""Shutting the decoder process in: after `confine`, it can compute and write to pipes it already has, nothing else.

Linux only in full; elsewhere what exists is applied. Standard library only. Each call tightens the *calling*
process for good, so only the decoder child calls it.
"""

import ctypes
import os
import resource
import signal
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_DUMPABLE = 4
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Confinement:
    """What was really applied; told to the parent for its log."""

    no_new_privs: bool
    no_network: bool
    no_new_files: bool


def limit_resources(memory_bytes: int, cpu_seconds: int) -> None:
    """Hard limits on address space and processor time; no file can be written, no core dumped.

    Exceeding memory gives MemoryError (or ENOMEM in a library), exceeding time the signal SIGXCPU.
    """
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def confine() -> Confinement:
    """No new privileges, no network, no file opened from here on (open ones stay), dead as soon as the parent is."""
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privs = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    no_network = libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # after unshare, which may clear it
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    return Confinement(no_new_privs, no_network, not _can_open())


def _can_open() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True
