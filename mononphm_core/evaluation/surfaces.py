"""A triangle mesh that answers: which of your points is the nearest?

Triangles are known to a KD-tree by points inside them that lie close enough together, so that the nearest point of a
triangle is never further from one of its own tree points than `reach`. A query looks at the triangles of the k nearest
tree points; its answer is exact once the k-th of them is further away than the best distance plus `reach`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mononphm_core.errors import InputError
from mononphm_core.geometry.neighbours import neighbours
from mononphm_core.meshing.clean import face_areas, vertex_normals
from mononphm_core.types import HeadMesh

PIECES_PER_DIAGONAL = 120
"""Pieces of a triangle are no longer than the mesh's diagonal over this."""
LOOKS = (10, 40)
"""Tree points asked for first, and again where the first answer was not certain."""

FAR = 4.0
"""So many times `reach` away, a triangle that was overlooked is nearer by at most reach / (2 * FAR)."""


@dataclass(frozen=True)
class Nearest:
    """Nearest surface points of some queries, in the mesh's frame."""

    points: Float[np.ndarray, "queries 3"]
    distances: Float[np.ndarray, "queries"]
    faces: Int[np.ndarray, "queries"]
    barycentric: Float[np.ndarray, "queries 3"]
    on_border: Bool[np.ndarray, "queries"]
    """The nearest point lies on an edge that only one triangle has: the surface ends there."""


class Surface:
    """Nearest points, normals and samples of a mesh. InputError when no triangle has an area."""

    def __init__(self, mesh: HeadMesh) -> None:
        vertices = mesh.vertices.astype(np.float64)
        finite = np.isfinite(vertices).all(-1)
        source = np.flatnonzero(finite[mesh.faces].all(-1))
        faces = mesh.faces[source].astype(np.int64)
        if len(faces):
            vertices, faces = merged(vertices, faces)
            good = (faces != np.roll(faces, 1, axis=-1)).all(-1) & (face_areas(HeadMesh(vertices, faces)) > 0)
            faces, source = faces[good], source[good]
        if len(faces) == 0:
            raise InputError("a mesh without any triangle of positive area")
        self.source = source
        """For each triangle here, its number in the mesh that came in."""
        self.vertices, self.faces = vertices, faces
        self.areas = face_areas(HeadMesh(vertices, faces))
        self.normals = vertex_normals(HeadMesh(vertices, faces))
        self._border = _border_edges(faces)
        points, self._owner, self._reach = _tree_points(vertices, faces)
        self._tree = neighbours(points)

    def nearest(self, queries: Float[np.ndarray, "queries 3"], look_again: bool = True) -> Nearest:
        """The nearest surface point of each query; exact wherever `LOOKS` tree points certify it. Without a second
        look, which solvers do not need, a few answers are the second nearest triangle's."""
        chosen, distance, barycentric, certain = self._look(queries, LOOKS[0])
        again = np.flatnonzero(~certain & look_again)
        if len(again):
            chosen[again], distance[again], barycentric[again], _ = self._look(queries[again], LOOKS[1])
        points = np.einsum("qk,qkc->qc", barycentric, self.vertices[self.faces[chosen]])
        on_edge = (barycentric < 1e-6) & self._border[chosen]
        return Nearest(points, distance, chosen, barycentric, on_edge.any(-1))

    def normal_at(
        self, faces: Int[np.ndarray, "queries"], barycentric: Float[np.ndarray, "queries 3"]
    ) -> Float[np.ndarray, "queries 3"]:
        """Unit normals, interpolated between those of the corners."""
        normal = np.einsum("qk,qkc->qc", barycentric, self.normals[self.faces[faces]])
        return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-20)

    def sample(self, count: int, seed: int = 0) -> Float[np.ndarray, "samples 3"]:
        """Points spread evenly over the area."""
        faces, barycentric = sample_faces(self.areas, count, seed)
        return np.einsum("sk,skc->sc", barycentric, self.vertices[self.faces[faces]])

    def _look(
        self, queries: Float[np.ndarray, "queries 3"], count: int
    ) -> tuple[
        Int[np.ndarray, "queries"],
        Float[np.ndarray, "queries"],
        Float[np.ndarray, "queries 3"],
        Bool[np.ndarray, "queries"],
    ]:
        """(face, distance, barycentric, certain) from the triangles of the `count` nearest tree points."""
        away, index = self._tree.query(queries, k=min(count, self._tree.n))
        index, away = index.reshape(len(queries), -1), away.reshape(len(queries), -1)
        faces = self._owner[index]
        corners = self.vertices[self.faces[faces]]
        barycentric = closest_in_triangles(queries[:, None], corners)
        gap = np.linalg.norm(np.einsum("qnk,qnkc->qnc", barycentric, corners) - queries[:, None], axis=-1)
        best, row = gap.argmin(-1), np.arange(len(queries))
        distance = gap[row, best]
        certain = (away[:, -1] - self._reach >= distance) | (distance < 1e-9) | (distance > FAR * self._reach)
        return faces[row, best], distance, barycentric[row, best], certain


