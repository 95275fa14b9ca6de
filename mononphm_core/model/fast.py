"""Where the compiled field stands in for the torch modules: on a processor, where nothing wants a graph.

The same numbers up to float32 rounding, sooner (docs/performance.md). Torch answers as before without numba, before the
kernels were compiled (`compiled/prepare.py`), on another device, for another kind of model, and wherever a gradient to
codes or weights is wanted.
"""

import functools
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.model.identity import IdentityDecoder, Person

if TYPE_CHECKING:
    from mononphm_core.model.head import Conditioned, HeadModel

BLOCK = 1024
"""Points of one call: enough that the rows of each local network fill tiles, few enough for the cache."""

Found = tuple[Float[Tensor, "frames points"], Tensor | None, Tensor | None]
"""Distance, colour, gradient."""


class FastField:
    """The compiled twin of one frozen model; its copy of the weights follows them if they change after all."""

    def __init__(self, model: "HeadModel") -> None:
        self._model = [model]  # in a list, so that torch does not see a cycle of modules
        self._net: Any = None
        self._stamp: tuple[int, ...] = ()

    def __call__(
        self, x: Float[Tensor, "frames points 3"], conditioned: "Conditioned", want: tuple[bool, bool]
    ) -> Found:
        """`want` says whether colour and gradient are asked. No graph."""
        from mononphm_core.model.compiled.field import field
        from mononphm_core.model.compiled.pack import pack_head

        model, (coloured, sloped) = self._model[0], want
        net, person = self._packed(), conditioned.person
        assert isinstance(person, Person)
        frames, points = x.shape[:2]
        asked = np.ascontiguousarray(x.detach().numpy())
        distance = np.empty((frames, points), np.float32)
        gradient = np.empty((frames, points if sloped else 0, 3), np.float32)
        colour = np.empty((frames, points if coloured else 0, 3), np.float32)
        nodes = model.config.ensemble.nodes
        calls = []
        for frame in range(frames):
            head = pack_head(model.deformation, person, conditioned.condition, frame, nodes)
            for begin in range(0, points, BLOCK):
                part = slice(begin, begin + BLOCK)
                calls.append((net, head, *(v[frame][part] for v in (asked, distance, gradient, colour))))
        workers = min(torch.get_num_threads(), len(calls))
        if workers < 2:
            for call in calls:
                field(*call)
        else:
            list(_pool(workers).map(lambda call: field(*call), calls))
        return (
            torch.from_numpy(distance),
            torch.from_numpy(colour) if coloured else None,
            torch.from_numpy(gradient) if sloped else None,
        )

    def _packed(self) -> Any:
        from mononphm_core.model.compiled.pack import pack_net

        model = self._model[0]
        assert isinstance(model.identity, IdentityDecoder)
        stamp = tuple(p._version for p in model.parameters())
        if self._net is None or stamp != self._stamp:
            self._net, self._stamp = pack_net(model.identity, model.deformation), stamp
        return self._net


def fast_field(model: "HeadModel") -> FastField | None:
    """The compiled twin of a model; None where there is none, or no machine code yet: no job waits for a compiler."""
    if importlib.util.find_spec("numba") is None:
        return None
    from mononphm_core.model.compiled.pack import supported
    from mononphm_core.model.compiled.prepare import is_prepared

    return FastField(model) if supported(model.config.identity) and is_prepared() else None


def wants_no_graph(x: Tensor, conditioned: "Conditioned", colour: bool) -> bool:
    """Whether the answer needs no way back to points or codes, and everything is float32 on the processor."""
    person = conditioned.person
    if not isinstance(person, Person):
        return False
    used = [x, *conditioned.condition, person.anchors, person.geo_bias, person.unstretched, person.geo_gate]
    if colour:
        used += [person.app_bias, person.app_gate]
    tensors = [t for t in used if t is not None]
    if any(t.device.type != "cpu" or t.dtype != torch.float32 for t in tensors):
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))


@functools.lru_cache(maxsize=4)
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="field")
