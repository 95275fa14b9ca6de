"""A quick head pose from landmarks and a mean head: for yaw, for visibility, and to throw out implausible faces."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from mononphm_core.types import Intrinsics

_NO_DISTORTION = np.zeros(5)


@dataclass(frozen=True)
class QuickPose:
    """Posed head to camera: x_camera = R x_posed + t, head units."""

    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    error: float
    """Median reprojection distance over the face's height: about 0.02 for a face, more for nonsense."""

    @property
    def yaw_deg(self) -> float:
        """Turn about the vertical axis; positive towards the subject's left."""
        x, _y, z = self.rotation[:, 2]
        return float(np.degrees(np.arctan2(x, -z)))

    @property
    def upright(self) -> bool:
        """The head's up axis points up in the picture."""
        return bool(self.rotation[1, 1] < 0)


def quick_pose(
    points_px: Float[np.ndarray, "478 2"], reference: Float[np.ndarray, "478 3"], intrinsics: Intrinsics
) -> QuickPose | None:
    """Perspective-n-point by SQPnP (Terzakis & Lourakis 2020), then Levenberg-Marquardt; None if it fails."""
    usable = np.isfinite(reference).all(axis=1)
    model, image = np.ascontiguousarray(reference[usable]), np.ascontiguousarray(points_px[usable])
    matrix = intrinsics.matrix()
    try:
        found, turn, shift = cv2.solvePnP(model, image, matrix, _NO_DISTORTION, flags=cv2.SOLVEPNP_SQPNP)
        if not found:
            return None
        turn, shift = cv2.solvePnPRefineLM(model, image, matrix, _NO_DISTORTION, turn, shift)
        seen, _ = cv2.projectPoints(model, turn, shift, matrix, _NO_DISTORTION)
    except cv2.error:
        return None
    error = np.median(np.linalg.norm(seen[:, 0] - image, axis=1)) / max(np.ptp(image[:, 1]), 1e-9)
    rotation, _ = cv2.Rodrigues(turn)
    if not np.isfinite(error) or shift[2, 0] <= 0:
        return None
    return QuickPose(np.asarray(rotation), np.asarray(shift[:, 0]), float(error))
