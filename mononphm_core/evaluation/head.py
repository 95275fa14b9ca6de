"""The `head` protocol: how far a delivered run is from the truth. Millimetres of the truth; frames count equally.

*clip* figures come after ONE similarity for all frames (tracking errors count), *frame* figures after one each.
GT -> surface: from points of the true face (mouth, eyes and brows among them) and head to the nearest delivered point.
surface -> GT: from delivered points that can be seen from in front and whose nearest true triangle is face, clipped at
30 mm. Normals: mean |cos|. Silhouettes above the neck, each under its own camera. Rotation: the turn that the frame's
similarity needs, relative to the first frame's. Jitter: root mean square second difference of (delivered - true).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mononphm_core.errors import InputError
from mononphm_core.evaluation import figures, visible
from mononphm_core.evaluation.alignment import Similarity, align, angle_deg
from mononphm_core.evaluation.delivery import Delivery
from mononphm_core.evaluation.figures import Figures
from mononphm_core.evaluation.silhouettes import above_neck, overlap, silhouette
from mononphm_core.evaluation.start import first_alignment
from mononphm_core.evaluation.surfaces import Surface
from mononphm_core.evaluation.truth import FACE, HEAD, NECK_MM, GroundTruth, TrueFrame
from mononphm_core.types import HeadMesh

CLIP_MM = 30.0
SEEN_SAMPLES, SEEN_KEPT = 40000, 6000
"""Points on a delivered surface, and how many of those that can be seen are measured."""
FRAME_POINTS = 1200
FEWEST_CLOSE = 20
"""Fewer delivered points near the true face: surface -> GT is left out."""


@dataclass(frozen=True)
class RegionFigures:
    """One frame after one alignment."""

    face: Figures
    mouth: Figures | None
    eyes_brows: Figures | None
    head: Figures
    to_truth: Figures | None
    face_normals: float
    head_normals: float
    coverage: float
    """Share of true face points whose nearest delivered point is no border."""


@dataclass(frozen=True)
class FrameScore:
    """What is known of one frame."""

    frame_index: int
    clip: RegionFigures
    frame: RegionFigures
    iou: float | None
    rotation_deg: float
    drift_lateral_mm: float
    drift_depth_mm: float


@dataclass(frozen=True)
class HeadScore:
    """A whole run. `to_dict` is what `mononphm evaluate --json` prints."""

    frames_true: int
    frames_delivered: int
    frames: tuple[FrameScore, ...]
    jitter_mm: float | None
    jitter_lateral_mm: float | None
    scale: float
    """Delivered unit to true millimetres."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the means over frames, then every frame."""
        return {"mean": self.mean(), **asdict(self)}

    def mean(self) -> dict[str, Any]:
        """Figures by alignment and region, averaged over frames."""
        found: dict[str, Any] = {}
        for alignment in ("clip", "frame"):
            regions = [getattr(frame, alignment) for frame in self.frames]
            found[alignment] = {
                name: figures.mean_of([getattr(region, name) for region in regions])
                for name in ("face", "mouth", "eyes_brows", "head", "to_truth")
            } | {
                name: float(np.mean([getattr(region, name) for region in regions]))
                for name in ("face_normals", "head_normals", "coverage")
            }
        overlaps = [frame.iou for frame in self.frames if frame.iou is not None]
        return found | {
            "iou": float(np.mean(overlaps)) if overlaps else None,
            "rotation_deg": float(np.mean([frame.rotation_deg for frame in self.frames])),
            "drift_lateral_mm": float(np.mean([frame.drift_lateral_mm for frame in self.frames])),
            "drift_depth_mm": float(np.mean([abs(frame.drift_depth_mm) for frame in self.frames])),
            "jitter_mm": self.jitter_mm,
            "jitter_lateral_mm": self.jitter_lateral_mm,
        }


