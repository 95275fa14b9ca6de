"""Meshes and bytes of colour as the published program makes them."""

import numpy as np
import pytest
import torch

from mononphm_core.errors import NoSurface
from mononphm_core.meshing.clean import face_areas, signed_volume
from mononphm_core.meshing.published import BOX_MAX, BOX_MIN, corrected, published_colours, published_surface, truncated
from mononphm_core.quirks import PUBLISHED, REPAIRED


def ball(x: torch.Tensor) -> torch.Tensor:
    return x.norm(dim=-1) - 0.4


def test_a_ball_comes_out_whole_on_a_grid_whose_cells_are_no_cubes():
    """Volume and area of a sphere, outward faces; the resolution counts points along every side."""
    mesh = published_surface(ball, 49, chunk=5000)
    assert signed_volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.01)
    assert face_areas(mesh).sum() == pytest.approx(4 * np.pi * 0.4**2, rel=0.01)
    steps = (mesh.vertices - np.array(BOX_MIN)) / ((np.array(BOX_MAX) - BOX_MIN) / 48)
    assert (np.abs(steps - np.rint(steps)).min(1) < 1e-3).mean() > 0.99  # every vertex lies on a grid line


def test_what_the_box_cuts_stays_open():
    """A plane through the box: no caps, no cleaning."""
    mesh = published_surface(lambda x: x[:, 1], 9)
    assert face_areas(mesh).sum() == pytest.approx(1.1 * 1.35, rel=1e-4)
    with pytest.raises(NoSurface):
        published_surface(lambda x: x[:, 1] + 9, 9)


def test_colours_are_truncated_corrected_and_wrap_only_where_the_peculiarity_is_on():
    """0.5 is 127, not 128; a bright correction takes 250 past 255, to the dark end or to its own (13)."""
    mesh = published_surface(ball, 9)
    grey = published_colours(mesh, lambda x: torch.full_like(x, 0.5), None, PUBLISHED)
    assert (grey.colours == 127).all()
    correction = torch.cat([torch.eye(3), torch.full((1, 3), 0.1)])  # 0.1 in [-1, 1] is 12.75 bytes
    seen = np.array([[100, 250, 0]], np.uint8)
    np.testing.assert_array_equal(corrected(seen, correction, PUBLISHED), [[112, 6, 12]])
    np.testing.assert_array_equal(corrected(seen, correction, REPAIRED), [[112, 255, 12]])
    np.testing.assert_array_equal(corrected(seen, None, PUBLISHED), seen)


def test_bytes_hold_whatever_the_field_says():
    """Negative and huge values, infinities of neither sign: never an exception, never a number of chance."""
    odd = np.array([-1.0, 256.0, np.nan, 254.999])
    np.testing.assert_array_equal(truncated(odd, wrap=False), [0, 255, 0, 254])
    np.testing.assert_array_equal(truncated(odd, wrap=True), [255, 0, 0, 254])
