"""Which pixels of a person are hair: coloured like what lies above the forehead, and hanging together with it.

A beard is found only where it has the colour of the hair and reaches it; clothes of that colour may be taken for hair
where they touch.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from mononphm_core.preprocessing.colours import distance
from mononphm_core.preprocessing.face_frame import FaceFrame
from mononphm_core.preprocessing.outlines import touching

Mask = Bool[np.ndarray, "h w"]

_SIGMAS = 3.5
_FEWEST = 60
"""Pixels of hair above the forehead below which a head counts as bald."""


def hair_of(lab: Float[np.ndarray, "h w 3"], frame: FaceFrame, rest: Mask) -> Mask:
    """`rest` is the person without skin and mouth."""
    none = np.zeros_like(rest)
    above = rest & (frame.up > 1.05) & (frame.up < 1.5) & (np.abs(frame.right) < 0.55)
    if above.sum() < _FEWEST:
        return none
    far, _ = distance(lab, lab[above])
    crown = rest & (frame.up > 1.0) & (frame.up < 1.8) & (np.abs(frame.right) < 0.9)
    around = rest & (frame.up > -0.9) & (np.abs(frame.right) < 1.3) & (far < _SIGMAS**2)
    opened = cv2.morphologyEx((crown | around).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return touching(opened > 0, above)
