"""What every pixel of a crop is: skin, hair, inside of the mouth, something in front of the face, rest of the person.

The bundled person segmenter gives a soft outline at 256 x 256; a guided filter (He et al. 2010) pulls it to the
picture's own edges. Skin starts from the landmark polygon and grows by the face's own colour, told from the hair's.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mononphm_core.preprocessing.colours import distance, lab_of
from mononphm_core.preprocessing.face_frame import FaceFrame
from mononphm_core.preprocessing.hair import hair_of
from mononphm_core.preprocessing.occluders import occluder_of
from mononphm_core.preprocessing.outlines import (
    INNER_LIPS,
    LEFT_EYE_AND_BROW,
    LIPS,
    OVAL,
    RIGHT_EYE_AND_BROW,
    polygon,
    touching,
)

Mask = Bool[np.ndarray, "h w"]
Soft = Float[np.ndarray, "h w"]
Picture = UInt8[np.ndarray, "h w 3"]
Points = Float[np.ndarray, "478 2"]

_PERSON = 0.5
_SKIN_SIGMAS = 3.0
_EDGE_PX = 3
"""Reach of the soft edge around the foreground's own outline, crop pixels."""


@dataclass(frozen=True)
class Masks:
    """Of one crop, all within the foreground; skin, hair and occluder exclude each other, the mouth counts before."""

    foreground: Mask
    opacity: Soft
    """The foreground with its soft edge, 0..1: above a half on it, and 0 away from it."""
    skin: Mask
    hair: Mask
    inner_mouth: Mask
    occluder: Mask


def masks_of(rgb: Picture, person: Soft, points: Points, valid: Mask) -> Masks:
    """All masks of one crop; `points` in its pixels, `person` from the segmenter, nothing outside `valid`."""
    shape, lab = rgb.shape[:2], lab_of(rgb)
    face, frame = polygon(points[list(OVAL)], shape), FaceFrame(points, shape)
    features = np.zeros_like(face)
    for part in (LIPS, RIGHT_EYE_AND_BROW, LEFT_EYE_AND_BROW):
        features |= polygon(points[list(part)], shape)
    sharp = _sharpened(rgb, person)
    foreground = _foreground(sharp, face)
    skin = _skin(lab, frame, face, features, foreground) & valid
    foreground = (foreground & valid) | skin
    mouth = polygon(points[list(INNER_LIPS)], shape) & valid
    hair = hair_of(lab, frame, foreground & ~skin & ~mouth)
    occluder = occluder_of(rgb, lab, frame, face & valid, features, hair)
    skin &= ~occluder
    return Masks(foreground, _soft(sharp, foreground, valid), skin, hair & ~occluder, mouth & ~occluder, occluder)


def with_neighbours(masks: Masks, before: Soft, after: Soft) -> Masks:
    """The soft edge as the median of three pictures that follow each other, brought into the place of the middle one:
    what flickers for one picture goes, what moves stays. Nothing becomes foreground that lies on skin or off it all."""
    opacity = np.median(np.stack([before, masks.opacity, after]), axis=0).astype(np.float32)
    opacity[masks.skin | masks.inner_mouth | masks.occluder] = 1.0
    foreground = (opacity > _PERSON) | masks.skin | masks.inner_mouth | masks.occluder
    return replace(masks, foreground=foreground, opacity=opacity, hair=masks.hair & foreground)


def _sharpened(rgb: Picture, person: Soft) -> Soft:
    radius = max(2, round(0.02 * len(rgb)))
    guide = cv2.GaussianBlur(rgb, (3, 3), 0)
    return np.asarray(cv2.ximgproc.guidedFilter(guide, person.astype(np.float32), radius, 30.0), dtype=np.float32)


def _foreground(sharp: Soft, face: Mask) -> Mask:
    """Person pixels connected with this face; the face itself always."""
    sure = (sharp > _PERSON) | face
    return touching(sure, face)


def _soft(sharp: Soft, foreground: Mask, valid: Mask) -> Soft:
    """The segmenter's own ramp along the outline of the foreground, 1 inside and 0 outside."""
    kernel = np.ones((2 * _EDGE_PX + 1,) * 2, np.uint8)
    inside = cv2.erode(foreground.astype(np.uint8), kernel) > 0
    near = cv2.dilate(foreground.astype(np.uint8), kernel) > 0
    low, high = (0.5, 1.0) if foreground.any() else (0.0, 0.0)
    edge = np.where(foreground, np.clip(sharp, low, high), np.clip(sharp, 0.0, 0.499))
    soft = np.where(inside, 1.0, np.where(near & valid, edge, 0.0))
    return soft.astype(np.float32)


def _skin(lab: Float[np.ndarray, "h w 3"], frame: FaceFrame, face: Mask, features: Mask, foreground: Mask) -> Mask:
    """Inside the oval: everything of the inner face, skin-coloured pixels at its sides and on the forehead. Outside:
    skin-coloured foreground at ears, neck and hairline, if it hangs together with the face."""
    inner = face & (frame.up < frame.brows) & (np.abs(frame.right) < 0.32)
    plain = inner & ~features
    if plain.sum() < 50:
        return face & foreground
    hair = foreground & (frame.up > 1.12) & (frame.up < 1.35) & (np.abs(frame.right) < 0.45)
    alike, roughly = _like_skin(lab, plain, hair)
    ears = (np.abs(frame.right) < 0.72) & (frame.up > 0.1) & (frame.up < 0.85)
    neck = (np.abs(frame.right) < 0.5) & (frame.up <= 0.35) & (frame.up > -0.5)
    hairline = (frame.up >= 0.6) & (frame.up < 1.15) & (np.abs(frame.right) < 0.5)
    together = foreground & (inner | (face & (features | roughly)) | (alike & (ears | neck | hairline)))
    opened = cv2.morphologyEx(together.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)
    joined = opened | (inner & foreground)
    return _filled(touching(joined, inner & foreground), largest=0.02 * float(face.sum())) & foreground


def _like_skin(lab: Float[np.ndarray, "h w 3"], skin: Mask, hair: Mask) -> tuple[Mask, Mask]:
    """Pixels within 3 (roughly: 6) sigma of the skin's colour, and likelier skin than hair (two Gaussians)."""
    far, skin_size = distance(lab, lab[skin])
    alike, roughly = far < _SKIN_SIGMAS**2, far < (2 * _SKIN_SIGMAS) ** 2
    if hair.sum() > 50 and np.median(far[hair]) > 6.0:
        hair_distance, hair_size = distance(lab, lab[hair])
        likelier = far + skin_size < hair_distance + hair_size
        return alike & likelier, roughly & likelier
    return alike, roughly


def _filled(mask: Mask, largest: float) -> Mask:
    """With holes of up to `largest` pixels closed: highlights, thin glasses, shadows of the nose."""
    _count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= largest
    return mask | small[labels]
