"""Accuracy of the tracker alone, before any mesh is made: the template's surface against the true vertices.

    python benchmarks/tracking.py --data synthetic_dev --open-data DIR --regions score_regions.npz id00:video:known ...

`--data` holds people with ground truth (see accuracy.py), `--open-data` the heads that the prior was trained from: its
topology says which true vertex each template point is: no search. `--regions` labels the triangles (1 face,
2 mouth, 4 eyes and brows, 8 head). `--set NAME=VALUE` changes one number of LandmarkFitConfig: the ablations.

A similarity (point to plane, vertices of the face) takes each frame, or the clip, to the truth; mean distances along
the true normals, mm. About as the outside scorer says it of the meshes, in a tenth of the time.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from mononphm_core import numerics
from mononphm_core.config import CameraChoice
from mononphm_core.io import registry
from mononphm_core.io.media import read_clip
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.preprocessing import observe
from mononphm_core.tracking.config import LandmarkFitConfig, Stage2Config
from mononphm_core.tracking.joint_problem import JointProblem, State
from mononphm_core.tracking.landmark_fit import first_poses, minimise
from mononphm_core.training import registration
from mononphm_core.training.sources import OpenHeads
from mononphm_core.training.tables import coarse_surface
from mononphm_core.types import MM_PER_UNIT, HeadMesh
from worker import pipeline
from worker.ledger.options import ReconstructionOptions

Array = np.ndarray[Any, np.dtype[Any]]
REGIONS = {"face": 1, "mouth": 2, "eyes": 4, "head": 8}


def main() -> None:
    """One line a stage and input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--open-data", type=Path, required=True)
    parser.add_argument("--regions", type=Path, required=True)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("inputs", nargs="+", help="PERSON:video|single:known|unknown")
    given = parser.parse_args()
    numerics.warm_up(1)
    changes = {name: json.loads(value) for name, value in (item.split("=") for item in given.set)}
    ruler = Ruler(given.data, given.open_data, given.regions)
    for text in given.inputs:
        person, kind, camera = text.split(":")
        for stage, figures in tracked(
            ruler, given.data / person, kind, camera, replace(LandmarkFitConfig(), **changes)
        ):
            print(
                json.dumps({"input": text, "stage": stage} | {k: round(v, 3) for k, v in figures.items()}), flush=True
            )


class Ruler:
    """Which true vertex every template point is, and what it counts."""

    def __init__(self, data: Path, open_data: Path, regions: Path) -> None:
        model = registry.warm_model(registry.find_model(), "cpu")
        assert model.template is not None
        self.model, self.template = model, model.template
        rows = self.template.rows("surface")
        heads = OpenHeads(open_data)
        ours, self.faces = coarse_surface(heads, rows.stop - rows.start)
        topology = np.load(data / "topology.npz")
        place = np.full(int(topology["ict_vertex_index"].max()) + 1, -1)
        place[topology["ict_vertex_index"]] = np.arange(len(topology["ict_vertex_index"]))
        self.true_faces, self.rows = topology["faces"].astype(np.int64), place[heads.skeleton.used[ours]]
        label = np.load(regions)["label"]
        vertex = np.zeros(len(topology["ict_vertex_index"]), np.uint8)
        for k in range(3):
            np.bitwise_or.at(vertex, self.true_faces[:, k], label)
        x = self.template.mean[rows].double().numpy()
        a, b, c = (x[self.faces[:, k]] for k in range(3))
        area = np.zeros(len(x))
        for k in range(3):
            np.add.at(area, self.faces[:, k], np.linalg.norm(np.cross(b - a, c - a), axis=1))
        self.weight = {name: area * ((vertex[self.rows] & bit) > 0) for name, bit in REGIONS.items()}

    def truth(self, folder: Path, kind: str, frames: list[int]) -> tuple[Array, Array]:
        """Points and normals in the camera frame, mm."""
        table = np.load(folder / f"{kind}_gt.npz")
        pose = table["head_to_cam"][frames].astype(np.float64)
        x = np.einsum("fij,fvj->fvi", pose[:, :3, :3], table["verts_mm"][frames].astype(np.float64))
        x += pose[:, None, :3, 3]
        normals = np.stack([vertex_normals(HeadMesh(one, self.true_faces))[self.rows] for one in x])
        return x[:, self.rows], normals / np.linalg.norm(normals, axis=-1, keepdims=True)

    def score(self, found: Array, true: Array, normal: Array) -> dict[str, float]:
        """The figures of one clip."""
        face = self.weight["face"]
        errors: dict[str, list[float]] = {name: [] for name in REGIONS}
        turns = []
        for x, y, n in zip(found, true, normal, strict=True):
            s, r, t = similarity(x, y, n, face)
            distance = np.abs(((s * x @ r.T + t - y) * n).sum(1))
            turns.append(r)
            for name, weight in self.weight.items():
                errors[name].append(float((distance * weight).sum() / weight.sum()))
        flat = [a.reshape(-1, 3) for a in (found, true, normal)]
        s, r, t = similarity(flat[0], flat[1], flat[2], np.tile(face, len(found)))
        off = s * found @ r.T + t - true
        result = {f"frame_{name}": float(np.mean(values)) for name, values in errors.items()}
        result["clip_face"] = float((np.abs((off * normal).sum(-1)) * face).sum() / face.sum() / len(found))
        if len(found) > 2:
            apart = [Rotation.from_matrix(r @ turns[0].T).magnitude() for r in turns[1:]]
            result["rotation_deg"] = float(np.degrees(np.mean(apart)))
            jolt = np.diff(off[:, face > 0], n=2, axis=0)
            result["jitter_lateral"] = float(np.sqrt((jolt[..., :2] ** 2).sum(-1).mean()))
            result["jitter_depth"] = float(np.sqrt((jolt[..., 2] ** 2).mean()))
        return result


