"""The person's own texture ties the frames together: a point of the skin looks the same in every frame that sees it.

Landmarks waver and slide over the skin with the view; the skin's own marks, brows, lids and lips do not. Pictures are
freed of slow shading first (local contrast), so no light has to be known. The texture is not a parameter: for given
poses and shape the best one is the weighted mean over the frames (variable projection), and its slope vanishes there.

    e_fv = I_f(pi(x_fv)) - T_v,    T_v = sum_f w_fv I_f(pi(x_fv)) / sum_f w_fv
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import map_coordinates

from mononphm_core.types import Crop, Observation

SHADE_SHARE = 0.035
"""Gaussian below which brightness counts as shading, share of the crop's side."""
CONTRAST_FLOOR = 0.04
"""Contrast (sRGB) at which local normalisation starts to amplify no more: flat skin stays flat."""


@dataclass(frozen=True)
class Pattern:
    """One frame's pictures of local contrast with their slopes, crop pixels."""

    values: Float[np.ndarray, "channels height width"]
    slope_x: Float[np.ndarray, "channels height width"]
    slope_y: Float[np.ndarray, "channels height width"]
    sure: Bool[np.ndarray, "height width"]
    """Skin, and not the inside of the mouth."""
    crop: Crop

    @staticmethod
    def of(observation: Observation, blur_px: float) -> "Pattern":
        """Lightness and red against green, both relative to their surroundings."""
        rgb = observation.rgb.numpy().astype(np.float32)
        light = np.log(rgb.mean(-1) + 0.05)
        red = np.log(rgb[..., 0] + 0.05) - np.log(rgb[..., 1] + 0.05)
        wide = SHADE_SHARE * rgb.shape[1]
        channels = []
        for image, floor in ((light, CONTRAST_FLOOR * 3), (red, CONTRAST_FLOOR * 3)):
            fine = cv2.GaussianBlur(image, (0, 0), blur_px) - cv2.GaussianBlur(image, (0, 0), wide)
            power = cv2.GaussianBlur(fine * fine, (0, 0), 1.5 * wide)
            channels.append(fine / np.sqrt(power + floor**2))
        values = np.stack(channels)
        gy, gx = np.gradient(values, axis=(1, 2))
        sure = (observation.skin & observation.valid & ~observation.inner_mouth).numpy()
        return Pattern(values, gx, gy, sure, observation.crop)

    def sample(
        self, pixels: Float[np.ndarray, "points 2"]
    ) -> tuple[Float[np.ndarray, "channels points"], Float[np.ndarray, "channels points 2"]]:
        """Values and slopes (per original pixel) at original pixels."""
        at = self._place(pixels)
        values = np.stack([map_coordinates(c, at, order=1, mode="nearest") for c in self.values])
        slopes = [
            np.stack([map_coordinates(c, at, order=1, mode="nearest") for c in s]) for s in (self.slope_x, self.slope_y)
        ]
        return values, np.stack(slopes, -1) * self.crop.scale

    def is_sure(self, pixels: Float[np.ndarray, "points 2"]) -> Bool[np.ndarray, "points"]:
        """Whether a pixel shows skin of the face; false outside the crop."""
        y, x = self._place(pixels)
        found: np.ndarray = map_coordinates(self.sure.astype(np.float32), [y, x], order=1, cval=0.0) > 0.99
        return found

    def _place(self, pixels: np.ndarray) -> list[np.ndarray]:
        x = (pixels[:, 0] - self.crop.left) * self.crop.scale - 0.5
        y = (pixels[:, 1] - self.crop.top) * self.crop.scale - 0.5
        return [y, x]


def facing(x_camera: Float[np.ndarray, "points 3"], faces: Int[np.ndarray, "faces 3"]) -> Float[np.ndarray, "points"]:
    """Cosine between a point's outward normal and its line of sight, from the triangles around it."""
    a, b, c = (x_camera[faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    normal = np.zeros_like(x_camera)
    for k in range(3):
        np.add.at(normal, faces[:, k], across)
    length = np.linalg.norm(normal, axis=1) * np.linalg.norm(x_camera, axis=1)
    cosine: np.ndarray = -(normal * x_camera).sum(1) / np.maximum(length, 1e-12)
    return cosine


class Texture:
    """Errors of the surface points against the clip's mean texture."""

    def __init__(self, observations: tuple[Observation, ...], blur_px: float) -> None:
        self.patterns = [Pattern.of(o, blur_px) for o in observations]
        self.seen = np.zeros((len(observations), 0))
        """How well each frame sees each point, 0..1; from `look`."""

    def look(
        self,
        x_camera: Float[np.ndarray, "frames points 3"],
        pixels: Float[np.ndarray, "frames points 2"],
        faces: Int[np.ndarray, "faces 3"],
    ) -> None:
        """Decide which points every frame sees: facing the camera, on sure skin."""
        seen = np.zeros(x_camera.shape[:2])
        for i, pattern in enumerate(self.patterns):
            share = np.clip((facing(x_camera[i], faces) - 0.25) / 0.4, 0.0, 1.0)
            seen[i] = share * share * pattern.is_sure(pixels[i])
        self.seen = np.where((seen > 0.05).sum(0) >= 2, seen, 0.0)

    def errors(
        self, pixels: Float[np.ndarray, "frames points 2"], sigma: float, huber: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Errors (frames, channels, points), slopes (... 2) and weights (frames, points) with Huber's factor."""
        sampled = [p.sample(x) for p, x in zip(self.patterns, pixels, strict=True)]
        values, slopes = np.stack([v for v, _ in sampled]), np.stack([s for _, s in sampled])
        weight = self.seen
        for _ in range(3):
            total = np.maximum(weight.sum(0), 1e-9)
            mean = (values * weight[:, None]).sum(0) / total
            error = values - mean
            distance = np.linalg.norm(error, axis=1) / sigma
            weight = self.seen * np.minimum(1.0, huber / np.maximum(distance, 1e-9))
        return error, slopes, weight
