"""The detector's own idea of where a point lies, and the model's: the systematic part of their difference is taken out.

Measured on rendered heads with known geometry (`scripts/landmark_bias.py`, none of whom is in any test). The offset of
every point is a linear function of the detected shape, in a frame fixed to it: turning the head, opening the mouth and
a long nose shift what the detector means by a point in ways that repeat from person to person.

    offset = share * table @ (1, c, c_0^2, c_1^2, c_0 c_1),    c = basis @ (aligned points - mean) / spread
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float

from mononphm_core.preprocessing.landmarks import aligned

Points = Float[np.ndarray, "478 2"]


@dataclass(frozen=True)
class Bias:
    """What the script measured."""

    mean: Points
    """Of the detected shapes, aligned; height 1."""
    basis: Float[np.ndarray, "directions 956"]
    """Principal directions of the detected shapes."""
    spread: Float[np.ndarray, "directions"]
    """Their standard deviations."""
    table: Float[np.ndarray, "features 956"]
    """Offsets from the detected to the true points, in heights of the mean shape."""
    share: Float[np.ndarray, "478"]
    """How much of the offset is applied: none where it depends on how brows are painted."""

    def corrected(self, points: Points) -> Points:
        """Where the model's points are, in the same pixels; commutes with moving, turning and scaling the picture."""
        shape = aligned(points, self.mean)
        c = self.basis @ (shape - self.mean).ravel() / self.spread
        offset = features(c[None])[0] @ self.table * np.repeat(self.share, 2)
        turn = similarity(points, shape)
        z = offset.reshape(-1, 2) @ np.array([1, 1j]) / turn
        moved: Points = points + np.stack([z.real, z.imag], axis=1)
        return moved


def features(c: Float[np.ndarray, "n directions"]) -> Float[np.ndarray, "n features"]:
    """1, the coordinates, and the products of the first two (turns of the head)."""
    one = np.ones((len(c), 1))
    return np.concatenate([one, c, c[:, :1] ** 2, c[:, 1:2] ** 2, c[:, :1] * c[:, 1:2]], axis=1)


def similarity(points: Points, shape: Points) -> complex:
    """The complex factor that took `points` to `shape`."""
    z, w = points @ np.array([1, 1j]), shape @ np.array([1, 1j])
    far = int(np.abs(z - z.mean()).argmax())
    return complex((w[far] - w.mean()) / (z[far] - z.mean()))


@lru_cache(maxsize=1)
def bundled() -> Bias:
    """The table that ships with the package."""
    with (files("mononphm_core") / "assets" / "landmarks" / "face_mesh_bias.npz").open("rb") as file:
        table = np.load(file)
        return Bias(*(table[name].astype(np.float64) for name in ("mean", "basis", "spread", "table", "share")))
