"""One picture of the clip as a witness of the head's colours: which corners it shows, where, and in what light."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from mononphm_core.animation.topology import MOUTH, Topology
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.meshing.device_raster import draw
from mononphm_core.meshing.raster import Raster
from mononphm_core.rendering.light import GAMMA, fit_light, sh_basis
from mononphm_core.types import HeadMesh, Intrinsics

HEAD_PX = 640
"""Longest side of the head's box that colours are taken from: about as fine as the texture."""
DEPTH_PX = 240
"""Longest side of the depth map that says what hides what."""
HIDDEN = 0.02
"""Head units (5 mm) behind the nearest surface: hidden."""
GRAZING, FACING = 0.15, 0.65
"""Cosine between a corner's normal and its line of sight up to which a picture says nothing of it; from which all."""
BARE_BELOW = -0.22
"""Canonical height, head units, below which only skin counts: there clothes cover the neck."""
DAMPING = 0.005
"""Of the light's directions: less than while tracking, the whole visible surface speaks here."""
LEAST_LIGHT = 0.3
"""Of the mean irradiance: deeper shadow is not divided out, it would be noise."""
LARGEST_TINT = 1.25
"""Light from one side is at most so much more (or less) of one colour than light from all around: few pixels show the
underside of a chin, and nine coefficients a channel would paint it."""


@dataclass(frozen=True)
class Photo:
    """A picture, whose the pixels are, and the head in it."""

    rgb: UInt8[np.ndarray, "height width 3"]
    """Upright."""
    person: Float[np.ndarray, "height width"]
    """1 where this person surely shows, hair included, but not the inside of the mouth."""
    skin: Float[np.ndarray, "height width"]
    """1 where it is surely bare skin."""
    x_camera: Float[np.ndarray, "corners 3"]
    """The head of this frame, head units, OpenCV axes."""
    intrinsics: Intrinsics
    """Of the upright original; `rgb` may be a reduced copy of it."""
    frame_index: int = 0


