"""Where points around a posed face lie around the neutral one: pairs from two registrations of one topology."""

import numpy as np
from jaxtyping import Bool, Float

from mononphm_core.errors import InputError
from mononphm_core.meshing.clean import keep_faces
from mononphm_core.training.published.fields import on_surface
from mononphm_core.types import HeadMesh

SIGMAS = (0.01, 0.002)
"""Standard deviations of the offset along the normals, head units."""
PAIRS = 250_000
"""For each sigma and direction; four times as many in all."""


def sample_correspondences(
    neutral: HeadMesh,
    posed: HeadMesh,
    face: Bool[np.ndarray, "vertices"],
    random: np.random.Generator,
    pairs: int = PAIRS,
) -> Float[np.ndarray, "pairs 6"]:
    """Shuffled (neutral xyz, posed xyz). Points are drawn by area on one mesh, taken to the other by triangle and
    barycentrics, and moved by one offset along the triangle's normal on each."""
    if neutral.faces.shape != posed.faces.shape or not np.array_equal(neutral.faces, posed.faces):
        raise InputError("the registrations of the neutral and of the expression differ in topology")
    if len(face) != len(neutral.vertices):
        raise InputError(f"the face mask marks {len(face)} vertices, the registration has {len(neutral.vertices)}")
    kept = face[neutral.faces].all(-1)
    first, second = keep_faces(neutral, kept), keep_faces(posed, kept)
    found = []
    for sigma in SIGMAS:
        for drawn_on in (first, second):
            triangle, barycentric = on_surface(drawn_on, pairs, random)
            offset = random.normal(0, sigma, (pairs, 1))
            found.append(
                np.concatenate([_displaced(mesh, triangle, barycentric, offset) for mesh in (first, second)], -1)
            )
    together = np.concatenate(found).astype(np.float32)
    return together[random.permutation(len(together))]


def _displaced(
    mesh: HeadMesh,
    triangle: np.ndarray,
    barycentric: Float[np.ndarray, "points 3"],
    offset: Float[np.ndarray, "points 1"],
) -> Float[np.ndarray, "points 3"]:
    corners = mesh.vertices[mesh.faces[triangle]].astype(np.float64)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-300)
    return np.einsum("pk,pkc->pc", barycentric, corners) + offset * normal
