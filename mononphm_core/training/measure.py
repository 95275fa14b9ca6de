"""Errors of a trained prior on people, expressions and complexions that training never saw."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from mononphm_core.model.head import HeadModel
from mononphm_core.training.appearance import Painter
from mononphm_core.training.batches import BatchMaker, BatchSizes
from mononphm_core.training.export import trained_model
from mononphm_core.training.loop import evaluate
from mononphm_core.training.pool import Pool, PoolHead
from mononphm_core.training.prior import cached_codes
from mononphm_core.training.sources import OpenHeads
from mononphm_core.training.supervision import sample_surface
from mononphm_core.types import MM_PER_UNIT

SIZES = BatchSizes(heads=32, distances=4000, correspondences=2000, colours=1500)


def measure(data: Path, run: Path) -> dict[str, float]:
    """`loop.evaluate` on the held-out people (`unseen_`) and on as many of the pool (`train_`), same draw."""
    model, _, _ = trained_model(data, run)
    heads = OpenHeads(data)
    painter = Painter(data, heads)
    maker = BatchMaker(heads, painter, *cached_codes(heads, painter, model.config, run, seed=0))
    figures: dict[str, float] = {}
    for label, directory in (("unseen", run / "pool" / "held_out"), ("train", run / "pool")):
        people = Pool(directory).heads[: SIZES.heads]
        batch = maker.draw(np.random.default_rng(2026), people, SIZES)
        with torch.no_grad():
            figures |= {f"{label}_{name}": value for name, value in evaluate(model, batch).items()}
            for region, density in regions(heads).items():
                figures[f"{label}_{region}_surface_mm"] = surface_error_mm(model, maker, people, density)
    return figures


def regions(heads: OpenHeads) -> dict[str, Float[np.ndarray, "triangles"]]:
    """Area-uniform densities on the template: the skin of the face; face, head and neck above the cut."""
    sk = heads.skeleton
    triangles = np.concatenate([sk.sheet, *sk.sclera])
    corner = heads.mean_canonical()[triangles]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1).astype(np.float64)
    part = sk.part[triangles[:, 0]]
    above = corner[..., 1].min(1) > -0.46
    face, head = area * ((part == 0) & above), area * ((part <= 1) & above)
    return {"face": face / face.sum(), "head": head / head.sum()}


def surface_error_mm(
    model: HeadModel, maker: BatchMaker, people: list[PoolHead], density: Float[np.ndarray, "triangles"]
) -> float:
    """Mean |signed distance| at area-uniform points of the true canonical surface."""
    rng = np.random.default_rng(5)
    errors = []
    for head in people:
        triangle, bary = sample_surface(rng, density, 1500)
        x = np.einsum("pk,pkc->pc", bary, head.canonical[maker.triangles[triangle]]).astype(np.float32)
        z_geo = torch.from_numpy(maker.geometry.encode(head.canonical[None]))
        sdf, _ = model.identity(torch.from_numpy(x)[None], model.identity.person(z_geo), colour=False)
        errors.append(float(sdf.abs().mean()) * MM_PER_UNIT)
    return float(np.mean(errors))
