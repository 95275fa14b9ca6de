"""The landmark term: 35 anchors carried by the expression and the pose onto the picture, against detected points.

Where an anchor goes is found by root finding; its derivative by the implicit function theorem. World and camera are
those of `PublishedObservation`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mononphm_core.model.head import HeadModel
from mononphm_core.model.root_finding import find_roots, implicit_points
from mononphm_core.quirks import PublishedQuirks

PAIRS: tuple[tuple[int, int, float], ...] = (
    # jaw and chin
    (0, 0, 1), (1, 16, 1), (38, 2, 1), (39, 14, 1), (2, 4, 1), (3, 12, 1), (4, 6, 1), (5, 10, 1), (60, 8, 100),
    # nose
    (10, 31, 1), (11, 35, 1), (62, 30, 1), (61, 27, 1),
    # outer brows, corners of the eyes
    (6, 17, 1), (7, 26, 1), (12, 36, 1), (13, 45, 1), (14, 39, 1), (15, 42, 1),
    # mouth
    (16, 48, 100), (17, 54, 100), (18, 50, 100), (19, 52, 100), (20, 58, 100), (21, 56, 100), (44, 49, 100),
    (45, 53, 100), (46, 59, 100), (47, 55, 100),
    # eyelids, inner brows
    (48, 38, 100), (49, 43, 100), (50, 41, 100), (51, 46, 100), (52, 21, 1), (53, 22, 1),
)  # fmt: skip
"""(anchor, iBUG-68 point, factor inside the square)."""
LIFTS: dict[int, float] = {
    18: 0.005, 19: 0.005, 20: -0.01, 21: -0.01, 48: -0.005, 49: -0.005, 50: 0.005, 51: 0.005,
}  # fmt: skip
"""What is added to the height of anchors whose landmark lies beside them: lips and lids; head units."""
START_NOISE = 0.002
"""Standard deviation of the search's starts, head units."""
STARTS = 32
"""Noisy starts of every anchor in the published search, of which one is used."""


@dataclass(frozen=True)
class View:
    """How one frame's camera sees the world: u = -fx x / z + cx, v = fy y / z + cy in OpenGL axes (z < 0 in front)."""

    k: Float[Tensor, "4"]
    w2c: Float[Tensor, "4 4"]
    size: tuple[int, int]
    """Width, height."""

    def normalised(self, x_world: Float[Tensor, "points 3"]) -> Float[Tensor, "points 2"]:
        """Pixel positions over width and height."""
        x = x_world @ self.w2c[:3, :3].T + self.w2c[:3, 3]
        u = -self.k[0] * x[:, 0] / x[:, 2] + self.k[2]
        v = self.k[1] * x[:, 1] / x[:, 2] + self.k[3]
        return torch.stack([u / self.size[0], v / self.size[1]], -1)


@dataclass(frozen=True)
class PosedAnchors:
    """The 35 anchors of `PAIRS` in posed space, with their gradient, and which of them were found."""

    x: Float[Tensor, "pairs 3"]
    valid: Bool[Tensor, "pairs"]


def lifted(anchors: Float[Tensor, "anchors 3"]) -> Float[Tensor, "anchors 3"]:
    """Anchors at the height of their landmarks."""
    lift = torch.zeros_like(anchors)
    for anchor, height in LIFTS.items():
        lift[anchor, 1] = height
    return anchors + lift


def posed_anchors(
    model: HeadModel,
    z_geo: Float[Tensor, "1 d_geo"],
    z_exp: Float[Tensor, "1 d_exp"],
    noise: Float[Tensor, "anchors starts 3"] | None,
    quirks: PublishedQuirks,
) -> PosedAnchors:
    """Where the expression carries the anchors.

    Quirk 9: the lifted anchors also condition the deformation, and what moves them is left out of the derivative. With
    `noise` (standard normal) the search starts where the published one does (quirk 7): of the many starts, target j
    uses entry j of a list that runs over the starts of anchor 0 first; without, at the target.
    """
    own = model.identity.anchors(z_geo)
    anchors = lifted(own[0])
    condition = anchors[None] if quirks.landmark_targets_condition_deformation else own
    biases = model.deformation.condition(z_geo, condition, z_exp)

    def displaced(x: Tensor) -> Tensor:
        return x + model.deformation(x[None], biases)[0][0]

    used = torch.tensor([anchor for anchor, _, _ in PAIRS], device=anchors.device)
    target = anchors[used]
    start = target
    if noise is not None:
        row, column = used // noise.shape[1], used % noise.shape[1]
        first = (column > 0)[:, None]  # the first start of each anchor has no noise
        start = anchors[row] + START_NOISE * noise[row, column] * first
    found = find_roots(displaced, target, start)
    x = implicit_points(displaced, found.x, None if quirks.landmark_targets_are_fixed else target)
    return PosedAnchors(x, found.valid)


def landmark_loss(
    anchors: PosedAnchors,
    x_world: Float[Tensor, "pairs 3"],
    view: View,
    detected_px: Float[Tensor, "68 2"],
) -> Float[Tensor, ""]:
    """Mean over found anchors and both coordinates of (factor * difference)^2, in shares of the picture.

    0 where none was found; the published program has no number then (27).
    """
    if not anchors.valid.any():
        return x_world.new_zeros(())
    detected = detected_px[[point for _, point, _ in PAIRS]] / detected_px.new_tensor(view.size)
    factor = x_world.new_tensor([factor for _, _, factor in PAIRS])
    error = factor[:, None] * (view.normalised(x_world) - detected)
    return error[anchors.valid].square().mean()
