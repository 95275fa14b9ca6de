"""A first similarity between a delivered clip and the truth, good enough for `align` to finish.

Both lie before OpenCV cameras, so no turn is tried; only the unit, the scale and the distance are unknown.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mononphm_core.evaluation.alignment import Similarity, align
from mononphm_core.evaluation.surfaces import Surface

Points = Float[np.ndarray, "_ 3"]
WIDE_MM = (25.0, 15.0, 8.0)
SCALES = (0.75, 1.0, 1.35)
GOOD_MM = 2.0
"""A start with less badness is the right one; no other is tried."""


def first_alignment(face: Sequence[Points], head: Sequence[Points], surfaces: Sequence[Surface]) -> Similarity:
    """The best of a few starts, judged on the middle frame, then refined on all frames.

    `face` and `head` are true points of some frames, `surfaces` what was delivered for the same frames.
    """
    middle = slice(len(face) // 2, len(face) // 2 + 1)
    tried: list[tuple[float, Similarity]] = []
    for start in _candidates(face, head, [surface.sample(3000) for surface in surfaces]):
        pose = align(face[middle], surfaces[middle], start, steps=14, huber_mm=WIDE_MM)
        tried.append((badness(face[middle], surfaces[middle], pose), pose))
        if tried[-1][0] < GOOD_MM:
            break
    tried.sort(key=lambda found: found[0])
    finished = [align(face, surfaces, pose, steps=20) for _, pose in tried[:3]]
    return min(finished, key=lambda pose: badness(face, surfaces, pose))


def badness(face: Sequence[Points], surfaces: Sequence[Surface], pose: Similarity) -> float:
    """How bad a start is: mostly the share of far points, so that a surface that covers half of the face is not
    stretched over all of it."""
    gaps = [
        np.linalg.norm(pose(s.nearest(pose.back(q), look_again=False).points) - q, axis=-1)
        for q, s in zip(face, surfaces, strict=True)
    ]
    gap = np.concatenate(gaps)
    return float(np.minimum(gap, 5.0).mean() + 0.05 * np.minimum(gap, 40.0).mean())


def _candidates(face: Sequence[Points], head: Sequence[Points], delivered: Sequence[Points]) -> list[Similarity]:
    """Same direction from the camera with the scale of the distance, and three scales by size: about the head, about
    the face, and along the line of sight."""
    eye = np.eye(3)
    true_z = np.median([np.median(points[:, 2]) for points in head])
    z = np.median([np.median(points[:, 2]) for points in delivered])
    by_size = _extent(head) / max(_extent(delivered), 1e-12)
    true_face = np.mean([points.mean(0) for points in face], 0)
    true_head = np.mean([points.mean(0) for points in head], 0)
    centre = np.mean([np.median(points, 0) for points in delivered], 0)
    found = [Similarity(float(true_z / z), eye, np.zeros(3))] if z > 0 else []
    for factor in SCALES:
        scale = float(by_size * factor)
        found += [Similarity(scale, eye, to - scale * centre) for to in (true_head, true_face)]
        if z > 0:
            found.append(Similarity(scale, eye, np.array([0.0, 0.0, true_head[2] - scale * z])))
    return found


def _extent(clouds: Sequence[Points]) -> float:
    """Length of the diagonal of the box of the middle nine tenths, median over frames."""
    diagonals = [np.linalg.norm(np.subtract(*np.percentile(points, [95, 5], axis=0))) for points in clouds]
    return float(np.median(diagonals))
