"""One square window per frame that follows the face; one scale for the clip, so that sizes stay comparable."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mononphm_core.preprocessing.boxes import Box
from mononphm_core.preprocessing.finder import cut

_SMOOTH_S = 0.12
"""Standard deviation of the window's smoothing in time."""


@dataclass(frozen=True)
class Window:
    """A square of whole pixels of the picture, and the side it is resized to."""

    left: int
    top: int
    side: int
    crop_px: int

    @property
    def scale(self) -> float:
        """Crop pixels per picture pixel."""
        return self.crop_px / self.side

    def to_crop(self, points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "points 2"]:
        """Picture pixels to crop pixels, both with centres at .5: exact, as the resize maps borders to borders."""
        return (points - np.array([self.left, self.top])) * self.scale

    def crop(self, rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "crop crop 3"]:
        """The window's pixels, reduced by area (or enlarged linearly); black outside the picture."""
        window = cut(rgb, self.left, self.top, self.side)
        how = cv2.INTER_AREA if self.side >= self.crop_px else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(window, (self.crop_px, self.crop_px), interpolation=how), dtype=np.uint8)

    def valid(self, seen: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "crop crop"]:
        """Crop pixels that come wholly from where `seen` holds."""
        as_picture = np.repeat(seen[..., None].astype(np.uint8) * 255, 3, axis=2)
        return np.asarray(self.crop(as_picture)[..., 0] == 255)


def windows(boxes: Sequence[Box], times_s: Sequence[float], margin: float, crop_px: int) -> list[Window]:
    """One window per face box: side = margin x the clip's 95th percentile of face heights, centres smoothed in time."""
    side = max(16, round(margin * float(np.percentile([box.height for box in boxes], 95))))
    centres = smoothed(np.array([box.centre for box in boxes]), np.array(times_s))
    return [Window(round(x - side / 2), round(y - side / 2), side, crop_px) for x, y in centres.tolist()]


def smoothed(
    centres: Float[np.ndarray, "frames 2"], times_s: Float[np.ndarray, "frames"]
) -> Float[np.ndarray, "frames 2"]:
    """Gaussian mean over the neighbours in time, without lag; a frame far from all others keeps its own."""
    weights = np.exp(-0.5 * ((times_s[:, None] - times_s[None]) / _SMOOTH_S) ** 2)
    result: Float[np.ndarray, "frames 2"] = (weights @ centres) / weights.sum(axis=1, keepdims=True)
    return result
