"""Where blocking work happens: never on the event loop. Two pools, so a slow disk delays no status request."""

from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

LEDGER_THREADS = 16
FILE_THREADS = 24

_ledger_pool: RunVar[anyio.CapacityLimiter] = RunVar("ledger_pool")
_file_pool: RunVar[anyio.CapacityLimiter] = RunVar("file_pool")


async def in_ledger_thread(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result:
    """Run a short database call in a thread."""
    return await anyio.to_thread.run_sync(
        lambda: function(*arguments, **named), limiter=_pool(_ledger_pool, LEDGER_THREADS)
    )


async def in_file_thread(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result:
    """Run hashing, parsing, reading, writing or fsync in a thread."""
    return await anyio.to_thread.run_sync(
        lambda: function(*arguments, **named), limiter=_pool(_file_pool, FILE_THREADS)
    )


def next_of(iterator: Iterator[bytes]) -> bytes | None:
    """The next piece, or None: StopIteration cannot cross a thread's future."""
    return next(iterator, None)


def _pool(variable: RunVar[anyio.CapacityLimiter], size: int) -> anyio.CapacityLimiter:
    """One limiter for each event loop."""
    limiter = variable.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(size)
        variable.set(limiter)
    return limiter
