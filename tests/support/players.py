"""What other people's programs make of our glTF files: any player's arithmetic, and Khronos' own validator."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mononphm_core.io.gltf import parts, rows_of

VALIDATOR = Path(__file__).resolve().parents[1] / "gltf"


def played(data: bytes, frame: int) -> np.ndarray:
    """The vertices that any player shows at one key frame, metres in the file's world."""
    document, _ = parts(data)
    primitive = document["meshes"][0]["primitives"][0]
    x = rows_of(data, primitive["attributes"]["POSITION"]).astype(np.float64)
    animation = document["animations"][0]
    tracks = {
        channel["target"]["path"]: rows_of(data, animation["samplers"][channel["sampler"]]["output"])
        for channel in animation["channels"]
        if channel["target"]["node"] == 0
    }
    weights = tracks["weights"].reshape(-1, len(primitive["targets"]))[frame]
    for weight, target in zip(weights, primitive["targets"], strict=True):
        x = x + weight * rows_of(data, target["POSITION"])
    x = x * document["nodes"][0]["scale"]
    return Rotation.from_quat(tracks["rotation"][frame]).apply(x) + tracks["translation"][frame]


def khronos_issues(path: Path) -> dict[str, Any]:
    """What the validator says of a file; skips where it is not installed."""
    if shutil.which("node") is None or not (VALIDATOR / "node_modules" / "gltf-validator").is_dir():
        pytest.skip(
            "the Khronos validator needs node and `npm ci` in tests/gltf; scripts/setup.sh does it where npm is"
        )
    told = subprocess.run(
        ["node", str(VALIDATOR / "validate.mjs"), str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    issues: dict[str, Any] = json.loads(told.stdout)["issues"]
    return issues
