"""Ordinary floating point for libraries that need it, in a process that flushes denormals."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_TINY = np.float32(1e-39)


@contextmanager
def ordinary_denormals() -> Iterator[None]:
    """Inside, this thread and the threads it starts keep denormal numbers; afterwards as before.

    `numerics.warm_up` makes them zero for speed, and new threads inherit that. XNNPACK, the runtime of the face
    library, then fails to set up its graphs ("failed to reshape runtime").
    """
    flushing = bool(_TINY * np.float32(1.0) == 0.0)
    if not flushing:
        yield
        return
    torch.set_flush_denormal(False)
    try:
        yield
    finally:
        torch.set_flush_denormal(True)
