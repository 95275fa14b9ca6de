"""Opaque names that sort by time: a prefix, then 48 bits of milliseconds and 80 random bits in base 32."""

import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """A new id such as `rec_06f3…`: later calls of one process sort after earlier ones, also within a millisecond."""
    global _last
    with _lock:
        value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(79)
        _last = value = max(value, _last + 1)
    digits = [_ALPHABET[value >> (5 * position) & 31] for position in reversed(range(26))]
    return f"{prefix}_{''.join(digits)}"


def new_job_id() -> str:
    """The id of a reconstruction."""
    return new_id("rec")
