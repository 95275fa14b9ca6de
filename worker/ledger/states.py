"""The life of a job, as data: queued -> running -> succeeded | failed, cancelling -> cancelled; then for ever.

`deleted` is the tombstone: from everywhere, to nowhere.
"""

from enum import Enum


class State(str, Enum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.DELETED}),
    State.RUNNING: frozenset({State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELLING, State.DELETED}),
    State.CANCELLING: frozenset({State.CANCELLED, State.DELETED}),
    State.SUCCEEDED: frozenset({State.DELETED}),
    State.FAILED: frozenset({State.DELETED}),
    State.CANCELLED: frozenset({State.DELETED}),
    State.DELETED: frozenset(),
}
"""Which state may follow which. running -> queued is a lost or released lease: the next attempt."""

TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
"""Nothing but the tombstone follows."""

ACTIVE = frozenset({State.RUNNING, State.CANCELLING})
"""A worker holds, or held, a lease."""


def may_become(old: State, new: State) -> bool:
    """Whether the arrow old -> new exists."""
    return new in TRANSITIONS[old]
