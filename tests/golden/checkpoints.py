"""The golden checkpoints: published format, synthetic weights, made here from their recipe (README.md in this folder).

A weight is a draw of NumPy's frozen legacy generator seeded with its name, scaled; only the output layers of the local
distance networks were fitted to an ellipsoid and are stored. The sha256 of the whole is checked by a test.
"""

import functools
import hashlib
import math
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml

from mononphm_core.model.config import DeformationConfig, GlobalIdentityConfig, IdentityConfig, ModelConfig
from mononphm_core.model.head import HeadModel
from mononphm_core.model.published import entries, head_model, model_config

HERE = Path(__file__).parent
Size = Literal["tiny", "release"]
SIZES: tuple[Size, ...] = ("tiny", "release")
DIGESTS = {
    "release": {
        "id_decoder": "5e91dd6cb20a59c54c11b241a5adf81c8ff238ad5f622939746ea4dfe413de36",
        "ex_decoder": "991c52e287cf7ff53fabe52ec7cbe8dc4b3e0809fd1f197b48cfad5bf8b08c4e",
    },
    "tiny": {
        "id_decoder": "0519b2ca2b25c1cbca3a30dd12ee6f468cfb292b9683e6fc311173bdbcd63ca4",
        "ex_decoder": "2a526f2cf32078cb3a615b3378faeabb74f101353e106cbe625dbe26a0b4d036",
    },
}
"""Stated with the fixtures: over (name, float32 bytes), sorted by name."""


def configuration(size: Size) -> dict:
    """The `configs.yaml` of a golden checkpoint, as a document."""
    tiny = size == "tiny"
    return {
        "decoder": {
            "decoder_nloc": 65,
            "ex": {
                "hidden_dim": 50 if tiny else 400, "lat_dim_ex": 12 if tiny else 100, "lat_dim_id": 4 if tiny else 16,
                "mode": "compress", "nhyper": 2, "nlayers": 6,
            },
            "id": {
                "blend_std": 3.75,
                "gnn": {
                    "hidden_dim_app": 25 if tiny else 200, "hidden_dim_geo": 25 if tiny else 200, "nfreq_bands_app": 0,
                    "nfreq_bands_geo": 0, "nlayers_app": 4, "nlayers_geo": 4,
                },
                "lat_dim_glob": 8 if tiny else 64, "lat_dim_glob_app": 8 if tiny else 64,
                "lat_dim_loc_app": 4 if tiny else 32, "lat_dim_loc_geo": 4 if tiny else 32,
                "nloc": 65, "nneigh": 12, "nsymm_pairs": 30,
            },
        }
    }  # fmt: skip


def document_of(config: ModelConfig) -> dict:
    """The `configs.yaml` of any published configuration."""
    ex = config.deformation
    modes = {"compressed": "compress", "global": "glob_only", "none": "expr_only"}
    deformation = {
        "hidden_dim": ex.hidden, "lat_dim_ex": ex.d_expression, "lat_dim_id": ex.d_identity or 16,
        "mode": modes[ex.identity], "nhyper": ex.ambient, "nlayers": ex.layers,
    }  # fmt: skip
    c = config.identity
    if isinstance(c, GlobalIdentityConfig):
        identity = {
            "lat_dim": c.d_geo, "lat_dim_app": c.d_app, "hidden_dim": c.hidden, "nlayers": c.layers_geo,
            "nlayers_color": c.layers_app, "nfreq_bands_geo": 0, "nfreq_bands_color": 0, "nloc": c.anchors,
        }  # fmt: skip
    else:
        identity = {
            "gnn": {
                "hidden_dim_app": c.hidden_app, "hidden_dim_geo": c.hidden_geo, "nlayers_app": c.layers_app,
                "nlayers_geo": c.layers_geo,
            },
            "lat_dim_glob": c.d_global, "lat_dim_loc_app": c.d_local_app, "lat_dim_loc_geo": c.d_local_geo,
            "nloc": c.anchors, "nneigh": c.neighbours, "nsymm_pairs": c.symmetric_pairs, "blend_std": c.blend_std,
        }  # fmt: skip
    return {"decoder": {"decoder_nloc": c.anchors, "ex": deformation, "id": identity}}


