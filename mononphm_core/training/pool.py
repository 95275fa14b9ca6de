"""A growing store of training heads with their signed distances: the slow half of the supervision, made once.

Correspondences, expressions and colours are cheap and drawn anew at every step; distances need search trees and are
kept in shards of 100 heads. A shard is written whole or not at all, and a trainer picks up shards that appear while it
runs.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mononphm_core.training.sources import OpenHeads
from mononphm_core.training.supervision import DistanceField, DistanceSamples, sample_distances, surface_density

SHARD = 100


@dataclass(frozen=True)
class PoolHead:
    """One training head."""

    canonical: Float[np.ndarray, "vertices 3"]
    distances: DistanceSamples
    seen: Bool[np.ndarray, "triangles"]
    """Template triangles on the outside: an eyeball's parts under the lids are not."""


NO_DISTANCES = DistanceSamples(np.zeros((0, 3), np.float32), np.zeros(0, np.float32))


def write_crowd(heads: OpenHeads, directory: Path, number: int, count: int, seed: int) -> Path:
    """More people, by their surface alone: no search trees, so sixty times cheaper than a shard with distances."""
    rng = np.random.default_rng([seed, number, 1])
    canonical = np.stack([heads.sample(rng).canonical for _ in range(count)])
    directory.mkdir(parents=True, exist_ok=True)
    target, temporary = directory / f"crowd_{number:04d}.npy", directory / f".crowd_{number:04d}.npy"
    with temporary.open("wb") as out:
        np.save(out, canonical)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(target)
    return target


def write_shard(heads: OpenHeads, directory: Path, number: int, points: int, seed: int, count: int = SHARD) -> Path:
    """Make shard `number`; the same number and seed give the same heads."""
    rng = np.random.default_rng([seed, number])
    density = surface_density(heads)
    canonical, x, sdf, seen = [], [], [], []
    for _ in range(count):
        head = heads.sample(rng)
        samples = sample_distances(heads, head, density, rng, points)
        keep = rng.permutation(len(samples.sdf))[: int(points * 0.9)]
        canonical.append(head.canonical)
        x.append(samples.x_canonical[keep].astype(np.float32))
        sdf.append(samples.sdf[keep].astype(np.float32))
        skin = DistanceField(heads.skeleton, head.canonical).skin
        visible = {tuple(t) for t in skin[len(heads.skeleton.sheet) :].tolist()}
        balls = np.concatenate(heads.skeleton.sclera)
        seen.append(
            np.concatenate(
                [np.ones(len(heads.skeleton.sheet), bool), np.array([tuple(t) in visible for t in balls.tolist()])]
            )
        )
    directory.mkdir(parents=True, exist_ok=True)
    length = min(len(a) for a in sdf)
    target = directory / f"shard_{number:04d}.npz"
    temporary = directory / f".shard_{number:04d}.npz"
    with temporary.open("wb") as out:
        np.savez(
            out,
            canonical=np.stack(canonical),
            x=np.stack([a[:length] for a in x]),
            sdf=np.stack([a[:length] for a in sdf]),
            seen=np.stack(seen),
        )
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(target)
    return target


class Pool:
    """All shards of a directory, in memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loaded: set[str] = set()
        self.heads: list[PoolHead] = []
        self.crowd: list[PoolHead] = []
        """People known by their surface alone."""
        self.refresh()

    def refresh(self) -> int:
        """Load shards that appeared since; the number of heads now."""
        for path in sorted(self.directory.glob("shard_*.npz")):
            if path.name in self.loaded:
                continue
            shard = np.load(path)
            arrays = {k: shard[k] for k in ("canonical", "x", "sdf", "seen")}
            for i in range(len(arrays["sdf"])):
                samples = DistanceSamples(arrays["x"][i], arrays["sdf"][i])
                self.heads.append(PoolHead(arrays["canonical"][i], samples, arrays["seen"][i]))
            self.loaded.add(path.name)
        for path in sorted(self.directory.glob("crowd_*.npy")):
            if path.name not in self.loaded:
                self.crowd += [PoolHead(canonical, NO_DISTANCES, np.zeros(0, bool)) for canonical in np.load(path)]
                self.loaded.add(path.name)
        return len(self.heads)
