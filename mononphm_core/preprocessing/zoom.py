"""Does the lens zoom? One focal length is assumed for a clip, so a change of scale is measured and told.

Corners of the background are followed from picture to picture; a similarity tells their change of scale. A camera that
is carried towards the scene looks alike in this measure, so the warning names both.
"""

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

_SIDE = 320
_CORNERS = 120
_FEWEST = 14
"""Corners that must agree on a change of scale."""
_STRANGER = 0.5
"""Share of the followed corners below which they do not agree at all: a cut, or a moving background."""

Grey = UInt8[np.ndarray, "h w"]


class ZoomMeter:
    """Fed with one picture after another; adds up the logarithms of the changes of scale."""

    def __init__(self) -> None:
        self._last: Grey | None = None
        self._elsewhere: Bool[np.ndarray, "h w"] | None = None
        self._total = 0.0
        self._low = self._high = 0.0

    @property
    def range(self) -> float:
        """Largest over smallest scale of the background, minus 1; 0 where it never could be measured."""
        return float(np.exp(self._high - self._low) - 1.0)

    def look(self, rgb: UInt8[np.ndarray, "h w 3"], box: tuple[float, float, float, float]) -> None:
        """The next picture, and where its face is (left, top, width, height)."""
        height, width = rgb.shape[:2]
        scale = min(1.0, _SIDE / max(height, width))
        size = (max(8, round(width * scale)), max(8, round(height * scale)))
        grey = np.asarray(cv2.cvtColor(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY))
        background = _without_person(grey.shape, tuple(v * scale for v in box))
        if self._last is not None and self._elsewhere is not None:
            self._total += _change(self._last, grey, self._elsewhere)
            self._low, self._high = min(self._low, self._total), max(self._high, self._total)
        self._last, self._elsewhere = grey, background


def _without_person(shape: tuple[int, ...], box: tuple[float, ...]) -> Bool[np.ndarray, "h w"]:
    """Everything but the head with some room, and what is below it."""
    left, top, width, height = box
    mask = np.ones(shape, dtype=bool)
    x0, x1 = max(0, int(left - 0.5 * width)), int(left + 1.5 * width)
    mask[max(0, int(top - 0.6 * height)) :, x0:x1] = False
    mask[max(0, int(top + height)) :, max(0, int(left - 1.5 * width)) : int(left + 2.5 * width)] = False
    return mask


def _change(before: Grey, after: Grey, background: Bool[np.ndarray, "h w"]) -> float:
    """Logarithm of the background's growth from one picture to the next; 0 where too little of it can be followed."""
    corners: np.ndarray | None = cv2.goodFeaturesToTrack(
        before, _CORNERS, 0.01, 6, mask=background.astype(np.uint8) * 255
    )
    if corners is None or len(corners) < _FEWEST:
        return 0.0
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners), winSize=(15, 15))
    kept = found[:, 0] == 1
    if kept.sum() < _FEWEST:
        return 0.0
    similarity, inliers = cv2.estimateAffinePartial2D(corners[kept], moved[kept], ransacReprojThreshold=1.0)
    if similarity is None or inliers.sum() < max(_FEWEST, _STRANGER * kept.sum()):
        return 0.0
    return float(np.log(max(np.hypot(similarity[0, 0], similarity[1, 0]), 1e-3)))
