"""Closed lines through face-mesh points, and the pixels inside them."""

import cv2
import numpy as np
from jaxtyping import Bool, Float

OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
RIGHT_EYE_AND_BROW = (70, 63, 105, 66, 107, 133, 153, 145, 163, 33)
LEFT_EYE_AND_BROW = (336, 296, 334, 293, 300, 263, 390, 374, 380, 362)
BROW_LINE = (70, 105, 107, 336, 334, 300)

_FINER = 4


def polygon(outline: Float[np.ndarray, "corners 2"], shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Pixels at least half inside a closed outline (pixels, centres at .5), counted on a 4 x 4 grid each."""
    mask = np.zeros(shape[:2], dtype=bool)
    low = np.clip(np.floor(outline.min(axis=0)).astype(int) - 1, 0, None)
    high = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 1, (shape[1], shape[0]))
    width, height = (int(v) for v in high - low)
    if width <= 0 or height <= 0:
        return mask
    canvas = np.zeros((_FINER * height, _FINER * width), dtype=np.uint8)
    inside = np.clip(outline, -1e3, 1e4) - low
    cv2.fillPoly(canvas, [np.round((inside * _FINER - 0.5) * 16).astype(np.int32)], (255,), shift=4)
    share = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    mask[low[1] : high[1], low[0] : high[0]] = share >= 128
    return mask


def touching(mask: Bool[np.ndarray, "h w"], seeds: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The connected parts of `mask` that hold a pixel of `seeds`."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8))
    kept = np.zeros(count, dtype=bool)
    kept[labels[seeds & mask]] = True
    return np.asarray(kept[labels])
