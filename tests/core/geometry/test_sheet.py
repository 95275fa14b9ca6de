"""The thin plate along a triangulation."""

import numpy as np
import pytest
import trimesh

from mononphm_core.geometry.sheet import Sheet, laplacian


@pytest.fixture(scope="module")
def ball():
    mesh = trimesh.creation.icosphere(subdivisions=3)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int64)


def test_the_laplacian_of_a_sphere_is_twice_its_position(ball):
    """On the unit sphere coordinates are eigenfunctions: -laplace x = l (l + 1) x with l = 1."""
    vertices, faces = ball
    stiff, mass = laplacian(vertices, faces)
    np.testing.assert_allclose(mass.sum(), 4 * np.pi, rtol=0.01)
    found = (stiff @ vertices / mass[:, None] * vertices).sum(1)
    even = np.bincount(faces.ravel()) == 6  # lumped masses know the twelve corners of the icosahedron less well
    np.testing.assert_allclose(found[even], 2.0, atol=0.03)


def test_a_shift_passes_unchanged(ball):
    """What does not bend costs nothing, however long the smoothing length."""
    vertices, faces = ball
    shift = np.tile([0.1, -0.2, 0.3], (len(vertices), 1))
    smooth = Sheet(vertices, faces, np.ones(len(vertices)), 10.0).smooth(shift)
    np.testing.assert_allclose(smooth, shift, atol=1e-6)


def test_noise_goes_and_a_few_trusted_points_move_everything(ball):
    """Detail below the length is smoothed away; vertices without trust follow the others."""
    vertices, faces = ball
    noise = np.random.default_rng(0).normal(size=vertices.shape)
    smooth = Sheet(vertices, faces, np.ones(len(vertices)), 1.0).smooth(noise)
    assert smooth.std() < 0.2 * noise.std()
    trusted = (np.arange(len(vertices)) % 10 == 0).astype(float)
    target = trusted[:, None] * [0.0, 0.5, 0.0]
    np.testing.assert_allclose(
        Sheet(vertices, faces, trusted, 0.3).smooth(target), [[0.0, 0.5, 0.0]] * len(vertices), atol=1e-4
    )


def test_two_surfaces_that_touch_do_not_pull_each_other(ball):
    """Upper and lower lip: connection is along the surface only."""
    vertices, faces = ball
    two = np.concatenate([vertices, vertices + np.array([2.0, 0.0, 0.0])])
    both = np.concatenate([faces, faces + len(vertices)])
    target = np.zeros(two.shape)
    target[: len(vertices)] = [0.0, 1.0, 0.0]
    smooth = Sheet(two, both, np.ones(len(two)), 0.5).smooth(target)
    np.testing.assert_allclose(smooth, target, atol=1e-6)
