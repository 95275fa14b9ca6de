"""Smooth displacements of a triangulation: the thin plate on its surface (bi-Laplacian with cotangent weights).

    minimise   sum_i mass_i weight_i |u_i - target_i|^2  +  length^4 |laplacian u|^2

Along the surface, so upper and lower lip know nothing of each other however near they come.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csc_array, diags_array
from scipy.sparse.linalg import splu

LEAST_AREA = 1e-12
LEAST_COTANGENT = 0.05
"""Obtuse pairs of triangles would pull instead of push; the plate only needs to be stiff."""


def laplacian(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> tuple[csc_array, Float[np.ndarray, "vertices"]]:
    """The cotangent Laplacian (positive semidefinite, rows sum to 0) and a third of the area around each vertex."""
    count = len(vertices)
    rows, columns, values = [], [], []
    mass = np.zeros(count)
    x = vertices.astype(np.float64)
    for k in range(3):
        i, j, o = faces[:, (k + 1) % 3], faces[:, (k + 2) % 3], faces[:, k]
        a, b = x[i] - x[o], x[j] - x[o]
        area2 = np.linalg.norm(np.cross(a, b), axis=1)
        cotangent = np.clip((a * b).sum(1) / np.maximum(area2, 1e-12), LEAST_COTANGENT, 1 / LEAST_COTANGENT) / 2
        rows += [i, j]
        columns += [j, i]
        values += [cotangent, cotangent]
        mass += np.bincount(o, area2 / 6, count)
    off = coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count)
    ).tocsc()
    return csc_array(diags_array(np.asarray(off.sum(1)).ravel()) - off), np.maximum(mass, LEAST_AREA)


class Sheet:
    """A triangulation with given trust in the targets of its vertices, factorised once, solved often."""

    def __init__(
        self,
        vertices: Float[np.ndarray, "vertices 3"],
        faces: Int[np.ndarray, "faces 3"],
        weight: Float[np.ndarray, "vertices"],
        length: float,
    ) -> None:
        """`length`, in the unit of the vertices: detail below it is smoothed away."""
        stiff, mass = laplacian(vertices, faces)
        self._trust = mass * weight
        plate = stiff @ diags_array(1.0 / mass) @ stiff
        system = csc_array(diags_array(self._trust + 1e-9 * mass.mean()) + length**4 * plate)
        self._solve = splu(system, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}).solve

    def smooth(self, target: Float[np.ndarray, "vertices channels"]) -> Float[np.ndarray, "vertices channels"]:
        """The displacement nearest to `target` that bends least."""
        return self._solve(self._trust[:, None] * target.astype(np.float64))
