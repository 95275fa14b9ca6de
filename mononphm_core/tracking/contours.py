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
from mononphm_core.types import Crop, Intrinsics, Observation

RIM_PX = 2.0
"""Template points this near to the silhouette are its rim (pixels of the drawn silhouette)."""
REACH = 0.09
"""How far a rim point may be from its border, share of the crop."""
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
        return Outline(signed / observation.crop.scale, (gx, gy), skin, observation.crop)

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


def rim(
    camera: Float[np.ndarray, "points 3"],
    faces: Int[np.ndarray, "faces 3"],
    k: Float[np.ndarray, "4"],
    outline: Outline,
    most: int,
) -> Int[np.ndarray, "chosen"]:
    """Template points on the drawn silhouette whose nearest border has skin inside; at most `most`, evenly thinned."""
    crop = outline.crop
    factor = 0.5 * crop.scale
    half = Intrinsics(
        k[0] * factor, k[1] * factor, (k[2] - crop.left) * factor, (k[3] - crop.top) * factor,
        crop.width // 2, crop.height // 2,
    )  # fmt: skip
    hit = rasterise(camera, faces, half).covered.astype(np.uint8)
    depth = cv2.distanceTransform(hit, cv2.DIST_L2, 3)
    pixels = camera[:, :2] / np.maximum(camera[:, 2:], 0.05) * k[:2] + k[2:]
    x = ((pixels[:, 0] - crop.left) * factor).astype(int)
    y = ((pixels[:, 1] - crop.top) * factor).astype(int)
    inside = (x > 1) & (y > 1) & (x < hit.shape[1] - 2) & (y < hit.shape[0] - 2)
    near = np.zeros(len(x), bool)
    near[inside] = depth[y[inside], x[inside]] < RIM_PX
    chosen = np.flatnonzero(near)
    if not len(chosen):
        return chosen
    sampled = outline.sample(pixels[chosen])
    reach = REACH * crop.width / crop.scale
    border = pixels[chosen] - sampled[:, :1] * sampled[:, 1:]
    inner = border + SKIN_DEPTH * crop.width / crop.scale * sampled[:, 1:]
    chosen = chosen[(np.abs(sampled[:, 0]) < reach) & outline.is_skin(inner)]
    return chosen if len(chosen) <= most else chosen[np.linspace(0, len(chosen) - 1, most).astype(int)]
