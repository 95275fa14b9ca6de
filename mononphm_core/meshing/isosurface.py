"""The zero set of a signed distance as a triangle mesh, with the field asked only where the surface can be.

Marching cubes of Lewiner et al. 2003 on the published grid (which was queried densely). The sparse path asks the field
at block centres and drops every block that a Lipschitz bound proves empty:

    |sdf(centre)| > lipschitz * half diagonal   =>   the block holds no zero

Cells may be shorter in a part of the box (`Focus`): lids and lips are thinner than the cells that a skull needs.

Blocks halve until two cells remain. Of the lattice points that are left one is asked only when no known point beside it
settles its sign by the same bound, and in the end the surface is followed: both ends of every edge that crosses it are
asked. `extract_surface_dense` is the slow readable twin.
"""

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from skimage.measure import marching_cubes

from mononphm_core.errors import ConfigError, NoSurface
from mononphm_core.types import HeadMesh, SdfField

log = logging.getLogger(__name__)

Vector = tuple[float, float, float]

MARGIN_CELLS = 0.25
"""Added to every bound, in cells of the place: absorbs float32 and a small offset of a learned distance."""
NUDGE_CELLS = 1e-4
"""Lattice values nearer to zero than this are moved to it: no triangle collapses into a lattice point."""
COARSEST_BLOCK = 16
"""Cells along a block of the first level."""
FOCUS_SAMPLES = 8193
"""Places along an axis at which the density of a focus is summed up."""

CORNERS = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)
INSIDE = np.stack(np.meshgrid(*[[0, 1, 2]] * 3, indexing="ij"), axis=-1).reshape(27, 3)
"""Lattice points of a block of two cells."""
BESIDE = INSIDE[np.argsort(np.abs(INSIDE - 1).sum(1), kind="stable")][1:] - 1
"""Steps to the points of the cells around a point, the nearest first."""


@dataclass(frozen=True)
class Focus:
    """A part of the box with shorter cells. Lattice planes stay planes, so no crack can open at its border."""

    box_min: Vector
    box_max: Vector
    finer: float
    """How many times shorter; from the border on cells grow to their full length within `ramp`."""
    ramp: float

    def density(self, axis: int, x: Float[np.ndarray, "places"]) -> Float[np.ndarray, "places"]:
        """Cells a length along one axis, over those elsewhere."""
        outside = np.maximum(self.box_min[axis] - x, x - self.box_max[axis])
        return 1.0 + (self.finer - 1.0) * np.clip(1.0 - outside / self.ramp, 0.0, 1.0)


