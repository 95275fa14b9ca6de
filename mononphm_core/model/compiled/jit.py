"""How kernels are compiled: by numba, once, kept on disk beside the source (or in the user's cache folder)."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])
KEEPS_NOT_A_NUMBER = {"contract", "reassoc", "nsz", "arcp"}
"""Liberties of the compiler; it may not assume that numbers are finite, because a broken field must be seen."""


def compiled(function: Function) -> Function:
    """`function` as machine code that runs without the interpreter's lock.

    Where no folder can be written ($NUMBA_CACHE_DIR names one), it is compiled again in every process.
    """
    plain = inspect.unwrap(function)
    make: Any = numba.njit
    how = {"nogil": True, "fastmath": KEEPS_NOT_A_NUMBER, "error_model": "numpy"}
    try:
        result: Function = make(cache=True, **how)(plain)
    except RuntimeError:
        result = make(**how)(plain)
    return result
