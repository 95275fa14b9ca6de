"""Which pixels of the face are compared: skin, brows, nose and lips, away from neck, inner mouth and eyes."""

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

COMPARED = (2, 6, 7, 10, 12, 13)
"""Face-parser labels: skin, brows, nose, lips."""
AWAY_FROM = (((1,), 21), ((11,), 21), ((8, 9), 13))
"""(labels, side of the square by which they are widened): neck, inner mouth, eyes."""


def evaluated(labels: UInt8[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """Labels, brought to the depth picture's `size` (width, height) by nearest neighbour, as a mask."""
    found = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST))
    kept = np.isin(found, COMPARED)
    for unwanted, side in AWAY_FROM:
        wide = cv2.dilate(np.isin(found, unwanted).astype(np.uint8), np.ones((side, side), np.uint8))
        kept &= wide == 0
    return kept
