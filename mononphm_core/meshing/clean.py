"""Mesh surgery: keep one part, cut a neck, drop what nothing uses. All return a new mesh in the same frame and unit."""

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mononphm_core.errors import NoSurface
from mononphm_core.types import HeadMesh

ON_PLANE = 3e-7
"""A corner this near to a cutting plane lies on it, relative to the largest coordinate: float32 knows no better."""


def face_areas(mesh: HeadMesh) -> Float[np.ndarray, "faces"]:
    """Area of each triangle, square of the mesh's unit."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2


def signed_volume(mesh: HeadMesh) -> float:
    """Volume by the divergence theorem, positive when a closed mesh is oriented outward."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def vertex_normals(mesh: HeadMesh) -> Float[np.ndarray, "vertices 3"]:
    """Unit outward normals, triangles weighted by area; zero where a vertex has no triangle."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    across = np.cross(b - a, c - a)
    count = len(mesh.vertices)
    total = np.stack(
        [sum(np.bincount(mesh.faces[:, k], across[:, axis], count) for k in range(3)) for axis in range(3)], axis=-1
    )
    return total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-30)


def keep_faces(mesh: HeadMesh, keep: Bool[np.ndarray, "faces"]) -> HeadMesh:
    """Only these triangles and the vertices they use."""
    faces = mesh.faces[keep]
    used = np.zeros(len(mesh.vertices), bool)
    used[faces] = True
    renumber = np.cumsum(used) - 1
    colours = None if mesh.colours is None else mesh.colours[used]
    return HeadMesh(mesh.vertices[used], renumber[faces], colours)


def largest_component(mesh: HeadMesh) -> HeadMesh:
    """The connected part with the largest area; floaters of a learned field go. Raises NoSurface for an empty mesh."""
    return keep_faces(mesh, in_largest_component(mesh))


def in_largest_component(mesh: HeadMesh) -> Bool[np.ndarray, "faces"]:
    """Which triangles belong to it. Raises NoSurface for an empty mesh."""
    if len(mesh.faces) == 0:
        raise NoSurface("the mesh has no triangle to keep")
    part = _part_of_faces(mesh.faces, len(mesh.vertices))
    found: Bool[np.ndarray, "faces"] = part == np.bincount(part, face_areas(mesh)).argmax()
    return found


def _part_of_faces(faces: Int[np.ndarray, "faces 3"], vertices: int) -> Int[np.ndarray, "faces"]:
    """The number of the connected part that each triangle belongs to."""
    ends = faces[:, [0, 1, 1, 2]].reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(vertices, vertices))
    _, part = connected_components(graph, directed=False)
    return part[faces[:, 0]]


def cut_below(mesh: HeadMesh, y: float) -> HeadMesh:
    """What lies at or above the plane at `y`, triangles cut exactly there; the cut stays open.

    New vertices lie on the edges that cross the plane (shared between neighbours, so no crack), colours interpolated.
    Raises NoSurface when nothing is left.
    """
    height = mesh.vertices[:, 1].astype(np.float64) - y
    height[np.abs(height) < ON_PLANE * max(np.abs(mesh.vertices).max(initial=0.0), abs(y))] = 0.0
    above = height[mesh.faces] >= 0
    count = above.sum(axis=-1)
    if not count.any():
        raise NoSurface(f"the whole mesh lies below the cut at y = {y:.4g}")
    # Turn each cut triangle until its lonely corner comes first: one cut edge follows it, the other precedes it.
    cut = np.flatnonzero((count == 1) | (count == 2))
    lonely = np.where(count[cut] == 1, above[cut].argmax(axis=-1), (~above[cut]).argmax(axis=-1))
    turned = np.take_along_axis(mesh.faces[cut], (lonely[:, None] + np.arange(3)) % 3, axis=-1)
    tip, left, right = turned.T
    edges, crossing = np.unique(
        np.sort(np.concatenate([np.stack([tip, left], -1), np.stack([tip, right], -1)]), axis=-1),
        axis=0,
        return_inverse=True,
    )
    on_plane = height[edges] == 0  # such an edge crosses at its own corner, not at a new vertex
    target = np.where(
        on_plane.any(-1), edges[np.arange(len(edges)), on_plane.argmax(-1)], np.arange(len(edges)) + len(height)
    )
    to_left, to_right = np.split(target[crossing.reshape(-1)], 2)
    one = count[cut] == 1
    faces = np.concatenate(
        [
            mesh.faces[count == 3],
            np.stack([tip, to_left, to_right], -1)[one],
            np.stack([to_left, left, right], -1)[~one],
            np.stack([to_left, right, to_right], -1)[~one],
        ]
    )
    share = (height[edges[:, 0]] / (height[edges[:, 0]] - height[edges[:, 1]]))[:, None]
    vertices = np.concatenate([mesh.vertices, _between(mesh.vertices, edges, share)])
    colours = mesh.colours
    if colours is not None:
        colours = np.concatenate([colours, np.rint(_between(colours, edges, share)).astype(np.uint8)])
    whole = HeadMesh(vertices.astype(mesh.vertices.dtype), faces, colours)
    collapsed = (faces == np.roll(faces, 1, axis=-1)).any(axis=-1)
    return keep_faces(whole, ~collapsed)


def _between(
    values: Shaped[np.ndarray, "vertices 3"],
    edges: Int[np.ndarray, "edges 2"],
    share: Float[np.ndarray, "edges 1"],
) -> Float[np.ndarray, "edges 3"]:
    """(1 - share) * first + share * second, for each edge."""
    first, second = values[edges[:, 0]].astype(np.float64), values[edges[:, 1]].astype(np.float64)
    return first + share * (second - first)
