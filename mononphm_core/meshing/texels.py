"""The texture plane as a picture: which triangle covers which texel, and how values go on where none does."""

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.ndimage import distance_transform_edt

from mononphm_core.meshing.raster import Raster, rasterise
from mononphm_core.types import Intrinsics


def texture_raster(
    uv: Float[np.ndarray, "corners 2"], faces: Int[np.ndarray, "faces 3"], width: int, height: int
) -> Raster:
    """What lies under each texel's centre: the plane seen from 1 away. v points up, so the first row is at v = 1."""
    u, v = uv.T.astype(np.float64)
    plane = np.stack([u * width, (1.0 - v) * height, np.ones_like(u)], 1)
    return rasterise(plane, faces, Intrinsics(1.0, 1.0, 0.0, 0.0, width, height))


def outwards(
    values: Shaped[np.ndarray, "height width *channels"],
    have: Bool[np.ndarray, "height width"],
    within: Bool[np.ndarray, "height width"] | None = None,
) -> Shaped[np.ndarray, "height width *channels"]:
    """Where there is no value, that of the nearest texel that has one; only `within`, if that is given."""
    if not have.any():
        return values
    _, (row, column) = distance_transform_edt(~have, return_indices=True)
    filled = values[row, column]
    return filled if within is None else np.where(within[..., None], filled, values)
