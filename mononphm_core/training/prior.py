"""From open data to a prior in the model format: codes, pool, training, tables. `mononphm train` calls this."""

import json
import logging
import pickle
from pathlib import Path

import numpy as np
import torch

from mononphm_core.model.config import ModelConfig
from mononphm_core.model.head import HeadModel
from mononphm_core.training.appearance import Painter
from mononphm_core.training.batches import Batch, BatchMaker, BatchSizes
from mononphm_core.training.codes import CodeBasis, fit_codes
from mononphm_core.training.loop import TrainingConfig, train
from mononphm_core.training.pool import SHARD, Pool, write_crowd, write_shard
from mononphm_core.training.sources import OpenHeads
from mononphm_core.training.start import begin_from, with_signs_of

log = logging.getLogger(__name__)
CODE_SAMPLES = 1600
HELD_OUT_SHARD = 9999
CROWD = 1000
"""People a file."""


def vertex_weight(heads: OpenHeads) -> np.ndarray:
    """How much a vertex counts in the codes: the face fully, mouth cavity and eyeballs less, below the cut hardly."""
    sk = heads.skeleton
    x = heads.mean_canonical()
    weight = np.where(sk.part == 0, 1.0, 0.6)
    weight[sk.part == 2] = 0.3
    weight[sk.part >= 7] = 0.5
    weight[x[:, 1] < heads.y_cut] = 0.02
    return weight.astype(np.float32)


def make_codes(heads: OpenHeads, painter: Painter, config: ModelConfig, seed: int) -> tuple[CodeBasis, CodeBasis]:
    """Geometry and appearance codes from random people and complexions."""
    rng = np.random.default_rng([seed, 1])
    shapes = np.stack([heads.sample(rng).canonical for _ in range(CODE_SAMPLES)])
    ident, sk = config.ensemble, heads.skeleton
    weight = vertex_weight(heads)
    geometry = fit_codes(
        shapes, weight, heads.mean_canonical(), heads.anchors, sk.mirror, ident.symmetric_pairs,
        ident.d_global, ident.d_local_geo, (-1.0, 1.0, 1.0),
    )  # fmt: skip
    vertices = painter.vertices()
    colours = np.stack([painter.paint(painter.sample(rng), vertices) * 2 - 1 for _ in range(CODE_SAMPLES // 2)])
    appearance = fit_codes(
        colours, weight, heads.mean_canonical(), heads.anchors, sk.mirror, ident.symmetric_pairs,
        ident.d_global, ident.d_local_app, (1.0, 1.0, 1.0),
    )  # fmt: skip
    log.info("codes: geometry leaves %.3f mm, colour %.4f", geometry.residual_rms * 250, appearance.residual_rms)
    return geometry, appearance


def fill_pool(heads: OpenHeads, directory: Path, count: int, points: int, seed: int) -> None:
    """Write the shards that are missing, the held-out one first."""
    held_out = directory / "held_out"
    if not list(held_out.glob("shard_*.npz")):
        write_shard(heads, held_out, HELD_OUT_SHARD, points, seed, count=32)
    for number in range((count + SHARD - 1) // SHARD):
        if not (directory / f"shard_{number:04d}.npz").exists():
            write_shard(heads, directory, number, points, seed)
            log.info("pool: shard %d of %d", number + 1, (count + SHARD - 1) // SHARD)


def fill_crowd(heads: OpenHeads, directory: Path, count: int, seed: int) -> None:
    """Write the files of people known by their surface alone that are missing."""
    for number in range((count + CROWD - 1) // CROWD):
        if not (directory / f"crowd_{number:04d}.npy").exists():
            write_crowd(heads, directory, number, min(CROWD, count - number * CROWD), seed)


def cached_codes(
    heads: OpenHeads,
    painter: Painter,
    config: ModelConfig,
    directory: Path,
    seed: int,
    earlier: HeadModel | None = None,
) -> tuple[CodeBasis, CodeBasis]:
    """`make_codes`, kept in the run's own directory: a resumed run must mean the same by its codes.

    A run that begins from an earlier prior takes over the signs of its components.
    """
    kept = directory / "codes.pkl"
    if kept.exists():
        loaded: tuple[CodeBasis, CodeBasis] = pickle.loads(kept.read_bytes())  # noqa: S301 our own run directory
        return loaded
    codes = make_codes(heads, painter, config, seed)
    if earlier is not None:
        codes = with_signs_of(earlier, heads, painter, *codes)
    kept.write_bytes(pickle.dumps(codes))
    return codes


def run(
    data: Path,
    directory: Path,
    model_config: ModelConfig,
    config: TrainingConfig,
    device: torch.device,
    earlier: HeadModel | None = None,
) -> HeadModel:
    """Train (or continue) in `directory`; the pool must have at least one shard. A new run may begin from `earlier`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.json").write_text(json.dumps(model_config.to_dict(), indent=1))
    heads = OpenHeads(data)
    painter = Painter(data, heads)
    geometry, appearance = cached_codes(heads, painter, model_config, directory, config.seed, earlier)
    maker = BatchMaker(heads, painter, geometry, appearance)
    torch.manual_seed(config.seed)
    anchors = torch.from_numpy(geometry.mean[heads.anchors].copy())
    model = HeadModel(model_config, anchors)
    if earlier is not None and not (directory / "checkpoint.pt").exists():
        begin_from(model, earlier)
    model = model.to(device)
    held_out = held_out_batch(maker, directory, config.seed)
    held_out = Batch(**{k: v.to(device) for k, v in held_out.__dict__.items()})
    train(model, maker, Pool(directory / "pool"), held_out, directory, config)
    return model


def held_out_batch(maker: BatchMaker, directory: Path, seed: int) -> Batch:
    """People that are in no training shard, with expressions of their own."""
    pool = Pool(directory / "pool" / "held_out")
    rng = np.random.default_rng([seed, 7])
    return maker.draw(rng, pool.heads, BatchSizes(heads=16, distances=3000, correspondences=1500, colours=1000))
