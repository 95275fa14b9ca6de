"""How far pixels are from the colour of some samples."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Picture = UInt8[np.ndarray, "h w 3"]
_LOG_OF_BYTE = np.log((np.arange(256) / 255.0) ** 2.2 + 0.002).astype(np.float32)
"""Of linear light, with a floor that keeps the noise of dark pixels small."""


def lab_of(rgb: Picture) -> Float[np.ndarray, "h w 3"]:
    """Lab in OpenCV's 8-bit units, noise a little smoothed."""
    return np.asarray(cv2.cvtColor(cv2.GaussianBlur(rgb, (3, 3), 0), cv2.COLOR_RGB2LAB), dtype=np.float32)


def distance(
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
    whitened = (lab - kept.mean(axis=0)).astype(np.float32) @ np.linalg.cholesky(np.linalg.inv(covariance)).astype(
        np.float32
    )
    squared = np.einsum("hwi,hwi->hw", whitened, whitened)
    return np.asarray(squared, dtype=np.float32), float(np.linalg.slogdet(covariance)[1])


def chromaticity(rgb: Picture) -> Float[np.ndarray, "h w 2"]:
    """log(R / G) and log(B / G): the same in light and in shade, as far as both have the same colour of light."""
    logs = _LOG_OF_BYTE[cv2.GaussianBlur(rgb, (5, 5), 0)]
    return np.asarray(np.stack([logs[..., 0] - logs[..., 1], logs[..., 2] - logs[..., 1]], axis=-1))
