"""Codes, poses and cameras as files: identity.npz, expressions.npz / .json, cameras.json, blendshapes.csv.

Every length in a file is in millimetres (1 head unit = 250 mm); inside the program lengths are head units.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from mononphm_core.errors import ConfigError
from mononphm_core.io.atomic import atomic_path, write_bytes
from mononphm_core.io.manifest import SCHEMA_VERSION, json_bytes
from mononphm_core.types import MM_PER_UNIT, TrackedSequence

UNIT_NOTE = (
    "millimetres up to one unknown factor for the whole clip: a single camera cannot tell a small near head from a "
    "large far one, so absolute size comes from the average head of the model"
)
POSE_CONVENTION = (
    "x_head = scale * rotation @ x_world + translation, from the world that w2c of cameras.json maps from (where the "
    "meshes lie) to the head: x to the subject's left, y up, z out of the face, origin inside the head; all lengths in "
    "millimetres; the model itself works in head units of 250 mm"
)
CONFIDENCE_NOTE = (
    "0 to 1: silhouette overlap, halved when the frame's fit was not accepted, 0 where codes are interpolated"
)

ARKIT_52 = (
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)
"""Apple's spelling, alphabetical."""


@dataclass(frozen=True)
class Blendshapes:
    """ARKit-52 activations of a clip, from a model that has the mapping."""

    names: tuple[str, ...]
    weights: Float[np.ndarray, "frames shapes"]
    """0..1, rows in the order of the sequence's frames."""

    def __post_init__(self) -> None:
        if sorted(self.names) != sorted(ARKIT_52):
            odd = sorted(set(self.names) ^ set(ARKIT_52))
            raise ConfigError(f"blendshape names are not the 52 of ARKit; missing or unknown: {', '.join(odd)}")
        if self.weights.shape[1] != len(self.names):
            raise ConfigError(f"{self.weights.shape[1]} columns of blendshape weights for {len(self.names)} names")


def write_npz(path: Path, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """A compressed npz without pickles; the same arrays always give the same bytes."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def identity_arrays(
    sequence: TrackedSequence, anchors: Float[np.ndarray, "anchors 3"]
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """identity.npz: the codes of the person and the 65 anchors of the neutral head (canonical, here in millimetres)."""
    return {
        "z_geo": _numpy(sequence.identity.z_geo),
        "z_app": _numpy(sequence.identity.z_app),
        "anchors": (np.asarray(anchors, np.float64) * MM_PER_UNIT).astype(np.float32),
    }


def expression_arrays(
    sequence: TrackedSequence, interpolated: Sequence[int] = ()
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """expressions.npz: one row a tracked frame. `POSE_CONVENTION` says what rotation, translation and scale do."""
    frames = len(sequence.frame_index)
    return {
        "z_exp": _numpy(sequence.z_exp),
        "rotation": _numpy(sequence.poses.rotation),
        "translation": _numpy(sequence.poses.translation) * np.float32(MM_PER_UNIT),
        "scale": np.full(frames, float(sequence.poses.scale), np.float32),
        "timestamp_s": np.array(sequence.timestamp_s, np.float64),
        "frame_index": np.array(sequence.frame_index, np.int64),
        "confidence": confidence(sequence, interpolated).astype(np.float32),
        "accepted": np.array([fit.accepted for fit in sequence.fits], bool),
        "interpolated": np.isin(np.array(sequence.frame_index), list(interpolated)),
    }


def confidence(sequence: TrackedSequence, interpolated: Sequence[int] = ()) -> Float[np.ndarray, "frames"]:
    """`CONFIDENCE_NOTE`, one number a frame: for sorting and hiding frames, not a probability."""
    overlap = np.clip(np.nan_to_num([fit.silhouette_iou for fit in sequence.fits], nan=0.0), 0.0, 1.0)
    accepted = np.array([fit.accepted for fit in sequence.fits], bool)
    invented = np.isin(np.array(sequence.frame_index), list(interpolated))
    return np.where(invented, 0.0, np.where(accepted, overlap, 0.5 * overlap))


def expressions_document(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> dict[str, Any]:
    """expressions.json: the rows of expressions.npz, with words about their meaning."""
    rows = [{key: arrays[key][row].tolist() for key in arrays} for row in range(len(arrays["frame_index"]))]
    return {
        "schema_version": SCHEMA_VERSION,
        "unit": "mm",
        "unit_note": UNIT_NOTE,
        "pose_convention": POSE_CONVENTION,
        "confidence_note": CONFIDENCE_NOTE,
        "frames": rows,
    }


def cameras_document(sequence: TrackedSequence, w2c: Float[np.ndarray, "frames 4 4"]) -> dict[str, Any]:
    """cameras.json: pixels of the upright original, w2c in millimetres; lens distortion only where there is some."""
    intrinsics = sequence.intrinsics
    document: dict[str, Any] = {
        "convention": "opencv",
        "unit": "mm",
        "width": intrinsics.width,
        "height": intrinsics.height,
        "fx": intrinsics.fx,
        "fy": intrinsics.fy,
        "cx": intrinsics.cx,
        "cy": intrinsics.cy,
        "source": sequence.camera_source.value,
        "uncertainty": sequence.focal_uncertainty,
        "uncertainty_note": "one standard deviation of the logarithm of the focal length",
    }
    if any(intrinsics.distortion):
        document["distortion"] = dict(zip(("k1", "k2", "p1", "p2", "k3"), intrinsics.distortion, strict=True))
    document["frames"] = [
        {"frame_index": index, "timestamp_s": time, "w2c": matrix.tolist()}
        for index, time, matrix in zip(sequence.frame_index, sequence.timestamp_s, w2c, strict=True)
    ]
    return document


def write_blendshapes(path: Path, shapes: Blendshapes, sequence: TrackedSequence) -> None:
    """blendshapes.csv: frame_index, timestamp_s, then the 52 names in the order of `ARKIT_52`; a row a frame."""
    columns = [shapes.names.index(name) for name in ARKIT_52]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["frame_index", "timestamp_s", *ARKIT_52])
    rows = zip(sequence.frame_index, sequence.timestamp_s, shapes.weights[:, columns], strict=True)
    for index, time, row in rows:
        writer.writerow([index, f"{time:.6f}", *(f"{weight:.5f}" for weight in row)])
    write_bytes(path, text.getvalue().encode("ascii"))


def write_json(path: Path, document: Any) -> None:
    """Strict JSON, atomically."""
    write_bytes(path, json_bytes(document, indent=None))


def _numpy(tensor: Tensor) -> Float[np.ndarray, "..."]:
    return tensor.detach().float().cpu().numpy()
