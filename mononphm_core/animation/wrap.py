"""The fixed triangles laid onto the zero set of a head's field, for the person and then for each frame.

Where a vertex should be is known from the template (identity) and the blendshapes (expression) to about a millimetre;
what remains is a few Newton steps along the field's gradient,

    x <- x - sdf(x) grad(x) / |grad(x)|^2,

each followed by a thin plate over the whole displacement, so that triangles slide together and do not fold. Where a
gradient contradicts the triangles' own normal (between closed lips, behind lids) the vertex follows its neighbours
instead. Eyeballs stay spheres: moved and sized, never bent.
"""

import functools
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mononphm_core.animation.topology import LEFT_EYE, MOUTH, RIGHT_EYE, Topology, control_rows
from mononphm_core.geometry.sheet import Sheet
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.model.template import TemplateHead
from mononphm_core.types import HeadMesh, SdfField

CONTROL_LENGTH = 0.02
"""Head units (5 mm): between the template's points the displacement is a thin plate with this much give."""
SMOOTH_LENGTH = 0.008
"""Head units (2 mm): a Newton step's detail below this is left to the last step."""
MOUTH_TRUST = 1e-3
"""The cavity behind the lips follows the lips: its field was taught roughly and is hardly ever seen."""
TUCKED, TUCKED_OVER = 0.02, 8
"""Head units (5 mm): how far the cavity is drawn back behind the lips, rising over so many rows of its vertices. A deep
fold below the lip would otherwise let it through the chin when the jaw opens."""
LARGEST_STEP = 0.012
"""Head units (3 mm)."""
LEAST_SLOPE = 0.3
"""A distance that rises more slowly than this is none; its steps would be wild."""
PERSON_STEPS, FRAME_STEPS = 3, 1
DISTRUST, TRUST = 0.35, 0.8
"""Cosine between field gradient and triangle normal up to which the field does not lead a vertex; from which fully."""
LAST_STEP = 0.0016
"""Head units (0.4 mm): what one vertex may do alone."""
EYE_FRONT = 0.80
"""Cosine around the eyeball's forward axis inside which it may be seen between the lids."""
EYE_NEAR = 0.006
"""Head units (1.5 mm): front points of an eyeball nearer to the zero set than this are not covered by a lid."""


@runtime_checkable
class GradientField(Protocol):
    """A signed distance with its gradient, posed head units."""

    def __call__(self, x: Float[Tensor, "points 3"]) -> tuple[Float[Tensor, "points"], Float[Tensor, "points 3"]]: ...


@dataclass(frozen=True)
class Field:
    """What wrapping asks of one person with one expression."""

    distance: SdfField
    gradient: GradientField
    """Dearer: the distance and its slope."""


def template_guess(
    topology: Topology, template: TemplateHead, z_geo: Float[Tensor, "d_geo"]
) -> Float[np.ndarray, "vertices 3"]:
    """The person's canonical head by the template alone: its 2,500 points, and a thin plate between them."""
    known = topology.control_vertex >= 0
    target = np.zeros(topology.mean.shape)
    with torch.no_grad():
        points = _all_points(template, z_geo)
    vertex = topology.control_vertex[known]
    target[vertex] = points[control_rows(template)[known]] - topology.mean[vertex]
    moved = topology.mean + control_sheet(topology).smooth(target)
    start, _ = template.groups["mediapipe478"]
    irises = points[start + 468 : start + 478]
    ours = np.einsum("ik,ikc->ic", topology.iris_share, topology.mean[topology.iris_vertex])
    for part, side in ((RIGHT_EYE, slice(0, 5)), (LEFT_EYE, slice(5, 10))):
        ball = topology.part == part
        moved[ball] = topology.mean[ball] + (irises[side] - ours[side]).mean(0)
    return moved


def wrap_person(
    topology: Topology, guess: Float[np.ndarray, "vertices 3"], field: Field
) -> Float[np.ndarray, "vertices 3"]:
    """The canonical head on the zero set of `field` (which is the person's, in the canonical expression)."""
    led = topology.skin & (topology.part != MOUTH)
    return tucked(topology, _onto_surface(topology, guess, np.zeros_like(guess), field, led, PERSON_STEPS))


