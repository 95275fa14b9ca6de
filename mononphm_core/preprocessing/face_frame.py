"""Coordinates along one face, for every pixel of a crop: where hair, ears and neck are to be looked for."""

import numpy as np
from jaxtyping import Float

from mononphm_core.preprocessing.outlines import BROW_LINE, OVAL

Points = Float[np.ndarray, "478 2"]


class FaceFrame:
    """`up` 0 at the chin, 1 at the top of the forehead; `right` 0 at the middle, -0.5 and 0.5 at the two sides."""

    def __init__(self, points: Points, shape: tuple[int, ...]) -> None:
        chin, top = points[152], points[10]
        length = max(float(np.linalg.norm(top - chin)), 1e-6)
        axis = (top - chin) / length
        across = np.array([-axis[1], axis[0]])
        sides = (points[list(OVAL)] - chin) @ across
        width = max(float(np.ptp(sides)), 1e-6)
        x = np.arange(shape[1], dtype=np.float32)[None] + np.float32(0.5)
        y = np.arange(shape[0], dtype=np.float32)[:, None] + np.float32(0.5)
        self.brows = float(((points[list(BROW_LINE)] - chin) @ axis).mean()) / length
        """`up` of the eyebrows."""
        a, b = (axis / length).astype(np.float32)
        c, d = (across / width).astype(np.float32)
        middle = np.float32((sides.max() + sides.min()) / 2 / width)
        self.up: Float[np.ndarray, "h w"] = x * a + y * b - np.float32(chin @ axis / length)
        self.right: Float[np.ndarray, "h w"] = x * c + y * d - np.float32(chin @ across / width) - middle
