"""Things in front of the face: a hand in a glove, a cup, a microphone, a mask.

Found by their colour of light, which shade does not change, and only where they are large and reach into the face from
outside. What has the face's own colour (a bare hand), is very dark or is thin (glasses) is not seen here: precision
before recall, as every pixel called an occluder is lost to tracking.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mononphm_core.preprocessing.colours import chromaticity
from mononphm_core.preprocessing.face_frame import FaceFrame

Mask = Bool[np.ndarray, "h w"]

_SIGMAS = 5.0
_DARK = 50.0
"""Lightness (of 255) below which a colour of light cannot be told."""
_SMALLEST = 0.03
"""Share of the face that an occluder covers at least."""


def occluder_of(
    rgb: UInt8[np.ndarray, "h w 3"],
    lab: Float[np.ndarray, "h w 3"],
    frame: FaceFrame,
    face: Mask,
    features: Mask,
    hair: Mask,
) -> Mask:
    """Pixels of the face's oval that something else covers."""
    none = np.zeros_like(face)
    plain = face & ~features & (frame.up > 0.2) & (frame.up < 0.85) & (lab[..., 0] > _DARK)
    if plain.sum() < 100:
        return none
    colour = chromaticity(rgb)
    middle = np.median(colour[plain], axis=0)
    spread = 1.4826 * np.median(np.abs(colour[plain] - middle), axis=0) + 0.08
    far = (((colour - middle) / spread) ** 2).sum(axis=-1) > _SIGMAS**2
    strange = far & (lab[..., 0] > _DARK) & ~hair & (frame.up < 1.0)
    opened = cv2.morphologyEx(strange.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) > 0
    _count, labels = cv2.connectedComponents(opened.astype(np.uint8))
    covered = none
    for label in np.unique(labels[opened & face]):
        part = labels == label
        inside = part & face & ~features
        if inside.sum() > _SMALLEST * face.sum() and (part & ~face).sum() > 0.3 * _SMALLEST * face.sum():
            covered = covered | (part & face)
    closed = cv2.morphologyEx(covered.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
    return np.asarray(closed & face)