def tucked(topology: Topology, x: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices 3"]:
    """The mouth's cavity moved towards the back of the head, the lips left where they are."""
    moved = x.copy()
    moved[:, 2] -= TUCKED * np.minimum(rows_behind_lips(topology) / TUCKED_OVER, 1.0)
    return moved


def wrap_frame(
    topology: Topology,
    linear: Float[np.ndarray, "vertices 3"],
    correction: Float[np.ndarray, "vertices 3"],
    field: Field,
) -> Float[np.ndarray, "vertices 3"]:
    """One frame's head on its zero set.

    `linear` is the person's canonical head moved by the blendshapes, `correction` what the frame before had to add to
    it: the start. Where no blendshape moves anything, nothing is asked: the canonical head lies there already.
    """
    led = topology.skin & (topology.part != MOUTH) & topology.expressive
    return _onto_surface(topology, linear, correction, field, led, FRAME_STEPS)


def _onto_surface(
    topology: Topology,
    start: Float[np.ndarray, "vertices 3"],
    correction: Float[np.ndarray, "vertices 3"],
    field: Field,
    led: Bool[np.ndarray, "vertices"],
    steps: int,
) -> Float[np.ndarray, "vertices 3"]:
    """Newton steps with the whole gradient, each made smooth, then one along the last gradient, left as it is."""
    sheet, skin = _step_sheet(topology), topology.skin
    moved = start + correction
    direction = np.zeros_like(start)
    for _ in range(steps):
        distance, gradient = _ask(field.gradient, moved[led])
        direction[led] = _direction(topology, moved, led, gradient)
        moved = moved + _step(distance, direction, led, LARGEST_STEP)
        moved[skin] = start[skin] + sheet.smooth(moved - start)[skin]
    distance = field.distance(torch.from_numpy(moved[led].astype(np.float32))).cpu().numpy().astype(np.float64)
    moved = moved + _step(distance, direction, led, LAST_STEP)
    for part in (LEFT_EYE, RIGHT_EYE):
        if (topology.part == part).any():
            _place_ball(moved, topology.part == part, field.gradient)
    return moved


def _direction(
    topology: Topology,
    x: Float[np.ndarray, "vertices 3"],
    led: Bool[np.ndarray, "vertices"],
    gradient: Float[np.ndarray, "led 3"],
) -> Float[np.ndarray, "led 3"]:
    """grad / |grad|^2, fading to 0 where it is not to be trusted."""
    size = np.linalg.norm(gradient, axis=1)
    normal = vertex_normals(HeadMesh(x, topology.faces))[led]
    cosine = (gradient * normal).sum(1) / np.maximum(size, 1e-9)
    share = np.clip((cosine - DISTRUST) / (TRUST - DISTRUST), 0.0, 1.0)
    return gradient * (share**2 * (3 - 2 * share) / np.maximum(size, LEAST_SLOPE) ** 2)[:, None]


def _step(
    distance: Float[np.ndarray, "led"],
    direction: Float[np.ndarray, "vertices 3"],
    led: Bool[np.ndarray, "vertices"],
    largest: float,
) -> Float[np.ndarray, "vertices 3"]:
    step = np.zeros_like(direction)
    step[led] = -np.clip(distance, -largest, largest)[:, None] * direction[led]
    return step


def _place_ball(x: Float[np.ndarray, "vertices 3"], ball: Bool[np.ndarray, "vertices"], field: GradientField) -> None:
    """Move and size an eyeball so that what shows between the lids lies on the zero set; least squares, in place."""
    centre = x[ball].mean(0)
    arm = x[ball] - centre
    front = arm[:, 2] > EYE_FRONT * np.linalg.norm(arm, axis=1)
    distance, gradient = _ask(field, x[ball][front])
    seen = np.abs(distance) < EYE_NEAR
    if seen.sum() < 12:
        return
    direction = gradient[seen] / np.maximum(np.linalg.norm(gradient[seen], axis=1, keepdims=True), 1e-6)
    radius = np.linalg.norm(arm[front][seen], axis=1)
    # direction . shift + growth * radius = -distance, with a weak wish to leave size and sideways place alone
    system = np.concatenate([direction, radius[:, None]], 1)
    keep = np.diag([1.0, 1.0, 1.0, 10.0 * radius.mean()]) * np.sqrt(0.02 * len(radius))
    found, *_ = np.linalg.lstsq(
        np.concatenate([system, keep]), np.concatenate([-distance[seen], np.zeros(4)]), rcond=None
    )
    x[ball] = centre + found[:3] + (1 + found[3]) * arm


def _ask(
    field: GradientField, x: Float[np.ndarray, "points 3"]
) -> tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points 3"]]:
    distance, gradient = field(torch.from_numpy(np.ascontiguousarray(x, np.float32)))
    return distance.cpu().numpy().astype(np.float64), gradient.cpu().numpy().astype(np.float64)


def _all_points(template: TemplateHead, z_geo: Float[Tensor, "d_geo"]) -> Float[np.ndarray, "points 3"]:
    """Every point of the template on the person's canonical head."""
    parts = [template.canonical(z_geo[None], name)[0].cpu().numpy() for name in template.groups]
    out = np.zeros((len(template.mean), 3), np.float32)
    for name, part in zip(template.groups, parts, strict=True):
        out[template.rows(name)] = part
    return out


@functools.lru_cache(maxsize=2)
def rows_behind_lips(topology: Topology) -> Float[np.ndarray, "vertices"]:
    """How many edges lie between a vertex of the cavity and the lips; 0 elsewhere, `TUCKED_OVER` at most."""
    row = np.zeros(len(topology.mean))
    reached = topology.part != MOUTH
    for depth in range(1, TUCKED_OVER + 1):
        touched = np.zeros_like(reached)
        touched[topology.faces[reached[topology.faces].any(1)]] = True
        row[touched & ~reached] = depth
        reached = reached | touched
    row[~reached] = TUCKED_OVER
    return row


@functools.lru_cache(maxsize=2)
def control_sheet(topology: Topology) -> Sheet:
    weight = np.zeros(len(topology.mean))
    weight[topology.control_vertex[topology.control_vertex >= 0]] = 1.0
    return Sheet(topology.mean, topology.faces, weight, CONTROL_LENGTH)


@functools.lru_cache(maxsize=2)
def _step_sheet(topology: Topology) -> Sheet:
    weight = np.where(topology.part == MOUTH, MOUTH_TRUST, 1.0)
    return Sheet(topology.mean, topology.faces, weight, SMOOTH_LENGTH)
