"""Mouths and eyes that are just closed: where a backward field has to jump, and where people look first.

The neutral mouth of the sources is not closed on everybody: their lips stand up to 2.5 mm apart. How far, is linear in
the expression weights, so the weight of a closing shape that makes the lips meet is known at once.
"""

import numpy as np
from jaxtyping import Bool, Float

from mononphm_core.training.sources import OpenHeads
from mononphm_core.types import MM_PER_UNIT

UPPER, LOWER = (61, 62, 63), (67, 66, 65)
"""iBUG-68: the inner lips, pairs above each other."""
SHAPES = ("mouthClose", "mouthShrugLower", "mouthPress")
"""Blendshapes that bring the lips together."""
POKING_MM = 0.8
SHUT_MOUTHS, SHUT_EYES = 0.3, 0.12
"""Shares of a training batch."""


class Closing:
    """Expressions of one head whose lips meet."""

    def __init__(self, heads: OpenHeads) -> None:
        names = heads.expression_names
        self.index = {name: i for i, name in enumerate(names)}
        self.z_canonical = heads.z_canonical
        self.upper, self.lower = heads.ibug68[list(UPPER)], heads.ibug68[list(LOWER)]
        moved = heads.expression[:, self.upper, 1] - heads.expression[:, self.lower, 1]
        self.opening: Float[np.ndarray, "d_exp pairs"] = moved * MM_PER_UNIT
        """mm that the pairs part for each unit of a weight."""

    def gaps_mm(
        self, canonical: Float[np.ndarray, "vertices 3"], z_exp: Float[np.ndarray, "d_exp"]
    ) -> Float[np.ndarray, "pairs"]:
        """Height of the upper inner lip over the lower one; negative where they overlap."""
        still = (canonical[self.upper, 1] - canonical[self.lower, 1]) * MM_PER_UNIT
        result: np.ndarray = still + (z_exp - self.z_canonical) @ self.opening
        return result

    def lips_met(
        self,
        canonical: Float[np.ndarray, "vertices 3"],
        z_exp: Float[np.ndarray, "d_exp"],
        shape: str,
        overlap_mm: float = 0.0,
    ) -> Float[np.ndarray, "d_exp"]:
        """The same expression with as much of `shape` (both sides of it) as makes all pairs meet, 1 at most."""
        rows = [self.index[name] for name in (shape, f"{shape}_L", f"{shape}_R") if name in self.index]
        closed = z_exp.copy()
        closed[rows] = 0.0
        rate = -self.opening[rows].sum(0)
        gaps = self.gaps_mm(canonical, closed) + overlap_mm
        closed[rows] = np.clip(np.max(gaps / np.maximum(rate, 1e-6)), 0.0, 1.0)
        return closed

    def varied(
        self,
        rng: np.random.Generator,
        canonical: Float[np.ndarray, "vertices 3"],
        z_exp: Float[np.ndarray, "d_exp"],
    ) -> Float[np.ndarray, "d_exp"]:
        """A random expression as it is, or with the lips just closed, or with the eyes fully so."""
        if rng.random() < SHUT_MOUTHS:
            z_exp = self.lips_met(canonical, z_exp, SHAPES[rng.integers(len(SHAPES))], rng.uniform(-0.3, 1.0))
        if rng.random() < SHUT_EYES:
            z_exp = z_exp.copy()
            for side in "LR" if rng.random() < 0.8 else "LR"[rng.integers(2)]:
                for opposite in ("eyeWide", "eyeSquint", "eyeLookUp"):
                    z_exp[self.index[f"{opposite}_{side}"]] = 0.0
                z_exp[self.index[f"eyeBlink_{side}"]] = 1.0
        return z_exp


def under_skin(
    skin: Float[np.ndarray, "triangles 3 3"], centre: Float[np.ndarray, "3"], points: Float[np.ndarray, "points 3"]
) -> Bool[np.ndarray, "points"]:
    """Which points of an eyeball have skin over them: the ray from `centre` through the point meets a triangle beyond
    the point, or up to `POKING_MM` before it, as blinking lids of the sources sink a little into the ball
    (Moeller and Trumbore 1997, all rays against all triangles).
    """
    reach = np.linalg.norm(points - centre, axis=1)
    ray = (points - centre) / reach[:, None]
    corner, along, across = skin[:, 0] - centre, skin[:, 1] - skin[:, 0], skin[:, 2] - skin[:, 0]
    normal, lever, arm = np.cross(along, across), np.cross(corner, across), np.cross(along, corner)
    slope = ray @ normal.T
    slope = np.where(np.abs(slope) < 1e-12, 1e-12, slope)
    u, v = -(ray @ lever.T) / slope, -(ray @ arm.T) / slope
    distance = (corner * normal).sum(1) / slope
    hit = (u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6)
    found: np.ndarray = (hit & (distance > reach[:, None] - POKING_MM / MM_PER_UNIT)).any(1)
    return found
