"""Rendering an iteration's rays in blocks, so that the graph of only one block is held at a time. Exact.

The mask term joins all rays, so its gradient is known only once all are rendered. Rays are therefore rendered without a
graph first; the loss gives the gradient of every ray's colour and opacity; then each block is rendered again, with its
graph, and that gradient is pushed through it. One block that holds all rays is rendered once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.model.config import IdentityConfig
from mononphm_core.model.head import Conditioned, HeadModel
from mononphm_core.quirks import PublishedQuirks
from mononphm_core.rendering.published.fine import (
    Placement,
    PublishedRendering,
    Samples,
    place_samples,
    render_lit,
)
from mononphm_core.tracking.published.sampling import Batch
from mononphm_core.tracking.published.variables import Leaves

GRAPH_BYTES = 1.2e9
"""What one block's graph may hold."""
KEPT_PER_UNIT = 6.0
"""Floats held per hidden unit and network of a sample, both derivatives (measured)."""


@dataclass
class Picture:
    """The rendered rays. After the loss's `backward`, call this one's: it carries their gradient to the leaves."""

    rgb: Float[Tensor, "rays 3"]
    opacity: Float[Tensor, "rays"]
    again: list[tuple[slice, Callable[[], PublishedRendering]]] = field(default_factory=list)
    """Blocks to be rendered once more."""

    def backward(self) -> None:
        """Push the gradient of colours and opacities through the blocks."""
        for rows, render_block in self.again:
            assert self.rgb.grad is not None and self.opacity.grad is not None
            seen = render_block()
            torch.autograd.backward([seen.rgb, seen.opacity], [self.rgb.grad[rows], self.opacity.grad[rows]])


def render(
    model: HeadModel,
    leaves: Leaves,
    placement: Callable[[], Placement],
    frame: int,
    batch: Batch,
    sharpness: float,
    quirks: PublishedQuirks,
    block_rays: int | None = None,
) -> Picture:
    """Coarse pass, importance samples and the lit fine pass of every ray of the batch."""

    def conditioned() -> Conditioned:
        return model.condition(leaves.geo(), leaves.z_exp[frame : frame + 1], leaves.app())

    count, samples = batch.jitter.shape
    block = min(count, block_rays or fitting_rays(model, samples))
    with torch.no_grad():
        still = conditioned()
        z = place_samples(batch.rays, placement(), lambda x: model.sdf(x[None], still)[0], batch.jitter)

    def render_block(rows: slice, create_graph: bool) -> PublishedRendering:
        known = conditioned()

        def seen(x: Tensor) -> Samples:
            found = model.query(x[None], known, colour=True, gradient=True, create_graph=create_graph)
            assert found.colour is not None and found.gradient is not None
            return Samples(found.sdf[0], found.colour[0], found.gradient[0])

        return render_lit(batch.rays.part(rows), placement(), z[rows], seen, leaves.sh, sharpness, quirks)

    if block == count:
        whole = render_block(slice(0, count), create_graph=True)
        return Picture(whole.rgb, whole.opacity)
    parts = [slice(i, min(i + block, count)) for i in range(0, count, block)]
    with torch.no_grad():
        seen = [render_block(rows, create_graph=False) for rows in parts]
    rgb = torch.cat([s.rgb for s in seen]).requires_grad_(True)
    opacity = torch.cat([s.opacity for s in seen]).requires_grad_(True)
    return Picture(rgb, opacity, [(rows, lambda rows=rows: render_block(rows, create_graph=True)) for rows in parts])  # type: ignore[misc]


def fitting_rays(model: HeadModel, samples: int) -> int:
    """Rays whose graph fits: it grows with the networks asked per sample and their hidden units."""
    c, d = model.config.identity, model.config.deformation
    if isinstance(c, IdentityConfig):
        asked = c.neighbours + int(c.global_node)
        units = asked * (c.hidden_geo * c.layers_geo + c.hidden_app * c.layers_app)
    else:
        units = c.hidden * (c.layers_geo + c.layers_app)
    units += d.hidden * d.layers
    return max(1, int(GRAPH_BYTES / (4 * KEPT_PER_UNIT * units * samples)))
