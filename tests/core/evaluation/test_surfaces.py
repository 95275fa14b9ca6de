"""Nearest points."""

import numpy as np
import pytest
import trimesh

from mononphm_core.errors import InputError
from mononphm_core.evaluation.surfaces import Surface, closest_in_triangles
from mononphm_core.types import HeadMesh


def cube(side: float = 2.0) -> Surface:
    box = trimesh.creation.box((side,) * 3)
    return Surface(HeadMesh(np.asarray(box.vertices), np.asarray(box.faces, np.int64)))


def test_the_nearest_point_of_a_cube_is_the_query_clamped_to_it():
    """Closed form for all regions at once: faces, edges and corners, near and far."""
    queries = np.random.default_rng(0).normal(size=(2000, 3)) * 3
    queries = queries[(np.abs(queries) > 1).any(-1)]
    near = cube().nearest(queries)
    np.testing.assert_allclose(near.points, queries.clip(-1, 1), atol=1e-9)
    np.testing.assert_allclose(near.distances, np.linalg.norm(queries - queries.clip(-1, 1), axis=-1), atol=1e-9)


def test_the_tree_finds_what_every_triangle_asked_in_turn_would_answer():
    """The slow twin: all triangles of an uneven mesh, no tree."""
    ball = trimesh.creation.icosphere(subdivisions=3)
    vertices = np.asarray(ball.vertices) * [1.0, 2.0, 0.3]
    surface = Surface(HeadMesh(vertices, np.asarray(ball.faces, np.int64)))
    queries = np.random.default_rng(1).normal(size=(200, 3))
    corners = surface.vertices[surface.faces]
    every = np.broadcast_to(corners, (len(queries), *corners.shape))
    all_points = np.einsum("qfk,fkc->qfc", closest_in_triangles(queries[:, None], every), corners)
    slow = np.linalg.norm(all_points - queries[:, None], axis=-1).min(-1)
    np.testing.assert_allclose(surface.nearest(queries).distances, slow, atol=2e-3)  # FAR allows reach / 8
    assert np.median(np.abs(surface.nearest(queries).distances - slow)) < 1e-12


def test_a_border_is_where_the_surface_ends_and_a_seam_of_the_file_is_none():
    """Points past an open edge must be known, or a mesh that ends early is judged as if it were wrong there."""
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    square = Surface(HeadMesh(corners, np.array([[0, 1, 2], [3, 4, 5]])))
    near = square.nearest(np.array([[0.5, 0.5, 1.0], [0.25, 0.25, 1.0], [2.0, 0.5, 0.0]]))
    assert near.on_border.tolist() == [False, False, True]


def test_samples_lie_on_the_surface_and_are_spread_by_area():
    """A third of a 1 x 1 x 4 column's side area is not in its caps."""
    box = trimesh.creation.box((1.0, 1.0, 4.0))
    surface = Surface(HeadMesh(np.asarray(box.vertices), np.asarray(box.faces, np.int64)))
    points = surface.sample(4000)
    assert surface.nearest(points).distances.max() < 1e-9
    assert (np.abs(points[:, 2]) > 2 - 1e-9).mean() == pytest.approx(2 / 18, abs=0.02)  # binomial noise of 4000


def test_a_mesh_without_area_is_refused():
    """Nothing can be measured against it."""
    with pytest.raises(InputError, match="area"):
        Surface(HeadMesh(np.zeros((3, 3)), np.array([[0, 1, 2]])))
