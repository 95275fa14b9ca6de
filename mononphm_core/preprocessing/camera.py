"""The pinhole camera of a clip: given, from EXIF, or a guess that says how uncertain it is."""

import math

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from mononphm_core.config import CameraChoice
from mononphm_core.errors import ConfigError
from mononphm_core.types import CameraSource, Intrinsics, MediaInfo

DIAGONAL_35MM = 43.2666
"""Of a 36 x 24 mm frame, mm: 35 mm-equivalent focal lengths are relative to it (CIPA DCG-001)."""
_LOG_STD = {CameraSource.GIVEN: 0.0, CameraSource.EXIF: 0.05, CameraSource.ESTIMATED: 0.3}


def camera_of(info: MediaInfo, choice: CameraChoice, default_fov_deg: float) -> tuple[Intrinsics, CameraSource, float]:
    """Intrinsics of the upright original, where they come from, and one standard deviation of log(focal).

    In order: `choice.fx` (fy, cx, cy default to square pixels and the centre), `choice.fov_deg` (horizontal), EXIF
    35 mm focal length, `default_fov_deg` over the larger side. ConfigError for values no camera has.
    """
    width, height, aspect = info.width, info.height, info.pixel_aspect
    source = CameraSource.GIVEN
    if choice.fx is not None or choice.fy is not None:
        fy = choice.fy if choice.fy is not None else (choice.fx or 0.0) * aspect
        fx = choice.fx if choice.fx is not None else fy / aspect
    elif choice.fov_deg is not None:
        if not 1.0 <= choice.fov_deg <= 170.0:
            raise ConfigError(f"fov_deg = {choice.fov_deg} must lie between 1 and 170 degrees.")
        fx = width / 2 / math.tan(math.radians(choice.fov_deg) / 2)
        fy = fx * aspect
    elif info.focal_35mm is not None:
        source = CameraSource.EXIF
        fy = info.focal_35mm / DIAGONAL_35MM * math.hypot(width * aspect, height)
        fx = fy / aspect
    else:
        source = CameraSource.ESTIMATED
        fy = max(width * aspect, height) / 2 / math.tan(math.radians(default_fov_deg) / 2)
        fx = fy / aspect
    cx = choice.cx if choice.cx is not None else width / 2
    cy = choice.cy if choice.cy is not None else height / 2
    _check(fx, fy, cx, cy, width, height)
    return Intrinsics(fx, fy, cx, cy, width, height, choice.distortion), source, _LOG_STD[source]


def _check(fx: float, fy: float, cx: float, cy: float, width: int, height: int) -> None:
    largest = max(width, height)
    for name, value in (("fx", fx), ("fy", fy)):
        if not 0.05 * largest <= value <= 100.0 * largest:
            raise ConfigError(
                f"{name} = {value:g} pixels does not fit a picture of {width} x {height}; "
                "give intrinsics in pixels of the upright original."
            )
    if not (-width <= cx <= 2 * width and -height <= cy <= 2 * height):
        raise ConfigError(f"The principal point ({cx:g}, {cy:g}) lies far outside the {width} x {height} picture.")


def turned(intrinsics: Intrinsics, quarter_turns: int) -> Intrinsics:
    """The camera after the picture was turned counter-clockwise by that many quarters (distortion must be gone)."""
    k = intrinsics
    for _ in range(quarter_turns % 4):
        k = Intrinsics(k.fy, k.fx, k.cy, k.width - k.cx, k.height, k.width)
    return k


def reduced(intrinsics: Intrinsics, width: int, height: int) -> Intrinsics:
    """The same camera for the same picture resized to `width` x `height`."""
    x, y = width / intrinsics.width, height / intrinsics.height
    k = intrinsics
    return Intrinsics(k.fx * x, k.fy * y, k.cx * x, k.cy * y, width, height, k.distortion)


class Undistorter:
    """Removes Brown-Conrady distortion from pictures of one size; does nothing where there is none."""

    def __init__(self, intrinsics: Intrinsics) -> None:
        self._maps: tuple[np.ndarray, np.ndarray] | None = None
        if any(intrinsics.distortion):
            matrix = intrinsics.matrix() - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # cv2: centres at integers
            size = (intrinsics.width, intrinsics.height)
            distortion = np.array(intrinsics.distortion)
            self._maps = cv2.initUndistortRectifyMap(matrix, distortion, np.eye(3), matrix, size, cv2.CV_32FC1)

    def picture(self, rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The undistorted picture; black where the camera saw nothing."""
        if self._maps is None:
            return rgb
        return np.asarray(cv2.remap(rgb, *self._maps, cv2.INTER_LINEAR), dtype=np.uint8)

    def seen(self, width: int, height: int) -> Bool[np.ndarray, "h w"]:
        """Where an undistorted picture has content."""
        if self._maps is None:
            return np.ones((height, width), dtype=bool)
        x, y = self._maps
        return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
