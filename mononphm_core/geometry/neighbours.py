"""Nearest points among points: a KD-tree, or pytorch3d on a GPU where both are. One interface, that of the tree."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree

from mononphm_core.numerics import pytorch3d_device

AT_ONCE = 1 << 16
"""Queries of one call on the device."""


@runtime_checkable
class Neighbours(Protocol):
    """A set of points that answers: which of you are the nearest?"""

    n: int

    def query(self, x: Float[np.ndarray, "queries d"], k: int = 1) -> tuple[Any, Any]:
        """Distances and indices of the k nearest, nearest first; without the last axis for k = 1."""
        ...


def neighbours(points: Float[np.ndarray, "points d"]) -> Neighbours:
    """The fastest that is here."""
    device = pytorch3d_device()
    tree: Neighbours = cKDTree(points) if device is None else DeviceNeighbours(points, device)
    return tree


class DeviceNeighbours:
    """pytorch3d's `knn_points`. It compares in single precision; distances are taken anew in double."""

    def __init__(self, points: Float[np.ndarray, "points d"], device: torch.device) -> None:
        self.n = len(points)
        self._points = np.asarray(points, np.float64)
        self._centre = self._points.mean(0)
        self._device = device
        self._there = self._sent(self._points)

    def query(self, x: Float[np.ndarray, "queries d"], k: int = 1) -> tuple[Any, Any]:
        from pytorch3d.ops import knn_points

        parts = [
            knn_points(self._sent(x[begin : begin + AT_ONCE]), self._there, K=k).idx[0].cpu().numpy()
            for begin in range(0, len(x), AT_ONCE)
        ]
        index = np.concatenate(parts) if parts else np.zeros((0, k), np.int64)
        distance = np.linalg.norm(self._points[index] - x[:, None], axis=-1)
        order = np.argsort(distance, axis=-1, kind="stable")
        distance, index = np.take_along_axis(distance, order, -1), np.take_along_axis(index, order, -1)
        return (distance[:, 0], index[:, 0]) if k == 1 else (distance, index)

    def _sent(self, x: Float[np.ndarray, "some d"]) -> torch.Tensor:
        """About the centre, where single precision is finest."""
        return torch.from_numpy(np.asarray(x, np.float64) - self._centre).float()[None].to(self._device)
