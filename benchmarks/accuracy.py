"""Accuracy on clips with ground truth: the product beside the mean head posed by landmarks, by an outside scorer.

    python benchmarks/accuracy.py --data DIR --scorer score_recon.py --out benchmarks/results/accuracy.json

DIR holds one folder a person: video.mp4, camera_video.json, single.png, camera_single.json and what the scorer reads.
The scorer is called as `SCORER --gt FOLDER --kind video|single --pred DELIVERY --json FILE`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mononphm_core import numerics
from mononphm_core.io import registry
from mononphm_core.io.artifacts import Reconstruction, write_artifacts
from mononphm_core.io.manifest import sha256_of_file
from mononphm_core.io.media import read_clip
from mononphm_core.preprocessing.observe import observe
from mononphm_core.tracking import landmark_fit
from mononphm_core.tracking.config import LandmarkFitConfig
from mononphm_core.tracking.joint_problem import JointProblem
from mononphm_core.tracking.result import freeze
from mononphm_core.tracking.variables import Variables
from mononphm_core.types import FrameFit, Stage
from worker import pipeline
from worker.ledger.options import ReconstructionOptions
from worker.ledger.order import Order


def main() -> None:
    """Run what was asked and write one JSON with every figure and the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scorer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", nargs="*")
    parser.add_argument("--kinds", nargs="*", default=["video", "single"])
    parser.add_argument("--cameras", nargs="*", default=["known", "unknown"])
    parser.add_argument("--methods", nargs="*", default=["product", "mean head"])
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    numerics.warm_up(given.threads)
    rows = []
    for person in given.people or sorted(p.name for p in given.data.iterdir() if (p / "video.mp4").exists()):
        for kind in given.kinds:
            for camera in given.cameras:
                for method, make in (("product", product), ("mean head", mean_head)):
                    if method not in given.methods or (method == "mean head" and camera == "unknown"):
                        continue
                    row = {"person": person, "kind": kind, "camera": camera, "method": method}
                    rows.append(
                        row | scored(given.data / person, kind, order_of(given, person, kind, camera), make, given)
                    )
                    print(json.dumps(rows[-1]), flush=True)
                    write(given.out, rows)


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """What was measured so far: a run of hours that is cut short keeps what it has."""
    out.parent.mkdir(parents=True, exist_ok=True)
    card = registry.find_model()
    document = {"command": " ".join(["python", *sys.argv]), "model": pipeline.facts(card), "rows": rows}
    out.write_text(json.dumps(document, indent=1) + "\n")


def order_of(given: argparse.Namespace, person: str, kind: str, camera: str) -> Order:
    """The job that a user would send."""
    folder = given.data / person
    source = folder / ("video.mp4" if kind == "video" else "single.png")
    options: dict[str, Any] = {"quality": given.quality, "outputs": ["meshes", "cameras", "expressions", "manifest"]}
    if camera == "known":
        options["camera"] = json.loads((folder / f"camera_{kind}.json").read_text())
    return Order("bench", source, source.name, "", sha256_of_file(source), ReconstructionOptions.from_json(options))


def scored(folder: Path, kind: str, order: Order, make: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Deliver into a temporary folder and let the scorer look at it."""
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        make(order, Path(scratch) / "out")
        seconds = time.monotonic() - began
        table = Path(scratch) / "score.json"
        command = [sys.executable, given.scorer, "--gt", folder, "--kind", kind, "--pred", Path(scratch) / "out"]
        subprocess.run([*map(str, command), "--json", str(table)], check=True, stdout=subprocess.DEVNULL)
        mean = json.loads(table.read_text())["mean"]
    frame, clip = mean["frame_aligned"], mean["seq"]
    figures = {
        "frame_face_mm": frame["face"]["mean"],
        "frame_mouth_mm": frame["mouth"]["mean"],
        "frame_eyes_brows_mm": frame["eyes_brows"]["mean"],
        "frame_head_mm": frame["head"]["mean"],
        "frame_within_2.5": frame["face"]["within_2.5"],
        "clip_face_mm": clip["face"]["mean"],
        "iou": mean["iou"],
        "rotation_deg": mean["rot_deg"],
        "depth_drift_mm": mean["drift_depth_mm"],
        "jitter_lateral_mm": mean["jitter_lateral_mm"],
    }
    return {k: None if v is None else round(v, 3) for k, v in figures.items()} | {"seconds": round(seconds, 1)}


def product(order: Order, out: Path) -> None:
    """What the product does."""
    out.mkdir()
    pipeline.run(order, out, lambda _: None)


def mean_head(order: Order, out: Path) -> None:
    """The prior's mean head, neutral, posed in every frame by its landmarks."""
    card = registry.find_model()
    model = registry.warm_model(card, "cpu")
    assert model.template is not None
    config, _ = pipeline.config_of(order.options)
    clip = read_clip(order.input_path, config.selection, config.limits)
    seen = observe(clip, config.camera, config.preprocessing, pipeline.mean_landmarks(model))
    problem = JointProblem(model.template, seen, LandmarkFitConfig(), card.expression_names, None)
    frames = len(seen.observations)
    z_exp = np.zeros((frames, card.d_exp))
    rotation, translation = landmark_fit.first_poses(problem, z_exp)
    fit = landmark_fit.LandmarkFit(np.zeros(card.d_geo), z_exp, rotation, translation, 1.0, 0.0, np.zeros(frames))
    v = Variables.start(fit, model.template)
    fits = (FrameFit(0.0, 0.0, 0.0, True),) * frames
    tracked = freeze(v, seen, fit, fits, Stage.STAGE1, {})
    with torch.no_grad():
        reconstruction = Reconstruction(
            sequence=tracked,
            anchors=model.identity.anchors(tracked.identity.z_geo[None])[0].numpy(),
            meshes=pipeline.meshes(model, tracked, config.meshing),
            media=clip.info,
            input_filename=order.filename,
            input_sha256=order.sha256,
            input_bytes=0,
            options={},
            model=pipeline.facts(card),
            seconds={},
            device="cpu",
            seed=0,
        )
        write_artifacts(out, reconstruction, clip.frames, outputs=("cameras", "mesh", "expressions"))


if __name__ == "__main__":
    main()
