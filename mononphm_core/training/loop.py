"""The training loop: one command, CPU or CUDA, resumable at any moment, paced by time, not by a number of steps.

Losses (weights): |clamped sdf error| near and far (1), correspondence L1 (3), colour L1 (COLOUR_WEIGHT).
What places the anchors is fixed first and then held: everything else is measured from them.
No eikonal term and no second derivatives: distances are supervised everywhere. The learning rate falls as a cosine of
the share of the time budget that is used up, so that a run of any length ends annealed; a longer budget continues the
same run.
"""

import json
import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from mononphm_core.errors import ConfigError
from mononphm_core.model.head import HeadModel
from mononphm_core.training.batches import Batch, BatchMaker, BatchSizes
from mononphm_core.training.pictures import write_sheet
from mononphm_core.training.placement import placement, vertex_area
from mononphm_core.training.pool import Pool

log = logging.getLogger(__name__)
CLAMP = 0.12
"""Head units (30 mm): distances beyond it carry no detail."""
MM = 250.0
COLOUR_WEIGHT = 0.04
"""Of the L1 error of colours (range 2) against that of distances (head units)."""


@dataclass(frozen=True)
class TrainingConfig:
    """All that a run depends on."""

    hours: float = 1.5
    """Compute time of the whole run, resumptions included."""
    lr: float = 2e-3
    lr_last: float = 2e-5
    warm_up_steps: int = 200
    clip: float = 1.0
    checkpoint_s: float = 120.0
    evaluate_every: int = 100
    pictures_every_s: float = 900.0
    """Compute time between sheets of rendered held-out heads, RUN/pictures/step_NNNNNN.png; one more ends
    a run. `math.inf`: none."""
    seed: int = 0
    parts: tuple[str, ...] = ("identity", "deformation")
    """Which halves learn; they share nothing but the codes and the anchors, so either may be continued alone."""
    sizes: BatchSizes = BatchSizes(heads=8, crowd=8, distances=900, correspondences=500, colours=400)


