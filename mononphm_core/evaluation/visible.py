"""What of a point cloud could be seen from in front: the outside of a face, not the inside of a mouth."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import maximum_filter

CELL_MM, SLACK_MM, REACH_MM = 3.0, 6.0, 400.0
DIRECTIONS_DEG = tuple(
    [(yaw, pitch) for yaw in (-75, -50, -25, 0, 25, 50, 75) for pitch in (-35, 0)] + [(-40, 35), (0, 35), (40, 35)]
)
"""(yaw, pitch) of 17 views of the front hemisphere."""


def from_in_front(x_head: Float[np.ndarray, "points 3"]) -> Bool[np.ndarray, "points"]:
    """Points that at least one of `DIRECTIONS_DEG` sees, with dense points as their own occluders.

    Head space, millimetres: x to the subject's left, y up, z out of the face.
    """
    seen = np.zeros(len(x_head), bool)
    for yaw, pitch in DIRECTIONS_DEG:
        view = x_head @ _view(yaw, pitch).T
        inside = (np.abs(view[:, :2]) < REACH_MM).all(-1)
        column, row = ((view[:, :2].clip(-REACH_MM, REACH_MM) + REACH_MM) / CELL_MM).astype(int).T
        front = np.full((int(2 * REACH_MM / CELL_MM) + 2,) * 2, -1e9)
        np.maximum.at(front, (column[inside], row[inside]), view[inside, 2])
        seen |= inside & (view[:, 2] > maximum_filter(front, 3)[column, row] - SLACK_MM)
    return seen


def _view(yaw_deg: float, pitch_deg: float) -> Float[np.ndarray, "3 3"]:
    """Rows: right, up, towards the viewer."""
    yaw, pitch = np.radians(yaw_deg), np.radians(pitch_deg)
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    return nod @ turn
