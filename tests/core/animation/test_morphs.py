"""Shapes of a clip against clips whose shapes are known."""

import numpy as np
import pytest

from mononphm_core.animation.morphs import carried, clip_shapes, fewest_shapes, from_zero_to_one


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


@pytest.mark.parametrize("count", [1, 2, 9])
def test_weights_are_made_to_lie_between_0_and_1_and_the_frames_stay(count):
    """Blender keeps a slider where it was at the first frame, or 0, at the lower end: what lies below would be lost."""
    weights = np.random.default_rng(4).normal(size=(12, count)).astype(np.float32)
    shapes = np.random.default_rng(5).normal(size=(count, 6, 3)).astype(np.float32)
    positive, made = from_zero_to_one(shapes, weights)
    assert len(positive) == count + 1
    assert made.min() >= 0.0 and made.max(0) == pytest.approx(1.0)
    np.testing.assert_allclose(np.tensordot(made, positive, 1), np.tensordot(weights, shapes, 1), atol=1e-5)  # float32


def test_shapes_that_only_ever_help_need_no_other():
    """No weight is negative, or all of one shape are: turned around, and nothing is added."""
    weights = np.array([[0.0, -0.25], [0.5, -1.0]], np.float32)
    shapes = np.ones((2, 3, 3), np.float32)
    positive, made = from_zero_to_one(shapes, weights)
    np.testing.assert_allclose(made, [[0.0, 0.25], [1.0, 1.0]])
    np.testing.assert_allclose(positive[:, 0, 0], [0.5, -1.0])
    assert from_zero_to_one(shapes[:0], weights[:, :0])[1].shape == (2, 0)


def test_a_clip_longer_than_its_basis_keeps_every_frame():
    """Frames that define the shapes and those that only use them, after the change of weights."""
    offsets, _ = clip(np.random.default_rng(6).normal(size=(200, 3)).tolist())
    offsets = offsets.astype(np.float32)
    found = clip_shapes(200, lambda frame, done: offsets[frame], 1e-3)
    assert found.weights.min() >= 0.0 and found.weights.max() <= 1.0
    np.testing.assert_allclose(np.tensordot(found.weights, found.shapes, 1), offsets, atol=2e-3)
    assert np.array_equal(found.basis_weights[-1], found.weights[-1])
