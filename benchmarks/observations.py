"""How clean are the observations? Rendered people with known truth, and the share of usable frames of real clips.

    python benchmarks/observations.py --data synthetic_dev --points mediapipe478_on_ict.npz \
        --open-data ict_facekit.npz [--clips DIR] [--people id00 id03] [--out results/observations.json]

`--data` holds people with ground truth (see accuracy.py), `--points` where the face mesh's points lie on their
triangles. Landmarks and masks are compared in pixels of the 512 px pictures; rotation and focal length are those of the
joint first fit (all landmarks and outlines of the clip); seconds are one process on one core. `--clips`: any videos
and pictures, each counted by the share of its pictures that give a usable observation.
"""

import argparse
import importlib
import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mononphm_core import numerics
from mononphm_core.config import CameraChoice, FrameSelection
from mononphm_core.errors import MonoNPHMError
from mononphm_core.io import registry
from mononphm_core.io.media import read_clip
from mononphm_core.preprocessing import describe, finder, observe
from mononphm_core.tracking.landmark_fit import fit_landmarks
from mononphm_core.types import Observation, ObservedClip
from worker import pipeline
from worker.ledger.options import ReconstructionOptions

observe_module = importlib.import_module("mononphm_core.preprocessing.observe")
_DEFAULT = ReconstructionOptions.from_json({})
Array = np.ndarray[Any, np.dtype[Any]]
REGIONS = {
    "eyes": [
        *(33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
        *(362, 382, 381, 380, 374, 373, 390, 249, 263, 466, 388, 387, 386, 385, 384, 398),
    ],
    "nose": [168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327, 64, 294, 48, 278],
    "mouth": [
        *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409),
        *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415),
    ],
}
"""Face-mesh indices."""


class Truth:
    """True points, rotations and masks of one rendered clip or still."""

    def __init__(self, folder: Path, kind: str, points: Path, open_data: Path) -> None:
        table, where = np.load(folder / f"{kind}_gt.npz"), np.load(points)
        topology = np.load(folder.parent / "topology.npz")
        place = np.full(int(np.load(open_data)["neutral"].shape[0]), -1)
        place[topology["ict_vertex_index"]] = np.arange(len(topology["ict_vertex_index"]))
        corner = place[where["vertex_index"]]
        self.known = (corner >= 0).all(1)
        bary = where["bary"].astype(np.float64)
        self.rotation = table["head_to_cam"][:, :3, :3].astype(np.float64)
        k = table["K"].astype(np.float64).reshape(-1, 3, 3)[0]
        self.fx = float(k[0, 0])
        x = np.einsum("fpcd,pc->fpd", table["verts_mm"].astype(np.float64)[:, corner], bary)
        camera = np.einsum("fij,fpj->fpi", self.rotation, x) + table["head_to_cam"][:, None, :3, 3]
        seen = camera @ k.T
        self.pixels = seen[..., :2] / seen[..., 2:]
        self.masks = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in _masks(folder, kind)]


def _masks(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob("frames/*_mask.png")) if kind == "video" else [folder / "single_mask.png"]


PARTS = {
    "detector": (finder.Finder, "_detect"),
    "landmarks": (finder.Finder, "_mesh_points"),
    "person": (finder.Finder, "person"),
    "masks": (describe, "masks_of"),
    "turn of the picture": (observe_module, "quarter_turns"),
    "zoom": (observe_module, "_zoomed"),
}
"""Where each part's time is taken; the turn of the picture asks detector and landmarks too, so it is counted twice."""


def parts(path: Path, model: Any, most: int) -> dict[str, Any]:
    """Processor seconds a frame of the first pictures of a clip at full rate, by part; start-up left out."""
    spent: dict[str, float] = defaultdict(float)
    clip = read_clip(path, FrameSelection(end_s=most / 25), pipeline.config_of(_DEFAULT)[0].limits)
    with finder.Finder():
        pass  # the libraries are loaded
    for name, (owner, attribute) in PARTS.items():
        setattr(owner, attribute, _timed(getattr(owner, attribute), name, spent))
    began = time.process_time()
    seen = observe(clip, CameraChoice(), pipeline.config_of(_DEFAULT)[0].preprocessing, pipeline.mean_landmarks(model))
    total, count = time.process_time() - began, len(clip.frames)
    ms = {name: round(1000 * seconds / count, 2) for name, seconds in spent.items()}
    size = [seen.intrinsics.width, seen.intrinsics.height]
    return {"input": path.name, "frames": count, "size": size, "frames_per_s": count / total, "ms_a_frame": ms}


def _timed(run: Any, name: str, spent: dict[str, float]) -> Any:
    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return run(*arguments, **named)
        finally:
            spent[name] += time.process_time() - began

    return timed


