"""A user's FLAME file (Li et al. 2017) and its landmark embedding, as plain arrays. None is shipped.

`.npz` and `.safetensors` are read as they are; a `.pkl`, as it is published, in the limited process of `flame_child`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mononphm_core.errors import AssetError
from mononphm_core.io.checkpoint_process import ask_child
from mononphm_core.io.flame_child import SECTION

CHILD = "mononphm_core.io.flame_child"
MAX_BYTES = 1 << 30
BASE_MEMORY_BYTES = 2 << 30
CPU_SECONDS = 60
JOINTS = 5
"""Root, neck, jaw, left eye, right eye."""
SPLITS = {400: (300, 100), 20: (10, 10)}
"""Columns of `shapedirs` -> (shape, expression), as smplx splits them."""
NEXT = "Give the FLAME 2020 file (generic_model.pkl), or its arrays as .npz"
FACE_NAMES = ("faces_idx", "lmk_faces_idx", "lmk_face_idx", "full_lmk_faces_idx")
WEIGHT_NAMES = ("barycentrics", "lmk_bary_coords", "lmk_b_coords", "full_lmk_bary_coords")


@dataclass(frozen=True)
class Flame:
    """Linear blendshapes and linear blend skinning, metres: x to the subject's left, y up, z out of the face."""

    v_template: Float[Tensor, "vertices 3"]
    shape_dirs: Float[Tensor, "vertices 3 n_shape"]
    expression_dirs: Float[Tensor, "vertices 3 n_expression"]
    pose_dirs: Float[Tensor, "vertices 3 36"]
    j_regressor: Float[Tensor, "5 vertices"]
    parents: Int[Tensor, "5"]
    weights: Float[Tensor, "vertices 5"]
    faces: Int[Tensor, "faces 3"]


@dataclass(frozen=True)
class LandmarkEmbedding:
    """iBUG-68 on FLAME's triangles, or its last 51 (without the jaw line)."""

    faces: Int[Tensor, "landmarks"]
    barycentrics: Float[Tensor, "landmarks 3"]


def read_flame(path: Path) -> Flame:
    """AssetError with what to do when the file is missing, holds more than arrays, or is no FLAME."""
    arrays = _arrays(path)
    need = ("v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f")
    if absent := [name for name in need if name not in arrays]:
        raise AssetError(f"{path.name} lacks {', '.join(absent)}. {NEXT}")
    v, shapes = arrays["v_template"], arrays["shapedirs"]
    n, faces, tree = len(v), arrays["f"], arrays["kintree_table"]
    expected = {
        "v_template": (n, 3), "shapedirs": (n, 3, shapes.shape[-1]), "posedirs": (n, 3, 9 * (JOINTS - 1)),
        "J_regressor": (JOINTS, n), "kintree_table": (2, JOINTS), "weights": (n, JOINTS), "f": (len(faces), 3),
    }  # fmt: skip
    for name, shape in expected.items():
        if arrays[name].shape != shape or not torch.isfinite(arrays[name]).all():
            raise AssetError(f"{path.name}: {name} is {tuple(arrays[name].shape)}, expected {shape}, finite. {NEXT}")
    if shapes.shape[-1] not in SPLITS:
        raise AssetError(f"{path.name}: shapedirs has {shapes.shape[-1]} columns; 400 or 20 are understood. {NEXT}")
    parents = tree[0].long().clone()
    parents[0] = -1
    if not all(0 <= int(parent) < child for child, parent in enumerate(parents) if child) or not _within(faces, n):
        raise AssetError(f"{path.name}: its joints or triangles point at nothing. {NEXT}")
    split = SPLITS[shapes.shape[-1]][0]
    return Flame(
        v.double(), shapes[..., :split].double(), shapes[..., split:].double(), arrays["posedirs"].double(),
        arrays["J_regressor"].double(), parents, arrays["weights"].double(), faces.long(),
    )  # fmt: skip


def read_embedding(path: Path, flame: Flame) -> LandmarkEmbedding:
    """Triangle and barycentric coordinates of 68 or 51 landmarks. AssetError when it does not fit this FLAME."""
    advice = f"Give an .npz with {FACE_NAMES[0]} [68] and {WEIGHT_NAMES[0]} [68, 3]"
    arrays = _arrays(path)
    faces, weights = (next((arrays[n] for n in names if n in arrays), None) for names in (FACE_NAMES, WEIGHT_NAMES))
    if faces is None or weights is None:
        raise AssetError(f"{path.name} has only {', '.join(sorted(arrays)) or 'nothing'}. {advice}")
    faces = faces.reshape(-1)
    if len(faces) not in (68, 51) or weights.numel() != 3 * len(faces) or not _within(faces, len(flame.faces)):
        raise AssetError(f"{path.name}: {len(faces)} landmarks that do not fit {len(flame.faces)} triangles. {advice}")
    weights = weights.reshape(-1, 3).double()
    if not torch.allclose(weights.sum(-1), weights.new_ones(()), atol=1e-3):
        raise AssetError(f"{path.name}: barycentric coordinates do not add up to 1. {advice}")
    return LandmarkEmbedding(faces.long(), weights)


def _within(index: Tensor, count: int) -> bool:
    return not index.is_floating_point() and index.numel() > 0 and int(index.min()) >= 0 and int(index.max()) < count


def _arrays(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise AssetError(f"There is no {path}. FLAME cannot be shipped; its users download it from flame.is.tue.mpg.de")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise AssetError(f"{path.name} has {size} bytes, more than FLAME files have. {NEXT}")
    try:
        if path.suffix == ".pkl":
            request = {"memory_bytes": BASE_MEMORY_BYTES + 8 * size, "cpu_seconds": CPU_SECONDS}
            return ask_child(CHILD, path, request, 8 * size + (1 << 20), 2.0 * CPU_SECONDS)[1].get(SECTION, {})
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            return _npz(path)
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile, SafetensorError) as error:
        raise AssetError(f"{path.name} holds more, or less, than plain arrays ({error}). {NEXT}") from error
    raise AssetError(f"{path.name} is no .pkl, .npz or .safetensors. {NEXT}")


def _npz(path: Path) -> dict[str, Tensor]:
    """The numbers of a NumPy archive; nothing pickled is read."""
    if not is_zipfile(path):
        raise ValueError("not an npz")
    with ZipFile(path) as members:
        if sum(member.file_size for member in members.infolist()) > MAX_BYTES:
            raise ValueError("it unpacks to more than FLAME files have")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    kinds = {"f": np.float64, "i": np.int64, "u": np.int64}
    return {
        name: torch.from_numpy(array.astype(kinds[array.dtype.kind]))
        for name, array in arrays.items()
        if array.dtype.kind in kinds
    }
