"""From a followed face to observations: crop, masks, landmarks with confidence, camera of the crop, quality."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from mononphm_core.config import PreprocessingConfig
from mononphm_core.preprocessing import bias, landmarks
from mononphm_core.preprocessing.boxes import Box
from mononphm_core.preprocessing.crops import Window, windows
from mononphm_core.preprocessing.finder import Finder
from mononphm_core.preprocessing.masks import Masks, masks_of, with_neighbours
from mononphm_core.preprocessing.person import SeenFace
from mononphm_core.preprocessing.pictures import Pictures
from mononphm_core.types import Crop, FrameQuality, Observation

_NEIGHBOUR_S = 0.12
_UNDER_COVER = 0.1
"""Confidence of a point that something covers: the detector guesses it from the rest of the face."""
_BLACK, _WHITE = 12, 245


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
    steady = landmarks.steadiness([face.points for face in faces], times)
    calm = landmarks.filtered([face.points for face in faces], times, steady)
    faces = [replace(face, points=points) for face, points in zip(faces, calm, strict=True)]
    squares = windows([Box.around(face.points) for face in faces], times, config.crop_margin, config.crop_px)
    crops = _cropped(finder, pictures, faces, squares, tick)
    crops = _agreeing(crops, times)
    sharpest = max(max(crop.sharpness for crop in crops), 1e-12)
    return tuple(
        _observation(pictures, crop, landmarks.facing(crop.face.pose, reference), trust, crop.sharpness / sharpest)
        for crop, trust in zip(crops, steady, strict=True)
    )


def _cropped(
    finder: Finder, pictures: Pictures, faces: list[SeenFace], squares: list[Window], tick: Callable[[], None]
) -> list[_Cropped]:
    """All crops; a second thread makes the masks of one picture while the segmenter looks at the next."""
    content, waiting = pictures.content(), []
    helper = ThreadPoolExecutor(1)
    try:
        for face, window in zip(faces, squares, strict=True):
            rgb, valid = window.crop(pictures.load(face.at)), window.valid(content)
            points = window.to_crop(face.points)
            masks = helper.submit(masks_of, rgb, finder.person(rgb), points, valid)
            waiting.append((face, window, rgb, valid, points, masks))
            tick()
        return [
            _Cropped(face, window, rgb, valid, points, masks.result(), _sharpness(rgb, points))
            for face, window, rgb, valid, points, masks in waiting
        ]
    finally:
        helper.shutdown(wait=True, cancel_futures=True)


def _agreeing(crops: list[_Cropped], times_s: list[float]) -> list[_Cropped]:
    """Masks that agree with those of the pictures just before and after, which are moved to where the face is now."""
    agreeing = list(crops)
    for k in range(1, len(crops) - 1):
        if times_s[k + 1] - times_s[k] > _NEIGHBOUR_S or times_s[k] - times_s[k - 1] > _NEIGHBOUR_S:
            continue
        before, after = (_carried(crops[j], crops[k]) for j in (k - 1, k + 1))
        agreeing[k] = replace(crops[k], masks=with_neighbours(crops[k].masks, before, after))
    return agreeing


def _carried(source: _Cropped, target: _Cropped) -> Float[np.ndarray, "crop crop"]:
    """The soft foreground of one frame where another frame has the face."""
    moved = landmarks.aligned(source.points, target.points)
    rows = [0, 152, 454]
    warp = cv2.getAffineTransform(source.points[rows].astype(np.float32), moved[rows].astype(np.float32))
    side = len(source.masks.opacity)
    carried = cv2.warpAffine(source.masks.opacity, warp, (side, side), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(carried, dtype=np.float32)


def _observation(
    pictures: Pictures,
    crop: _Cropped,
    facing: Float[np.ndarray, "478"],
    steady: Float[np.ndarray, "478"],
    sharpness: float,
) -> Observation:
    frame, camera, window = pictures.frames[crop.face.at], pictures.intrinsics, crop.window
    grow, masks = pictures.to_original, crop.masks
    in_view = landmarks.inside(crop.face.points, camera.width, camera.height)
    hidden = landmarks.covered(crop.points, masks.occluder)
    seen = facing * in_view * np.where(hidden, _UNDER_COVER, 1.0)
    return Observation(
        frame_index=frame.frame_index,
        timestamp_s=frame.timestamp_s,
        rgb=torch.from_numpy(crop.rgb.astype(np.float32) / 255.0),
        valid=torch.from_numpy(crop.valid),
        skin=torch.from_numpy(masks.skin),
        foreground=torch.from_numpy(masks.foreground),
        foreground_opacity=torch.from_numpy(masks.opacity),
        hair=torch.from_numpy(masks.hair),
        occluder=torch.from_numpy(masks.occluder),
        inner_mouth=torch.from_numpy(masks.inner_mouth),
        landmarks_px=torch.from_numpy(landmarks.ibug68(crop.points).astype(np.float32)),
        dense_landmarks_px=torch.from_numpy(bias.bundled().corrected(crop.points).astype(np.float32)),
        dense_confidence=torch.from_numpy((seen * steady).astype(np.float32)),
        intrinsics=camera.cropped(window.left, window.top, window.scale, window.crop_px, window.crop_px),
        crop=Crop(window.left * grow, window.top * grow, window.scale / grow, window.crop_px, window.crop_px),
        quality=FrameQuality(
            sharpness=sharpness,
            yaw_deg=crop.face.pose.yaw_deg,
            face_px=float(np.ptp(crop.face.points[:, 1])) * grow,
            in_view=float(in_view.mean()),
            exposure=_exposure(crop.rgb, masks.skin),
            visible=float((seen > 0.5).mean()),
        ),
    )


def _exposure(rgb: UInt8[np.ndarray, "crop crop 3"], skin: Bool[np.ndarray, "crop crop"]) -> float:
    """Share of skin pixels whose brightest channel is not black and whose darkest is not white."""
    face = rgb[skin]
    if not len(face):
        return 0.0
    return float(((face.max(axis=1) > _BLACK) & (face.min(axis=1) < _WHITE)).mean())


def _sharpness(rgb: UInt8[np.ndarray, "crop crop 3"], points: Float[np.ndarray, "478 2"]) -> float:
    """Variance of the Laplacian over the face, relative to its grey variance (exposure falls out)."""
    low = np.clip(points.min(axis=0), 0, len(rgb) - 8).astype(int)
    high = np.clip(points.max(axis=0), low + 8, len(rgb)).astype(int)
    grey = cv2.cvtColor(rgb[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY).astype(np.float64)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var() / (grey.var() + 1.0))