def sample_faces(
    weights: Float[np.ndarray, "faces"], count: int, seed: int = 0
) -> tuple[Int[np.ndarray, "samples"], Float[np.ndarray, "samples 3"]]:
    """Triangles drawn by weight, and a uniform point in each as barycentrics."""
    random = np.random.default_rng(seed)
    return random.choice(len(weights), count, p=weights / weights.sum()), random.dirichlet([1.0, 1.0, 1.0], count)


def closest_in_triangles(
    points: Float[np.ndarray, "queries 1 3"], corners: Float[np.ndarray, "queries triangles 3 3"]
) -> Float[np.ndarray, "queries triangles 3"]:
    """Barycentrics of the point of each query's triangles that is nearest to the query.

    The foot of the perpendicular where it falls inside, else the nearest of the nearest points of the three edges.
    """
    a, b, c = (corners[..., k, :] for k in range(3))
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    scale = np.maximum(d00 * d11 - d01 * d01, 1e-300)
    v, w = (d11 * d20 - d01 * d21) / scale, (d00 * d21 - d01 * d20) / scale
    best = np.stack([1 - v - w, v, w], -1)
    inside = (best >= 0).all(-1)
    gap = np.where(inside, 0.0, np.inf)
    for start, end in ((0, 1), (1, 2), (2, 0)):
        from_start = points - corners[..., start, :]
        along = corners[..., end, :] - corners[..., start, :]
        share = np.clip((from_start * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-300), 0.0, 1.0)
        squared = np.square(from_start - share[..., None] * along).sum(-1)
        nearer = squared < gap
        gap = np.where(nearer, squared, gap)
        on_edge = np.zeros_like(best)
        on_edge[..., start], on_edge[..., end] = 1 - share, share
        best = np.where(nearer[..., None], on_edge, best)
    return best


def merged(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> tuple[Float[np.ndarray, "merged 3"], Int[np.ndarray, "faces 3"]]:
    """Vertices that coincide (to a millionth of the size) made one: seams of a file are no borders of the surface."""
    used = vertices[np.unique(faces)]
    low = used.min(0)
    grid = np.round((vertices - low) / max(float(np.ptp(used, axis=0).max()), 1e-12) * 1e6)
    grid[~np.isfinite(vertices).all(-1)] = -1
    _, first, inverse = np.unique(grid.astype(np.int64), axis=0, return_index=True, return_inverse=True)
    return vertices[first], inverse.reshape(-1)[faces]


def _border_edges(faces: Int[np.ndarray, "faces 3"]) -> Bool[np.ndarray, "faces 3"]:
    """For the edge opposite each corner: whether no other triangle shares it."""
    edges = np.sort(np.concatenate([faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]]), -1)
    _, inverse, count = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    return (count[inverse.reshape(-1)] == 1).reshape(3, -1).T


def _tree_points(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> tuple[Float[np.ndarray, "points 3"], Int[np.ndarray, "points"], float]:
    """Centroids of equal pieces of every triangle, the triangle of each, and how far a triangle's point can be from
    the nearest of its own centroids."""
    corners = vertices[faces]
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max(-1)
    diagonal = float(np.linalg.norm(np.ptp(vertices[np.unique(faces)], axis=0)))
    rows = np.clip(np.ceil(longest / (diagonal / PIECES_PER_DIAGONAL)), 1, 48).astype(int)
    points, owner, reach = [], [], 0.0
    for count in np.unique(rows):
        mine = np.flatnonzero(rows == count)
        centroids = _piece_centroids(int(count))
        points.append(np.einsum("pk,fkc->fpc", centroids, corners[mine]).reshape(-1, 3))
        owner.append(np.repeat(mine, len(centroids)))
        reach = max(reach, float(longest[mine].max()) / count * 2 / 3)
    return np.concatenate(points), np.concatenate(owner), reach


def _piece_centroids(rows: int) -> Float[np.ndarray, "pieces 3"]:
    """Barycentrics of the centroids of the rows^2 equal triangles that a triangle falls into."""
    upright = [(i + 1 / 3, j + 1 / 3) for i in range(rows) for j in range(rows - i)]
    turned = [(i + 2 / 3, j + 2 / 3) for i in range(rows) for j in range(rows - i - 1)]
    second = np.array(upright + turned) / rows
    return np.concatenate([1 - second.sum(-1, keepdims=True), second], -1)
