"""One scan as one training item, and items as batches. All randomness comes from (seed, epoch, rank, position)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from mononphm_core.training.published.config import PublishedTraining
from mononphm_core.training.published.files import Files, Scan
from mononphm_core.training.published.losses import ZERO_BOX, ZERO_POINTS, Batch

NEUTRAL_SHARE = 0.1
"""Probability with which an item is replaced by its person's neutral scan."""
EVALUATION_SUBJECTS = frozenset({199, 286, 290, 291, 292, 293, 294, 295, 297, 298})
"""Kept for validation by the published split; test subjects are the user's `--exclude`."""


@dataclass(frozen=True)
class Split:
    """Scans with their rows in the codebooks: persons and scans in order of appearance."""

    scans: tuple[Scan, ...]

    @property
    def people(self) -> list[int]:
        """The person of every identity row."""
        return sorted({scan.person for scan in self.scans})

    def neutral_of(self, scan: Scan) -> Scan:
        """The neutral scan of the same person, else the scan itself."""
        return next((s for s in self.scans if s.person == scan.person and s.is_neutral), scan)


def splits(scans: list[Scan], exclude: frozenset[int] = frozenset()) -> tuple[Split, Split]:
    """(training, validation) by the published list of subjects; excluded subjects are in neither."""
    kept = [scan for scan in scans if scan.subject not in exclude]
    train = tuple(scan for scan in kept if scan.subject not in EVALUATION_SUBJECTS)
    return Split(train), Split(tuple(scan for scan in kept if scan.subject in EVALUATION_SUBJECTS))


class Items:
    """Draws batches of a split."""

    def __init__(self, files: Files, split: Split, config: PublishedTraining, anchors: int) -> None:
        self.files, self.split, self.config, self.anchors = files, split, config, anchors
        self._person = {person: row for row, person in enumerate(split.people)}
        self._scan = {scan: row for row, scan in enumerate(split.scans)}

    def epoch(self, seed: int, epoch: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """The epoch's batches for one of `ranks` devices: every scan once, in an order that all devices share.

        Every device gets the same number of batches; the shuffled list is filled up from its own start.
        """
        order = np.random.default_rng([seed, epoch]).permutation(len(self.split.scans))
        size = self.config.batch_size * ranks
        order = np.resize(order, -(-len(order) // size) * size) if len(order) > size else np.resize(order, size)
        for step, start in enumerate(range(0, len(order), size)):
            mine = order[start + rank * self.config.batch_size : start + (rank + 1) * self.config.batch_size]
            random = np.random.default_rng([seed, epoch, rank, step])
            yield self.batch([self.split.scans[i] for i in mine], random)

    def batch(self, scans: list[Scan], random: np.random.Generator) -> Batch:
        """These scans (or their neutrals) as one batch."""
        drawn = [self.split.neutral_of(s) if random.random() < NEUTRAL_SHARE else s for s in scans]
        rows = [self._item(scan, random) for scan in drawn]
        stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        return Batch(**stacked)

    def _item(self, scan: Scan, random: np.random.Generator) -> dict[str, np.ndarray]:
        c = self.config
        near = c.npoints_face * 3 // 4
        surface = np.concatenate(
            [
                self.files.points("face", scan, near, random),
                self.files.points("def_region", scan, c.npoints_face - near, random),
            ]
        )
        outer = self.files.points("non_face", scan, c.npoints_non_face, random)
        off = self.files.points("off", scan, c.npoints_off_surface, random)
        pairs = self.files.correspondences(scan, c.npoints_corresp, random)
        has_corresp = pairs is not None
        pairs = np.zeros((c.npoints_corresp, 6), np.float32) if pairs is None else pairs
        anchors = self.files.anchors(scan)
        return {
            "scan": np.array(self._scan[scan]),
            "person": np.array(self._person[scan.person]),
            "surface": surface[:, :3],
            "surface_normal": surface[:, 3:6],
            "surface_colour": decoder_colour(surface[:, 6:]),
            "outer": outer[:, :3],
            "outer_normal": outer[:, 3:6],
            "outer_colour": decoder_colour(outer[:, 6:]),
            "off": off[:, :3],
            "off_colour": decoder_colour(off[:, 6:]),
            "far": in_the_ball(c.npoints_face // 8, random),
            "corresp_neutral": pairs[:, :3],
            "corresp_posed": pairs[:, 3:],
            "has_corresp": np.array(has_corresp),
            "anchors": np.zeros((self.anchors, 3), np.float32) if anchors is None else anchors,
            "has_anchors": np.array(anchors is not None),
            "is_neutral": np.array(scan.is_neutral),
            "hair": np.array(scan.hair),
            "anywhere": random.uniform(-ZERO_BOX, ZERO_BOX, (ZERO_POINTS, 3)).astype(np.float32),
        }


def decoder_colour(rgb: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
    """0..255 to the decoder's -1..1."""
    return rgb / np.float32(127.5) - 1


def in_the_ball(count: int, random: np.random.Generator) -> Float[np.ndarray, "points 3"]:
    """Uniform in the unit ball: uniform directions, radius U(0, 1)^(1/3)."""
    direction = random.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    return (direction * np.cbrt(random.random((count, 1)))).astype(np.float32)
