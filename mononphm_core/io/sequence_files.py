"""A tracked sequence as two files, for the next station where that is another process: all of it, to the last bit."""

import json
from dataclasses import asdict
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mononphm_core.io.tables import write_json, write_npz
from mononphm_core.types import (
    CameraSource,
    FrameFit,
    HeadPose,
    IdentityCode,
    Intrinsics,
    Stage,
    StopReason,
    TrackedSequence,
    Uncertainty,
)

ARRAYS, FACTS = "sequence.npz", "sequence.json"


def write_sequence(directory: Path, sequence: TrackedSequence) -> tuple[str, str]:
    """The names of the two files."""
    sure, colours = sequence.uncertainty, sequence.colour_correction
    tensors = {
        "z_geo": sequence.identity.z_geo, "z_app": sequence.identity.z_app, "z_exp": sequence.z_exp,
        "rotation": sequence.poses.rotation, "translation": sequence.poses.translation, "scale": sequence.poses.scale,
        "light": sequence.light,
    }  # fmt: skip
    if sure is not None:
        tensors |= {f"sigma_{name}": value for name, value in vars(sure).items()}
    if colours is not None:
        tensors["colour_correction"] = colours
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
    arrays["fits"] = np.array([list(asdict(fit).values()) for fit in sequence.fits], np.float64).reshape(-1, 4)
    write_npz(directory / ARRAYS, arrays)
    facts = {
        "intrinsics": asdict(sequence.intrinsics),
        "camera_source": sequence.camera_source.value,
        "focal_uncertainty": sequence.focal_uncertainty,
        "frame_index": list(sequence.frame_index),
        "timestamp_s": list(sequence.timestamp_s),
        "stop": sequence.stop.name,
        "stage": sequence.stage.value,
        "history": sequence.history,
        "stages": sequence.stages,
    }
    write_json(directory / FACTS, facts)
    return ARRAYS, FACTS


def read_sequence(directory: Path, device: str = "cpu") -> TrackedSequence:
    """The inverse of `write_sequence`."""
    with np.load(directory / ARRAYS, allow_pickle=False) as arrays:
        fits = arrays["fits"].tolist()
        found = {name: torch.from_numpy(arrays[name]).to(device) for name in arrays.files if name != "fits"}
    facts: dict[str, Any] = json.loads((directory / FACTS).read_text())
    sure = {name.removeprefix("sigma_"): value for name, value in found.items() if name.startswith("sigma_")}
    camera = {**facts["intrinsics"], "distortion": tuple(facts["intrinsics"]["distortion"])}
    return TrackedSequence(
        identity=IdentityCode(found["z_geo"], found["z_app"]),
        z_exp=found["z_exp"],
        poses=HeadPose(found["rotation"], found["translation"], found["scale"]),
        light=found["light"],
        intrinsics=Intrinsics(**camera),
        camera_source=CameraSource(facts["camera_source"]),
        focal_uncertainty=facts["focal_uncertainty"],
        frame_index=tuple(facts["frame_index"]),
        timestamp_s=tuple(facts["timestamp_s"]),
        fits=tuple(FrameFit(error, iou, colour, bool(accepted)) for error, iou, colour, accepted in fits),
        stop=StopReason[facts["stop"]],
        stage=Stage(facts["stage"]),
        history={name: [nan if v is None else v for v in values] for name, values in facts["history"].items()},
        uncertainty=Uncertainty(**sure) if sure else None,
        stages=facts["stages"],
        colour_correction=found.get("colour_correction"),
    )
