"""One frame of raw parts -> what the published solver reads, number by number as the published program does it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from mononphm_core.preprocessing.published.observation import (
    BACKGROUND,
    CLOTH,
    HAIR,
    INNER_MOUTH,
    NECK,
    NECKLACE,
    OUTSIDE,
    PublishedObservation,
)
from mononphm_core.quirks import PUBLISHED, PublishedQuirks
from mononphm_core.types import Crop

OPAQUE = 204
"""Matte above which a pixel is the person: 0.8 * 255."""
LARGEST_HALF_PX = 400
"""Of the square around the face, when the camera is given."""
SCALE = 4.0
"""Head units in one metre of FLAME space."""
FROM_WFLW = (
    *range(0, 33, 2), 33, 34, 35, 36, 37, 42, 43, 44, 45, 46, *range(51, 60), 60, 61, 63, 64, 65, 67,
    68, 69, 71, 72, 73, 75, *range(76, 96),
)  # fmt: skip
"""iBUG-68 index -> WFLW-98 index."""
JAW = slice(0, 17)


@dataclass(frozen=True)
class FrameParts:
    """All that was prepared for one frame, as read: full pictures, labels and poses."""

    frame_index: int
    rgb: UInt8[np.ndarray, "height width 3"]
    labels: UInt8[np.ndarray, "height width"]
    matte: UInt8[np.ndarray, "height width"]
    landmarks: Float[np.ndarray, "98 2"]
    """WFLW-98, shares of width and height."""
    jaw_px: Float[np.ndarray, "68 2"] | None
    """iBUG-68 of a second detector, pixels; its jaw replaces WFLW's when the camera is estimated."""
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    """World to OpenCV camera, metres of FLAME space."""
    k: Float[np.ndarray, "3 3"] | None
    """Estimated camera of the full picture."""


@dataclass(frozen=True)
class GivenIntrinsics:
    """A calibrated camera, pixels of the full picture; the order of the published text file."""

    cx: float
    cy: float
    fx: float
    fy: float

    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """K."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float32)


def prepare(
    parts: FrameParts, given: GivenIntrinsics | None, factor: float, quirks: PublishedQuirks = PUBLISHED
) -> PublishedObservation:
    """Mask, crop (with a given camera), shrink by `factor`, cast rays."""
    labels, inner_mouth = masked(parts.labels, parts.matte, quirks)
    height, width = labels.shape
    landmarks = parts.landmarks * np.array([width, height])
    left, top, across, down = 0, 0, width, height
    if given is not None:
        left, top, across = face_square(landmarks, width, height)
        down = across
    window = np.s_[top : top + down, left : left + across]
    size = int(factor * across), int(factor * down)
    small = _resized(labels[window], size, Image.Resampling.NEAREST)
    small = np.where(np.isin(small, (BACKGROUND, CLOTH)), BACKGROUND, small).astype(np.uint8)
    mouth = _resized(inner_mouth[window].astype(np.uint8), size, Image.Resampling.NEAREST) > 0
    rgb = _resized(parts.rgb[window], size, Image.Resampling.BICUBIC)
    k = _shrunk(given.matrix() if given is not None else _estimated(parts), left, top, factor)
    c2w = camera_to_world(parts.rotation, parts.translation)
    points = ((landmarks - [left, top]) * factor)[list(FROM_WFLW)]
    if given is None and parts.jaw_px is not None:
        points[JAW] = parts.jaw_px[JAW] * factor
    return PublishedObservation(
        frame_index=parts.frame_index,
        rgb=torch.from_numpy((rgb / 255 - 0.5) * 2).float(),
        labels=torch.from_numpy(small),
        inner_mouth=torch.from_numpy(mouth),
        landmarks_px=torch.from_numpy(points),
        direction=torch.from_numpy(ray_directions(k, c2w[:3, :3], size, quirks)).float(),
        origin=torch.from_numpy(c2w[:3, 3].copy()),
        w2c=torch.from_numpy(np.linalg.inv(c2w)),
        k=torch.from_numpy(k),
        crop=Crop(float(left), float(top), factor, *size),
    )


def masked(
    labels: UInt8[np.ndarray, "height width"], matte: UInt8[np.ndarray, "height width"], quirks: PublishedQuirks
) -> tuple[UInt8[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
    """(labels with everything that is not head, hair or neck set to 0, where the mouth's inside is)."""
    keep = ~np.isin(labels, (BACKGROUND, NECK, CLOTH, NECKLACE))
    if labels.max() > HAIR:
        keep &= labels != (labels.max() if quirks.largest_label_is_outside else OUTSIDE)
    cleaned = np.where((keep | (labels == NECK)) & (matte > OPAQUE), labels, BACKGROUND).astype(np.uint8)
    return cleaned, cleaned == INNER_MOUTH


def face_square(landmarks_px: Float[np.ndarray, "98 2"], width: int, height: int) -> tuple[int, int, int]:
    """(left, top, side) of the largest square around the mean landmark that fits, up to 800 pixels."""
    x, y = (int(value) for value in landmarks_px.mean(0))
    half = min(LARGEST_HALF_PX, x, width - x - 1, y, height - y - 1)
    return x - half, y - half, 2 * half


def camera_to_world(
    rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "4 4"]:
    """OpenGL camera to tracking world: the inverse of diag(1, -1, -1, 1) [R | t], its translation times 4."""
    m = np.eye(4)
    m[:3, :3], m[:3, 3] = rotation, translation
    c2w = np.linalg.inv(np.diag([1.0, -1.0, -1.0, 1.0]) @ m)
    c2w[:3, 3] *= SCALE
    return c2w


def ray_directions(
    k: Float[np.ndarray, "3 3"], c2w: Float[np.ndarray, "3 3"], size: tuple[int, int], quirks: PublishedQuirks
) -> Float[np.ndarray, "height width 3"]:
    """Unit world directions of the pixels of a picture of `size` (width, height).

    d = c2w ((u - cx) / fx, -(v - cy) / fy, -1), where pixel i lies at u = i * W / (W - 1) in the published program and
    at its centre i + 1/2 when that is mended.
    """
    width, height = size
    if quirks.pixel_rays_are_stretched:
        u, v = np.arange(width) * width / max(width - 1, 1), np.arange(height) * height / max(height - 1, 1)
    else:
        u, v = np.arange(width) + 0.5, np.arange(height) + 0.5
    x, y = np.meshgrid((u - k[0, 2]) / k[0, 0], -(v - k[1, 2]) / k[1, 1])
    direction = np.stack([x, y, -np.ones_like(x)], -1) @ c2w.T
    return direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def _estimated(parts: FrameParts) -> Float[np.ndarray, "3 3"]:
    assert parts.k is not None, "without a given camera the tracker's own estimate is needed"
    return parts.k.astype(np.float32)


def _shrunk(k: Float[np.ndarray, "3 3"], left: int, top: int, factor: float) -> Float[np.ndarray, "3 3"]:
    """K of the part that starts at (left, top), shrunk by `factor`."""
    shrunk = k.copy()
    shrunk[:2, 2] -= [left, top]
    shrunk[[0, 1, 0, 1], [0, 1, 2, 2]] *= factor
    return shrunk


def _resized(
    picture: UInt8[np.ndarray, "*shape"], size: tuple[int, int], how: Image.Resampling
) -> UInt8[np.ndarray, "*resized"]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, how))
