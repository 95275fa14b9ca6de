"""What the identity codes of our priors mean: whitened principal components, of heads, then around each anchor.

z_global are the leading components of all vertices over random people. What remains is cut into overlapping patches,
one per anchor, with shares that sum to one at every vertex; z_local[a] are the leading components of patch a. Left and
right patches use one mirrored basis, so symmetric faces have equal codes. All components have unit variance and zero
mean: the prior of a code is the standard normal distribution, and the zero code is the mean person. The same
construction codes vertex colours.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int


@dataclass(frozen=True)
class CodeBasis:
    """Analysis (values -> code) and synthesis (code -> values) of one kind of value on the vertices."""

    mean: Float[np.ndarray, "vertices 3"]
    global_basis: Float[np.ndarray, "vertices 3 d_global"]
    """Synthesis: one standard deviation of each component."""
    local_basis: Float[np.ndarray, "vertices near 3 d_local"]
    """Synthesis, already times the share of the anchor."""
    local_anchor: Int[np.ndarray, "vertices near"]
    global_analysis: Float[np.ndarray, "d_global vertices_3"]
    patches: list[Int[np.ndarray, "_"]]
    local_analysis: list[Float[np.ndarray, "d_local _"]]
    residual_rms: float
    """What the code cannot say, over the samples it was made from (units of the values)."""

    @property
    def d(self) -> int:
        """Length of a code."""
        return int(self.global_basis.shape[-1] + len(self.patches) * self.local_basis.shape[-1])

    def jacobian(self, vertices: Int[np.ndarray, "chosen"]) -> Float[np.ndarray, "chosen 3 d"]:
        """d value / d code at some vertices; constant."""
        local = np.zeros((len(vertices), len(self.patches), 3, self.local_basis.shape[-1]), np.float32)
        rows = np.arange(len(vertices))
        for k in range(self.local_anchor.shape[1]):
            local[rows, self.local_anchor[vertices, k]] += self.local_basis[vertices, k]
        return np.concatenate([self.global_basis[vertices], local.transpose(0, 2, 1, 3).reshape(len(rows), 3, -1)], 2)

    def encode(self, values: Float[np.ndarray, "samples vertices 3"]) -> Float[np.ndarray, "samples d"]:
        """[global, local parts of all anchors] of every sample."""
        centred = (values - self.mean).reshape(len(values), -1)
        z_global = centred @ self.global_analysis.T
        rest = (centred - z_global @ self.global_basis.reshape(-1, z_global.shape[1]).T).reshape(values.shape)
        local = [
            rest[:, patch].reshape(len(values), -1) @ a.T
            for patch, a in zip(self.patches, self.local_analysis, strict=True)
        ]
        return np.concatenate([z_global, *local], 1).astype(np.float32)

    def decode(self, z: Float[np.ndarray, "samples d"]) -> Float[np.ndarray, "samples vertices 3"]:
        """The values that a code stands for."""
        d_global, d_local = self.global_basis.shape[-1], self.local_basis.shape[-1]
        z_local = z[:, d_global:].reshape(len(z), -1, d_local)
        out = self.mean + np.einsum("vcg,sg->svc", self.global_basis, z[:, :d_global])
        for k in range(self.local_anchor.shape[1]):
            out = out + np.einsum("vcl,svl->svc", self.local_basis[:, k], z_local[:, self.local_anchor[:, k]])
        return out


def fit_codes(
    values: Float[np.ndarray, "samples vertices 3"],
    weight: Float[np.ndarray, "vertices"],
    x_mean: Float[np.ndarray, "vertices 3"],
    anchors: Int[np.ndarray, "anchors"],
    mirror: Int[np.ndarray, "vertices"],
    pairs: int,
    d_global: int,
    d_local: int,
    flip: tuple[float, float, float],
    width: float = 0.07,
    near: int = 6,
) -> CodeBasis:
    """Principal components of `values`, weighted per vertex, then per patch.

    `flip` is what mirroring does to a value's components: (-1, 1, 1) for positions, (1, 1, 1) for colours. `samples`
    must contain mirrored people in equal share, else the mean is not symmetric.
    """
    mean = values.mean(0)
    mean = 0.5 * (mean + mean[mirror] * flip)
    centred = (values - mean).reshape(len(values), -1).astype(np.float32)
    w3 = np.repeat(np.sqrt(weight), 3).astype(np.float32)
    global_basis, global_analysis, z = _components(centred * w3, d_global)
    global_basis, global_analysis = global_basis / w3[:, None], global_analysis * w3
    rest = (centred - z @ global_basis.T).reshape(values.shape)

    share_anchor, share = _shares(x_mean, x_mean[anchors], width, near)
    patches: list[np.ndarray] = []
    analysis: list[np.ndarray] = []
    local_basis = np.zeros((len(mean), near, 3, d_local), np.float32)
    bases: dict[int, np.ndarray] = {}
    for a in range(len(anchors)):
        patch, k = np.nonzero(share_anchor == a)
        root = np.sqrt(share[patch, k] * weight[patch])
        if a < 2 * pairs and a % 2 == 1:  # right member: the left one's basis, mirrored
            left = patches[a - 1]
            place = {int(v): i for i, v in enumerate(left)}
            rows = np.array([place.get(int(mirror[v]), -1) for v in patch])
            seen = rows >= 0
            basis = np.zeros((len(patch), 3, d_local), np.float32)
            basis[seen] = bases[a - 1][rows[seen]] * np.array(flip, np.float32)[:, None]
            scaled = basis * root[:, None, None]
            inverse = np.linalg.pinv(scaled.reshape(-1, d_local)) * np.repeat(root, 3)
        else:
            stack = rest[:, patch]
            stack = np.concatenate([stack, rest[:, mirror[patch]] * np.array(flip, np.float32)])  # both sides teach
            r3 = np.repeat(root, 3).astype(np.float32)
            flat, inv, _ = _components(stack.reshape(len(stack), -1) * r3, d_local)
            basis = (flat / np.maximum(r3, 1e-6)[:, None]).reshape(len(patch), 3, d_local)
            inverse = inv * r3
        bases[a] = basis
        patches.append(patch)
        analysis.append(inverse.astype(np.float32))
        local_basis[patch, k] = basis * share[patch, k][:, None, None]
    found = CodeBasis(
        mean.astype(np.float32),
        global_basis.reshape(*mean.shape, d_global).astype(np.float32),
        local_basis,
        share_anchor,
        global_analysis.astype(np.float32),
        patches,
        analysis,
        0.0,
    )
    probe = values[:: max(1, len(values) // 64)]
    error = (found.decode(found.encode(probe)) - probe) * np.sqrt(weight / weight.mean())[:, None]
    return CodeBasis(**{**found.__dict__, "residual_rms": float(np.sqrt((error**2).sum(-1).mean()))})


def _components(
    rows: Float[np.ndarray, "samples d"], count: int
) -> tuple[Float[np.ndarray, "d count"], Float[np.ndarray, "count d"], Float[np.ndarray, "samples count"]]:
    """Synthesis (unit-variance codes), analysis and codes of the leading components (randomised range finder with four
    power iterations, Halko et al. 2011)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _, singular, right = torch.svd_lowrank(torch.from_numpy(rows), q=min(count + 16, *rows.shape), niter=4)
    deviation = np.maximum(singular[:count].numpy(), 1e-6) / np.sqrt(len(rows))
    axes = right[:, :count].numpy()
    synthesis, analysis = axes * deviation, (axes / deviation).T
    return synthesis, analysis, rows @ analysis.T


def _shares(
    x: Float[np.ndarray, "vertices 3"], centres: Float[np.ndarray, "anchors 3"], width: float, near: int
) -> tuple[Int[np.ndarray, "vertices near"], Float[np.ndarray, "vertices near"]]:
    """Nearest anchors of each vertex and their shares, which sum to one and vanish at the first anchor left out."""
    distance = np.linalg.norm(x[:, None] - centres[None], axis=-1)
    order = np.argsort(distance, 1)[:, : near + 1]
    d = np.take_along_axis(distance, order, 1)
    raw = np.exp(-0.5 * (d[:, :near] ** 2 - d[:, :1] ** 2) / width**2) * (1 - d[:, :near] / d[:, near:]) ** 2
    return order[:, :near], (raw / raw.sum(1, keepdims=True)).astype(np.float32)