def score(truth: GroundTruth, run: Delivery) -> HeadScore:
    """Compare a run with the truth. InputError when no frame is in both."""
    shared = sorted(set(truth.frame_index) & set(run.frames))
    if not shared:
        raise InputError(f"no frame is in both: truth {_said(truth.frame_index)}, run {_said(run.frames)}")
    true = {index: truth.frame(index) for index in shared}
    surfaces = {index: Surface(run.mesh(index)) for index in shared}
    clip = _clip_alignment(true, surfaces)
    own = {index: _frame_alignment(true[index], surfaces[index], clip) for index in shared}
    if len(shared) == 1:
        clip = own[shared[0]]
    first = own[shared[0]].rotation
    rows, moved = [], {}
    for index in shared:
        frame, surface = true[index], surfaces[index]
        seen = seen_points(frame, surface, own[index])
        by_clip, moved[index] = _regions(frame, surface, clip, seen)
        by_frame, _ = _regions(frame, surface, own[index], seen)
        centre = frame.face.points.mean(0)
        drift = clip(own[index].back(centre[None]))[0] - centre
        rows.append(
            FrameScore(
                index,
                by_clip,
                by_frame,
                _overlap(truth, frame, run, index),
                angle_deg(own[index].rotation.T @ first),
                float(np.hypot(drift[0], drift[1])),
                float(drift[2]),
            )
        )
    jitter = _jitter(true, _followed(true, run, surfaces, clip) or moved)
    return HeadScore(len(truth.frame_index), len(shared), tuple(rows), *jitter, clip.scale)


def _said(indices: tuple[int, ...]) -> str:
    return f"{indices[0]} to {indices[-1]}" if indices else "none"


