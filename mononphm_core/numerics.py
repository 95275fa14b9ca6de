"""One place for what must be set in every process before the first parallel tensor operation."""

import functools
import importlib.util

import numpy as np
import torch


def warm_up(threads: int | None = None) -> None:
    """Prepare this process for tensor work; call once, before any parallel operation.

    * Denormals become zero: softplus with beta = 100 underflows on most of its range, and denormal arithmetic is
      ten times slower. Outputs do not change.
    * One scalar `exp` and `sqrt`: the first *parallel* call of the vector maths library of torch 2.13 races with
      its own start-up and is wrong by 1e-4 in some processes (pytorch issue 188792); a scalar first call is safe.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # measured and kept while denormals still exist; later it would warn
    torch.set_flush_denormal(True)
    one = torch.ones(1)
    one.exp(), one.sqrt(), one.log(), one.sigmoid()


@functools.cache
def pytorch3d_device() -> torch.device | None:
    """Where pytorch3d draws and measures, if it is installed and CUDA is there; None: our own code answers."""
    if importlib.util.find_spec("pytorch3d") is None or not torch.cuda.is_available():
        return None
    return torch.device("cuda")
