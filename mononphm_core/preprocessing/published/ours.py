"""Our own preprocessing in the published program's words: labels, mattes, landmarks, head poses.

For those who have none of its tools, or only some of them.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mononphm_core.errors import NoFaceFound
from mononphm_core.preprocessing.head_pose import quick_pose
from mononphm_core.preprocessing.published.folder import TrackedPose
from mononphm_core.preprocessing.published.labels import labels_of
from mononphm_core.preprocessing.published.prepare import FROM_WFLW, SCALE
from mononphm_core.types import Intrinsics, Observation

CONTOURS = (
    (0, 33, False),
    (33, 42, True),
    (42, 51, True),
    (51, 60, False),
    (60, 68, True),
    (68, 76, True),
    (76, 96, False),
)
"""(first, end, closed) of WFLW's lines, within which points that iBUG-68 lacks are interpolated."""
EYES = {96: (60, 68), 97: (68, 76)}
"""Pupil -> the eye's outline, whose mean stands for it."""


@dataclass(frozen=True)
class OurParts:
    """What our preprocessing knows of one frame, in the published layout's terms."""

    labels: UInt8[np.ndarray, "height width"]
    matte: UInt8[np.ndarray, "height width"]
    landmarks: Float[np.ndarray, "98 2"]
    jaw_px: Float[np.ndarray, "68 2"]
    pose: TrackedPose


def our_parts(seen: Observation, original: Intrinsics, reference_points: Float[np.ndarray, "478 3"]) -> OurParts:
    """All parts of one frame; pixels of the upright original. NoFaceFound when the pose cannot be solved."""
    size = original.width, original.height
    crop = seen.crop
    landmarks_px = seen.landmarks_px.numpy().astype(np.float64) / crop.scale + [crop.left, crop.top]
    dense = seen.dense_landmarks_px.numpy().astype(np.float64)
    pose = quick_pose(dense / crop.scale + [crop.left, crop.top], reference_points, original)
    if pose is None:
        raise NoFaceFound(f"frame {seen.frame_index}: no head pose fits the landmarks")
    return OurParts(
        _full(labels_of(seen).numpy(), seen, size),
        _full(seen.foreground.numpy().astype(np.uint8) * 255, seen, size),
        wflw_from_ibug(landmarks_px) / size,
        landmarks_px,
        TrackedPose(pose.rotation, pose.translation / SCALE, original.matrix()),
    )


def wflw_from_ibug(landmarks: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "98 2"]:
    """WFLW-98 from iBUG-68: the 68 shared points exactly, the others between their neighbours on the same line."""
    found = np.full((98, 2), np.nan)
    found[list(FROM_WFLW)] = landmarks
    for first, end, closed in CONTOURS:
        index = np.arange(end - first)
        known = np.flatnonzero(np.isfinite(found[first:end, 0]))
        for axis in (0, 1):
            values = found[first + known, axis]
            period = float(end - first) if closed else None
            found[first:end, axis] = np.interp(index, known, values, period=period)
    for pupil, (first, end) in EYES.items():
        found[pupil] = found[first:end].mean(0)
    return found


def _full(
    values: UInt8[np.ndarray, "crop_height crop_width"], seen: Observation, size: tuple[int, int]
) -> UInt8[np.ndarray, "height width"]:
    """Values of the crop laid into the whole picture of `size` (width, height), nearest pixel; 0 outside."""
    s, left, top = 1 / seen.crop.scale, seen.crop.left, seen.crop.top
    # Pixel centres are at whole numbers in OpenCV and at .5 here.
    to_full = np.array([[s, 0, left + 0.5 * s - 0.5], [0, s, top + 0.5 * s - 0.5]])
    return np.asarray(cv2.warpAffine(values, to_full, size, flags=cv2.INTER_NEAREST), np.uint8)
