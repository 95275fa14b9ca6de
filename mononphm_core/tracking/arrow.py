"""Normal equations of a clip: shared parameters that every frame sees, and own parameters that neighbours in time see.

    [ shared   cross_0  cross_1 ... ]        own blocks are dense, links between a frame and the next two are diagonal
    [          own_0    link         ]       (random walks and accelerations act on one parameter at a time)
    [                   own_1   link ]

The frames are eliminated first (banded Cholesky), the shared block is solved by its Schur complement: linear in the
number of frames. The dense twin is in the tests.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

ROUNDS = 6
"""Of the active set; afterwards the step is clipped."""


@dataclass(frozen=True)
class Arrow:
    """H and g of 1/2 step^T H step + g^T step, step = [shared, own of frame 0, own of frame 1, ...]."""

    shared: Float[np.ndarray, "shared shared"]
    cross: Float[np.ndarray, "frames shared own"]
    own: Float[np.ndarray, "frames own own"]
    link: Float[np.ndarray, "2 frames own"]
    """H between the same parameter of a frame and of the next (0) or the one after it (1)."""
    g_shared: Float[np.ndarray, "shared"]
    g_own: Float[np.ndarray, "frames own"]

    @staticmethod
    def zeros(shared: int, frames: int, own: int) -> "Arrow":
        """Nothing known yet."""
        return Arrow(
            np.zeros((shared, shared)), np.zeros((frames, shared, own)), np.zeros((frames, own, own)),
            np.zeros((2, frames, own)), np.zeros(shared), np.zeros((frames, own)),
        )  # fmt: skip

    @property
    def gradient(self) -> Float[np.ndarray, "parameters"]:
        """g in one row."""
        return np.concatenate([self.g_shared, self.g_own.ravel()])

    def diagonal(self) -> Float[np.ndarray, "parameters"]:
        """Of H."""
        return np.concatenate([np.diag(self.shared), np.diagonal(self.own, axis1=1, axis2=2).ravel()])

    def dense(self) -> Float[np.ndarray, "parameters parameters"]:
        """H, written out: for tests and small clips."""
        frames, shared, own = self.cross.shape
        h = np.zeros((shared + frames * own,) * 2)
        h[:shared, :shared] = self.shared
        for i in range(frames):
            at = slice(shared + i * own, shared + (i + 1) * own)
            h[:shared, at], h[at, :shared], h[at, at] = self.cross[i], self.cross[i].T, self.own[i]
            for gap in (1, 2):
                if i + gap < frames:
                    a = shared + i * own + np.arange(own)
                    h[a, a + gap * own] = h[a + gap * own, a] = self.link[gap - 1, i]
        return h

    def factor(self, damping: float, free: Bool[np.ndarray, "parameters"]) -> "Factor":
        """H with its diagonal raised by a share `damping`; parameters that are not free become identity rows."""
        frames, shared, own = self.cross.shape
        n, width = frames * own, min(2, frames - 1) * own + own
        band = np.zeros((width, n))
        rows, columns = np.tril_indices(own)
        for i in range(frames):
            band[rows - columns, i * own + columns] = self.own[i][rows, columns]
        for gap in range(1, min(2, frames - 1) + 1):
            band[gap * own, : n - gap * own] = self.link[gap - 1, : frames - gap].ravel()
        band[0] *= 1 + damping
        mine = free[shared:].astype(float)
        reach = np.minimum(np.arange(width)[:, None] + np.arange(n), n - 1)
        band *= mine * mine[reach]
        band[0] += 1 - mine
        ours = free[:shared].astype(float)
        cross = self.cross.transpose(0, 2, 1).reshape(n, shared) * mine[:, None] * ours
        a = (self.shared + np.diag(damping * np.diag(self.shared))) * ours * ours[:, None] + np.diag(1 - ours)
        lower = scipy.linalg.cholesky_banded(band, lower=True, overwrite_ab=True, check_finite=False)
        solved = scipy.linalg.cho_solve_banded((lower, True), cross, check_finite=False)
        return Factor(lower, cross, solved, scipy.linalg.cho_factor(a - cross.T @ solved))

    def times(self, x: Float[np.ndarray, "parameters"]) -> Float[np.ndarray, "parameters"]:
        """H x."""
        frames, shared, own = self.cross.shape
        s, o = x[:shared], x[shared:].reshape(frames, own)
        mine = np.einsum("fso,s->fo", self.cross, s) + np.einsum("foq,fq->fo", self.own, o)
        for gap in range(1, min(2, frames - 1) + 1):
            mine[:-gap] += self.link[gap - 1, : frames - gap] * o[gap:]
            mine[gap:] += self.link[gap - 1, : frames - gap] * o[:-gap]
        return np.concatenate([self.shared @ s + np.einsum("fso,fo->s", self.cross, o), mine.ravel()])

    def bounded_step(
        self, damping: float, low: Float[np.ndarray, "parameters"], high: Float[np.ndarray, "parameters"]
    ) -> Float[np.ndarray, "parameters"]:
        """The damped step that minimises the quadratic model within `low` <= step <= `high`, by an active set.

        Parameters that a step would carry over their bound are set on it, and the others solved again around them.
        Clipping alone would spoil the step of everything that was solved together with them.
        """
        g = self.gradient
        step = np.zeros(len(g))
        fixed = ((low >= 0) & (g > 0)) | ((high <= 0) & (g < 0))  # on the bound, and the cost falls outwards
        for _ in range(ROUNDS):
            free = ~fixed
            pushed = self.times(np.where(fixed, step, 0.0))
            step = np.where(fixed, step, self.factor(damping, free).solve(np.where(free, -g - pushed, 0.0)))
            over = free & ((step < low) | (step > high))
            if not over.any():
                break
            step[over] = np.clip(step[over], low[over], high[over])
            fixed |= over
        return np.clip(step, low, high)


@dataclass(frozen=True)
class Factor:
    """A factored arrow matrix."""

    band: Float[np.ndarray, "width parameters"]
    cross: Float[np.ndarray, "frames_own shared"]
    solved: Float[np.ndarray, "frames_own shared"]
    """The frames' inverse times `cross`."""
    schur: tuple[Float[np.ndarray, "shared shared"], bool]

    def solve(self, right: Float[np.ndarray, "parameters"]) -> Float[np.ndarray, "parameters"]:
        """x with H x = right."""
        shared = self.cross.shape[1]
        mine = scipy.linalg.cho_solve_banded((self.band, True), right[shared:], check_finite=False)
        ours = scipy.linalg.cho_solve(self.schur, right[:shared] - self.cross.T @ mine)
        return np.concatenate([ours, mine - self.solved @ ours])

    def deviations(self) -> Float[np.ndarray, "parameters"]:
        """Square roots of the inverse's diagonal: standard deviations, if H is an information matrix."""
        shared = scipy.linalg.cho_solve(self.schur, np.eye(self.cross.shape[1]))
        variance = _banded_inverse_diagonal(self.band) + np.einsum("os,st,ot->o", self.solved, shared, self.solved)
        return np.sqrt(np.maximum(np.concatenate([np.diag(shared), variance]), 0.0))


def _banded_inverse_diagonal(lower: Float[np.ndarray, "width n"]) -> Float[np.ndarray, "n"]:
    """Diagonal of (L L^T)^-1 by Takahashi's recursion, from the last column to the first, inside the band alone."""
    width, n = lower.shape
    known = np.zeros((width - 1, width - 1))
    """Inverse on the rows and columns below the present one."""
    diagonal = np.zeros(n)
    for j in range(n - 1, -1, -1):
        below = lower[1:, j] / lower[0, j]
        column = -known @ below
        diagonal[j] = 1 / lower[0, j] ** 2 - below @ column
        known[1:, 1:] = known[:-1, :-1].copy()
        known[0, 0] = diagonal[j]
        known[0, 1:] = known[1:, 0] = column[:-1]
    return diagonal
