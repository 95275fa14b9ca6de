"""From a followed face to observations: crop, masks, landmarks with confidence, camera of the crop, quality."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from mononphm_core.config import PreprocessingConfig
from mononphm_core.preprocessing import landmarks
from mononphm_core.preprocessing.boxes import Box
from mononphm_core.preprocessing.crops import Window, windows
from mononphm_core.preprocessing.finder import Finder
from mononphm_core.preprocessing.masks import Masks, masks_of
from mononphm_core.preprocessing.person import SeenFace
from mononphm_core.preprocessing.pictures import Pictures
from mononphm_core.types import Crop, FrameQuality, Observation


@dataclass(frozen=True)
class _Cropped:
    """One frame's crop and what was measured in it."""

    face: SeenFace
    window: Window
    rgb: UInt8[np.ndarray, "crop crop 3"]
    valid: Bool[np.ndarray, "crop crop"]
    points: Float[np.ndarray, "478 2"]
    masks: Masks
    sharpness: float
    """Not yet relative to the clip."""


def describe(
    finder: Finder,
    pictures: Pictures,
    faces: list[SeenFace],
    config: PreprocessingConfig,
    reference: Float[np.ndarray, "478 3"],
    tick: Callable[[], None],
) -> tuple[Observation, ...]:
    """One observation per face, all crops of the same size and scale. Calls `tick` once a frame."""
    times = [pictures.frames[face.at].timestamp_s for face in faces]
    squares = windows([Box.around(face.points) for face in faces], times, config.crop_margin, config.crop_px)
    content, crops = pictures.content(), []
    for face, window in zip(faces, squares, strict=True):
        crops.append(_cropped(finder, pictures, face, window, content))
        tick()
    steady = landmarks.steadiness([face.points for face in faces], times)
    sharpest = max(max(crop.sharpness for crop in crops), 1e-12)
    return tuple(
        _observation(pictures, crop, landmarks.facing(crop.face.pose, reference) * calm, crop.sharpness / sharpest)
        for crop, calm in zip(crops, steady, strict=True)
    )


def _cropped(
    finder: Finder, pictures: Pictures, face: SeenFace, window: Window, content: Bool[np.ndarray, "h w"]
) -> _Cropped:
    rgb, valid = window.crop(pictures.load(face.at)), window.valid(content)
    points = window.to_crop(face.points)
    masks = masks_of(rgb, finder.person(rgb), points, valid)
    return _Cropped(face, window, rgb, valid, points, masks, _sharpness(rgb, points))


def _observation(
    pictures: Pictures, crop: _Cropped, confidence: Float[np.ndarray, "478"], sharpness: float
) -> Observation:
    frame, camera, window = pictures.frames[crop.face.at], pictures.intrinsics, crop.window
    grow = pictures.to_original
    in_view = landmarks.inside(crop.face.points, camera.width, camera.height)
    return Observation(
        frame_index=frame.frame_index,
        timestamp_s=frame.timestamp_s,
        rgb=torch.from_numpy(crop.rgb.astype(np.float32) / 255.0),
        valid=torch.from_numpy(crop.valid),
        skin=torch.from_numpy(crop.masks.skin),
        foreground=torch.from_numpy(crop.masks.foreground),
        inner_mouth=torch.from_numpy(crop.masks.inner_mouth),
        landmarks_px=torch.from_numpy(landmarks.ibug68(crop.points).astype(np.float32)),
        dense_landmarks_px=torch.from_numpy(crop.points.astype(np.float32)),
        dense_confidence=torch.from_numpy((confidence * in_view).astype(np.float32)),
        intrinsics=camera.cropped(window.left, window.top, window.scale, window.crop_px, window.crop_px),
        crop=Crop(window.left * grow, window.top * grow, window.scale / grow, window.crop_px, window.crop_px),
        quality=FrameQuality(
            sharpness=sharpness,
            yaw_deg=crop.face.pose.yaw_deg,
            face_px=float(np.ptp(crop.face.points[:, 1])) * grow,
            in_view=float(in_view.mean()),
        ),
    )


def _sharpness(rgb: UInt8[np.ndarray, "crop crop 3"], points: Float[np.ndarray, "478 2"]) -> float:
    """Variance of the Laplacian over the face, relative to its grey variance (exposure falls out)."""
    low = np.clip(points.min(axis=0), 0, len(rgb) - 8).astype(int)
    high = np.clip(points.max(axis=0), low + 8, len(rgb)).astype(int)
    grey = cv2.cvtColor(rgb[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY).astype(np.float64)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var() / (grey.var() + 1.0))
