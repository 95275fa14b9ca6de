"""A small portrait of a face for one question only: can two faces of a clip be the same person?

24 x 24 pixels of lightness and colour in a frame fixed to eyes and mouth. Not a recogniser: it tells apart people
who look different under the light of the same clip, which is what following one of them needs.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SIZE = 24
_PLACES = np.array([[0.25, 0.35], [0.75, 0.35], [0.5, 0.8]]) * SIZE
"""Right eye, left eye, mouth centre."""

Portrait = Float[np.ndarray, "24 24 3"]


def portrait(rgb: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "478 2"]) -> Portrait:
    """Lab colours of the face, aligned by eyes and mouth, lightness freed of its mean and scale."""
    eyes_mouth = np.stack([points[[33, 133]].mean(0), points[[362, 263]].mean(0), points[[13, 14]].mean(0)])
    warp = cv2.getAffineTransform(eyes_mouth.astype(np.float32), _PLACES.astype(np.float32))
    reduce = max(1.0, float(np.linalg.norm(eyes_mouth[1] - eyes_mouth[0])) / SIZE)
    patch = cv2.warpAffine(cv2.blur(rgb, (int(reduce), int(reduce))), warp, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    lab = cv2.cvtColor(patch, cv2.COLOR_RGB2LAB).astype(np.float64)
    light = lab[..., 0] - lab[..., 0].mean()
    return np.dstack([light / (light.std() + 1e-6), (lab[..., 1:] - 128.0) / 16.0])


def difference(a: Portrait, b: Portrait) -> float:
    """0 for the same picture; about 1 and more for people who look different."""
    pattern = 1.0 - float((a[..., 0] * b[..., 0]).mean())
    colour = float(np.linalg.norm(a[..., 1:].mean((0, 1)) - b[..., 1:].mean((0, 1))))
    return pattern + colour