def _clip_alignment(true: dict[int, TrueFrame], surfaces: dict[int, Surface]) -> Similarity:
    """One similarity for all frames, started on five of them."""
    shared = list(true)
    random = np.random.default_rng(1)
    few = [shared[i] for i in np.unique(np.linspace(0, len(shared) - 1, min(5, len(shared))).round().astype(int))]
    pick = random.choice(len(true[few[0]].face.points), 300, replace=False)
    start = first_alignment(
        [true[i].face.points[pick] for i in few],
        [true[i].head.points for i in few],
        [surfaces[i] for i in few],
    )
    count = len(true[few[0]].face.points)
    pick = random.choice(count, max(250, min(count, 8000 // len(shared))), replace=False)
    return align([true[i].face.points[pick] for i in shared], [surfaces[i] for i in shared], start)


def _frame_alignment(frame: TrueFrame, surface: Surface, clip: Similarity) -> Similarity:
    points = frame.face.points
    pick = np.random.default_rng(2).choice(len(points), FRAME_POINTS, replace=False)
    return align([points[pick]], [surface], clip, steps=30, huber_mm=(6.0, 3.0))


def _regions(
    frame: TrueFrame, surface: Surface, pose: Similarity, seen: Float[np.ndarray, "seen 3"]
) -> tuple[RegionFigures, Float[np.ndarray, "points 3"]]:
    """The figures of one frame under one alignment, and (nearest delivered - true) at the face points."""
    face, head = frame.face, frame.head
    on_face, on_head = surface.nearest(pose.back(face.points)), surface.nearest(pose.back(head.points))
    residual = pose(on_face.points) - face.points
    gap = np.linalg.norm(residual, axis=-1)
    head_gap = np.linalg.norm(pose(on_head.points) - head.points, axis=-1)
    turn = pose.rotation.T
    face_cos = np.abs((face.normals * (surface.normal_at(on_face.faces, on_face.barycentric) @ turn)).sum(-1))
    head_cos = np.abs((head.normals * (surface.normal_at(on_head.faces, on_head.barycentric) @ turn)).sum(-1))
    return (
        RegionFigures(
            figures.of_distances(gap),
            figures.of_distances(gap[face.mouth]) if face.mouth.any() else None,
            figures.of_distances(gap[face.eyes]) if face.eyes.any() else None,
            figures.of_distances(head_gap),
            _to_truth(frame, pose(seen)),
            float(face_cos.mean()),
            float(head_cos.mean()),
            float((~on_face.on_border).mean()),
        ),
        residual,
    )


def seen_points(frame: TrueFrame, surface: Surface, pose: Similarity) -> Float[np.ndarray, "seen 3"]:
    """Points of the delivered surface (its own frame) that can be seen from in front of the true head."""
    points = surface.sample(SEEN_SAMPLES)
    if frame.head_to_camera is None:
        return points[:: SEEN_SAMPLES // SEEN_KEPT]
    rotation, translation = frame.head_to_camera[:3, :3], frame.head_to_camera[:3, 3]
    seen = np.flatnonzero(visible.from_in_front((pose(points) - translation) @ rotation))
    return points[seen[:: max(1, len(seen) // SEEN_KEPT)]]


def _to_truth(frame: TrueFrame, points: Float[np.ndarray, "seen 3"]) -> Figures | None:
    """surface -> GT, of the points that lie nearest to a triangle of the face."""
    near = frame.surface.nearest(points)
    close = (frame.label[frame.surface.source[near.faces]] & FACE) > 0
    if close.sum() < FEWEST_CLOSE:
        return None
    return figures.of_distances(np.minimum(near.distances[close], CLIP_MM))


def _overlap(truth: GroundTruth, frame: TrueFrame, run: Delivery, index: int) -> float | None:
    """Silhouette IoU, None where a camera or the head's place in the truth is not known."""
    size = truth.size or run.size
    if truth.intrinsics is None or run.intrinsics is None or size is None or frame.head_to_camera is None:
        return None
    head = HeadMesh(frame.mesh.vertices, frame.mesh.faces[(frame.label & HEAD) > 0])
    counted = above_neck(frame.head_to_camera, truth.intrinsics, size, NECK_MM)
    counted |= silhouette(head, truth.intrinsics, size)
    return overlap(
        silhouette(frame.mesh, truth.intrinsics, size) & counted,
        silhouette(run.mesh(index), run.intrinsics, size) & counted,
    )


def _followed(
    true: dict[int, TrueFrame], run: Delivery, surfaces: dict[int, Surface], clip: Similarity
) -> dict[int, Float[np.ndarray, "points 3"]] | None:
    """(delivered - true) at points that ride on the delivered triangles, where all frames share one topology."""
    meshes = {index: run.mesh(index) for index in true}
    first = next(iter(true))
    faces: Int[np.ndarray, "faces 3"] = meshes[first].faces
    if any(not np.array_equal(mesh.faces, faces) for mesh in meshes.values()):
        return None
    if any(mesh.vertices.shape != meshes[first].vertices.shape for mesh in meshes.values()):
        return None
    near = surfaces[first].nearest(clip.back(true[first].face.points))
    # The surface dropped and merged vertices: ride on the triangle of the file that it came from, by its own corners.
    corners = faces[surfaces[first].source[near.faces]]
    riding = {i: clip(np.einsum("pk,pkc->pc", near.barycentric, mesh.vertices[corners])) for i, mesh in meshes.items()}
    return {index: points - true[index].face.points for index, points in riding.items()}


def _jitter(
    true: dict[int, TrueFrame], residual: dict[int, Float[np.ndarray, "points 3"]]
) -> tuple[float | None, float | None]:
    """Root mean square second difference over neighbouring frames: all of it, and across the line of sight."""
    second = [
        residual[i - 1] - 2 * residual[i] + residual[i + 1] for i in true if i - 1 in residual and i + 1 in residual
    ]
    if not second:
        return None, None
    squared = np.square(np.array(second))
    return float(np.sqrt(squared.sum(-1).mean())), float(np.sqrt(squared[..., :2].sum(-1).mean()))
