"""The neutral head's own triangles through a clip, for models that bring no fixed ones: carried by the deformation.

The field takes posed points to the canonical head. A place of skin has one canonical place in every frame, so

    x_frame + offset(x_frame, z_frame) = x_neutral + offset(x_neutral, 0),

and one root search a vertex and frame (`model.root_finding`) says where it went. Ambient coordinates are not part of
it: they change the surface, not the place. A Newton step along the gradient then brings vertices onto the frame's zero
set. Vertices that the search lost follow their neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csc_array, diags_array
from scipy.sparse.linalg import splu
from torch import Tensor

from mononphm_core.animation.morphs import carried, clip_shapes
from mononphm_core.animation.wrap import Field
from mononphm_core.geometry.sheet import laplacian
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.model.root_finding import Displaced, find_roots
from mononphm_core.types import MM_PER_UNIT, HeadMesh, MorphHead

CHUNK = 8192
LAST_STEP = 0.004
"""Head units (1 mm): what a vertex may be moved off the place that the deformation gave it."""
LEAST_SLOPE = 0.3
FARTHEST = 0.2
"""Head units (50 mm): no expression carries skin so far; the search found another root."""


@dataclass(frozen=True)
class Expression:
    """One person with one expression, posed head units."""

    displaced: Displaced
    """x_posed -> its place on the canonical head."""
    field: Field


ExpressionAt = Callable[[Float[Tensor, "d_exp"]], Expression]


def carried_head(
    neutral: HeadMesh,
    z_exp: Float[Tensor, "frames d_exp"],
    at: ExpressionAt,
    bound_mm: float,
    on_frame: Callable[[int], None],
) -> MorphHead:
    """`neutral` (the person with z_exp = 0, posed head units, with colours) through the clip, by the fewest shapes that
    keep `bound_mm`. `on_frame` hears how many frames are done.
    """
    vertices = neutral.vertices.astype(np.float64)
    start = torch.from_numpy(neutral.vertices.astype(np.float32)).to(z_exp.device)
    canonical = _in_pieces(at(torch.zeros_like(z_exp[0])).displaced, start)
    stiffness, _ = laplacian(neutral.vertices, neutral.faces)

    def offset_of(frame: int, done: int) -> Float[np.ndarray, "vertices 3"]:
        expression = at(z_exp[frame])
        moved, lost = _carried(expression.displaced, canonical, start)
        moved = vertices + follow(stiffness, moved - vertices, lost)
        offset = _onto_surface(expression.field, moved, z_exp.device) - vertices
        on_frame(done)
        return offset.astype(np.float32)

    found = clip_shapes(len(z_exp), offset_of, bound_mm / MM_PER_UNIT)
    still = vertex_normals(neutral)
    bends = [vertex_normals(HeadMesh(neutral.vertices + offset, neutral.faces)) - still for offset in found.offsets]
    return MorphHead(
        vertices=neutral.vertices.astype(np.float32),
        normals=still.astype(np.float32),
        faces=neutral.faces,
        colours=neutral.colours,
        names=tuple(f"shape_{k:02d}" for k in range(len(found.shapes))),
        shapes=found.shapes,
        shape_normals=carried(np.stack(bends), found.basis_weights).astype(np.float32),
        weights=found.weights,
        largest_error_mm=found.error * MM_PER_UNIT,
    )


def follow(
    stiffness: csc_array, offsets: Float[np.ndarray, "vertices 3"], lost: Bool[np.ndarray, "vertices"]
) -> Float[np.ndarray, "vertices 3"]:
    """The same offsets with those of lost vertices harmonic between the others; 0 where no other is connected."""
    if not lost.any():
        return offsets
    inner = stiffness[lost][:, lost]
    towards = -(stiffness[lost][:, ~lost] @ offsets[~lost])
    filled = offsets.copy()
    filled[lost] = splu(csc_array(inner + diags_array(np.full(int(lost.sum()), 1e-9)))).solve(towards)
    return filled


def _carried(
    displaced: Displaced, canonical: Float[Tensor, "vertices 3"], start: Float[Tensor, "vertices 3"]
) -> tuple[Float[np.ndarray, "vertices 3"], Bool[np.ndarray, "vertices"]]:
    """Where the vertices went, and which of them the search lost."""
    parts = []
    for target, first in zip(canonical.split(CHUNK), start.split(CHUNK), strict=True):
        roots = find_roots(displaced, target, first)
        parts.append((roots.x, roots.valid & ((roots.x - first).norm(dim=-1) < FARTHEST)))
    x, valid = (torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True))
    return x.astype(np.float64), ~valid


def _onto_surface(
    field: Field, x: Float[np.ndarray, "vertices 3"], device: torch.device
) -> Float[np.ndarray, "vertices 3"]:
    """One Newton step, x - sdf grad / |grad|^2, no longer than `LAST_STEP`."""
    steps = []
    for part in torch.from_numpy(x.astype(np.float32)).to(device).split(CHUNK):
        distance, gradient = field.gradient(part)
        slope = gradient.norm(dim=-1, keepdim=True).clamp_min(LEAST_SLOPE)
        steps.append((distance[:, None] / slope).clamp(-LAST_STEP, LAST_STEP) * gradient / slope)
    return x - torch.cat(steps).double().cpu().numpy()


@torch.no_grad()
def _in_pieces(displaced: Displaced, x: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    return torch.cat([displaced(part) for part in x.split(CHUNK)])
