"""Shapes of a clip against clips whose shapes are known."""

import numpy as np
import pytest

from mononphm_core.animation.morphs import carried, fewest_shapes


def clip(weights: list[list[float]], vertices: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Frames made of known shapes."""
    known = np.random.default_rng(0).normal(size=(len(weights[0]), vertices, 3))
    return np.tensordot(np.array(weights), known, 1), known


def test_a_clip_of_one_motion_needs_one_shape():
    """Rank 1: the shape is the motion at its largest, and weights are the shares of it."""
    offsets, known = clip([[0.0], [0.5], [1.0], [0.25]])
    shapes, weights, error = fewest_shapes(offsets, 1e-4)
    assert len(shapes) == 1
    assert np.abs(weights).max() == pytest.approx(1.0)
    np.testing.assert_allclose(weights[0, 0] * shapes[0], offsets[0], atol=1e-5)
    np.testing.assert_allclose(np.abs(shapes[0]), np.abs(known[0]), atol=1e-5)
    assert error < 1e-6  # float64 arithmetic of a 4 x 4 eigenproblem


@pytest.mark.parametrize("bound", [1.5, 0.5, 0.05])
def test_the_bound_holds_at_every_vertex_of_every_frame_and_one_shape_less_would_break_it(bound):
    """The stated error is the true one, and no shape is wasted."""
    rng = np.random.default_rng(1)
    offsets, _ = clip(rng.normal(size=(12, 6)).tolist())
    offsets += 0.02 * rng.normal(size=offsets.shape)
    shapes, weights, error = fewest_shapes(offsets, bound)
    rest = offsets - np.tensordot(weights, shapes, 1)
    assert np.linalg.norm(rest, axis=-1).max() == pytest.approx(error, abs=1e-5)
    assert error <= bound
    flat = offsets.reshape(12, -1)
    left = np.linalg.svd(flat, full_matrices=False)[0][:, : len(shapes) - 1]
    fewer = flat - left @ (left.T @ flat)
    assert np.linalg.norm(fewer.reshape(12, -1, 3), axis=-1).max() > bound


def test_a_still_clip_has_no_shapes():
    """Nothing moves: nothing to add, no division by nothing."""
    shapes, weights, error = fewest_shapes(np.zeros((3, 5, 3)), 0.1)
    assert shapes.shape == (0, 5, 3)
    assert weights.shape == (3, 0)
    assert error == 0.0
    assert carried(np.zeros((3, 5, 3)), weights).shape == (0, 5, 3)


def test_what_is_linear_in_the_weights_is_carried_exactly():
    """Normals follow the same weights by least squares; where they are linear there is no rest."""
    weights = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)
    known = np.random.default_rng(3).normal(size=(3, 4, 3))
    np.testing.assert_allclose(carried(np.tensordot(weights, known, 1), weights), known, atol=1e-5)
