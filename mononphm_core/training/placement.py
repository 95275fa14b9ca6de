"""Where a code puts the anchors, and how it stretches the skin around them: both linear in the code.

Codes are linear maps of vertices, so an anchor's place is exact. Around anchor a, the affine map that comes nearest to
what the code does to the vertices of the mean person (weighted least squares, a Gaussian of distance) is

x_v - x_a ~ (1 + G_a z) (m_v - m_a)

with G_a z = sum_v w_v (J_v - J_a) z (m_v - m_a)^T (sum_v w_v (m_v - m_a)(m_v - m_a)^T + ridge)^-1, J_v = d x_v / d z.
"""

import numpy as np
from jaxtyping import Float, Int

from mononphm_core.geometry.triangles import vertex_areas
from mononphm_core.training.codes import CodeBasis
from mononphm_core.training.sources import OpenHeads

WIDTH = 0.06
"""Standard deviation of the weight, head units (15 mm)."""
RIDGE = 0.016
"""A patch is a sheet: without this much thickness (4 mm) its normal direction would stretch at random."""


def placement(
    codes: CodeBasis, anchors: Int[np.ndarray, "anchors"], weight: Float[np.ndarray, "vertices"]
) -> Float[np.ndarray, "anchors 4 3 d_geo"]:
    """Per anchor: d x_a / d z, then the rows of G_a."""
    jacobian = np.zeros((len(anchors), 4, 3, codes.d), np.float32)
    for a, vertex in enumerate(anchors):
        arm = codes.mean - codes.mean[vertex]
        near = np.flatnonzero((np.square(arm).sum(1) < (2.5 * WIDTH) ** 2) & (weight > 0))
        w = weight[near] * np.exp(-0.5 * np.square(arm[near]).sum(1) / WIDTH**2)
        arm, w = arm[near].astype(np.float64), (w / w.sum()).astype(np.float64)
        inverse = np.linalg.inv(np.einsum("v,vi,vj->ij", w, arm, arm) + RIDGE**2 * np.eye(3))
        at_anchor = codes.jacobian(np.array([vertex]))[0]
        lever = (w[:, None] * arm @ inverse).astype(np.float32)
        moved = codes.jacobian(near) - at_anchor
        jacobian[a, 0] = at_anchor
        jacobian[a, 1:] = np.einsum("vid,vj->ijd", moved, lever)
    return jacobian


def vertex_area(heads: OpenHeads) -> Float[np.ndarray, "vertices"]:
    """A third of the area of a vertex's triangles on the mean person; a fifth of that in the mouth cavity, which lies
    behind lips and cheeks and moves with neither; nothing below the cut."""
    sk, x = heads.skeleton, heads.mean_canonical()
    triangles = np.concatenate([sk.sheet, *sk.sclera])
    total = vertex_areas(x, triangles)
    total[sk.part == 2] *= 0.2
    total[x[:, 1] < heads.y_cut] = 0.0
    return total.astype(np.float32)
