"""From a training run to a registered model: weights, template and card in one folder."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mononphm_core.errors import AssetError
from mononphm_core.io.weights import save_model
from mononphm_core.model.config import ModelConfig
from mononphm_core.model.head import HeadModel
from mononphm_core.training.appearance import Painter
from mononphm_core.training.batches import BatchMaker
from mononphm_core.training.pool import Pool
from mononphm_core.training.prior import cached_codes
from mononphm_core.training.sources import OpenHeads
from mononphm_core.training.tables import make_template

LICENCE = (
    "MIT (derived from ICT-FaceKit, Copyright (c) 2020 USC Institute for Creative Technologies, MIT, "
    "and from MakeHuman assets, CC0 1.0)"
)
SURFACE_VERTICES = 2400


def trained_model(data: Path, run: Path) -> tuple[HeadModel, OpenHeads, dict[str, Any]]:
    """The run's last checkpoint with its template."""
    checkpoint = run / "checkpoint.pt"
    if not checkpoint.is_file():
        raise AssetError(f"{run} holds no checkpoint.pt; train first")
    config = ModelConfig.from_dict(json.loads((run / "model.json").read_text()))
    heads = OpenHeads(data)
    painter = Painter(data, heads)
    geometry, appearance = cached_codes(heads, painter, config, run, seed=0)
    people = geometry.encode(np.stack([head.canonical for head in Pool(run / "pool").heads]))
    complexions = BatchMaker(heads, painter, geometry, appearance).z_app
    template = make_template(heads, geometry, data, SURFACE_VERTICES, people, appearance, complexions)
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = HeadModel(config, torch.from_numpy(geometry.mean[heads.anchors].copy()))
    model.load_state_dict(saved["model"])
    model.template = template
    return model.requires_grad_(False).eval(), heads, saved["state"]


def export(data: Path, run: Path, target: Path, name: str, version: str, figures: dict[str, float]) -> Path:
    """Write `model.safetensors` and `card.json` into `target`; figures are the measured errors that the card states."""
    model, heads, state = trained_model(data, run)
    target.mkdir(parents=True, exist_ok=True)
    sha256 = save_model(model, target / "model.safetensors")
    ident, deform = model.config.ensemble, model.config.deformation
    card = {
        "name": name,
        "version": version,
        "file": "model.safetensors",
        "sha256": sha256,
        "licence": "; ".join([LICENCE, *heads.licences]),
        "latent_sizes": {"z_geo": ident.d_geo, "z_app": ident.d_app, "z_exp": deform.d_expression},
        "exports": ["blendshapes"],
        "expression_names": heads.expression_names,
        "trained": {
            "date": datetime.now(UTC).date().isoformat(),
            "steps": int(state["step"]),
            "compute_seconds": round(float(state["seconds"])),
            "figures": {k: round(v, 4) for k, v in figures.items() if math.isfinite(v)},
        },
    }
    (target / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return target / "model.safetensors"