def losses(model: HeadModel, batch: Batch, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """Weighted terms of one batch."""
    heads = len(batch.z_app)
    person = model.identity.person(batch.z_geo[:heads], batch.z_app)
    terms = {}
    if "identity" in parts:
        everyone = model.identity.person(batch.z_geo)
        sdf, _ = model.identity(_with_ambient(model, batch.x_canonical), everyone, colour=False)
        _, colour = model.identity(_with_ambient(model, batch.x_coloured), person, colour=True)
        assert colour is not None
        terms["sdf"] = (sdf.clamp(-CLAMP, CLAMP) - batch.sdf.clamp(-CLAMP, CLAMP)).abs().mean()
        terms["colour"] = COLOUR_WEIGHT * (colour - batch.colour).abs().mean()
    if "deformation" in parts:
        offset, _ = model.deformation(
            batch.x_posed, model.deformation.condition(batch.z_geo[:heads], person.anchors.detach(), batch.z_exp)
        )
        terms["correspondence"] = 3.0 * (batch.x_posed + offset - batch.x_target).abs().mean()
    return terms


def evaluate(model: HeadModel, batch: Batch) -> dict[str, float]:
    """Errors on people and expressions that training never sees, in millimetres and dB."""
    with torch.no_grad():
        person = model.identity.person(batch.z_geo, batch.z_app)
        sdf, _ = model.identity(_with_ambient(model, batch.x_canonical), person, colour=False)
        near = batch.sdf.abs() < 3 / MM
        _, colour = model.identity(_with_ambient(model, batch.x_coloured), person, colour=True)
        assert colour is not None
        condition = model.deformation.condition(batch.z_geo, person.anchors, batch.z_exp)
        offset, _ = model.deformation(batch.x_posed, condition)
        mse = ((colour - batch.colour) / 2).square().mean()
        return {
            "near_sdf_mm": float((sdf - batch.sdf)[near].abs().mean() * MM),
            "sign_wrong": float(((sdf < 0) != (batch.sdf < 0))[batch.sdf.abs() > 0.5 / MM].float().mean()),
            "correspondence_mm": float((batch.x_posed + offset - batch.x_target).norm(dim=-1).mean() * MM),
            "anchors_mm": float((person.anchors - batch.anchors).norm(dim=-1).mean() * MM),
            "colour_psnr_db": float(-10 * torch.log10(mse)),
        }


def train(
    model: HeadModel, maker: BatchMaker, pool: Pool, held_out: Batch, directory: Path, config: TrainingConfig
) -> dict[str, float]:
    """Train until the budget is used up; continue from `directory` where it can. Returns the last evaluation."""
    device = next(model.parameters()).device
    checkpoint = directory / "checkpoint.pt"
    place_anchors(model, maker)
    for name in {"identity", "deformation"} - set(config.parts):
        model.get_submodule(name).requires_grad_(False)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=config.lr)
    state: dict[str, Any] = {"step": 0, "seconds": 0.0}
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        if saved.get("optimiser") is not None and saved.get("parts", config.parts) == config.parts:
            optimiser.load_state_dict(saved["optimiser"])  # else another half learns now: its moments start anew
        state = saved["state"]
        log.info("continuing at step %d after %.0f s", state["step"], state["seconds"])
    budget = config.hours * 3600
    sizes = _needed(config)
    last_saved, last_drawn = time.monotonic(), state["seconds"]
    figures = evaluate(model, held_out)
    while state["seconds"] < budget:
        started = time.process_time() if device.type == "cpu" else time.monotonic()
        step = state["step"]
        used = min(1.0, state["seconds"] / budget)
        rate = config.lr_last + 0.5 * (config.lr - config.lr_last) * (1 + math.cos(math.pi * used))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / config.warm_up_steps)
        rng = np.random.default_rng([config.seed, step])
        batch = _to(maker.draw(rng, pool.heads, sizes, pool.crowd), device)
        terms = losses(model, batch, config.parts)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_((p for p in model.parameters() if p.requires_grad), config.clip)
        optimiser.step()
        state["step"] += 1
        now = time.process_time() if device.type == "cpu" else time.monotonic()
        state["seconds"] += now - started
        if state["step"] % config.evaluate_every == 0:
            pool.refresh()
            figures = evaluate(model, held_out)
            row = {**state, "heads": len(pool.heads), "crowd": len(pool.crowd), "lr": rate, **figures}
            row.update({f"loss_{k}": float(v.detach()) for k, v in terms.items()})
            with (directory / "log.jsonl").open("a") as out:
                out.write(json.dumps(row) + "\n")
            log.info("%s", " ".join(f"{k}={v:.4g}" for k, v in row.items()))
        if time.monotonic() - last_saved > config.checkpoint_s or state["seconds"] >= budget:
            temporary = checkpoint.with_suffix(".tmp")
            kept = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "state": state}
            torch.save(kept | {"parts": config.parts}, temporary)
            temporary.replace(checkpoint)
            last_saved = time.monotonic()
            finished = state["seconds"] >= budget and math.isfinite(config.pictures_every_s)
            if finished or state["seconds"] - last_drawn >= config.pictures_every_s:
                write_sheet(model, held_out, directory / "pictures" / f"step_{state['step']:06d}.png")
                last_drawn = state["seconds"]
    return figures


def place_anchors(model: HeadModel, maker: BatchMaker) -> None:
    """Give the model the places and frames of anchors that its codes imply, and hold them."""
    heads = maker.heads
    basis = placement(maker.geometry, heads.anchors, vertex_area(heads))
    head = model.identity.anchor_head
    if not isinstance(head, nn.Linear):
        raise ConfigError("only models with linear placement can be trained: see IdentityConfig.placement")
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(basis.reshape(-1, basis.shape[-1])))
    head.requires_grad_(False)


def _needed(config: TrainingConfig) -> BatchSizes:
    """What the halves that learn ask of a batch."""
    sizes = config.sizes
    if "deformation" not in config.parts:
        sizes = replace(sizes, correspondences=0)
    if "identity" not in config.parts:
        sizes = replace(sizes, crowd=0, distances=0, colours=0)
    return sizes


def _with_ambient(model: HeadModel, x: Tensor) -> Tensor:
    ambient = model.config.deformation.ambient
    return torch.nn.functional.pad(x, (0, ambient)) if ambient else x


def _to(batch: Batch, device: torch.device) -> Batch:
    return Batch(**{k: v.to(device) for k, v in batch.__dict__.items()})
