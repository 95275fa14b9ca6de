"""What one training head teaches: signed distances around its surface, and where its points come from.

The solid is the skin sheet closed by fans over the two lid rims (to the eyeball centre) and the bust (to its mean),
united with both eyeballs. Inside = winding number of the sheet > 0.5, or of a ball; distance = to skin and to the
eyeballs' parts outside the solid.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mononphm_core.training.sources import HeadSample, OpenHeads, Skeleton

NEAR_MM = (1.5, 7.5)
"""Standard deviations of the two shells of samples around the surface."""
HU_PER_MM = 1 / 250


@dataclass(frozen=True)
class DistanceSamples:
    """Signed distances of points in canonical space (head units, negative inside)."""

    x_canonical: Float[np.ndarray, "points 3"]
    sdf: Float[np.ndarray, "points"]


def surface_density(heads: OpenHeads) -> Float[np.ndarray, "triangles"]:
    """Probability of a surface sample per template triangle: by area, six times denser at lids, lips and nostrils,
    nothing below the cut and on the hidden backs of the eyeballs."""
    sk = heads.skeleton
    x = heads.mean_canonical()
    triangles = np.concatenate([sk.sheet, *sk.sclera])
    corner = x[triangles]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    centre = corner.mean(1)
    marks = x[heads.ibug68[np.r_[31:36, 36:48, 48:68]]]
    distance = np.linalg.norm(centre[:, None] - marks[None], axis=-1).min(1)
    density = 1 + 5 * np.exp(-0.5 * (distance / (9 * HU_PER_MM)) ** 2)
    density += 0.5 * np.exp(-0.5 * (np.linalg.norm(centre - x[heads.ibug68[30]], axis=1) / (90 * HU_PER_MM)) ** 2)
    part = sk.part[triangles[:, 0]]
    density[part == 2] *= 0.4
    density[centre[:, 1] < heads.y_cut] = 0
    for side in (7, 8):
        ball = part == side
        middle = x[np.unique(triangles[ball])].mean(0)
        density[ball & (centre[:, 2] < middle[2] + 2 * HU_PER_MM)] = 0
    p = (area * density).astype(np.float64)
    return p / p.sum()


def skin_density(heads: OpenHeads, density: Float[np.ndarray, "triangles"]) -> Float[np.ndarray, "triangles"]:
    """Half `density`, half by area alone, and no eyeballs: those hide under the lids of each person differently."""
    sk = heads.skeleton
    triangles = np.concatenate([sk.sheet, *sk.sclera])
    corner = heads.mean_canonical()[triangles]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    skin = (density > 0) & (sk.part[triangles[:, 0]] < 7)
    outer = skin & (sk.part[triangles[:, 0]] != 2)
    p: np.ndarray = np.where(skin, density, 0) / density[skin].sum() + np.where(outer, area, 0) / area[outer].sum()
    return p / p.sum()


def sample_surface(
    rng: np.random.Generator, density: Float[np.ndarray, "triangles"], count: int
) -> tuple[Int[np.ndarray, "points"], Float[np.ndarray, "points 3"]]:
    """Random triangles with barycentric coordinates."""
    triangle = rng.choice(len(density), count, p=density)
    r = rng.random((count, 2)).astype(np.float32)
    root = np.sqrt(r[:, :1])
    bary = np.concatenate([1 - root, root * (1 - r[:, 1:]), root * r[:, 1:]], 1)
    return triangle, bary


def solid(skeleton: Skeleton, x: Float[np.ndarray, "vertices 3"]) -> tuple[np.ndarray, np.ndarray]:
    """The sheet closed by fans: vertices and triangles of a watertight solid (eyeballs not included)."""
    fans: list[np.ndarray] = []
    extra: list[np.ndarray] = []
    for loop, centre in zip(
        skeleton.caps,
        (
            *(x[np.unique(ball)].mean(0) for ball in skeleton.sclera),
            x[skeleton.caps[2]].mean(0),
        ),
        strict=True,
    ):
        apex = len(x) + len(extra)
        extra.append(centre)
        following = np.roll(loop, -1)
        fans.append(np.stack([following, loop, np.full_like(loop, apex)], 1))
    return np.concatenate([x, np.stack(extra)]), np.concatenate([skeleton.sheet, *fans])


class DistanceField:
    """Signed distance of one head; two search trees."""

    def __init__(self, skeleton: Skeleton, x: Float[np.ndarray, "vertices 3"]) -> None:
        import igl

        self._igl = igl
        self.vertices, self.triangles = (a for a in solid(skeleton, x))
        self.vertices = self.vertices.astype(np.float64)
        self.balls = list(skeleton.sclera)
        outside = []
        for ball in self.balls:
            centre = self.vertices[ball].mean(1)
            outside.append(ball[np.abs(self._winding(self.triangles, centre)) < 0.5])
        self.skin = np.concatenate([skeleton.sheet, *outside])

    def _winding(self, triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
        result: np.ndarray = self._igl.fast_winding_number(
            self.vertices, np.ascontiguousarray(triangles, np.int64), np.ascontiguousarray(points, np.float64)
        )
        return result

    def __call__(self, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points"]:
        """Distance to the head's outer surface, negative inside."""
        points = np.ascontiguousarray(points, np.float64)
        skin = np.ascontiguousarray(self.skin, np.int64)
        squared = self._igl.point_mesh_squared_distance(points, self.vertices, skin)[0]
        inside = np.abs(self._winding(self.triangles, points)) > 0.5
        for ball in self.balls:
            centre = self.vertices[np.unique(ball)].mean(0)
            radius = np.linalg.norm(self.vertices[np.unique(ball)] - centre, axis=1).max() * 1.01
            near = np.linalg.norm(points - centre, axis=1) < radius
            if near.any():
                inside[near] |= np.abs(self._winding(ball, points[near])) > 0.5
        distance: np.ndarray = np.sqrt(squared) * np.where(inside, -1.0, 1.0)
        return distance.astype(np.float32)


def sample_distances(
    heads: OpenHeads, head: HeadSample, density: np.ndarray, rng: np.random.Generator, count: int
) -> DistanceSamples:
    """Two shells around the surface (40 % each) and 20 % uniform in the box."""
    x = head.canonical
    triangles = np.concatenate([heads.skeleton.sheet, *heads.skeleton.sclera])
    near = int(0.8 * count)
    triangle, bary = sample_surface(rng, density, near)
    points = np.einsum("pk,pkc->pc", bary, x[triangles[triangle]])
    sigma = np.where(np.arange(near) % 2 == 0, NEAR_MM[0], NEAR_MM[1])[:, None] * HU_PER_MM
    points = points + sigma * rng.standard_normal(points.shape)
    low, high = np.array([-0.55, -0.56, -0.78]), np.array([0.55, 0.68, 0.45])
    box = rng.uniform(low, high, (count - near, 3))
    points = np.concatenate([points, box]).astype(np.float32)
    points = points[points[:, 1] > heads.y_cut]
    return DistanceSamples(points, DistanceField(heads.skeleton, x)(points))
