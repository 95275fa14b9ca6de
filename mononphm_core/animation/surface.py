"""Values of corners spread over the skin itself: cuts of the texture's plane are no borders of a head."""

import functools

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csc_array, csr_array, diags_array
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from mononphm_core.animation.topology import LEFT_EYE, MOUTH, RIGHT_EYE, Topology
from mononphm_core.geometry.sheet import laplacian

EDGE, EYE_EDGE = 0.010, 0.004
"""Head units (2.5 mm; 1 mm on the eyeballs): how far what is seen is drawn back from what is not, and then fades."""
UNKNOWN = 0.02
"""What the mean over everything counts for beside a place that is fully known."""


def withdrawn(topology: Topology, share: Float[np.ndarray, "corners"]) -> Float[np.ndarray, "corners"]:
    """`share` (0..1) made smaller by `EDGE` and soft over it, on the surface: cuts of the texture's plane do not count.

    The mouth's cavity, which no picture shows, takes nothing away from the lips.
    """
    near, corner = _near(topology), topology.corner_vertex
    missing = np.zeros(len(topology.mean))
    np.maximum.at(missing, corner, 1 - share)
    mouth = topology.part == MOUTH
    missing[mouth] = 0.0
    wider = near.multiply(missing[None, :]).max(1).toarray().ravel()
    soft = (near @ wider) / np.asarray(near.sum(1)).ravel()
    return np.where(mouth, 0.0, 1 - np.maximum(soft, missing))[corner]


def carried_on(
    topology: Topology,
    values: Float[np.ndarray, "corners channels"],
    weight: Float[np.ndarray, "corners"],
    length: float,
) -> Float[np.ndarray, "corners channels"]:
    """`values` smoothed over `length` (head units) on the surface, and harmonic where `weight` is 0.

    minimise sum mass (weight |t - value|^2 + UNKNOWN |t - mean|^2) + length^2 |grad t|^2
    """
    corner, count = topology.corner_vertex, len(topology.mean)
    stiff, mass = _laplacian(topology)
    known = np.bincount(corner, weight, count)
    total = np.stack([np.bincount(corner, weight * channel, count) for channel in values.T], 1)
    share = known / np.maximum(np.bincount(corner, minlength=count), 1)
    value = total / np.maximum(known, 1e-9)[:, None]
    mean = (mass * share) @ value / max((mass * share).sum(), 1e-9)
    system = csc_array(diags_array(mass * (share + UNKNOWN)) + length**2 * stiff)
    found = splu(system).solve((mass * share)[:, None] * value + (mass * UNKNOWN)[:, None] * mean)
    return np.asarray(found[corner])


@functools.lru_cache(maxsize=2)
def _laplacian(topology: Topology) -> tuple[csc_array, Float[np.ndarray, "vertices"]]:
    return laplacian(topology.mean, topology.faces)


@functools.lru_cache(maxsize=2)
def _near(topology: Topology) -> csr_array:
    """1 for vertices closer to each other than `EDGE` on the average head; eyeballs among themselves."""
    rows: list[Int[np.ndarray, "pairs"]] = []
    columns: list[Int[np.ndarray, "pairs"]] = []
    for among, radius in (
        (np.flatnonzero(topology.skin), EDGE),
        (np.flatnonzero(topology.part == RIGHT_EYE), EYE_EDGE),
        (np.flatnonzero(topology.part == LEFT_EYE), EYE_EDGE),
    ):
        pairs = cKDTree(topology.mean[among]).query_pairs(radius, output_type="ndarray")
        rows += [among, among[pairs[:, 0]], among[pairs[:, 1]]]
        columns += [among, among[pairs[:, 1]], among[pairs[:, 0]]]
    row, column = np.concatenate(rows), np.concatenate(columns)
    return csr_array((np.ones(len(row)), (row, column)), shape=(len(topology.mean),) * 2)
