"""Folders as the published tools leave them, made of any pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from mononphm_core.geometry.rotations import so3_exp
from mononphm_core.preprocessing.published.ours import wflw_from_ibug


def ibug_face(width: int, height: int) -> np.ndarray:
    """A schematic face in the middle of the picture, iBUG-68 pixels."""
    points = np.zeros((68, 2))
    angle = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([np.cos(angle), 0.9 * np.sin(angle)], -1)
    for first, count, centre, radius in (
        (17, 5, (-0.45, -0.4), 0.2), (22, 5, (0.45, -0.4), 0.2), (27, 4, (0, -0.1), 0.05), (31, 5, (0, 0.15), 0.15),
        (36, 6, (-0.42, -0.2), 0.12), (42, 6, (0.42, -0.2), 0.12), (48, 12, (0, 0.45), 0.28), (60, 8, (0, 0.45), 0.18),
    ):  # fmt: skip
        turn = np.linspace(np.pi, -np.pi, count, endpoint=False)
        points[first : first + count] = np.array(centre) + radius * np.stack([np.cos(turn), -0.5 * np.sin(turn)], -1)
    return points * 0.25 * height + [width / 2, height / 2]


def write_sequence(root: Path, frames: int = 3, width: int = 96, height: int = 80) -> Path:
    """A complete folder: random pictures with a labelled ellipse, one pose a frame."""
    import torch

    random = np.random.default_rng(0)
    for part in ("source", "seg", "matting", "kpt", "pipnet", f"metrical_tracker/{root.name}/checkpoint"):
        (root / part).mkdir(parents=True, exist_ok=True)
    x, y = np.meshgrid(np.arange(width) - width / 2, np.arange(height) - height / 2)
    inside = np.square(x / 0.3 / width) + np.square(y / 0.4 / height) < 1
    face = ibug_face(width, height)
    for t in range(frames):
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(root / "source" / f"{t:05d}.png")
        labels = np.where(inside, np.where(y < -10, 14, 2), np.where(y > 30, 3, 20)).astype(np.uint8)
        labels[(np.abs(x) < 4) & (np.abs(y - 12) < 2)] = 11
        Image.fromarray(labels).save(root / "seg" / f"{t}.png")
        Image.fromarray(np.where(inside, 250, 30).astype(np.uint8)).save(root / "matting" / f"{t:05d}.png")
        np.save(root / "kpt" / f"{t:05d}.npy", face + t)
        pose = root / "metrical_tracker" / root.name / "checkpoint" / f"{t:05d}_cam_params_opencv.npz"
        turn = torch.tensor([[np.pi + 0.02 * t, 0.01, 0.05 * t]], dtype=torch.float32)
        k = np.array([[[1.5 * width, 0, width / 2], [0, 1.5 * width, height / 2], [0, 0, 1]]], np.float32)
        np.savez(pose, R=so3_exp(turn).numpy(), t=np.array([[0.01 * t, 0.0, 0.8]], np.float32), K=k)
    landmarks = np.stack([wflw_from_ibug(face + t) for t in range(frames)]) / [width, height]
    np.save(root / "pipnet" / "test.npy", landmarks)
    return root
