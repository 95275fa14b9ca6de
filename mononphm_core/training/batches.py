"""Random training batches: distances from the pool; correspondences, expressions and colours made on the spot."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from mononphm_core.training.appearance import Painter
from mononphm_core.training.closing import Closing, under_skin
from mononphm_core.training.codes import CodeBasis
from mononphm_core.training.pool import PoolHead
from mononphm_core.training.sources import OpenHeads, sample_expression
from mononphm_core.training.supervision import (
    HU_PER_MM,
    DistanceSamples,
    sample_surface,
    skin_density,
    surface_density,
)

SHELL_MM = 0.7
"""Standard deviation of the displacements around a surface known without search."""
LID_MM = 24.0
"""Skin this near to the middle of an eyeball may cover it."""
CREASES = 0.25
"""Share of the correspondences that goes to lips, lids, nostrils and the mouth's inside, where the field bends most."""


@dataclass(frozen=True)
class BatchSizes:
    """How much one step sees."""

    heads: int = 8
    crowd: int = 0
    """More people, known by their surface alone; they teach shape and nothing else."""
    distances: int = 1600
    """Points per head with a known signed distance."""
    correspondences: int = 1000
    colours: int = 320


@dataclass(frozen=True)
class Batch:
    """One step's supervision. Lengths in head units, colours in the decoder's range [-1, 1]."""

    z_geo: Float[Tensor, "people d_geo"]
    """The heads, then the crowd."""
    z_app: Float[Tensor, "heads d_app"]
    z_exp: Float[Tensor, "heads d_exp"]
    x_canonical: Float[Tensor, "people distances 3"]
    sdf: Float[Tensor, "people distances"]
    x_posed: Float[Tensor, "heads correspondences 3"]
    x_target: Float[Tensor, "heads correspondences 3"]
    x_coloured: Float[Tensor, "heads colours 3"]
    colour: Float[Tensor, "heads colours 3"]
    anchors: Float[Tensor, "heads anchors 3"]


