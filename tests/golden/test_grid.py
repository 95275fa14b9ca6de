"""Meshes of the published kind are the published ones: distances on the grid, vertices, their bytes of colour."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from mononphm_core.meshing.clean import signed_volume
from mononphm_core.meshing.isosurface import Lattice
from mononphm_core.meshing.published import BOX_MAX, BOX_MIN, published_colours, published_surface
from mononphm_core.model.head import Conditioned, HeadModel
from mononphm_core.quirks import PUBLISHED
from mononphm_core.types import HeadMesh
from tests.golden.checkpoints import Size, golden_model
from tests.golden.tables import fixture, needs_reference

RELEASE = pytest.param("release", marks=[needs_reference, pytest.mark.slow])
sizes = pytest.mark.parametrize("size", ["tiny", RELEASE])


class Golden:
    """One golden grid and the field that it was asked of."""

    def __init__(self, size: Size) -> None:
        self.values = fixture(f"grid_{size}")
        codes = [torch.from_numpy(self.values[key]).reshape(1, -1) for key in ("geo", "exp", "app")]
        self.head: HeadModel = golden_model(size)
        self.conditioned: Conditioned = self.head.condition(*codes)
        self.resolution = int(self.values["res"])

    def sdf(self, x: torch.Tensor) -> torch.Tensor:
        """Distance at posed points."""
        with torch.no_grad():
            return self.head.sdf(x[None], self.conditioned)[0]

    def recorded(self, x: torch.Tensor) -> torch.Tensor:
        """The recorded distance at the grid point that `x` is."""
        low, high = torch.tensor(BOX_MIN), torch.tensor(BOX_MAX)
        i, j, k = ((x - low) / (high - low) * (self.resolution - 1)).round().long().unbind(-1)
        return torch.from_numpy(self.values["logits"])[(i * self.resolution + j) * self.resolution + k]

    def colour(self, x: torch.Tensor) -> torch.Tensor:
        """Albedo in [0, 1] at posed points."""
        found = self.head.query(x[None], self.conditioned).colour
        assert found is not None
        return (found[0] + 1) / 2


@sizes
def test_every_distance_of_the_grid_is_the_published_one(size: Size):
    """x slowest, both ends of the box included, cells that are no cubes: a transposed axis would show everywhere."""
    golden = Golden(size)
    np.testing.assert_allclose(golden.values["bmin"], BOX_MIN)
    np.testing.assert_allclose(golden.values["bmax"], BOX_MAX)
    cells = golden.resolution - 1
    lattice = Lattice(BOX_MIN, BOX_MAX, (cells, cells, cells))
    index = np.stack(np.meshgrid(*[np.arange(golden.resolution)] * 3, indexing="ij"), -1).reshape(-1, 3)
    found = golden.sdf(torch.from_numpy(lattice.points(index))).numpy()
    # The recording's own points are float32 of float64 steps: half a rounding at 1, times the field's slope.
    np.testing.assert_allclose(found, golden.values["logits"], atol=1e-6)


@sizes
def test_the_vertices_are_the_published_ones_and_face_outwards(size: Size):
    """Crossings of grid edges do not depend on who marches; how an ambiguous cell is divided into triangles does.

    Marched from the recorded distances. Ours moves distances nearer to 0 than 1e-4 cells away from it, so that no
    triangle degenerates: a few vertices beside such grid points are elsewhere, by a tenth of a millimetre at most.
    """
    golden = Golden(size)
    mesh = published_surface(golden.recorded, golden.resolution)
    theirs = golden.values["vertices"]
    to_theirs, _ = cKDTree(theirs).query(mesh.vertices)
    to_ours, _ = cKDTree(mesh.vertices).query(theirs)
    for apart in (to_theirs, to_ours):
        assert (apart < 1e-6).mean() > 0.99  # float32 of positions up to 1
        assert apart.max() < 6e-4  # 0.15 mm where both ends of an edge of 12 mm lie on the surface
    assert len(mesh.vertices) == len(theirs)
    expected = signed_volume(HeadMesh(theirs.astype(np.float32), golden.values["faces"].astype(np.int32), None))
    assert signed_volume(mesh) == pytest.approx(expected, rel=2e-3)


@sizes
def test_the_bytes_of_colour_are_the_published_ones(size: Size):
    """Truncated, not rounded: a byte may differ only where the value lies within float32 noise of a whole number."""
    golden = Golden(size)
    bare = HeadMesh(golden.values["vertices"].astype(np.float32), golden.values["faces"].astype(np.int32), None)
    found = published_colours(bare, golden.colour, None, PUBLISHED).colours
    assert found is not None
    apart = np.abs(found.astype(int) - golden.values["vertex_color_u8"].astype(int))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3
