"""Checkpoints in the published layout, read by `mononphm models add RUN` and by the published program.

    RUN/configs.yaml, RUN/anchors_65.npy, RUN/checkpoints/checkpoint_epoch_N.tar

Optimiser states are ours (the decoders' tensors are stacked here), under the published names, SparseAdam's in 1-tuples
as there.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mononphm_core.errors import AssetError
from mononphm_core.io.atomic import atomic_path, write_bytes
from mononphm_core.model.head import HeadModel
from mononphm_core.model.published import head_model, published_states
from mononphm_core.training.published.codebooks import LatentCodes
from mononphm_core.training.published.items import Split
from mononphm_core.training.published.optimisers import Optimisers


def write_run(run: Path, document: Mapping[str, Any], anchors: np.ndarray, train: Split) -> None:
    """The files beside the checkpoints. JSON is YAML, so `configs.yaml` is what any reader of it expects."""
    write_bytes(run / "configs.yaml", (json.dumps(document, indent=2) + "\n").encode())
    with atomic_path(run / f"anchors_{len(anchors)}.npy") as temporary, temporary.open("wb") as file:
        np.save(file, np.asarray(anchors, np.float64))
    rows = {
        "subject_train_index.json": train.people,
        "subject_train_pids.json": [scan.subject for scan in train.scans],
        "expression_train_index.json": [scan.expression for scan in train.scans],
        "subject_train_inds.json": [train.people.index(scan.person) for scan in train.scans],
    }
    for name, values in rows.items():
        write_bytes(run / name, json.dumps(values).encode())


def checkpoint_path(run: Path, epoch: int) -> Path:
    """Of one epoch."""
    return run / "checkpoints" / f"checkpoint_epoch_{epoch}.tar"


def last_epoch(run: Path) -> int | None:
    """The newest checkpoint's epoch."""
    found = [re.fullmatch(r"checkpoint_epoch_(\d+)\.tar", path.name) for path in (run / "checkpoints").glob("*.tar")]
    epochs = [int(match[1]) for match in found if match]
    return max(epochs) if epochs else None


def save(
    run: Path, epoch: int, model: HeadModel, codes: dict[str, LatentCodes], optimisers: dict[str, Optimisers]
) -> Path:
    """One checkpoint, atomically. `codes` and `optimisers` by split: `train` and, if there is one, `val`."""
    content: dict[str, Any] = {"epoch": epoch, **published_states(model)}
    for split, suffix in (("train", ""), ("val", "_val")):
        if split in codes:
            content[f"latent_codes{suffix}"] = codes[split].state_dict()
            content |= optimisers[split].state(suffix)
    path = checkpoint_path(run, epoch)
    with atomic_path(path) as temporary:
        torch.save(content, temporary)
    return path


def load(
    path: Path, model: HeadModel, codes: dict[str, LatentCodes], optimisers: dict[str, Optimisers], device: torch.device
) -> int:
    """Fill everything from a checkpoint of ours and return its epoch. AssetError when it is of another run."""
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        states = {section: saved[section] for section in ("id_decoder", "ex_decoder")}
        read = head_model(model.config, states, model.identity.mean_anchors.cpu())
        model.load_state_dict(read.state_dict())
        for split, suffix in (("train", ""), ("val", "_val")):
            if split in codes:
                codes[split].load_state_dict(saved[f"latent_codes{suffix}"])
                optimisers[split].load(saved, suffix)
        return int(saved["epoch"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise AssetError(f"{path.name} does not continue this run (other data, or not made here): {error}") from error