class BatchMaker:
    """Draws batches. All randomness comes from the generator that is passed in."""

    def __init__(
        self, heads: OpenHeads, painter: Painter, geometry: CodeBasis, appearance: CodeBasis, complexions: int = 600
    ) -> None:
        self.heads, self.painter, self.geometry = heads, painter, geometry
        self.density = surface_density(heads)
        self.triangles = painter.triangles
        x = heads.mean_canonical()
        marks = x[heads.ibug68[36:68]]
        centre = x[self.triangles].mean(1)
        self.creases = np.flatnonzero(np.linalg.norm(centre[:, None] - marks[None], axis=-1).min(1) < 16 * HU_PER_MM)
        """Triangles of lips, lids and what lies behind them."""
        vertices, corners = np.unique(self.triangles[self.creases], return_inverse=True)
        self.crease_vertices, self.crease_corners = vertices, corners.reshape(-1, 3)
        self.skin_density = skin_density(heads, self.density)
        narrow = x[heads.ibug68[np.r_[31:36, 36:68]]]
        part = heads.skeleton.part[self.triangles[:, 0]]
        self.narrow = (np.linalg.norm(centre[:, None] - narrow[None], axis=-1).min(1) < 8 * HU_PER_MM) | (part == 2)
        """Triangles near which the nearest skin may be another's."""
        self._codes: dict[int, tuple[PoolHead, np.ndarray]] = {}
        rng = np.random.default_rng(11)
        self.complexions = [painter.sample(rng) for _ in range(complexions)]
        vertices = painter.vertices()
        painted = np.stack([painter.paint(c, vertices) for c in self.complexions]) * 2 - 1
        self.z_app = appearance.encode(painted)
        reach = [np.linalg.norm(centre - x[np.unique(ball)].mean(0), axis=-1) for ball in heads.skeleton.sclera]
        self.lids = tuple(np.flatnonzero((part == 0) & (far < LID_MM * HU_PER_MM)) for far in reach)
        """Triangles of the skin over each eyeball, whether the eye is open or shut."""
        self.closing = Closing(heads)
        at_creases = np.where(self.narrow, self.density, 0)
        even = 1 - CREASES if at_creases.any() else 1.0
        self.taught = even * self.density + (1 - even) * at_creases / max(at_creases.sum(), 1e-12)
        """Density of correspondences."""

    def code(self, head: PoolHead) -> Float[np.ndarray, "d_geo"]:
        """`z_geo` of a head of the pool, worked out once."""
        if id(head) not in self._codes:
            self._codes[id(head)] = (head, self.geometry.encode(head.canonical[None])[0])
        return self._codes[id(head)][1]

    def draw(
        self, rng: np.random.Generator, pool: list[PoolHead], sizes: BatchSizes, crowd: list[PoolHead] | None = None
    ) -> Batch:
        """A random batch; `crowd` are the people that `sizes.crowd` asks for."""
        chosen = [pool[i] for i in rng.integers(len(pool), size=sizes.heads)]
        canonical = np.stack([h.canonical for h in chosen])
        names = self.heads.expression_names
        z_exp = np.stack([self.closing.varied(rng, h.canonical, sample_expression(rng, names)) for h in chosen])
        person = rng.integers(len(self.complexions), size=sizes.heads)
        x, sdf, posed, target, coloured, colour = [], [], [], [], [], []
        for i, head in enumerate(chosen):
            pick = rng.integers(len(head.distances.sdf), size=sizes.distances)
            x.append(head.distances.x_canonical[pick])
            sdf.append(head.distances.sdf[pick])
            a, b = self.correspondences(rng, head, z_exp[i], sizes.correspondences)
            posed.append(a)
            target.append(b)
            c, rgb = self.colours(rng, head, int(person[i]), sizes.colours)
            coloured.append(c)
            colour.append(rgb)
        onlookers = [crowd[i] for i in rng.integers(len(crowd), size=sizes.crowd)] if crowd else []
        for head in onlookers:
            shell = self.shell(rng, head, sizes.distances)
            x.append(shell.x_canonical)
            sdf.append(shell.sdf)
        z_geo = np.stack([self.code(h) for h in (*chosen, *onlookers)])
        anchors = canonical[:, self.heads.anchors]
        stacks = (z_geo, self.z_app[person], z_exp, x, sdf, posed, target, coloured, colour, anchors)
        return Batch(*(torch.from_numpy(np.stack(list(s)).astype(np.float32)) for s in stacks))

    def shell(self, rng: np.random.Generator, head: PoolHead, count: int) -> DistanceSamples:
        """Points on the skin, and half of them within a millimetre of it where it is open: distances without a search.

        The skin is on the surface of the solid whatever the person; a point displaced along the normal is as far from
        it as it was displaced, unless another part of the skin is nearer, which happens in lips, lids and nostrils.
        """
        triangle, bary = sample_surface(rng, self.skin_density, count)
        corners = head.canonical[self.triangles[triangle]]
        delta = (SHELL_MM * HU_PER_MM * rng.standard_normal((count, 1))).astype(np.float32)
        delta[(np.arange(count) % 2 == 0) | self.narrow[triangle]] = 0.0
        x = np.einsum("pk,pkc->pc", bary, corners) + delta * _face_normals(corners)
        return DistanceSamples(x.astype(np.float32), delta[:, 0])

    def correspondences(
        self, rng: np.random.Generator, head: PoolHead, z_exp: Float[np.ndarray, "d_exp"], count: int
    ) -> tuple[Float[np.ndarray, "points 3"], Float[np.ndarray, "points 3"]]:
        """(posed, canonical) points: one template place on both shapes, displaced alike along the two normals."""
        if count == 0:
            return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)
        triangle, bary = sample_surface(rng, self.taught, int(count * 1.3))
        weights = z_exp - self.heads.z_canonical
        corners = self.triangles[triangle]
        b = self.moved(head, weights, corners)
        on_b = np.einsum("pk,pkc->pc", bary, b)
        rows = np.nonzero(head.seen[triangle] & ~self.covered(head, weights, triangle, on_b))[0][:count]
        rows = np.resize(rows, count)
        a, b, bary, on_b = head.canonical[corners[rows]], b[rows], bary[rows], on_b[rows]
        sigma = np.where(rng.random(count) < 0.5, 1.0, 4.0)[:, None] * HU_PER_MM
        delta = (sigma * rng.standard_normal((count, 1))).astype(np.float32)
        normal_b = _face_normals(b)
        buried = self.buried(head, weights, on_b, on_b + delta * normal_b, delta)
        delta[buried] *= 0.05
        return on_b + delta * normal_b, np.einsum("pk,pkc->pc", bary, a) + delta * _face_normals(a)

    def covered(
        self,
        head: PoolHead,
        weights: Float[np.ndarray, "d_exp"],
        triangle: Int[np.ndarray, "points"],
        posed: Float[np.ndarray, "points 3"],
    ) -> Bool[np.ndarray, "points"]:
        """Points of the eyeballs that lie under the lids with this expression."""
        part = self.heads.skeleton.part[self.triangles[triangle, 0]]
        result = np.zeros(len(posed), bool)
        for side, ball, lids in zip((7, 8), self.heads.skeleton.sclera, self.lids, strict=True):
            mine = np.flatnonzero(part == side)
            centre = self.moved(head, weights, np.unique(ball)[::16]).mean(0)
            result[mine] = under_skin(self.moved(head, weights, self.triangles[lids]), centre, posed[mine])
        return result

    def moved(
        self, head: PoolHead, weights: Float[np.ndarray, "d_exp"], rows: Int[np.ndarray, "*places"]
    ) -> Float[np.ndarray, "*places 3"]:
        """Vertices with an expression; `weights` count from the canonical one."""
        active = np.nonzero(weights)[0]
        shapes = self.heads.expression[active[:, None], rows.reshape(-1)]
        result: np.ndarray = head.canonical[rows] + np.tensordot(weights[active], shapes, 1).reshape(*rows.shape, 3)
        return result

    def buried(
        self,
        head: PoolHead,
        weights: Float[np.ndarray, "d_exp"],
        on_surface: Float[np.ndarray, "points 3"],
        displaced: Float[np.ndarray, "points 3"],
        delta: Float[np.ndarray, "points 1"],
    ) -> Bool[np.ndarray, "points"]:
        """Points that went outwards and ended inside something else: through the other lip, or through a lid.

        Where lips touch, a point four millimetres above the lower lip is in the upper one's flesh; taught as air it
        would keep closed mouths open.
        """
        x = self.moved(head, weights, self.crease_vertices)[self.crease_corners]
        near = np.flatnonzero(
            (delta[:, 0] > 0.2 * HU_PER_MM) & (_box_distance(on_surface, x.reshape(-1, 3)) < 8 * HU_PER_MM)
        )
        result = np.zeros(len(displaced), bool)
        if len(near):
            centre = x.mean(1)
            _, nearest = cKDTree(centre).query(displaced[near])
            height = ((displaced[near] - centre[nearest]) * _face_normals(x[nearest])).sum(1)
            result[near] = height < -0.15 * HU_PER_MM
        return result

    def colours(
        self, rng: np.random.Generator, head: PoolHead, person: int, count: int
    ) -> tuple[Float[np.ndarray, "points 3"], Float[np.ndarray, "points 3"]]:
        """Canonical points near the surface and their colour."""
        if count == 0:
            return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)
        triangle, bary = sample_surface(rng, self.density, int(count * 1.3))
        rows = np.resize(np.nonzero(head.seen[triangle])[0][:count], count)
        triangle, bary = triangle[rows], bary[rows]
        corners = head.canonical[self.triangles[triangle]]
        delta = (1.0 * HU_PER_MM * rng.standard_normal((count, 1))).astype(np.float32)
        x = np.einsum("pk,pkc->pc", bary, corners) + delta * _face_normals(corners)
        return x, self.painter.paint(self.complexions[person], self.painter.at(triangle, bary)) * 2 - 1


def _box_distance(points: Float[np.ndarray, "points 3"], cloud: Float[np.ndarray, "cloud 3"]) -> np.ndarray:
    """Distance to the bounding box of a cloud, per axis the largest."""
    low, high = cloud.min(0), cloud.max(0)
    result: np.ndarray = np.maximum(np.maximum(low - points, points - high), 0).max(1)
    return result


def _face_normals(corners: Float[np.ndarray, "points 3 3"]) -> Float[np.ndarray, "points 3"]:
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    result: np.ndarray = normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12)
    return result
