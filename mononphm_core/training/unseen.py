"""True heads for scoring a prior: people, expressions and complexions that no training run draws, and heads beyond its
sources."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mononphm_core.training.appearance import Painter
from mononphm_core.training.closing import Closing
from mononphm_core.training.measure import regions
from mononphm_core.training.sources import OpenHeads, sample_expression
from mononphm_core.training.supervision import HU_PER_MM, DistanceField, sample_surface, surface_density

STREAM = 424242
"""Second word of the seeds here; pools, codes and batches use others."""
DETAIL_MM = 6.0
"""Skin this near to a landmark of lids, lips or nostrils counts as detail."""
WAVES = 12


@dataclass(frozen=True)
class TrueSurface:
    """Area-uniform points of one true surface."""

    x: Float[np.ndarray, "points 3"]
    normals: Float[np.ndarray, "points 3"]
    face: Bool[np.ndarray, "points"]
    details: Bool[np.ndarray, "points"]
    """Lids, lips, nostrils."""


class Examiner:
    """Draws true heads and points on them."""

    def __init__(self, heads: OpenHeads, painter: Painter, seed: int) -> None:
        self.heads, self.painter, self.seed = heads, painter, seed
        sk = heads.skeleton
        self.triangles = np.concatenate([sk.sheet, *sk.sclera])
        self.closing = Closing(heads)
        self.dense = surface_density(heads)
        self.even = regions(heads)["head"]
        x = heads.mean_canonical()
        centre = x[self.triangles].mean(1)
        marks = x[heads.ibug68[np.r_[31:36, 36:68]]]
        outer = sk.part[self.triangles[:, 0]] == 0
        near = np.linalg.norm(centre[:, None] - marks[None], axis=-1).min(1) < DETAIL_MM * HU_PER_MM
        self.face, self.details = outer, outer & near

    def random(self, index: int) -> np.random.Generator:
        """Random numbers of one head."""
        return np.random.default_rng([self.seed, STREAM, index])

    def person(self, index: int) -> Float[np.ndarray, "vertices 3"]:
        """The canonical head of a random person, drawn as training people are."""
        return self.heads.sample(self.random(index)).canonical

    def extreme(self, index: int) -> Float[np.ndarray, "vertices 3"]:
        """MakeHuman shapes alone, at and beyond the strongest that training draws."""
        rng = self.random(index)
        weights = self.heads.makehuman_weights(rng, 1.0, 1.2)
        return self.heads.compose(np.zeros(len(self.heads.identity), np.float32), weights).canonical

    def deformed(self, index: int) -> Float[np.ndarray, "vertices 3"]:
        """A random person bent by a smooth random field of 3 to 6 mm (root mean square), wavelengths 60 to 150 mm:
        outside what the sources can express."""
        rng = self.random(index)
        x = self.heads.sample(rng).canonical
        direction = rng.standard_normal((WAVES, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        wave = direction * (2 * np.pi / (rng.uniform(60, 150, (WAVES, 1)) * HU_PER_MM))
        push = rng.standard_normal((WAVES, 3))
        bend = np.sin(x @ wave.T + rng.uniform(0, 2 * np.pi, WAVES)) @ push
        bend *= rng.uniform(3, 6) * HU_PER_MM / np.sqrt(np.square(bend).sum(1).mean())
        bent: np.ndarray = (x + bend).astype(np.float32)
        return bent

    def expression(self, index: int) -> Float[np.ndarray, "d_exp"]:
        """A random mixture."""
        return sample_expression(self.random(index), self.heads.expression_names)

    def posed(
        self, canonical: Float[np.ndarray, "vertices 3"], z_exp: Float[np.ndarray, "d_exp"]
    ) -> Float[np.ndarray, "vertices 3"]:
        """The head with an expression."""
        moved: np.ndarray = canonical + np.tensordot(z_exp - self.heads.z_canonical, self.heads.expression, 1)
        return moved.astype(np.float32)

    def surface(
        self, x: Float[np.ndarray, "vertices 3"], count: int, index: int, to_fit: bool = False, details: bool = False
    ) -> TrueSurface:
        """Points on the skin, or on its details alone; to fit codes, half of them denser at lids, lips and nostrils,
        and on the open eyes too."""
        rng = self.random(index)
        density = self.even * self.details / (self.even * self.details).sum() if details else self.even
        if to_fit:
            field = DistanceField(self.heads.skeleton, x)
            open_eyes = {tuple(t) for t in field.skin[len(self.heads.skeleton.sheet) :].tolist()}
            hidden = np.array([part >= 7 for part in self.heads.skeleton.part[self.triangles[:, 0]]])
            hidden &= np.array([tuple(t) not in open_eyes for t in self.triangles.tolist()])
            density = np.where(hidden, 0, 0.5 * self.dense + 0.5 * self.even)
            density = density / density.sum()
        triangle, bary = sample_surface(rng, density, count)
        corner = x[self.triangles[triangle]].astype(np.float64)
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-20
        on = np.einsum("pk,pkc->pc", bary, corner)
        return TrueSurface(
            on.astype(np.float32), normal.astype(np.float32), self.face[triangle], self.details[triangle]
        )

    def band(
        self, x: Float[np.ndarray, "vertices 3"], count: int, index: int, width_mm: float = 20.0
    ) -> tuple[Float[np.ndarray, "points 3"], Float[np.ndarray, "points"]]:
        """Points within the band around the surface and their true signed distances."""
        rng = self.random(index)
        on = self.surface(x, count, index)
        at = on.x + (rng.uniform(-width_mm, width_mm, (count, 1)) * HU_PER_MM * on.normals).astype(np.float32)
        sdf = DistanceField(self.heads.skeleton, x)(at)
        keep = (np.abs(sdf) < width_mm * HU_PER_MM) & (at[:, 1] > self.heads.y_cut + 0.06)
        return at[keep], sdf[keep]

    def colours(
        self, canonical: Float[np.ndarray, "vertices 3"], count: int, index: int
    ) -> tuple[Float[np.ndarray, "points 3"], Float[np.ndarray, "points 3"]]:
        """Surface points and colours ([-1, 1]) of a complexion that training did not draw, as dense at lids, lips and
        nostrils as in training; skin only."""
        rng = self.random(index)
        density = np.where(self.heads.skeleton.part[self.triangles[:, 0]] < 7, self.dense, 0)
        triangle, bary = sample_surface(rng, density / density.sum(), count)
        x = np.einsum("pk,pkc->pc", bary, canonical[self.triangles[triangle]])
        colour = self.painter.paint(self.painter.sample(rng), self.painter.at(triangle, bary)) * 2 - 1
        return x.astype(np.float32), colour.astype(np.float32)

    def lips_met(
        self, canonical: Float[np.ndarray, "vertices 3"], shape: str, overlap_mm: float
    ) -> Float[np.ndarray, "d_exp"]:
        """The neutral expression with as much of a closing shape as this head needs."""
        return self.closing.lips_met(canonical, np.zeros_like(self.heads.z_canonical), shape, overlap_mm)

    def lip_lines(self, posed: Float[np.ndarray, "vertices 3"], samples: int) -> Float[np.ndarray, "lines samples 3"]:
        """Three upright lines of 8 mm through the closed lips, a millimetre behind the inner lip landmarks."""
        upper, lower = posed[self.heads.ibug68[[61, 62, 63]]], posed[self.heads.ibug68[[67, 66, 65]]]
        middle = 0.5 * (upper + lower) - np.array([0, 0, 1.0], np.float32) * HU_PER_MM
        height = np.linspace(-4, 4, samples)[:, None] * HU_PER_MM * np.array([0, 1, 0])
        lines: np.ndarray = middle[:, None] + height
        return lines.astype(np.float32)

    def eye_fronts(self, posed: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "points 3"]:
        """Points just above the front of both eyeballs, where closed lids lie: 0.4 mm out, within 35 degrees."""
        points = []
        for ball in self.heads.skeleton.sclera:
            rows = np.unique(ball)
            centre = posed[rows].mean(0)
            arm = posed[rows] - centre
            length = np.linalg.norm(arm, axis=1, keepdims=True)
            front = arm[:, 2] / length[:, 0] > np.cos(np.radians(35))
            points.append((posed[rows] + 0.4 * HU_PER_MM * arm / length)[front])
        found: np.ndarray = np.concatenate(points).astype(np.float32)
        return found

    def inside(
        self, x: Float[np.ndarray, "vertices 3"], points: Float[np.ndarray, "points 3"]
    ) -> Bool[np.ndarray, "points"]:
        """Which points lie in the true head."""
        return DistanceField(self.heads.skeleton, x)(points) < 0

    def landmarks(self, x: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "68 3"]:
        """iBUG-68."""
        return x[self.heads.ibug68]
