"""From a tracked clip to heads with fixed triangles: neutral, animated by principal shapes, driven by blendshapes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mononphm_core.animation.morphs import carried, clip_shapes
from mononphm_core.animation.texture import bake
from mononphm_core.animation.topology import Topology
from mononphm_core.animation.wrap import Field, template_guess, wrap_frame, wrap_person
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.model.template import TemplateHead
from mononphm_core.types import MM_PER_UNIT, ColourField, HeadMesh, MorphHead

BOUND_MM = 0.2
"""How far a vertex of animation.glb may lie from its place in any frame."""
LEAST_BEND = 5e-3
"""Of a unit normal: a blendshape that turns it less leaves it alone, and its file stays small."""

FieldAt = Callable[[Float[Tensor, "d_exp"]], Field]
"""The person's field with one expression."""


@dataclass(frozen=True)
class Rig:
    """One person with fixed triangles, posed head units."""

    topology: Topology
    canonical: Float[np.ndarray, "vertices 3"]
    canonical_weights: Float[np.ndarray, "shapes"]
    neutral: Float[np.ndarray, "vertices 3"]
    texture: UInt8[np.ndarray, "height width 3"]

    @cached_property
    def normals(self) -> Float[np.ndarray, "vertices 3"]:
        """Of the neutral head."""
        return vertex_normals(HeadMesh(self.neutral, self.topology.faces))

    def linear(self, weights: Float[np.ndarray, "shapes"]) -> Float[np.ndarray, "vertices 3"]:
        """The canonical head moved by blendshapes alone."""
        return self.canonical + np.tensordot(weights - self.canonical_weights, self.topology.expression, 1)


def rig(
    topology: Topology,
    template: TemplateHead,
    z_geo: Float[Tensor, "d_geo"],
    field_at: FieldAt,
    colour_at: Callable[[Float[Tensor, "d_exp"]], ColourField],
) -> Rig:
    """Lay the triangles onto one person: the canonical head, then the neutral one, then the colours of that."""
    z_canonical = template.z_canonical
    canonical = wrap_person(topology, template_guess(topology, template, z_geo), field_at(z_canonical))
    weights = z_canonical.cpu().numpy().astype(np.float64)
    still = torch.zeros_like(z_canonical)
    bare = Rig(topology, canonical, weights, canonical, np.zeros((1, 1, 3), np.uint8))
    neutral = wrap_frame(topology, bare.linear(0 * weights), 0 * canonical, field_at(still))
    texture = bake(topology, neutral, colour_at(still), field_at(still).distance)
    return Rig(topology, canonical, weights, neutral, texture)


@dataclass(frozen=True)
class NamedShapes:
    """Blendshapes with names of their own, as sums of the model's, and what the clip does with them."""

    names: tuple[str, ...]
    mix: Float[np.ndarray, "named shapes"]
    weights: Float[np.ndarray, "frames named"]


def clip_heads(
    person: Rig,
    z_exp: Float[Tensor, "frames shapes"],
    field_at: FieldAt,
    named: NamedShapes,
    on_frame: Callable[[int], None],
) -> tuple[MorphHead, MorphHead]:
    """The clip by the fewest shapes that keep `BOUND_MM`, and by named blendshapes.

    The named ones are linear, so they say less than the field does; both heads state their largest error.
    `on_frame` hears how many frames are done.
    """
    return heads_of(person, len(z_exp), lambda frame: frame_offset(person, z_exp[frame], field_at), named, on_frame)


def heads_of(
    person: Rig,
    frames: int,
    offset_of: Callable[[int], Float[np.ndarray, "vertices 3"]],
    named: NamedShapes,
    on_frame: Callable[[int], None],
) -> tuple[MorphHead, MorphHead]:
    """The same from offsets (`frame_offset`) that were made elsewhere."""
    linear = np.tensordot(named.mix, person.topology.expression, 1).astype(np.float32)
    named_error = 0.0

    def measured(frame: int, done: int) -> Float[np.ndarray, "vertices 3"]:
        nonlocal named_error
        offset = offset_of(frame)
        named_error = max(named_error, _farthest(offset - np.tensordot(named.weights[frame], linear, 1)))
        on_frame(done)
        return offset

    found = clip_shapes(frames, measured, BOUND_MM / MM_PER_UNIT)
    names = tuple(f"shape_{k:02d}" for k in range(len(found.shapes)))
    bends = carried(np.stack([_bend(person, offset) for offset in found.offsets]), found.basis_weights)
    compact = _head(person, names, found.shapes, bends, found.weights, found.error)
    bends = np.stack([_bend(person, shape) for shape in linear])
    bends[np.abs(bends).max(-1) < LEAST_BEND] = 0.0
    return compact, _head(person, named.names, linear, bends, named.weights, named_error)


def frame_offset(person: Rig, weights: Float[Tensor, "shapes"], field_at: FieldAt) -> Float[np.ndarray, "vertices 3"]:
    """What one frame, on its zero set, adds to the neutral head. The start does not come from the frame before: frames
    may come in any order."""
    linear = person.linear(weights.cpu().numpy().astype(np.float64))
    start = person.neutral - person.linear(np.zeros(len(weights)))
    frame = wrap_frame(person.topology, linear, start, field_at(weights))
    offset: Float[np.ndarray, "vertices 3"] = (frame - person.neutral).astype(np.float32)
    return offset


def _bend(person: Rig, offset: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices 3"]:
    """How an offset from the neutral head changes its normals."""
    bent = vertex_normals(HeadMesh(person.neutral + offset, person.topology.faces))
    return (bent - person.normals).astype(np.float32)


def _farthest(offset: Float[np.ndarray, "vertices 3"]) -> float:
    return float(np.linalg.norm(offset, axis=-1).max(initial=0.0))


def _head(
    person: Rig,
    names: tuple[str, ...],
    shapes: Float[np.ndarray, "shapes vertices 3"],
    bends: Float[np.ndarray, "shapes vertices 3"],
    weights: Float[np.ndarray, "frames shapes"],
    error: float,
) -> MorphHead:
    """Vertices become corners, where a texture seam needs two for one."""
    topology, corner = person.topology, person.topology.corner_vertex
    return MorphHead(
        vertices=person.neutral[corner].astype(np.float32),
        normals=person.normals[corner].astype(np.float32),
        faces=topology.corner_faces,
        uv=topology.corner_uv,
        texture=person.texture,
        names=names,
        shapes=shapes[:, corner].astype(np.float32),
        shape_normals=bends[:, corner].astype(np.float32),
        weights=weights.astype(np.float32),
        largest_error_mm=error * MM_PER_UNIT,
    )