@dataclass(frozen=True)
class Lattice:
    """The points that marching cubes works on, the same for both twins: a product of three rows of places (`ticks`)."""

    box_min: Vector
    box_max: Vector
    cells: tuple[int, int, int]
    focus: Focus | None = None

    @staticmethod
    def of(box_min: Vector, box_max: Vector, resolution: int, focus: Focus | None = None) -> "Lattice":
        """`resolution` cells along the longest side, more with a focus. Raises ConfigError for an empty box or fewer
        than 4 cells."""
        side = np.subtract(box_max, box_min)
        if not np.all(np.isfinite(side)) or side.min() <= 0.0:
            raise ConfigError(f"the meshing box from {box_min} to {box_max} is empty; every side must be positive")
        if not 4 <= resolution <= 1024:
            raise ConfigError(f"mesh resolution {resolution} is out of range; choose 4 to 1024 cells")
        length = side.copy()
        if focus is not None:
            length = np.array([_grown(box_min, box_max, focus, axis)[1][-1] for axis in range(3)])
        cells = np.maximum(np.rint(length / side.max() * resolution), 1).astype(int)
        return Lattice(box_min, box_max, (int(cells[0]), int(cells[1]), int(cells[2])), focus)

    @cached_property
    def ticks(self) -> tuple[Float[np.ndarray, "x"], Float[np.ndarray, "y"], Float[np.ndarray, "z"]]:
        """Places of the lattice planes along each axis, and of some more behind the box, for blocks that stick out."""
        rows = []
        for axis, cells in enumerate(self.cells):
            low, high = self.box_min[axis], self.box_max[axis]
            row = low + np.arange(cells + 1) * ((high - low) / cells)
            if self.focus is not None:
                x, grown = _grown(self.box_min, self.box_max, self.focus, axis)
                row = np.interp(np.linspace(0.0, grown[-1], cells + 1), grown, x)
            rows.append(np.append(row, row[-1] + (row[-1] - row[-2]) * np.arange(1, COARSEST_BLOCK)))
        return rows[0], rows[1], rows[2]

    @cached_property
    def shortest(self) -> float:
        """Length of the shortest side of a cell."""
        return min(float(np.diff(row).min()) for row in self.ticks)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Lattice points along each axis."""
        return (self.cells[0] + 1, self.cells[1] + 1, self.cells[2] + 1)

    def points(self, index: Int64[np.ndarray, "points 3"]) -> Float32[np.ndarray, "points 3"]:
        """Where lattice points (or, at odd multiples of half a block, block centres) lie."""
        return np.stack([row[index[:, axis]] for axis, row in enumerate(self.ticks)], axis=-1).astype(np.float32)

    def reach(
        self, origins: Int64[np.ndarray, "blocks 3"], block: int, lipschitz: float
    ) -> Float[np.ndarray, "blocks"]:
        """What the field's size at a block's centre must exceed to prove the block empty, margin included."""
        low, high = self.points(origins).astype(np.float64), self.points(origins + block).astype(np.float64)
        centre = self.points(origins + block // 2)
        radius = np.linalg.norm(np.maximum(high - centre, centre - low), axis=-1)
        return lipschitz * radius + MARGIN_CELLS * (high - low).max(axis=-1) / block


def _grown(
    box_min: Vector, box_max: Vector, focus: Focus, axis: int
) -> tuple[Float[np.ndarray, "places"], Float[np.ndarray, "places"]]:
    """Places along an axis, and how far they would lie from its beginning if the focus were stretched, not refined."""
    x = np.linspace(box_min[axis], box_max[axis], FOCUS_SAMPLES)
    density = focus.density(axis, x)
    steps = (density[1:] + density[:-1]) / 2 * np.diff(x)
    return x, np.concatenate([[0.0], np.cumsum(steps)])


def extract_surface_dense(
    sdf: SdfField,
    box_min: Vector,
    box_max: Vector,
    resolution: int,
    chunk: int = 65536,
    device: torch.device | None = None,
    focus: Focus | None = None,
) -> HeadMesh:
    """The zero set of `sdf` in the box, the field asked at every lattice point: the slow twin of `extract_surface`.

    Vertices are in the frame and unit of the box. Surfaces cut by the box stay open. No gradient. Raises NoSurface.
    """
    return extract_on(Lattice.of(box_min, box_max, resolution, focus), sdf, chunk, device)


def extract_on(lattice: Lattice, sdf: SdfField, chunk: int = 65536, device: torch.device | None = None) -> HeadMesh:
    """The zero set from the field at every point of a lattice. Raises NoSurface."""
    values = np.empty(lattice.shape, np.float32)
    for x in range(lattice.shape[0]):
        sides = [np.arange(n) for n in lattice.shape[1:]]
        plane = np.stack(np.meshgrid([x], *sides, indexing="ij"), axis=-1).reshape(-1, 3)
        values[x] = _ask(sdf, lattice.points(plane), chunk, device).reshape(lattice.shape[1:])
    return _march(values, lattice)


def extract_surface(
    sdf: SdfField,
    box_min: Vector,
    box_max: Vector,
    resolution: int,
    chunk: int = 65536,
    lipschitz: float = 1.5,
    device: torch.device | None = None,
    focus: Focus | None = None,
) -> HeadMesh:
    """The zero set of `sdf` in the box, the field asked only near the surface (coarse to fine).

    `resolution` is cells along the longest side; `lipschitz` bounds |grad sdf| (1 for a true distance; a learned one
    overshoots a little). Where the surface leaves the asked region after all, the region grows until it no longer does,
    so a bound that is somewhat too small costs time and not triangles, unless a whole part went unseen.

    Vertices are in the frame and unit of the box, faces counter-clockwise seen from outside. Surfaces cut by the box
    stay open. `device` is where the field wants its points. No gradient.
    Raises NoSurface when the field does not change sign, ConfigError for an empty box.
    """
    lattice = Lattice.of(box_min, box_max, resolution, focus)
    first = block = _coarsest_block(resolution)
    volume = _Volume(sdf, lattice, block, chunk, device)
    origins = volume.all_blocks(block)
    while True:
        centre_values = volume.ask(origins + block // 2)
        near = np.abs(centre_values) <= lattice.reach(origins, block, lipschitz)
        if block == first:
            volume.fill_everywhere(block, centre_values)
        else:
            volume.fill(origins[~near], block, centre_values[~near])
        origins = origins[near]
        if block == 2:
            break
        block //= 2
        origins = (origins[:, None] + block * CORNERS).reshape(-1, 3)
    volume.fill(origins, block, centre_values[near])
    volume.settle((origins[:, None] + 2 * CORNERS).reshape(-1, 3), lipschitz)
    volume.settle((origins[:, None] + INSIDE).reshape(-1, 3), lipschitz)
    volume.follow_surface()
    log.debug(
        "asked the field at %d points; the dense grid of %s has %d", volume.asked, lattice.shape, np.prod(lattice.shape)
    )
    return _march(volume.values[tuple(slice(n) for n in lattice.shape)], lattice)


def _coarsest_block(resolution: int) -> int:
    """Cells along a first-level block: a power of two, about an eighth of the box, at least two."""
    return int(np.clip(2 ** int(np.log2(max(resolution / 8, 2))), 2, COARSEST_BLOCK))


class _Volume:
    """Lattice values of one extraction: asked from the field where `known`, elsewhere only of the right sign."""

    def __init__(self, sdf: SdfField, lattice: Lattice, block: int, chunk: int, device: torch.device | None) -> None:
        self.sdf, self.lattice, self.chunk, self.device = sdf, lattice, chunk, device
        self.blocks = tuple(-(-n // block) for n in lattice.cells)
        shape = tuple(n * block + 1 for n in self.blocks)
        self.values: Float32[np.ndarray, "x y z"] = np.zeros(shape, np.float32)
        self.known: Bool[np.ndarray, "x y z"] = np.zeros(shape, bool)
        self.asked = 0

    def all_blocks(self, block: int) -> Int64[np.ndarray, "blocks 3"]:
        corners = [block * np.arange(n) for n in self.blocks]
        return np.stack(np.meshgrid(*corners, indexing="ij"), axis=-1).reshape(-1, 3)

    def ask(self, index: Int64[np.ndarray, "points 3"]) -> Float32[np.ndarray, "points"]:
        """The field at lattice points, which become known."""
        values = _ask(self.sdf, self.lattice.points(index), self.chunk, self.device)
        self.asked += len(index)
        self.values[tuple(index.T)] = values
        self.known[tuple(index.T)] = True
        return values

    def settle(self, index: Int64[np.ndarray, "points 3"], lipschitz: float) -> None:
        """Give each of these points a sign: that of a known point beside it, if the bound allows no zero between the
        two, else its own, asked from the field. The list may hold points twice, and known ones."""
        index = self._unknown(index)
        sides = [np.diff(row) for row in self.lattice.ticks]
        for step in BESIDE:
            beside = np.clip(index + step, 0, np.array(self.values.shape) - 1)
            values, known = self.values[tuple(beside.T)], self.known[tuple(beside.T)]
            cell = np.minimum(index, beside)  # at the wall a step is cut short, and reckoned longer than it is
            lengths = [side[cell[:, axis]] for axis, side in enumerate(sides)]
            squared = sum((length**2 for length, moves in zip(lengths, step, strict=True) if moves), np.zeros(()))
            reach = lipschitz * np.sqrt(squared) + MARGIN_CELLS * np.maximum.reduce(lengths)
            settled = known & (np.abs(values) > reach)
            self.values[tuple(index[settled].T)] = values[settled]
            index = index[~settled]
        self.ask(index)

    def _unknown(self, index: Int64[np.ndarray, "given 3"]) -> Int64[np.ndarray, "points 3"]:
        """The points of a list that are not known yet, each once."""
        wanted = np.zeros(self.values.size, bool)
        wanted[np.ravel_multi_index(tuple(index.T), self.values.shape)] = True
        flat = np.flatnonzero(wanted & ~self.known.ravel())
        return np.stack(np.unravel_index(flat, self.values.shape), axis=-1)

    def fill_everywhere(self, block: int, values: Float32[np.ndarray, "blocks"]) -> None:
        """Give every lattice point the value of its block's centre."""
        coarse = values.reshape(self.blocks)
        owner = [np.minimum(np.arange(n) // block, m - 1) for n, m in zip(self.values.shape, self.blocks, strict=True)]
        self.values = np.where(self.known, self.values, coarse[np.ix_(*owner)])

    def fill(self, origins: Int64[np.ndarray, "blocks 3"], block: int, values: Float32[np.ndarray, "blocks"]) -> None:
        """Give the lattice points of empty blocks, borders included, the value of the block's centre."""
        steps = np.arange(block + 1)
        offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        index = (origins[:, None] + offsets).reshape(-1, 3)
        flat = np.ravel_multi_index(tuple(index.T), self.values.shape)
        unknown = ~self.known.ravel()[flat]
        self.values.ravel()[flat[unknown]] = np.repeat(values, len(offsets))[unknown]

    def follow_surface(self) -> None:
        """Ask wherever a sign change has an end that was only filled in, until there is none."""
        while len(loose := self._loose_ends()):
            self.ask(loose)

    def _loose_ends(self) -> Int64[np.ndarray, "points 3"]:
        inside = self.values < 0
        loose = np.zeros(inside.shape, bool)
        for axis in range(3):
            low: tuple[slice, ...] = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
            high: tuple[slice, ...] = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
            change = inside[low] != inside[high]
            loose[low] |= change & ~self.known[low]
            loose[high] |= change & ~self.known[high]
        return np.argwhere(loose)


def _ask(
    sdf: SdfField, points: Float32[np.ndarray, "points 3"], chunk: int, device: torch.device | None
) -> Float32[np.ndarray, "points"]:
    """The field at `points`, at most `chunk` of them at a time."""
    values = np.empty(len(points), np.float32)
    with torch.no_grad():
        for start in range(0, len(points), chunk):
            x = torch.from_numpy(points[start : start + chunk])
            values[start : start + chunk] = sdf(x if device is None else x.to(device)).float().cpu().numpy()
    return values


def _march(values: Float32[np.ndarray, "x y z"], lattice: Lattice) -> HeadMesh:
    """Marching cubes at level 0, outward orientation, in the box's frame."""
    if not np.isfinite(values).all():
        raise NoSurface(f"the field is not finite at {np.count_nonzero(~np.isfinite(values))} lattice points")
    low, high = float(values.min()), float(values.max())
    if not low < 0.0 < high:
        raise NoSurface(
            f"the field keeps one sign from {lattice.box_min} to {lattice.box_max}: {low:.4g} to {high:.4g}"
        )
    nudge = np.float32(NUDGE_CELLS * lattice.shortest)
    values = np.where(np.abs(values) < nudge, np.copysign(nudge, values), values)
    vertices, faces, _, _ = marching_cubes(values, level=0.0, gradient_direction="descent")
    placed = [np.interp(vertices[:, axis], np.arange(len(row)), row) for axis, row in enumerate(lattice.ticks)]
    vertices = np.stack(placed, axis=-1)
    return HeadMesh(vertices.astype(np.float32), faces.astype(np.int64))
