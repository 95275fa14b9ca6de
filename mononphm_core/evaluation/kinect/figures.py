"""The published figures of one frame, and ours beside them. Metres of the scan.

published   one direction, every kept scan point p to its nearest mesh point q:
    chamfer_l1 = mean |p - q|_1      chamfer_l2 = mean |p - q|_2 (not squared)      normals = mean |n_p . n_q|
    fscore_T   = share of p with |p - q|_2 <= T: a recall, not an F-score, under the name that was published
strict      both directions: mesh samples that the camera sees over kept pixels are measured back to the scan
    recall_T, precision_T, f_T = their harmonic mean; accuracy and completeness in mm (mean, median, p90)
"""

import numpy as np
from jaxtyping import Float

from mononphm_core.evaluation.kinect.scan import ScanPoints
from mononphm_core.evaluation.surfaces import Surface
from mononphm_core.geometry.neighbours import neighbours
from mononphm_core.types import HeadMesh

LIMITS_M = (0.001, 0.0025, 0.005, 0.01)
BACK_SAMPLES = 20_000
BESIDE = 0.004
"""A mesh sample counts when a kept scan point lies within this of it on the plane z = 1."""


def published_figures(mesh: HeadMesh, scan: ScanPoints) -> dict[str, float]:
    """As `eval.py` defines them."""
    surface = Surface(mesh)
    near = surface.nearest(scan.points)
    gap = near.points - scan.points
    distance = np.linalg.norm(gap, axis=-1)
    found = {
        "chamfer_l1": float(np.abs(gap).sum(-1).mean()),
        "chamfer_l2": float(distance.mean()),
        "normals": float(np.abs((scan.normals * face_normals(surface)[near.faces]).sum(-1)).mean()),
    }
    return found | {f"fscore_{limit:g}": float((distance <= limit).mean()) for limit in LIMITS_M}


def strict_figures(mesh: HeadMesh, scan: ScanPoints) -> dict[str, float]:
    """Both directions. Empty when the mesh shows nothing where the scan is."""
    surface = Surface(mesh)
    complete = surface.nearest(scan.points).distances
    samples = surface.sample(BACK_SAMPLES)
    near = surface.nearest(samples)
    seen = (samples * face_normals(surface)[near.faces]).sum(-1) < 0  # faces the camera at the origin
    flat, kept = samples[:, :2] / samples[:, 2:], scan.points[:, :2] / scan.points[:, 2:]
    beside = neighbours(kept).query(flat)[0] <= BESIDE
    back = samples[seen & beside & (samples[:, 2] > 0)]
    if len(back) == 0:
        return {}
    accurate, _ = neighbours(scan.points).query(back)
    found: dict[str, float] = {}
    for name, distances in (("completeness", complete), ("accuracy", accurate)):
        found |= {
            f"{name}_mean_mm": float(distances.mean() * 1e3),
            f"{name}_median_mm": float(np.median(distances) * 1e3),
            f"{name}_p90_mm": float(np.percentile(distances, 90) * 1e3),
        }
    for limit in LIMITS_M:
        recall, precision = float((complete <= limit).mean()), float((accurate <= limit).mean())
        found |= {f"recall_{limit:g}": recall, f"precision_{limit:g}": precision}
        found[f"f_{limit:g}"] = 2 * recall * precision / max(recall + precision, 1e-12)
    return found


def face_normals(surface: Surface) -> Float[np.ndarray, "faces 3"]:
    """Unit normal of every triangle."""
    a, b, c = (surface.vertices[surface.faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-300)
