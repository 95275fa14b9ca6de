"""The arrow equations against their dense twin."""

import dataclasses

import numpy as np
import pytest
import scipy.optimize

from mononphm_core.tracking.arrow import Arrow

SHARED, OWN = 5, 4


def arrow(frames: int, seed: int = 0) -> Arrow:
    """A random positive definite matrix of the right pattern."""
    draw = np.random.default_rng(seed)

    def definite(n: int) -> np.ndarray:
        a = draw.standard_normal((n, n))
        return a @ a.T + 12 * np.eye(n)

    link = draw.standard_normal((2, frames, OWN))
    cross = draw.standard_normal((frames, SHARED, OWN)) * 0.4
    own = np.stack([definite(OWN) for _ in range(frames)])
    g_shared, g_own = draw.standard_normal(SHARED), draw.standard_normal((frames, OWN))
    return Arrow(definite(SHARED), cross, own, link, g_shared, g_own)


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_a_solved_step_is_that_of_the_dense_matrix(frames):
    """Elimination of the frames, then of the shared block, in any number of frames."""
    a = arrow(frames)
    h = a.dense() + 0.1 * np.diag(a.diagonal())
    right = np.random.default_rng(1).standard_normal(len(h))
    free = np.ones(len(h), bool)
    np.testing.assert_allclose(a.factor(0.1, free).solve(right), np.linalg.solve(h, right), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(a.times(right), a.dense() @ right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_deviations_are_the_roots_of_the_inverse_matrix_diagonal(frames):
    """Takahashi's recursion over the band, and the share of the shared block."""
    a = arrow(frames)
    h = a.dense()
    wanted = np.sqrt(np.diag(np.linalg.inv(h)))
    np.testing.assert_allclose(a.factor(0.0, np.ones(len(h), bool)).deviations(), wanted, rtol=1e-9)


def test_a_bounded_step_is_the_minimum_inside_the_bounds():
    """Against a general solver of bounded quadratic problems."""
    a = arrow(3, seed=4)
    a = dataclasses.replace(a, g_shared=8 * a.g_shared, g_own=8 * a.g_own)
    h, g = a.dense(), a.gradient
    low, high = np.full(len(g), -0.3), np.full(len(g), 0.2)
    low[:2], high[5] = 0.0, 0.0
    step = a.bounded_step(0.0, low, high)
    assert ((step >= low) & (step <= high)).all()

    def cost(x):
        return 0.5 * x @ h @ x + g @ x

    best = scipy.optimize.minimize(
        cost, np.zeros(len(g)), jac=lambda x: h @ x + g, bounds=list(zip(low, high, strict=True)), method="L-BFGS-B"
    )
    assert cost(step) < 0
    assert cost(step) == pytest.approx(best.fun, rel=0.02)  # the active set never lets a bound go again
