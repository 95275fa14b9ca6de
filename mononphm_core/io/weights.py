"""Head models on disk: one `model.safetensors` with the configuration in its header, one `card.json` beside it.

Weights may be stored in half precision; they are computed with in float32.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mononphm_core.errors import AssetError, ChecksumMismatch, WeightsNotFound
from mononphm_core.io.manifest import sha256_of_file
from mononphm_core.model.config import ModelConfig
from mononphm_core.model.head import HeadModel
from mononphm_core.model.template import TemplateHead

FORMAT = "mononphm-head-1"
EXACT = ("identity.mean_anchors", "template.mean")
"""Positions, kept in full precision: half of it would move them by up to 0.06 mm."""


def save_model(model: HeadModel, path: Path, half: bool = True) -> str:
    """Write the weights; returns the file's sha256."""
    tensors = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    if half:
        tensors = {n: v.half() if v.is_floating_point() and n not in EXACT else v for n, v in tensors.items()}
    groups = model.template.groups if model.template is not None else {}
    header = {"format": FORMAT, "config": json.dumps(model.config.to_dict()), "groups": json.dumps(groups)}
    save_file({n: v.contiguous() for n, v in tensors.items()}, path, metadata=header)
    path.chmod(0o644)
    return sha256_of_file(path)


def load_model(path: Path, sha256: str | None = None) -> HeadModel:
    """Read a model, frozen: tracking moves codes, never weights. `sha256`, if given, is checked before any parsing."""
    if not path.is_file():
        raise WeightsNotFound(f"{path.name} is missing; `mononphm models list` shows what is installed")
    if sha256 is not None and (found := sha256_of_file(path)) != sha256:
        raise ChecksumMismatch(f"{path.name} has sha256 {found[:12]}…, registered is {sha256[:12]}…")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise AssetError(f"{path.name} is no head model ({header.get('format', 'no format')} in its header)")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 safe_open is no dict
    except SafetensorError as broken:
        raise AssetError(f"{path.name} can't be read: {broken}. Restore the file, or add its model again") from broken
    tensors = {n: v.float() if v.is_floating_point() else v for n, v in tensors.items()}
    config = ModelConfig.from_dict(json.loads(header["config"]))
    groups = {name: (int(a), int(b)) for name, (a, b) in json.loads(header["groups"]).items()}
    table = {n.removeprefix("template."): v for n, v in tensors.items() if n.startswith("template.")}
    template = TemplateHead(**table, groups=groups) if table else None
    model = HeadModel(config, tensors["identity.mean_anchors"], template)
    model.load_state_dict(tensors)
    return model.requires_grad_(False).eval()


def random_model(config: ModelConfig, anchors: torch.Tensor, seed: int) -> HeadModel:
    """An untrained model with fixed weights, for tests and speed measurements."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return HeadModel(config, anchors).requires_grad_(False).eval()
