"""The clip's frames as everything in this package sees them: undistorted, upright, at the decoder's size."""

import numpy as np
from jaxtyping import Bool, UInt8

from mononphm_core.preprocessing import camera
from mononphm_core.types import Clip, Frame, Intrinsics


class Pictures:
    """Loads one frame at a time, so that a long clip is held in memory only once."""

    def __init__(self, clip: Clip, original: Intrinsics) -> None:
        height, width = clip.frames[0].rgb.shape[:2]
        self._stored = camera.reduced(original, width, height)
        self._undistort = camera.Undistorter(self._stored)
        self._shrink = clip.info.height / height
        self.frames: tuple[Frame, ...] = clip.frames
        self.turns = 0
        """Counter-clockwise quarter turns applied to every frame."""

    @property
    def intrinsics(self) -> Intrinsics:
        """Of one picture as loaded here, without distortion."""
        return camera.turned(self._stored, self.turns)

    @property
    def to_original(self) -> float:
        """Original pixels per pixel of these pictures (1 unless the decoder reduced them)."""
        return self._shrink

    def load(self, at: int) -> UInt8[np.ndarray, "h w 3"]:
        """The frame at that position of the clip."""
        return np.ascontiguousarray(np.rot90(self._undistort.picture(self.frames[at].rgb), self.turns))

    def content(self) -> Bool[np.ndarray, "h w"]:
        """Where a picture has pixels of the camera: not where undistortion had to invent a border."""
        return np.rot90(self._undistort.seen(self._stored.width, self._stored.height), self.turns)