class Witness:
    """What one photo says of each corner. Everything is of a cut of the photo around the head."""

    def __init__(self, topology: Topology, photo: Photo) -> None:
        self.topology, self.x = topology, photo.x_camera.astype(np.float64)
        original = _pixels(self.x, photo.intrinsics)
        low, high = original.min(0), original.max(0)
        margin = 0.05 * (high - low)
        size = np.array([photo.intrinsics.width, photo.intrinsics.height])
        low, high = np.clip(low - margin, 0, size - 2), np.clip(high + margin, 2, size)
        extent = np.maximum(high - low, 2)
        finest = photo.rgb.shape[1] / photo.intrinsics.width
        scale = min(HEAD_PX / extent.max(), finest)
        width, height = (max(int(v), 2) for v in np.ceil(extent * scale))
        self.camera = photo.intrinsics.cropped(float(low[0]), float(low[1]), scale, width, height)
        self.rgb, self.person, self.skin = (
            _cut(image, photo.intrinsics.width, low, scale, (width, height))
            for image in (photo.rgb.astype(np.float32) / 255, photo.person, photo.skin)
        )
        self.pixels = _pixels(self.x, self.camera)

    @cached_property
    def normals(self) -> Float[np.ndarray, "corners 3"]:
        """Unit, camera frame."""
        vertices = np.zeros((len(self.topology.mean), 3))
        vertices[self.topology.corner_vertex] = self.x
        return vertex_normals(HeadMesh(vertices, self.topology.faces))[self.topology.corner_vertex]

    def raster(self, longest: int) -> tuple[Intrinsics, Raster]:
        """The head as this photo's camera sees it, `longest` pixels on the longer side at most."""
        scale = min(longest / max(self.camera.width, self.camera.height), 1.0)
        width, height = (max(round(v * scale), 2) for v in (self.camera.width, self.camera.height))
        camera = self.camera.cropped(0.0, 0.0, scale, width, height)
        return camera, draw(self.x, self.topology.corner_faces, camera)

    @cached_property
    def share(self) -> Float[np.ndarray, "corners"]:
        """0..1: how well each corner is seen, from its slope, what lies before it, and the masks."""
        towards = -(self.normals * self.x).sum(1) / np.linalg.norm(self.x, axis=1)
        slope = np.clip((towards - GRAZING) / (FACING - GRAZING), 0.0, 1.0)
        camera, raster = self.raster(DEPTH_PX)
        depth = np.where(raster.covered, raster.depth, np.inf).astype(np.float32)
        at = (_pixels(self.x, camera) - 0.5).astype(np.float32)
        nearest = cv2.remap(depth, at[None, :, 0], at[None, :, 1], cv2.INTER_NEAREST, borderValue=(-np.inf,))[0]
        open_ = self.x[:, 2] < nearest + HIDDEN
        bare = self.topology.mean[self.topology.corner_vertex, 1] < BARE_BELOW
        part = self.topology.part[self.topology.corner_vertex]
        mine = np.where(bare, self.sampled(self.skin), self.sampled(self.person))
        return slope * open_ * mine * (part != MOUTH)

    def sampled(self, image: Float[np.ndarray, "height width *channels"]) -> Float[np.ndarray, "corners *channels"]:
        """The cut's values at the corners' pixels; 0 outside."""
        at = (self.pixels - 0.5).astype(np.float32)
        return cv2.remap(image, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR)[0]

    def light(self, albedo: Float[np.ndarray, "corners 3"]) -> Float[np.ndarray, "9 3"]:
        """Order-2 irradiance, camera frame, that explains the skin best for the prior's albedo (sRGB in [0, 1]).

        Fitted twice; what the first light explains badly (brows, beard, shine) counts little in the second.
        """
        weight = self.share * self.sampled(self.skin) + 1e-6
        seen = self.sampled(self.rgb)
        given = [torch.from_numpy(np.asarray(v, np.float64)) for v in (2 * albedo - 1, self.normals, seen)]
        reflects, normals, colours = given
        found = fit_light(reflects, normals, colours, torch.from_numpy(weight), DAMPING)
        lit = np.clip(albedo, 1e-3, 1) * np.maximum((sh_basis(normals) @ found).numpy(), 0.02) ** (1 / GAMMA)
        away = np.abs(lit - seen).max(1) / 0.06
        return fit_light(reflects, normals, colours, torch.from_numpy(weight / (1 + away**2)), DAMPING).numpy()


def irradiance(
    normals: Float[np.ndarray, "*shape 3"], light: Float[np.ndarray, "9 3"]
) -> Float[np.ndarray, "*shape 3"]:
    """Light per channel, not below `LEAST_LIGHT` of what arrives from all around, nor far from its colour."""
    arriving = sh_basis(torch.from_numpy(np.asarray(normals, np.float64))).numpy() @ light
    ambient = np.maximum(light[0], 1e-3)
    relative = np.maximum(arriving / ambient, 1e-3)
    level = relative.mean(-1, keepdims=True)
    tint = np.clip(relative / level, 1 / LARGEST_TINT, LARGEST_TINT)
    return np.maximum(level, LEAST_LIGHT) * tint * ambient


def _pixels(x: Float[np.ndarray, "points 3"], k: Intrinsics) -> Float[np.ndarray, "points 2"]:
    depth = np.maximum(x[:, 2:], 1e-6)
    return x[:, :2] / depth * [k.fx, k.fy] + [k.cx, k.cy]


def _cut(
    image: Float[np.ndarray, "height width *channels"],
    original_width: int,
    corner: Float[np.ndarray, "2"],
    scale: float,
    size: tuple[int, int],
) -> Float[np.ndarray, "rows columns *channels"]:
    """The part of a picture from `corner` (original pixels) on, at `scale` pixels per original pixel."""
    copied = image.shape[1] / original_width
    step = copied / scale
    if step > 1.5:  # the warp below samples points
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * step)
    left, top = corner * copied
    back = np.array([[step, 0.0, left + 0.5 * step - 0.5], [0.0, step, top + 0.5 * step - 0.5]])
    return cv2.warpAffine(
        image.astype(np.float32),
        back,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