def main() -> None:
    """One line an input, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--points", type=Path)
    parser.add_argument("--open-data", type=Path)
    parser.add_argument("--people", nargs="*", default=["id00", "id01", "id02", "id03", "id04"])
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--parts", type=Path, help="one clip, whose processor time is split by part")
    parser.add_argument("--most", type=int, default=60, help="pictures of a real clip, evenly spread")
    parser.add_argument("--no-fit", action="store_true", help="leave rotation and focal length out")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    numerics.warm_up(1)
    card = registry.find_model()
    model = registry.warm_model(card, "cpu")
    rows: list[dict[str, Any]] = []
    if given.parts:
        rows.append(parts(given.parts, model, given.most))
        print(json.dumps(rows[-1]), flush=True)
    for person in given.people if given.data else ():
        for kind in ("video", "single"):
            truth = Truth(given.data / person, kind, given.points, given.open_data)
            rows.append(_rendered(given.data / person, kind, truth, model, card.expression_names, not given.no_fit))
            print(json.dumps(rows[-1]), flush=True)
    for path in sorted(p for p in given.clips.rglob("*") if p.is_file()) if given.clips else ():
        rows.append(_real(path, model, given.most))
        print(json.dumps(rows[-1]), flush=True)
    if not given.data:
        return
    mean = _mean([row for row in rows if "landmarks_px" in row])
    print(json.dumps(mean))
    if given.out:
        given.out.write_text(json.dumps({"rows": rows, "mean": mean}, indent=1) + "\n")


def _rendered(
    folder: Path, kind: str, truth: Truth, model: Any, names: tuple[str, ...], fitted: bool
) -> dict[str, Any]:
    known: dict[str, Any] = json.loads((folder / f"camera_{kind}.json").read_text())
    source = folder / ("video.mp4" if kind == "video" else "single.png")
    began = time.process_time()
    seen, pictures, _ = _observed(source, CameraChoice(**known), model, None)
    row: dict[str, Any] = {"input": f"{folder.name}:{kind}", "frames": len(seen.observations)}
    row["frames_per_s"] = pictures / (time.process_time() - began)
    errors = defaultdict(list)
    for o in seen.observations:
        off = _original(o) - truth.pixels[o.frame_index]
        distance = np.linalg.norm(off, axis=1)
        sure = o.dense_confidence.numpy() > 0.5
        for name, points in REGIONS.items():
            use = [p for p in points if sure[p] and truth.known[p]]
            errors[name].append(float(distance[use].mean()))
        use = sure & truth.known
        errors["all"].append(float(distance[use].mean()))
        rise = np.argsort(distance[use])
        half = len(rise) // 2
        weight = o.dense_confidence.numpy()[use]
        errors["confidence_near"].append(float(weight[rise[:half]].mean()))
        errors["confidence_far"].append(float(weight[rise[half:]].mean()))
    row["landmarks_px"] = {name: float(np.mean(values)) for name, values in errors.items()}
    row["landmarks_px"]["eyes_nose_mouth"] = float(np.mean([row["landmarks_px"][name] for name in REGIONS]))
    if truth.masks:
        row["mask_iou"] = float(np.mean([_iou(o, truth.masks[o.frame_index]) for o in seen.observations]))
    if fitted:
        fit = fit_landmarks(model.template, seen, names)
        row["rotation_deg"] = _turns(fit.rotation, truth, seen)
        blind, _, _ = _observed(source, CameraChoice(), model, None)
        fit = fit_landmarks(model.template, blind, names)
        row["rotation_deg_unknown_camera"] = _turns(fit.rotation, truth, blind)
        row["focal_error"] = fit.focal_scale * blind.intrinsics.fx / truth.fx - 1.0
        row["focal_sigma"] = fit.focal_sigma
        yaw = [o.quality.yaw_deg for o in seen.observations]
        row["turns_deg"] = float(np.ptp(yaw))
    return row


def _observed(
    source: Path, camera: CameraChoice, model: Any, most: int | None
) -> tuple[ObservedClip, int, tuple[str, ...]]:
    settings, _ = pipeline.config_of(_DEFAULT)
    clip = read_clip(source, replace(FrameSelection(), max_frames=most), settings.limits)
    return (
        observe(clip, camera, settings.preprocessing, pipeline.mean_landmarks(model)),
        len(clip.frames),
        clip.warnings,
    )


def _real(path: Path, model: Any, most: int) -> dict[str, Any]:
    began = time.process_time()
    try:
        seen, pictures, told = _observed(path, CameraChoice(), model, most)
    except MonoNPHMError as error:
        return {"input": path.name, "refused": type(error).__name__}
    spent = time.process_time() - began
    return {
        "input": path.name,
        "pictures": pictures,
        "usable": len(seen.observations) / pictures,
        "frames_per_s": pictures / spent,
        "turned_deg": seen.turned_deg,
        "warnings": [*told, *seen.warnings],
    }


def _original(o: Observation) -> Array:
    points: Array = o.dense_landmarks_px.double().numpy() / o.crop.scale + (o.crop.left, o.crop.top)
    return points


def _iou(o: Observation, mask: Array) -> float:
    """In pixels of the picture, inside the crop: the observation's mask enlarged against the true one."""
    mine = o.foreground.numpy().astype(np.float32)
    side = round(o.crop.width / o.crop.scale)
    left, top = round(o.crop.left), round(o.crop.top)
    large = cv2.resize(mine, (side, side), interpolation=cv2.INTER_LINEAR) > 0.5
    height, width = mask.shape
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    found, true = large[y0 - top : y1 - top, x0 - left : x1 - left], mask[y0:y1, x0:x1] > 127
    return float((found & true).sum() / (found | true).sum())


def _turns(rotation: Array, truth: Truth, seen: ObservedClip) -> float:
    """Mean angle between the found and the true rotation, degrees."""
    # head axes: x to the subject's left, y up, z forward in both
    true = truth.rotation[[o.frame_index for o in seen.observations]]
    trace = np.einsum("fij,fij->f", rotation, true)
    return float(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))).mean())


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row["landmarks_px"].items():
            found[f"landmarks_px.{name}"].append(value)
        for name in ("mask_iou", "rotation_deg", "rotation_deg_unknown_camera", "frames_per_s"):
            if name in row:
                found[name].append(row[name])
        if "focal_error" in row:
            found["focal_error_abs"].append(abs(row["focal_error"]))
    return {name: float(np.mean(values)) for name, values in found.items()}


if __name__ == "__main__":
    main()