def similarity(x: Array, y: Array, normal: Array, weight: Array) -> tuple[float, Array, Array]:
    """s, R, t that take x to y: by correspondences (Umeyama 1991), then point to plane, Huber at 2 mm."""
    w = weight / weight.sum()
    s, r, t = registration.similarity(x, y, w)
    for _ in range(6):
        placed = s * x @ r.T + t
        centre = w @ placed
        arm, off = placed - centre, ((placed - y) * normal).sum(1)
        h = w * np.minimum(1, 2.0 / np.maximum(np.abs(off), 1e-9))
        j = np.concatenate([np.cross(arm, normal), normal, (arm * normal).sum(1, keepdims=True) / 100], 1)
        step = np.linalg.solve((j * h[:, None]).T @ j + 1e-9 * np.eye(7), -(j * h[:, None]).T @ off)
        turn, grow = Rotation.from_rotvec(step[:3]).as_matrix(), 1 + step[6] / 100
        r, s, t = turn @ r, s * grow, grow * turn @ (t - centre) + centre + step[3:6]
    return s, r, t


def tracked(
    ruler: Ruler, folder: Path, kind: str, camera: str, config: LandmarkFitConfig
) -> list[tuple[str, dict[str, float]]]:
    """Figures after landmarks and outlines, and after the texture; processor seconds of the solving so far."""
    source = folder / ("video.mp4" if kind == "video" else "single.png")
    choice: dict[str, Any] = json.loads((folder / f"camera_{kind}.json").read_text()) if camera == "known" else {}
    settings, _ = pipeline.config_of(ReconstructionOptions.from_json({}))
    clip = read_clip(source, settings.selection, settings.limits)
    reference = pipeline.mean_landmarks(ruler.model)
    seen = observe(clip, CameraChoice(**choice), settings.preprocessing, reference)
    true, normal = ruler.truth(folder, kind, [o.frame_index for o in seen.observations])
    names = registry.find_model().expression_names
    began = time.process_time()
    problem = JointProblem(ruler.template, seen, config, names, None)
    z_exp = np.tile(0.3 * problem.z_canonical, (len(true), 1))
    at = State(np.zeros(config.directions), 0.0, *first_poses(problem, z_exp), z_exp)

    def figures(at: State) -> dict[str, float]:
        seconds = time.process_time() - began
        return ruler.score(problem.surface_in(at) * MM_PER_UNIT, true, normal) | {"seconds": seconds}

    at, _, _ = minimise(problem, at, config.iterations, config.stop_share)
    for _ in range(config.contour_rounds):
        problem.choose_rims(at)
        at, _, _ = minimise(problem, at, config.contour_iterations, config.stop_share)
    rows = [("stage1", figures(at))]
    if kind == "video":
        for blur_px in Stage2Config().blurs_px:
            problem.look_at_texture(at, blur_px)
            problem.choose_rims(at)
            at, _, _ = minimise(problem, at, Stage2Config().iterations, config.stop_share)
        rows.append(("stage2", figures(at)))
    return rows


if __name__ == "__main__":
    main()
