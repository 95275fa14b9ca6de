"""Clips that the shipped template made: exact landmarks, masks of its drawn surface, known codes and poses."""

import dataclasses
import math

import numpy as np
import torch

from mononphm_core.geometry.cameras import project
from mononphm_core.geometry.rotations import so3_exp
from mononphm_core.io import registry
from mononphm_core.meshing.raster import rasterise
from mononphm_core.types import CameraSource, Crop, FrameQuality, Intrinsics, Observation, ObservedClip

CARD = registry.find_model()
NAMES = CARD.expression_names
CROP = Crop(left=40.0, top=20.0, scale=0.25, width=128, height=128)
CAMERA = Intrinsics(fx=900.0, fy=900.0, cx=300.0, cy=280.0, width=600, height=560)
DIRECTIONS = 12
"""Ways in which the people of these clips differ from the mean."""


@dataclasses.dataclass(frozen=True)
class Truth:
    """What a clip was made from. Poses map the head to the camera."""

    u: torch.Tensor
    z_geo: torch.Tensor
    z_exp: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor


def model():
    """The shipped head model."""
    return registry.warm_model(CARD, "cpu")


def truth(frames: int, seed: int = 0, turn_deg: float = 60.0) -> Truth:
    """A person who speaks and turns from one side to the other."""
    draw = torch.Generator().manual_seed(seed)
    template = model().template
    u = 0.8 * torch.randn(DIRECTIONS, generator=draw)
    z_exp = torch.zeros(frames, CARD.d_exp)
    for name, most in (("jawOpen", 0.5), ("mouthSmile_L", 0.6), ("mouthSmile_R", 0.6)):
        z_exp[:, NAMES.index(name)] = most * torch.linspace(0.3, 0.9, frames)
    yaw = torch.linspace(-0.5, 0.5, frames) * math.radians(turn_deg)
    turns = torch.stack([0.1 + 0 * yaw, yaw, 0.05 * yaw], 1)
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    translation = torch.tensor([0.05, 0.02, 2.6]) + 0.02 * torch.linspace(-1, 1, frames)[:, None]
    return Truth(u, template.geo_span[:, :DIRECTIONS] @ u, z_exp, facing @ so3_exp(turns), translation)


def clip_of(t: Truth, fps: float = 5.0) -> ObservedClip:
    """What perfect preprocessing would see of it, with a calibrated camera."""
    template = model().template
    frames = len(t.z_exp)
    z = t.z_geo.expand(frames, -1)
    k = CAMERA.cropped(CROP.left, CROP.top, CROP.scale, CROP.width, CROP.height)
    row = torch.tensor([k.fx, k.fy, k.cx, k.cy]).expand(frames, 4)
    dense = project(template.posed(z, t.z_exp, "mediapipe478") @ t.rotation.mT + t.translation[:, None], row)
    sparse = project(template.posed(z, t.z_exp, "ibug68") @ t.rotation.mT + t.translation[:, None], row)
    surface = template.posed(z, t.z_exp, "surface") @ t.rotation.mT + t.translation[:, None]
    observations = []
    for i in range(frames):
        covered = rasterise(surface[i].double().numpy(), template.surface_faces.numpy(), k).covered
        head = torch.from_numpy(np.ascontiguousarray(covered))
        face_px = float(np.ptp(dense[i, :468, 1].numpy())) / CROP.scale
        yaw = math.degrees(float(torch.atan2(-t.rotation[i, 0, 2], -t.rotation[i, 2, 2])))
        observations.append(
            Observation(
                frame_index=i, timestamp_s=i / fps,
                rgb=torch.where(head[..., None], torch.tensor([0.7, 0.5, 0.4]), torch.tensor([0.1, 0.3, 0.1])),
                valid=torch.ones_like(head), skin=head, foreground=head, foreground_opacity=head.float(),
                hair=torch.zeros_like(head), occluder=torch.zeros_like(head), inner_mouth=torch.zeros_like(head),
                landmarks_px=sparse[i], dense_landmarks_px=dense[i], dense_confidence=torch.ones(478),
                intrinsics=k, crop=CROP, quality=FrameQuality(1.0, yaw, face_px, 1.0),
            )
        )  # fmt: skip
    return ObservedClip(tuple(observations), CAMERA, CameraSource.GIVEN, 0.0, ())
