"""A small true delivery: a ball for a head, seen by a known camera, in a clip of a few frames."""

import numpy as np
import torch
import trimesh

from mononphm_core.io.artifacts import Reconstruction
from mononphm_core.types import (
    CameraSource,
    Frame,
    FrameFit,
    HeadMesh,
    HeadPose,
    IdentityCode,
    Intrinsics,
    MediaInfo,
    Stage,
    StopReason,
    TrackedSequence,
)

CAMERA = Intrinsics(500.0, 500.0, 160.0, 120.0, 320, 240)
RADIUS_MM, DISTANCE_MM = 100.0, 700.0


def ball(centre_mm: tuple[float, float, float] = (0.0, 0.0, DISTANCE_MM)) -> HeadMesh:
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=RADIUS_MM)
    colours = np.random.default_rng(0).integers(0, 256, sphere.vertices.shape, np.uint8)
    return HeadMesh(np.asarray(sphere.vertices + centre_mm, np.float32), np.asarray(sphere.faces, np.int64), colours)


def tracked(frame_index: tuple[int, ...], fps: float = 25.0) -> TrackedSequence:
    """A head that looks at the camera from `DISTANCE_MM` and moves 4 mm to the right a frame."""
    frames = len(frame_index)
    rotation = torch.diag(torch.tensor([1.0, -1.0, -1.0])).repeat(frames, 1, 1)
    centre = torch.tensor([[4.0 * index, 0.0, DISTANCE_MM] for index in frame_index]) / 250.0
    generator = torch.Generator().manual_seed(0)
    return TrackedSequence(
        identity=IdentityCode(torch.randn(12, generator=generator), torch.randn(7, generator=generator)),
        z_exp=torch.randn(frames, 5, generator=generator),
        poses=HeadPose(rotation, -(rotation @ centre[..., None])[..., 0], torch.tensor(1.0)),
        light=torch.zeros(9, 3),
        intrinsics=CAMERA,
        camera_source=CameraSource.ESTIMATED,
        focal_uncertainty=0.25,
        frame_index=frame_index,
        timestamp_s=tuple(index / fps for index in frame_index),
        fits=tuple(FrameFit(1.0 + k, 0.9, float("nan"), k != 1) for k in range(frames)),
        stop=StopReason.STEP_BUDGET,
        stage=Stage.STAGE2,
        history={"colour": [1.0, 0.5], "mask": []},
    )


def pictures(frame_index: tuple[int, ...], fps: float = 25.0) -> list[Frame]:
    """Grey pictures with a red square, all of them different."""
    made = []
    for index in frame_index:
        rgb = np.full((CAMERA.height, CAMERA.width, 3), 90 + index, np.uint8)
        rgb[100:140, 140:180] = (200, 30, 30)
        made.append(Frame(rgb, index, index / fps))
    return made


def reconstruction(sequence: TrackedSequence, is_video: bool = True, **changes: object) -> Reconstruction:
    facts: dict[str, object] = {
        "sequence": sequence,
        "anchors": np.arange(195, dtype=np.float32).reshape(65, 3) / 100,
        "meshes": (ball((4.0 * index, 0.0, DISTANCE_MM)) for index in sequence.frame_index),
        "media": MediaInfo("video/mp4", is_video, 320, 240, 10, None, 0.4, 0, focal_35mm=27.5),
        "input_filename": "/home/someone/private/holiday.mp4",
        "input_sha256": "ab" * 32,
        "input_bytes": 4711,
        "options": {"model": "/home/someone/models/tiny", "fps": float("inf"), "webhook_url": "https://secret.example"},
        "model": {"name": "tiny", "version": "1", "sha256": "cd" * 32, "licence": "CC0-1.0"},
        "seconds": {"decoding": 0.5, "stage1": 2.0},
        "device": "cpu",
        "seed": 7,
        **changes,
    }
    return Reconstruction(**facts)  # type: ignore[arg-type]
