"""Raw decoded arrays to upright 8-bit sRGB arrays. numpy only: the decoder process imports it."""

import numpy as np
from numpy.typing import NDArray

Matrix = tuple[int, int, int, int]
"""(a, b, c, d): stored (x, y) is shown at (a x + c y, b x + d y), up to a shift; each entry of {-1, 0, 1}."""

UPRIGHT: Matrix = (1, 0, 0, 1)

EXIF_MATRICES: dict[int, Matrix] = {
    1: UPRIGHT,
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
"""EXIF 2.32 tag 0x0112 in the same terms: 6 means that stored x runs down and stored y to the left."""


def oriented(image: NDArray[np.uint8], matrix: Matrix) -> NDArray[np.uint8]:
    """The picture as it is to be shown; copies nothing, mirrors included."""
    a, b, c, d = matrix
    if b == 0:
        return image[:: d or 1, :: a or 1]
    return image.swapaxes(0, 1)[::b, ::c]


def turn_of(matrix: Matrix) -> int:
    """Counter-clockwise degrees of `matrix` on the screen, of {0, 90, 180, 270}; a mirror counts after the turn."""
    return {(1, 0): 0, (0, -1): 90, (-1, 0): 180, (0, 1): 270}[_turn_direction(matrix)]


def _turn_direction(matrix: Matrix) -> tuple[int, int]:
    a, b, c, d = matrix
    mirrored = a * d - b * c < 0
    return (-a, b) if mirrored else (a, b)


def nearest_matrix(a: float, b: float, c: float, d: float) -> Matrix | None:
    """The quarter turn or mirror that a display matrix means (any positive scale); None for oblique ones."""
    size = max(abs(a), abs(b), abs(c), abs(d))
    if size <= 0:
        return UPRIGHT
    ra, rb, rc, rd = (round(v / size) for v in (a, b, c, d))
    slack = max(abs(v / size - r) for v, r in zip((a, b, c, d), (ra, rb, rc, rd), strict=True))
    if slack > 0.02 or abs(ra * rd - rb * rc) != 1:
        return None
    return ra, rb, rc, rd


def over_grey(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Straight alpha composited over mid grey (128), rounded."""
    alpha = rgba[..., 3:4].astype(np.uint16)
    mixed = rgba[..., :3] * alpha + np.uint16(128) * (255 - alpha)
    result: NDArray[np.uint8] = ((mixed + 127) // 255).astype(np.uint8)
    return result


def fitted(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Size of the same picture with no side above `max_side`; never enlarged."""
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


PQ, HLG = 16, 18
"""Transfer characteristics of ITU-T H.273 that mean high dynamic range."""

_REC2020_TO_709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]],
    dtype=np.float32,
)


def hdr_to_srgb(rgb16: NDArray[np.uint16], transfer: int) -> NDArray[np.uint8]:
    """BT.2020 pictures in PQ (SMPTE ST 2084) or HLG (ARIB STD-B67) as 8-bit sRGB.

    Linear light relative to reference white (203 cd/m2, ITU-R BT.2408), BT.2020 to BT.709 primaries, highlights
    rolled off by L (1 + L / 25) / (1 + L) (Reinhard et al. 2002, Eq. 4, white at 5) after a gain that keeps
    reference white near 0.8 of sRGB, then the sRGB curve.
    """
    signal = rgb16.astype(np.float32) / 65535.0
    linear = _pq_to_linear(signal) if transfer == PQ else _hlg_to_linear(signal)
    linear = np.maximum(linear @ _REC2020_TO_709.T, 0.0)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
    gain = (1.0 + luminance / 25.0) / (1.0 + luminance) * 1.25
    shown = np.clip(linear * gain[..., None], 0.0, 1.0)
    srgb = np.where(shown <= 0.0031308, 12.92 * shown, 1.055 * np.power(shown, 1 / 2.4) - 0.055)
    result: NDArray[np.uint8] = (srgb * 255.0 + 0.5).astype(np.uint8)
    return result


def _pq_to_linear(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    root = np.power(signal, 1 / m2)
    light = np.power(np.maximum(root - c1, 0.0) / (c2 - c3 * root), 1 / m1)
    result: NDArray[np.float32] = (light * (10000.0 / 203.0)).astype(np.float32)
    return result


def _hlg_to_linear(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal * signal / 3.0, (np.exp((signal - c) / a) + b) / 12.0)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
    display = scene * np.power(np.maximum(luminance, 1e-6), 0.2)[..., None] * (1000.0 / 203.0)
    result: NDArray[np.float32] = display.astype(np.float32)
    return result
