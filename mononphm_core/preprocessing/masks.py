"""Which pixels of a crop are person, surely visible skin, and inside of the mouth.

The bundled person segmenter gives a soft outline at 256 x 256; a guided filter (He et al. 2010) pulls it to the
picture's own edges. Skin starts from the landmark polygon and grows by the face's own colour, told from the hair's.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

Mask = Bool[np.ndarray, "h w"]
Picture = UInt8[np.ndarray, "h w 3"]
Points = Float[np.ndarray, "478 2"]

OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
_LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
_RIGHT_EYE_AND_BROW = (70, 63, 105, 66, 107, 133, 153, 145, 163, 33)
_LEFT_EYE_AND_BROW = (336, 296, 334, 293, 300, 263, 390, 374, 380, 362)
_BROW_LINE = (70, 105, 107, 336, 334, 300)

_PERSON = 0.5
_SKIN_SIGMAS = 3.0


@dataclass(frozen=True)
class Masks:
    foreground: Mask
    skin: Mask
    inner_mouth: Mask


def masks_of(rgb: Picture, person: Float[np.ndarray, "h w"], points: Points, valid: Mask) -> Masks:
    """All masks of one crop; `points` in its pixels, `person` from the segmenter, nothing outside `valid`."""
    face = polygon(points[list(OVAL)], rgb.shape[:2])
    foreground = _foreground(rgb, person, face, points) & valid
    skin = _skin(rgb, face, foreground, points) & valid
    mouth = polygon(points[list(INNER_LIPS)], rgb.shape[:2]) & valid
    return Masks(foreground | skin, skin, mouth)


def polygon(outline: Float[np.ndarray, "corners 2"], shape: tuple[int, ...]) -> Mask:
    """Pixels at least half inside a closed outline (pixels, centres at .5), counted on a 4 x 4 grid each."""
    canvas = np.zeros((4 * shape[0], 4 * shape[1]), dtype=np.uint8)
    corners = np.round((np.clip(outline, -1e3, 1e4) * 4 - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(canvas, [corners], (255,), shift=4)
    share = cv2.resize(canvas, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(share >= 128)


def _foreground(rgb: Picture, person: Float[np.ndarray, "h w"], face: Mask, points: Points) -> Mask:
    """Person pixels connected with this face; the face itself always."""
    radius = max(2, round(0.02 * len(rgb)))
    guide = cv2.GaussianBlur(rgb, (3, 3), 0)
    sharp = cv2.ximgproc.guidedFilter(guide, person.astype(np.float32), radius, 30.0)
    sure = (np.asarray(sharp) > _PERSON) | face
    _count, labels = cv2.connectedComponents(sure.astype(np.uint8))
    own = np.unique(labels[face])
    return np.isin(labels, own[own > 0])


def _skin(rgb: Picture, face: Mask, foreground: Mask, points: Points) -> Mask:
    """Inside the oval: everything of the inner face, skin-coloured pixels at its sides and on the forehead. Outside:
    skin-coloured foreground at ears, neck and hairline, if it hangs together with the face."""
    frame = _FaceFrame(points, rgb.shape)
    lab = cv2.cvtColor(cv2.GaussianBlur(rgb, (3, 3), 0), cv2.COLOR_RGB2LAB).astype(np.float32)
    features = np.zeros_like(face)
    for part in (_LIPS, _RIGHT_EYE_AND_BROW, _LEFT_EYE_AND_BROW):
        features |= polygon(points[list(part)], face.shape)
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
    _count, labels = cv2.connectedComponents(joined.astype(np.uint8))
    own = np.unique(labels[inner & foreground])
    return _filled(np.isin(labels, own[own > 0]), largest=0.02 * float(face.sum())) & foreground


def _like_skin(lab: Float[np.ndarray, "h w 3"], skin: Mask, hair: Mask) -> tuple[Mask, Mask]:
    """Pixels within 3 (roughly: 6) sigma of the skin's colour, and likelier skin than hair (two Gaussians)."""
    distance, skin_size = _distance(lab, lab[skin])
    alike, roughly = distance < _SKIN_SIGMAS**2, distance < (2 * _SKIN_SIGMAS) ** 2
    if hair.sum() > 50 and np.median(distance[hair]) > 6.0:
        hair_distance, hair_size = _distance(lab, lab[hair])
        likelier = distance + skin_size < hair_distance + hair_size
        return alike & likelier, roughly & likelier
    return alike, roughly


def _filled(mask: Mask, largest: float) -> Mask:
    """With holes of up to `largest` pixels closed: highlights, thin glasses, shadows of the nose."""
    _count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= largest
    return mask | small[labels]


class _FaceFrame:
    """Coordinates of every pixel along the face: `up` 0 at the chin, 1 at the top of the forehead; `right` 0 at the
    middle, -0.5 and 0.5 at the two sides of the face."""

    def __init__(self, points: Points, shape: tuple[int, ...]) -> None:
        chin, top = points[152], points[10]
        length = max(float(np.linalg.norm(top - chin)), 1e-6)
        axis = (top - chin) / length
        across = np.array([-axis[1], axis[0]])
        sides = (points[list(OVAL)] - chin) @ across
        width = max(float(np.ptp(sides)), 1e-6)
        y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) + 0.5
        self.brows = float(((points[list(_BROW_LINE)] - chin) @ axis).mean()) / length
        """`up` of the eyebrows."""
        self.up = ((x - chin[0]) * axis[0] + (y - chin[1]) * axis[1]) / length
        self.right = ((x - chin[0]) * across[0] + (y - chin[1]) * across[1] - (sides.max() + sides.min()) / 2) / width


def _distance(
    lab: Float[np.ndarray, "h w 3"], samples: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "h w"], float]:
    """Squared Mahalanobis distance to the samples' core, and the log determinant that likelihoods need beside it.

    Lightness is given more room than measured, as shade changes it most.
    """
    middle = np.median(samples, axis=0)
    spread = np.abs(samples - middle)
    near = (spread <= 3.0 * np.median(spread, axis=0) + np.array([40.0, 4.0, 4.0])).all(axis=1)
    kept = samples[near] if near.sum() > 20 else samples
    room = np.diag([1.5, 1.0, 1.0])
    covariance = room @ np.cov(kept.T) @ room + np.diag([60.0, 4.0, 4.0])
    delta = lab - kept.mean(axis=0)
    squared = np.einsum("hwi,ij,hwj->hw", delta, np.linalg.inv(covariance), delta)
    return np.asarray(squared, dtype=np.float32), float(np.linalg.slogdet(covariance)[1])
