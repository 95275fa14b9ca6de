"""A moving head whose shapes are known: a ball that one shape pushes aside and another one pinches."""

import numpy as np
import torch
import trimesh
from scipy.spatial.transform import Rotation

from mononphm_core.types import (
    CameraSource,
    FrameFit,
    HeadPose,
    IdentityCode,
    Intrinsics,
    MorphHead,
    Stage,
    StopReason,
    TrackedSequence,
)

TURNS = Rotation.from_euler("xyz", [[170, 5, -3], [185, -12, 8]], degrees=True).as_matrix()


def two_frames() -> TrackedSequence:
    """Two frames of a moving head, not evenly spaced in time."""
    fit = FrameFit(1.0, 0.9, 0.05, True)
    return TrackedSequence(
        identity=IdentityCode(torch.zeros(4), torch.zeros(2)),
        z_exp=torch.zeros(2, 3),
        poses=HeadPose(
            torch.tensor(TURNS, dtype=torch.float32),
            torch.tensor([[0.1, 0.0, 2.0], [0.0, -0.2, 2.5]]),
            torch.tensor(1.25),
        ),
        light=torch.zeros(9, 3),
        intrinsics=Intrinsics(900.0, 910.0, 330.0, 235.0, 640, 480),
        camera_source=CameraSource.GIVEN,
        focal_uncertainty=0.0,
        frame_index=(3, 8),
        timestamp_s=(0.1, 0.35),
        fits=(fit, fit),
        stop=StopReason.CONVERGED,
        stage=Stage.STAGE2,
    )  # fmt: skip


def ball_head() -> MorphHead:
    """A ball of a head's size with two shapes: everything to the left, one vertex up."""
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.4)
    count = len(ball.vertices)
    shapes = np.zeros((2, count, 3), np.float32)
    shapes[0, :, 0] = 0.02
    shapes[1, 7, 1] = 0.04
    return MorphHead(
        vertices=np.asarray(ball.vertices, np.float32),
        normals=np.asarray(ball.vertices, np.float32) / 0.4,
        faces=np.asarray(ball.faces, np.int64),
        uv=np.random.default_rng(0).random((count, 2)).astype(np.float32),
        texture=np.full((16, 16, 3), (200, 150, 120), np.uint8),
        names=("left", "up"),
        shapes=shapes,
        shape_normals=np.zeros_like(shapes),
        weights=np.array([[0.0, 1.0], [1.0, 0.25]], np.float32),
        largest_error_mm=0.125,
    )
