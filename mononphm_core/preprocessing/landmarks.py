"""From 478 face-mesh points to what the tracker reads: iBUG-68, and an honest confidence per point and frame."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from mononphm_core.preprocessing.head_pose import QuickPose
from mononphm_core.preprocessing.quiet import quiet_stderr

_JAW = (127, 234, 132, 58, 172, 150, 149, 148, 152, 377, 378, 379, 397, 288, 361, 454, 356)
_BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
_NOSE = (168, 197, 195, 4, 240, 97, 2, 326, 460)
_EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
_MOUTH = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 81, 13, 311, 308, 402, 14, 178)
IBUG68 = np.array(_JAW + _BROWS + _NOSE + _EYES + _MOUTH)
"""Face-mesh index of each iBUG-68 point: the one nearest to the true surface point on rendered heads with known
geometry (median over 120 views, 300 px faces: 5 px, eyes and mouth 3 px, brows 8 px, jaw line 10 px)."""

IRISES = slice(468, 478)
_FACING_NONE, _FACING_FULL = 0.05, 0.45
"""Cosine between skin normal and line of sight where confidence starts and is complete (87 and 63 degrees)."""
_RESIDUAL = 0.02
"""Deviation from smooth motion, in face heights, at which confidence is halved."""
_NEIGHBOUR_S = 0.15
_FILTER_S, _FILTER_REACH_S = 0.05, 0.13
"""Standard deviation and reach of the filter in time: a blink lasts 0.15 s and must keep its depth."""


def ibug68(points: Float[np.ndarray, "478 2"]) -> Float[np.ndarray, "68 2"]:
    """The iBUG-68 subset (jaw, brows, nose, eyes, outer and inner lips, each from the subject's right to left)."""
    return points[IBUG68]


def facing(pose: QuickPose, reference: Float[np.ndarray, "478 3"]) -> Float[np.ndarray, "478"]:
    """Confidence from visibility: smooth step of the cosine between each point's normal and its line of sight."""
    eye = -pose.rotation.T @ pose.translation
    sight = eye - reference
    sight /= np.linalg.norm(sight, axis=1, keepdims=True)
    cosine = (normals_of(reference) * sight).sum(axis=1)
    share = np.clip((cosine - _FACING_NONE) / (_FACING_FULL - _FACING_NONE), 0.0, 1.0)
    result = share * share * (3.0 - 2.0 * share)
    return np.where(np.isfinite(result), result, 0.0)


def normals_of(reference: Float[np.ndarray, "478 3"]) -> Float[np.ndarray, "478 3"]:
    """Outward unit normals of the face-mesh points on a reference face; irises look straight ahead (+z)."""
    triangles = face_mesh_triangles()
    a, b, c = (reference[triangles[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    inside = np.nanmean(reference, axis=0) - np.array([0.0, 0.0, 0.3])
    across *= np.sign((across * ((a + b + c) / 3 - inside)).sum(axis=1, keepdims=True))
    normals = np.zeros_like(reference)
    for k in range(3):
        np.add.at(normals, triangles[:, k], across)
    normals[IRISES] = (0.0, 0.0, 1.0)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


@lru_cache(maxsize=1)
def face_mesh_triangles() -> Int[np.ndarray, "triangles 3"]:
    """Triangles of the face mesh, from its published edges: the three-cycles of the graph."""
    with quiet_stderr():
        from mediapipe.python.solutions.face_mesh_connections import FACEMESH_TESSELATION
    neighbours: dict[int, set[int]] = {}
    for a, b in FACEMESH_TESSELATION:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    cycles = {
        tuple(sorted((a, b, c)))
        for a, near in neighbours.items()
        for b, c in combinations(near, 2)
        if c in neighbours[b]
    }
    return np.array(sorted(cycles))


def covered(points: Float[np.ndarray, "478 2"], mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "478"]:
    """Which points lie on a mask (pixels of it)."""
    column = np.clip(points[:, 0].astype(int), 0, mask.shape[1] - 1)
    row = np.clip(points[:, 1].astype(int), 0, mask.shape[0] - 1)
    return np.asarray(mask[row, column])


def inside(points: Float[np.ndarray, "478 2"], width: int, height: int) -> Bool[np.ndarray, "478"]:
    """Which points lie within the picture."""
    return (points >= 0).all(axis=1) & (points[:, 0] <= width) & (points[:, 1] <= height)


def steadiness(track: Sequence[Float[np.ndarray, "478 2"]], times_s: Sequence[float]) -> list[Float[np.ndarray, "478"]]:
    """Confidence from motion: how far a point leaves the mean of its two neighbours in time, all three aligned.

    1 / (1 + (r / 0.02)^2) with r in face heights; 1 where a neighbour is missing or further than 0.15 s.
    """
    result = [np.ones(len(points)) for points in track]
    for k in range(1, len(track) - 1):
        if times_s[k + 1] - times_s[k] > _NEIGHBOUR_S or times_s[k] - times_s[k - 1] > _NEIGHBOUR_S:
            continue
        before, after = (aligned(track[j], track[k]) for j in (k - 1, k + 1))
        distance = np.linalg.norm(track[k] - (before + after) / 2, axis=1) / max(np.ptp(track[k][:, 1]), 1e-9)
        result[k] = 1.0 / (1.0 + (distance / _RESIDUAL) ** 2)
    return result


def filtered(
    track: Sequence[Float[np.ndarray, "478 2"]],
    times_s: Sequence[float],
    trust: Sequence[Float[np.ndarray, "478"]],
) -> list[Float[np.ndarray, "478 2"]]:
    """Every point without its jitter and without lag: the parabola that fits best around it, at its own time.

    Least squares with weights exp(-dt^2 / 2 s^2) times `trust`, s = 0.05 s, over neighbours up to 0.13 s on both sides
    (Savitzky and Golay 1964, for any times). Points are as detected where there are fewer than two on either side.
    """
    points, times, trusted = np.stack(track), np.asarray(times_s), np.stack(trust)
    result = list(track)
    for k, now in enumerate(times):
        near = np.flatnonzero(np.abs(times - now) <= _FILTER_REACH_S)
        if (near < k).sum() < 2 or (near > k).sum() < 2:
            continue
        dt = (times[near] - now) / _FILTER_S
        basis = np.stack([np.ones_like(dt), dt, dt**2], axis=1)
        weight = np.exp(-0.5 * dt**2)[:, None] * np.maximum(trusted[near], 1e-3)
        normal = np.einsum("fp,fa,fb->pab", weight, basis, basis)
        right = np.einsum("fp,fa,fpc->pac", weight, basis, points[near])
        result[k] = np.linalg.solve(normal, right)[:, 0]
    return result


def aligned(
    moving: Float[np.ndarray, "points 2"], fixed: Float[np.ndarray, "points 2"]
) -> Float[np.ndarray, "points 2"]:
    """`moving` after the 2D similarity that brings it nearest to `fixed` (Umeyama 1991, in complex numbers)."""
    z, w = moving @ np.array([1, 1j]), fixed @ np.array([1, 1j])
    centred = z - z.mean()
    factor = (centred.conj() * (w - w.mean())).sum() / max((np.abs(centred) ** 2).sum(), 1e-12)
    moved = factor * centred + w.mean()
    return np.stack([moved.real, moved.imag], axis=1)
