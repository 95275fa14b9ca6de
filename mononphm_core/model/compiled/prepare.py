"""`python -m mononphm_core.model.compiled.prepare`: compile the kernels for this processor, now.

Compiling takes half a minute of processor time, so it is done when the program is set up and never inside a job: where
it was not done, `is_prepared` says so and the torch modules answer.
"""

import hashlib
import inspect
from pathlib import Path
from typing import Any, cast

import llvmlite.binding
import numba
import torch

from mononphm_core import numerics
from mononphm_core.model.compiled import field as kernel
from mononphm_core.model.config import DeformationConfig, IdentityConfig, ModelConfig
from mononphm_core.model.fast import FastField
from mononphm_core.model.head import HeadModel

NAME = "field.prepared"
SMALLEST = ModelConfig(
    IdentityConfig(
        neighbours=8, d_global=2, d_local_geo=1, d_local_app=1, hidden_geo=8, hidden_app=8, hidden_anchors=4
    ),
    DeformationConfig(d_expression=2, d_identity=2, hidden=8),
)
"""Machine code does not depend on sizes."""


def _folder() -> Path | None:
    """Where numba keeps the machine code; None where it can't."""
    kept: str | None = cast(Any, kernel.field).stats.cache_path
    return Path(kept) if kept else None


def _stamp() -> bytes:
    """What the machine code depends on. The source's bytes and not its time, which the layers of an image round."""
    source = hashlib.sha256(Path(inspect.getfile(kernel)).read_bytes()).hexdigest()
    processor = llvmlite.binding.get_host_cpu_name()
    return f"{source} {numba.__version__} {processor}".encode()


def is_prepared() -> bool:
    """Whether the machine code of this very source lies ready for this processor."""
    folder = _folder()
    try:
        return folder is not None and (folder / NAME).read_bytes() == _stamp()
    except OSError:
        return False


def prepare() -> None:
    """Compile (or load) the kernels by one question, and remember that it was done."""
    anchors = torch.linspace(-0.3, 0.3, 3 * SMALLEST.identity.anchors).view(-1, 3)
    network = HeadModel(SMALLEST, anchors).requires_grad_(False)
    network.fast = FastField(network)
    network.ready()
    if (folder := _folder()) is not None:
        (folder / NAME).write_bytes(_stamp())


if __name__ == "__main__":
    numerics.warm_up()
    prepare()