def write_experiment(
    folder: Path, document: dict, decoders: dict, mean_anchors: torch.Tensor, ckpt: int = 2500, **more: object
) -> Path:
    """A published experiment folder, with what else such a checkpoint holds; `more` replaces top-level entries."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "configs.yaml").write_text(yaml.safe_dump(document))
    optimiser = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": np.float64(5e-4), "params": [0]}]}
    saved = {"epoch": ckpt, **decoders, "optimizer": optimiser, "optimizer_lat": (optimiser,), **more}
    torch.save(saved, folder / "checkpoints" / f"checkpoint_epoch_{ckpt}.tar")
    np.save(folder / f"anchors_{len(mean_anchors)}.npy", mean_anchors.double().numpy())
    return folder


def anchors() -> torch.Tensor:
    """The synthetic mean anchors, float64 as the published asset."""
    return torch.from_numpy(np.load(HERE / "anchors_65_synthetic.npy"))


def states(size: Size) -> dict[str, dict[str, torch.Tensor]]:
    """Both state dicts under their published names."""
    fitted = np.load(HERE / f"last_layers_{size}.npz")
    config = model_config(configuration(size))
    shapes = published_shapes(config)
    made: dict[str, dict[str, torch.Tensor]] = {"id_decoder": {}, "ex_decoder": {}}
    for (section, name), shape in shapes.items():
        weight = _draw(size, section, name, shape)
        if name.startswith("deepSDF") and ".layers.8." in name:
            weight = 0.0 * weight  # by its name the recipe means network 8, too, every layer of it; signs of zero stay
        if name.startswith("deepSDF") and name.split(".")[-2] == "8":
            weight = fitted[name.rsplit(".", 1)[1]][int(name.split(".")[2])]
        made[section][name] = torch.from_numpy(np.asarray(weight, np.float32).reshape(shape))
    return made


def _draw(size: str, section: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    key = f"{size}/{section.removesuffix('_decoder')}/{name}"
    uniform = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).random_sample(shape) * 2 - 1
    weight = uniform * (0.1 if name.endswith("bias") else math.sqrt(6.0 / shape[-1]))
    if name.startswith("deepSDF") and name.endswith("layers.0.weight"):
        weight[:, -5:] *= 3.0  # the point's columns
    elif name == "defDeepSDF.lin0.weight":
        weight[:, :3] *= 2.0  # the point's columns
    for beginning, factor in {"mlp_pos.4": 0.02, "defDeepSDF.lin6": 0.05, "compressor": 0.5}.items():
        if name.startswith(beginning):
            weight = weight * factor
    if name.startswith("aggr_app") and name.endswith(".layers.8.weight"):
        weight = weight * 1.5
    return weight


def published_shapes(config: ModelConfig) -> dict[tuple[str, str], tuple[int, ...]]:
    """(section, name) -> shape of every published tensor."""
    with torch.device("meta"):
        ours = HeadModel(config, torch.empty(config.identity.anchors, 3)).state_dict()
    return {
        (e.section, e.name): tuple(ours[e.ours].shape if e.row is None else ours[e.ours].shape[1:])
        for e in entries(config)
    }


@functools.cache
def golden_model(size: Size) -> HeadModel:
    """The golden checkpoint as our model, float32 and frozen. Shared: make a `copy.deepcopy` before `.double()`."""
    return head_model(model_config(configuration(size)), states(size), anchors())


def digest(state: dict[str, torch.Tensor]) -> str:
    """sha256 over (name, float32 bytes), sorted by name."""
    running = hashlib.sha256()
    for name in sorted(state):
        running.update(name.encode())
        running.update(state[name].contiguous().numpy().astype("<f4").tobytes())
    return running.hexdigest()


def random_states(config: ModelConfig, seed: int) -> dict[str, dict[str, torch.Tensor]]:
    """A random checkpoint of any size; output layers as large as the rest, so that nothing is nearly linear."""
    draw = np.random.default_rng(seed)
    made: dict[str, dict[str, torch.Tensor]] = {"id_decoder": {}, "ex_decoder": {}}
    for (section, name), shape in published_shapes(config).items():
        scale = 0.1 if name.endswith("bias") else 1.6 / math.sqrt(shape[-1])
        if name.startswith(("mlp_pos.4", f"defDeepSDF.lin{config.deformation.layers}")):
            scale *= 0.1
        made[section][name] = torch.from_numpy((draw.uniform(-1, 1, shape) * scale).astype(np.float32))
    return made


def small(identity: IdentityConfig | None = None, deformation: DeformationConfig | None = None) -> ModelConfig:
    """A published configuration of toy sizes."""
    return ModelConfig(
        identity or IdentityConfig(
            anchors=21, symmetric_pairs=8, neighbours=9, d_global=6, d_local_geo=3, d_local_app=5, hidden_geo=11,
            hidden_app=9, layers_geo=3, layers_app=2,
        ),
        deformation or DeformationConfig(d_expression=7, d_identity=4, hidden=13, layers=4),
    )  # fmt: skip
