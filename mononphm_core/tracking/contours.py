"""Occluding contours: rim points of the template against the border between the person and the background.

Landmarks hardly measure a head's width, depth and distance; its outline does. A rim point wants to lie on the border of
the foreground mask, wherever along it: one equation a point. Only borders with skin on their inner side count, so hair
and clothes, which the head model does not have, are never taken for the head's outline.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import map_coordinates

from mononphm_core.meshing.raster import rasterise
from mononphm_core.tracking.pinhole import projected
from mononphm_core.tracking.template_points import Points
from mononphm_core.tracking.texture import facing
from mononphm_core.types import Crop, Intrinsics, Observation

RIM_PX = 1.2
"""Points this near to the drawn silhouette's border lie on it, not on a contour inside it (pixels of that drawing)."""
REACH = 0.09
"""How far a rim point may be from its border, share of the crop."""
BORDER_PX = 0.4
"""How far outside the head's true outline the masks end, crop pixels: median over 26 rendered heads of random people in
random poses, none of whom is in any test (standard deviation 0.3)."""
SKIN_DEPTH = 0.016
"""How far inside the border there must be skin, share of the crop."""


@dataclass(frozen=True)
class Outline:
    """The border between person and background in one frame, as a distance map."""

    distance: Float[np.ndarray, "height width"]
    """Signed, original pixels: positive on the person."""
    slope: tuple[Float[np.ndarray, "height width"], Float[np.ndarray, "height width"]]
    """Of the distance, along x and y."""
    skin: Float[np.ndarray, "height width"]
    crop: Crop

    @staticmethod
    def of(observation: Observation) -> "Outline":
        """From the masks of one observation."""
        person = observation.foreground.numpy().astype(np.uint8)
        inside = cv2.distanceTransform(person, cv2.DIST_L2, 5)
        outside = cv2.distanceTransform(1 - person, cv2.DIST_L2, 5)
        half = 0.5 * (person * 2.0 - 1.0)  # a border pixel's centre is half a pixel from the border
        signed = cv2.GaussianBlur((inside - outside - half).astype(np.float32), (0, 0), 1.0)
        skin = observation.skin.numpy().astype(np.float32)
        gy, gx = np.gradient(signed)
        return Outline((signed - BORDER_PX) / observation.crop.scale, (gx, gy), skin, observation.crop)

    def sample(self, pixels: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "points 3"]:
        """Signed distance and its unit gradient (towards the person) at original pixels."""
        columns = [self._at(image, pixels) for image in (self.distance, *self.slope)]
        length = np.maximum(np.hypot(columns[1], columns[2]), 0.3)
        return np.stack([columns[0], columns[1] / length, columns[2] / length], 1)

    def is_skin(self, pixels: Float[np.ndarray, "points 2"]) -> np.ndarray:
        """Whether there is skin."""
        return self._at(self.skin, pixels) > 0.5

    def _at(self, image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        x = (pixels[:, 0] - self.crop.left) * self.crop.scale - 0.5
        y = (pixels[:, 1] - self.crop.top) * self.crop.scale - 0.5
        return map_coordinates(image, [y, x], order=1, mode="nearest")


@dataclass(frozen=True)
class Rim:
    """Points between two neighbours of the template's surface, where it turns away from the camera."""

    ends: Int[np.ndarray, "chosen 2"]
    share: Float[np.ndarray, "chosen"]
    """Of the second end."""

    @staticmethod
    def none() -> "Rim":
        """No points."""
        return Rim(np.zeros((0, 2), int), np.zeros(0))

    def of(self, points: Points) -> Points:
        """These points as linear functions of the codes."""
        one, two = points.some(self.ends[:, 0]), points.some(self.ends[:, 1])
        a, b = (1 - self.share)[:, None], self.share[:, None]
        return Points(
            a * one.mean + b * two.mean,
            a[..., None] * one.identity + b[..., None] * two.identity,
            a[..., None] * one.expression + b[..., None] * two.expression,
        )


def rim(
    camera: Float[np.ndarray, "points 3"],
    faces: Int[np.ndarray, "faces 3"],
    k: Float[np.ndarray, "4"],
    outline: Outline,
    most: int,
) -> Rim:
    """The points on the drawn silhouette whose nearest border has skin inside; at most `most`, evenly thinned.

    They lie exactly where normal and line of sight are perpendicular: the nearest vertices alone are 2 to 3 mm further
    inside, and would make every head that much too wide.
    """
    crop = outline.crop
    factor = 0.5 * crop.scale
    half = Intrinsics(
        k[0] * factor, k[1] * factor, (k[2] - crop.left) * factor, (k[3] - crop.top) * factor,
        crop.width // 2, crop.height // 2,
    )  # fmt: skip
    cosine = facing(camera, faces)
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0)
    a, b = cosine[edges].T
    turning = (a < 0) != (b < 0)
    edges, share = edges[turning], (a / (a - b + 1e-12))[turning]
    x = (1 - share)[:, None] * camera[edges[:, 0]] + share[:, None] * camera[edges[:, 1]]
    hit = rasterise(camera, faces, half).covered.astype(np.uint8)
    depth = cv2.distanceTransform(hit, cv2.DIST_L2, 3)
    pixels = projected(x, k)
    column = ((pixels[:, 0] - crop.left) * factor).astype(int)
    row = ((pixels[:, 1] - crop.top) * factor).astype(int)
    inside = (column > 1) & (row > 1) & (column < hit.shape[1] - 2) & (row < hit.shape[0] - 2)
    near = np.zeros(len(x), bool)
    near[inside] = depth[row[inside], column[inside]] < RIM_PX
    chosen = np.flatnonzero(near)
    sampled = outline.sample(pixels[chosen])
    reach = REACH * crop.width / crop.scale
    border = pixels[chosen] - sampled[:, :1] * sampled[:, 1:]
    inner = border + SKIN_DEPTH * crop.width / crop.scale * sampled[:, 1:]
    chosen = chosen[(np.abs(sampled[:, 0]) < reach) & outline.is_skin(inner)]
    if len(chosen) > most:
        chosen = chosen[np.linspace(0, len(chosen) - 1, most).astype(int)]
    return Rim(edges[chosen], share[chosen])
