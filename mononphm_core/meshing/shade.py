"""A plain picture of a mesh for human eyes: head light, a little from above, and darkened creases."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter

from mononphm_core.meshing.raster import Raster

KEY_LIGHT = np.array([-0.35, -0.55, -0.76])
"""Direction to the light, camera frame (x right, y down, z forward): over the viewer's left shoulder."""
CLAY = (0.80, 0.78, 0.75)
GAMMA = 2.2
"""As `rendering.light` has it."""
HEAT = np.array(
    [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121],
     [110, 206, 88], [181, 222, 43], [253, 231, 37]], np.float64
)  # fmt: skip
AMBIENT, KEY, HEAD = 0.20, 0.50, 0.36
CREASE_SIZE = 0.018
"""Width of the creases that are darkened, of the square root of the covered area."""
CREASE_GAIN = 0.5
CREASE_FLOOR = 0.6
"""The darkest a crease makes a pixel."""


def shade(
    raster: Raster,
    normals_camera: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    albedo: Float[np.ndarray, "vertices 3"] | None = None,
) -> Float[np.ndarray, "height width 3"]:
    """The lit surface in [0, 1], black where there is none; clay where no albedo (sRGB in [0, 1]) is given.

    Lambert's law for two lights, normals turned to the viewer (an open neck shows its inside), times `crease_shade`.
    """
    normal = raster.interpolate(normals_camera, faces)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    normal = np.where(normal[..., 2:] > 0, -normal, normal)
    key = np.clip(normal @ (KEY_LIGHT / np.linalg.norm(KEY_LIGHT)), 0.0, 1.0)
    head = np.clip(-normal[..., 2], 0.0, 1.0)
    light = (AMBIENT + KEY * key + HEAD * head) * crease_shade(raster)
    base = np.array(CLAY) if albedo is None else raster.interpolate(albedo, faces)
    return np.where(raster.covered[..., None], np.clip(base * light[..., None], 0.0, 1.0), 0.0)


def in_light(
    raster: Raster,
    normals_camera: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    albedo: Float[np.ndarray, "vertices 3"],
    light: Float[np.ndarray, "9 3"],
) -> Float[np.ndarray, "height width 3"]:
    """The surface (sRGB albedo) under order-2 irradiance of the camera's frame; twin of `rendering.light.lit`."""
    normal = raster.interpolate(normals_camera, faces)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    x, y, z = normal[..., 0], normal[..., 1], normal[..., 2]
    basis = np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], -1)
    reflect = np.maximum(raster.interpolate(albedo, faces), 1e-3)
    return np.clip(reflect * np.maximum(basis @ light, 0.02) ** (1 / GAMMA), 0.0, 1.0)


def as_heat(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Colours of values in [0, 1]: dark blue over green to yellow (viridis, Smith and van der Walt 2015)."""
    at = np.clip(values, 0.0, 1.0) * (len(HEAT) - 1)
    return np.stack([np.interp(at, np.arange(len(HEAT)), HEAT[:, k]) for k in range(3)], -1) / 255.0


def crease_shade(raster: Raster) -> Float[np.ndarray, "height width"]:
    """1 on flat ground, less where the surface lies deeper than around it (depth unsharp masking, Luft et al. 2006).

    The depth difference is taken in units of the blur's own width on the surface, so zoom and unit do not matter.
    """
    covered = raster.covered
    if not covered.any():
        return np.ones(raster.depth.shape)
    sigma = max(CREASE_SIZE * np.sqrt(np.count_nonzero(covered)), 0.7)
    depth = np.where(covered, raster.depth, 0.0)
    around = _blur_inside(depth, covered, sigma)
    width = sigma * _pixel_size(depth, covered)
    deeper = np.clip((depth - around) / width, 0.0, None)
    return np.where(covered, np.maximum(np.exp(-CREASE_GAIN * deeper), CREASE_FLOOR), 1.0)


def _blur_inside(
    values: Float[np.ndarray, "height width"], inside: Bool[np.ndarray, "height width"], sigma: float
) -> Float[np.ndarray, "height width"]:
    """Gaussian mean over the inside pixels only."""
    weight = gaussian_filter(inside.astype(np.float64), sigma)
    return gaussian_filter(np.where(inside, values, 0.0), sigma) / np.maximum(weight, 1e-6)


def _pixel_size(depth: Float[np.ndarray, "height width"], covered: Bool[np.ndarray, "height width"]) -> float:
    """Length on the surface that one pixel's step spans, from the typical slope of the depth map, unit of the depth."""
    step = covered[:, 1:] & covered[:, :-1]
    if not step.any():
        return 1.0
    return max(float(np.median(np.abs(np.diff(depth, axis=1)[step]))), 1e-9)
