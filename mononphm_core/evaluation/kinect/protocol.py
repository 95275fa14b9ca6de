"""Every ninth frame of a depth sequence against a run, and the means: `mononphm evaluate --protocol kinect`.

    SEQ/depth/<t>.png   16 bit, millimetres           SEQ/seg/<t>.png   face-parser labels
    SEQ/kinect_intrinsics.txt (or one folder up, or in assets/ there): cx cy fx fy, pixels of the depth picture

A run of the published program (folders %05d with mesh.ply, rot, trans, scale) is placed by the metrical tracker's
poses in SEQ. A run of ours lies before its own camera, right up to scale: it is first enlarged about the camera so that
its depth agrees with the scan's in the median, which leaves its picture as it is. Both are aligned by the same descent.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Real, UInt8

from mononphm_core.errors import InputError
from mononphm_core.evaluation.delivery import read_delivery
from mononphm_core.evaluation.kinect import published_runs
from mononphm_core.evaluation.kinect.figures import published_figures, strict_figures
from mononphm_core.evaluation.kinect.icp import aligned
from mononphm_core.evaluation.kinect.region import evaluated
from mononphm_core.evaluation.kinect.scan import scan_points
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.types import HeadMesh

EVERY = 9
START = {
    "507_seq_2": 23, "507_seq_3": 26, "508_seq_2": 24, "508_seq_3": 27, "508_seq_4": 25,
}  # fmt: skip
END = {"510_seq_1": 170, "510_seq_2": 180}
"""First and last frames of the published sequences, where they differ from the whole."""
FEWEST_POINTS = 100


@dataclass(frozen=True)
class KinectScore:
    """Means over the frames that could be compared, rounded as the published ones are."""

    frames: tuple[int, ...]
    published: dict[str, float]
    strict: dict[str, float]
    skipped: tuple[str, ...]
    """Why a frame was left out; nothing is swallowed."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"frames": list(self.frames), "published": self.published, "strict": self.strict} | {
            "skipped": list(self.skipped)
        }


def score(sequence: Path, run: Path, start: int | None = None, end: int | None = None) -> KinectScore:
    """One run against one sequence. InputError when no frame can be compared."""
    k, frames, mesh_of = intrinsics(sequence), *_run(sequence, run)
    first = START.get(sequence.name, 0) if start is None else start
    last = END.get(sequence.name, max(frames, default=-1) + 1) if end is None else end
    used, rows, skipped = [], [], []
    for t in sorted(frames):
        if not first <= t < last or t % EVERY:
            continue
        try:
            rows.append(_frame(sequence, t, k, mesh_of(t)))
            used.append(t)
        except InputError as error:
            skipped.append(str(error))
    if not rows:
        why = skipped[0] if skipped else f"the run has no frame t with t % {EVERY} == 0 from {first} to {last - 1}"
        raise InputError(f"nothing can be compared: {why}")
    return KinectScore(tuple(used), _means([r[0] for r in rows]), _means([r[1] for r in rows]), tuple(skipped))


def gather(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over sequences, each with the same weight."""
    return {part: _means([score[part] for score in scores]) for part in ("published", "strict")}


def _run(sequence: Path, run: Path) -> tuple[tuple[int, ...], Callable[[int], HeadMesh]]:
    """(frames, mesh of a frame before the camera) of a run of ours or of the published program."""
    if (run / "meshes").is_dir():
        found = read_delivery(run)
        return found.frames, lambda t: scaled(found.mesh(t), _scan_of(sequence, t)[0], intrinsics(sequence))
    folders = published_runs.frames_of(run)
    if not folders:
        raise InputError(f"{run} is neither a delivery (meshes/) nor a run of the published program (00000/mesh.ply)")
    tracker = sequence / "metrical_tracker"
    cameras = next(iter(sorted(tracker.glob("*/checkpoint"))), tracker)
    return tuple(folders), lambda t: published_runs.before_camera(folders[t], cameras, t)


def _frame(
    sequence: Path, t: int, k: Float[np.ndarray, "3 3"], mesh: HeadMesh
) -> tuple[dict[str, float], dict[str, float]]:
    depth, region = _scan_of(sequence, t)
    scan = scan_points(depth, k, region)
    if len(scan.points) < FEWEST_POINTS:
        raise InputError(f"frame {t}: only {len(scan.points)} scan points are left in the face")
    placed = aligned(mesh, scan)
    return published_figures(placed, scan), strict_figures(placed, scan)


def scaled(mesh: HeadMesh, depth: Real[np.ndarray, "height width"], k: Float[np.ndarray, "3 3"]) -> HeadMesh:
    """Enlarged about the camera until front vertices lie, in the median, as deep as the scan behind the same pixel."""
    z = mesh.vertices[:, 2]
    pixel = np.rint((mesh.vertices @ k.T)[:, :2] / np.maximum(z, 1e-12)[:, None]).astype(int)
    height, width = depth.shape
    inside = (z > 0) & (pixel >= 0).all(-1) & (pixel[:, 0] < width) & (pixel[:, 1] < height)
    inside &= (mesh.vertices * vertex_normals(mesh)).sum(-1) < 0
    behind = depth[pixel[inside, 1], pixel[inside, 0]] / 1000.0
    there = behind > 0
    if not there.any():
        raise InputError("the mesh lies nowhere before the depth picture")
    return HeadMesh(mesh.vertices * float(np.median(behind[there] / z[inside][there])), mesh.faces)


def intrinsics(sequence: Path) -> Float[np.ndarray, "3 3"]:
    """K of the depth camera."""
    places = [sequence, sequence.parent, sequence.parent / "assets"]
    path = next((p / "kinect_intrinsics.txt" for p in places if (p / "kinect_intrinsics.txt").is_file()), None)
    if path is None:
        raise InputError(f"kinect_intrinsics.txt (cx cy fx fy) is neither in {sequence} nor one folder up")
    try:
        cx, cy, fx, fy = [float(word) for word in path.read_text(encoding="ascii").replace(",", " ").split()][:4]
    except ValueError as error:
        raise InputError(f"{path} must hold cx cy fx fy: {error}") from error
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def _scan_of(sequence: Path, t: int) -> tuple[Real[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
    """(depth, evaluated pixels) of frame t."""
    depth = _picture(sequence / "depth", t)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise InputError(f"frame {t}: the depth picture has {depth.dtype} {depth.shape}; expected 16 bit, one channel")
    labels: UInt8[np.ndarray, "h w"] = _picture(sequence / "seg", t)
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise InputError(f"frame {t}: the labels have {labels.dtype} {labels.shape}; expected 8 bit, one channel")
    return depth, evaluated(labels, (depth.shape[1], depth.shape[0]))


def _picture(folder: Path, t: int) -> Any:
    path = next((p for n in (f"{t}", f"{t:05d}") if (p := folder / f"{n}.png").is_file()), folder / f"{t}.png")
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise InputError(f"frame {t}: {path} is missing or no picture")
    return found


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Figure by figure over the rows that have any; six decimals."""
    known = [row for row in rows if row]
    return {name: round(float(np.mean([row[name] for row in known])), 6) for name in known[0]} if known else {}


def read_score(path: Path) -> dict[str, Any]:
    """What `--json` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not {"published", "strict"} <= found.keys():
        raise InputError(f"{path.name} is no result of `mononphm evaluate --protocol kinect --json`")
    return found
