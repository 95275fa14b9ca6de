"""Golden values of the published program: where they lie, and the synthetic models that they were made with.

The folder is no part of the repository: it lies beside the checkout, or where MONONPHM_GOLDEN says. Its README says how
every value was made (the published modules, commit e9a30f5f, synthetic weights) and how exactly a test may compare.
"""

import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mononphm_core.model.config import DeformationConfig, IdentityConfig, ModelConfig
from mononphm_core.model.head import HeadModel

FOLDER = Path(os.environ.get("MONONPHM_GOLDEN", Path(__file__).parents[3] / "shared" / "reference" / "golden"))

needed = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"golden values are not at {FOLDER} (set MONONPHM_GOLDEN)")


def values(name: str) -> dict[str, torch.Tensor]:
    """One file of golden values as tensors; `float64` where the published program had that."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@functools.cache
def model(size: str) -> HeadModel:
    """The synthetic model of size `tiny` or `release`, rebuilt from its recipe."""
    spec = importlib.util.spec_from_file_location("make_golden_checkpoint", FOLDER / "make_golden_checkpoint.py")
    assert spec is not None and spec.loader is not None
    recipe: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    config, identity, expression = recipe.build(size)
    head = HeadModel(_config(config["decoder"]), torch.from_numpy(recipe.synth_anchors()).float())
    own = {"identity.mean_anchors": head.identity.mean_anchors}
    for ours, theirs in (("geometry", "deepSDFensemble"), ("colour", "aggr_app")):
        for layer in range(5):
            for kind, plural in (("weight", "weights"), ("bias", "biases")):
                rows = [torch.from_numpy(identity[f"{theirs}.layers.{t}.layers.{2 * layer}.{kind}"]) for t in range(36)]
                own[f"identity.{ours}.{plural}.{layer}"] = torch.stack(rows)
    for kind in ("weight", "bias"):
        for i in (0, 1):
            own[f"identity.feature.{i}.{kind}"] = torch.from_numpy(identity[f"communcation_bottleneck{i + 1}.{kind}"])
        for i in (0, 2, 4):
            own[f"identity.anchor_head.{i}.{kind}"] = torch.from_numpy(identity[f"mlp_pos.{i}.{kind}"])
        own[f"deformation.compressor.{kind}"] = torch.from_numpy(expression[f"compressor.0.{kind}"])
        for i in range(7):
            own[f"deformation.layers.{i}.{kind}"] = torch.from_numpy(expression[f"defDeepSDF.lin{i}.{kind}"])
    head.load_state_dict(own)
    return head.requires_grad_(False).eval()


def _config(decoder: dict[str, Any]) -> ModelConfig:
    i, e = decoder["id"], decoder["ex"]
    return ModelConfig(
        IdentityConfig(
            d_global=i["lat_dim_glob"], d_local_geo=i["lat_dim_loc_geo"], d_local_app=i["lat_dim_loc_app"],
            hidden_geo=i["gnn"]["hidden_dim_geo"], hidden_app=i["gnn"]["hidden_dim_app"],
        ),
        DeformationConfig(d_expression=e["lat_dim_ex"], d_identity=e["lat_dim_id"], hidden=e["hidden_dim"]),
    )  # fmt: skip
