"""Errors of a trained prior on people, expressions and complexions that training never saw."""

from pathlib import Path

import numpy as np
import torch

from mononphm_core.training.appearance import Painter
from mononphm_core.training.batches import BatchMaker, BatchSizes
from mononphm_core.training.export import trained_model
from mononphm_core.training.loop import evaluate
from mononphm_core.training.pool import Pool
from mononphm_core.training.prior import cached_codes
from mononphm_core.training.sources import OpenHeads

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
    return figures
