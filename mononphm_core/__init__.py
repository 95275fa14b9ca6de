"""MonoNPHM: a head, in 3D, from an ordinary video. The public interface is `mononphm_core.api` (docs/python_api.md).

Its names are looked up on first use: importing this package loads no tensor library.
"""

import os
from typing import TYPE_CHECKING, Any

# Threads that wait for each other give the processor away instead of spinning; read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from mononphm_core.api import Model, Picture, Sample, extract_mesh, load_model, render, track

__all__ = ["Model", "Picture", "Sample", "extract_mesh", "load_model", "render", "track"]


def __getattr__(name: str) -> Any:
    """A name of the public interface."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mononphm_core import api

    return getattr(api, name)
