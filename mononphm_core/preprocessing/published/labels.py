"""Our masks in a face parser's words, for those who have no parser. Coarser: no lips, brows or eyes."""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mononphm_core.preprocessing.published.observation import BACKGROUND, CLOTH, HAIR, INNER_MOUTH, NECK, SKIN
from mononphm_core.types import Observation

CHIN, JAW, BRIDGE = 8, slice(0, 17), 27
"""Of the iBUG-68 points."""


def labels_of(o: Observation) -> UInt8[Tensor, "height width"]:
    """Labels of the crop's pixels: visible skin is skin above the jaw and neck below it; of the rest of the person,
    what is above the chin is hair, and what is below are clothes.
    """
    height, width = o.skin.shape
    above_jaw, above_chin = _above(o.landmarks_px, height, width)
    labels = torch.full((height, width), BACKGROUND, dtype=torch.uint8)
    other = o.foreground & ~o.skin & ~o.inner_mouth
    labels[other & above_chin] = HAIR
    labels[other & ~above_chin] = CLOTH
    labels[o.skin & above_jaw] = SKIN
    labels[o.skin & ~above_jaw] = NECK
    labels[o.inner_mouth & o.foreground] = INNER_MOUTH
    labels[~o.valid] = BACKGROUND
    return labels


def _above(
    landmarks: Float[Tensor, "68 2"], height: int, width: int
) -> tuple[Bool[Tensor, "height width"], Bool[Tensor, "height width"]]:
    """Pixels above the line of the jaw, and above the level of the chin, both along the face's own axis."""
    points = landmarks.numpy().astype(np.float64)
    chin = points[CHIN]
    axis = points[BRIDGE] - chin  # the nose's bridge: up, along the face
    axis = axis / max(float(np.linalg.norm(axis)), 1e-6)
    across = np.array([-axis[1], axis[0]])
    y, x = np.mgrid[:height, :width] + 0.5
    up = (x - chin[0]) * axis[0] + (y - chin[1]) * axis[1]
    along = (x - chin[0]) * across[0] + (y - chin[1]) * across[1]
    jaw = points[JAW] - chin
    order = np.argsort(jaw @ across)
    line = np.interp(along, (jaw @ across)[order], (jaw @ axis)[order])
    return torch.from_numpy(up > line), torch.from_numpy(up > 0)
