"""How far the surface may lie from where it was found: the deviations of the identity, carried to the vertices.

spread_v^2 = sum over directions k of (sigma_k |d x_v / d u_k|)^2
"""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mononphm_core.animation.topology import Topology, control_rows
from mononphm_core.animation.wrap import control_sheet
from mononphm_core.model.template import TemplateHead
from mononphm_core.types import MM_PER_UNIT


def spread_mm(
    topology: Topology, template: TemplateHead, sigma: Float[Tensor, "estimated"]
) -> Float[np.ndarray, "vertices"]:
    """One standard deviation of each vertex, millimetres; `sigma` of the first directions of `template.geo_span`.

    Directions that were not estimated keep the 1 of the prior. Between the template's points: a thin plate, as for
    the head itself. Eyeballs follow the skin around them.
    """
    moved = template.geo_span.clone()
    moved[:, : len(sigma)] *= sigma
    squared = np.zeros(len(template.mean))
    for name in template.groups:
        steps = template.canonical(moved.T, name) - template.mean[template.rows(name)]
        squared[template.rows(name)] = steps.square().sum((0, 2)).cpu().numpy()
    known = topology.control_vertex >= 0
    target = np.zeros(topology.mean.shape)
    target[topology.control_vertex[known], 0] = np.sqrt(squared[control_rows(template)[known]])
    out = control_sheet(topology).smooth(target)[:, 0]
    at_points = target[topology.control_vertex[known], 0]
    return np.clip(out, at_points.min(), at_points.max()) * MM_PER_UNIT
