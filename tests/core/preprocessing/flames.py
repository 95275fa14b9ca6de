"""A FLAME-like model made of numbers, and blend skinning written out once more: what the fit is tested against."""

import pickle
from pathlib import Path

import numpy as np
import torch

from mononphm_core.geometry.rotations import so3_exp

PARENTS = (-1, 0, 1, 1, 1)


def flame_arrays(seed: int = 0, vertices: int = 150) -> dict[str, np.ndarray]:
    """A smooth random face patch, 0.2 m high, under FLAME's own keys."""
    random = np.random.default_rng(seed)
    flat = random.uniform(-1, 1, (vertices, 2))
    x, y = 0.08 * flat[:, 0], 0.1 * flat[:, 1]
    template = np.stack([x, y, 0.06 - 6 * x * x - 3 * y * y + 0.02 * np.exp(-900 * (x * x + y * y))], -1)
    waves = np.stack([np.sin(flat @ random.normal(0, 2.5, 2) + random.uniform(0, 6)) for _ in range(20 * 3)], -1)
    jaw = 1 / (1 + np.exp(20 * (flat[:, 1] + 0.3)))
    weights = np.zeros((vertices, 5))
    weights[:, 1], weights[:, 2] = 1 - jaw, jaw
    regressor = random.uniform(0, 1, (5, vertices)) ** 8
    return {
        "v_template": template,
        "shapedirs": 0.003 * waves.reshape(vertices, 3, 20),
        "posedirs": 0.002 * random.normal(size=(vertices, 3, 36)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, *PARENTS[1:]], range(5)], np.uint32),
        "weights": weights,
        "f": random.integers(0, vertices, (200, 3)).astype(np.uint32),
    }


def embedding_arrays(seed: int = 1) -> dict[str, np.ndarray]:
    """68 points somewhere on those triangles."""
    random = np.random.default_rng(seed)
    weights = random.dirichlet(np.ones(3), 68)
    return {"faces_idx": random.permutation(200)[:68], "barycentrics": weights}


def write(path: Path, arrays: dict) -> Path:
    """As .npz or .pkl, by the name."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        path.write_bytes(pickle.dumps(arrays, protocol=2))
    return path


def skinning(betas, pose, v_template, shape_dirs, pose_dirs, j_regressor, parents, weights):
    """FLAME's equations 1 to 3 (Li et al. 2017), joint by joint, with the arguments of `smplx.lbs.lbs`."""
    frames = len(betas)
    shaped = v_template + torch.einsum("bl,vcl->bvc", betas, shape_dirs)
    joints = torch.einsum("jv,bvc->bjc", j_regressor, shaped)
    turns = so3_exp(pose.reshape(frames, -1, 3))
    feature = (turns[:, 1:] - torch.eye(3, dtype=betas.dtype)).reshape(frames, -1)
    shaped = shaped + (feature @ pose_dirs).reshape(frames, -1, 3)
    world, posed = [turns[:, 0]], [joints[:, 0]]
    for j in range(1, len(PARENTS)):
        parent = int(parents[j])
        posed.append(posed[parent] + (world[parent] @ (joints[:, j] - joints[:, parent])[..., None])[..., 0])
        world.append(world[parent] @ turns[:, j])
    moved = [
        (shaped - joints[:, j, None]) @ world[j].transpose(-1, -2) + posed[j][:, None] for j in range(len(PARENTS))
    ]
    return (torch.stack(moved, -1) * weights[:, None, :]).sum(-1), torch.stack(posed, 1)
