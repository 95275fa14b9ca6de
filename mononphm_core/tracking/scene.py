"""The observed clip as stacked tensors, and the rays that are worth casting into it."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mononphm_core.geometry.cameras import ray_directions
from mononphm_core.meshing.raster import rasterise
from mononphm_core.model.template import TemplateHead
from mononphm_core.rendering.volume import Rays
from mononphm_core.tracking.config import RaySampling
from mononphm_core.tracking.variables import Variables
from mononphm_core.types import Intrinsics, ObservedClip

SURE_PX = 3
"""Masks are believed this far from their borders, crop pixels."""


@dataclass(frozen=True)
class Scene:
    """All frames, stacked. Pixels are crop pixels; `k` follows the focal length that the landmark fit found."""

    rgb: Float[Tensor, "frames height width 3"]
    skin: Bool[Tensor, "frames height width"]
    """Surely skin."""
    background: Bool[Tensor, "frames height width"]
    """Surely not the person."""
    inner_mouth: Bool[Tensor, "frames height width"]
    landmarks_px: Float[Tensor, "frames points 2"]
    confidence: Float[Tensor, "frames points"]
    k: Float[Tensor, "frames 4"]

    @staticmethod
    def of(clip: ObservedClip, focal_scale: float, device: torch.device) -> "Scene":
        """Stack the observations."""
        obs = clip.observations
        kernel = np.ones((2 * SURE_PX + 1,) * 2, np.uint8)

        def shrunk(mask: Tensor) -> Tensor:
            return torch.from_numpy(cv2.erode(mask.numpy().astype(np.uint8), kernel) > 0)

        k = torch.tensor(
            [
                [o.intrinsics.fx * focal_scale, o.intrinsics.fy * focal_scale, o.intrinsics.cx, o.intrinsics.cy]
                for o in obs
            ]
        )
        stack = {
            "rgb": torch.stack([o.rgb for o in obs]),
            "skin": torch.stack([shrunk(o.skin & o.valid) for o in obs]),
            "background": torch.stack([shrunk(~o.foreground & o.valid) for o in obs]),
            "inner_mouth": torch.stack([o.inner_mouth for o in obs]),
            "landmarks_px": torch.stack([o.dense_landmarks_px for o in obs]),
            "confidence": torch.stack([o.dense_confidence for o in obs]),
            "k": k,
        }
        return Scene(**{name: value.to(device) for name, value in stack.items()})


@dataclass(frozen=True)
class Candidates:
    """Pixels of every frame that may be cast, with the distance at which their ray meets (or passes) the template."""

    depth: Float[Tensor, "frames height width"]
    """z of the template's surface, camera frame; beside it that of the nearest pixel on it."""
    surface: list[Tensor]
    """Flat pixel indices on visible skin of the template, per frame."""
    border: list[Tensor]
    """Flat pixel indices near the silhouette with a sure mask, per frame."""


def candidates(scene: Scene, template: TemplateHead, v: Variables, rays: RaySampling) -> Candidates:
    """Draw the template's coarse surface with the present codes and poses, and sort pixels by what they can tell."""
    with torch.no_grad():
        posed = template.posed(v.z_geo.expand(len(v.z_exp), -1), v.z_exp, "surface")
        camera = posed @ v.rotation().transpose(1, 2) + v.shift[:, None]
    faces = template.surface_faces.cpu().numpy()
    height, width = scene.rgb.shape[1:3]
    depths, surfaces, borders = [], [], []
    for i in range(len(camera)):
        fx, fy, cx, cy = (scene.k[i] / 2).tolist()
        half = Intrinsics(fx, fy, cx, cy, width // 2, height // 2)
        raster = rasterise(camera[i].double().cpu().numpy(), faces, half)
        hit = np.repeat(np.repeat(raster.covered.astype(np.uint8), 2, 0), 2, 1)
        z = np.repeat(np.repeat(np.where(raster.covered, raster.depth, 0).astype(np.float32), 2, 0), 2, 1)
        inward = cv2.distanceTransform(hit, cv2.DIST_L2, 3)
        outward, label = cv2.distanceTransformWithLabels(1 - hit, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
        table = np.zeros(label.max() + 1, np.float32)
        table[label[hit > 0]] = z[hit > 0]
        depths.append(np.where(hit > 0, z, table[label]))
        skin, background = scene.skin[i].cpu().numpy(), scene.background[i].cpu().numpy()
        near = np.where(hit > 0, inward, outward) < rays.border_px
        mouth = scene.inner_mouth[i].cpu().numpy()
        surfaces.append(np.flatnonzero((hit > 0) & (skin | mouth)))
        borders.append(np.flatnonzero(near & (skin | background)))
    device = scene.rgb.device
    return Candidates(
        torch.from_numpy(np.stack(depths)).to(device),
        [torch.from_numpy(a).to(device) for a in surfaces],
        [torch.from_numpy(a).to(device) for a in borders],
    )


@dataclass(frozen=True)
class Cast:
    """Rays of a few frames with what the picture says at their pixels."""

    rays: Rays
    rgb: Float[Tensor, "frames rays 3"]
    inside: Float[Tensor, "frames rays"]
    """1 on skin, 0 on background."""
    mask_weight: Float[Tensor, "frames rays"]
    colour_weight: Float[Tensor, "frames rays"]


def cast(
    scene: Scene,
    found: Candidates,
    v: Variables,
    frames: Tensor,
    sampling: RaySampling,
    generator: torch.Generator,
) -> Cast:
    """Random rays of these frames, each in a band around the template's surface."""
    width = scene.rgb.shape[2]
    total = sampling.surface + sampling.border
    rows = []
    for i in frames.tolist():
        parts = []
        for pool, count in ((found.surface[i], sampling.surface), (found.border[i], sampling.border)):
            pool = pool if len(pool) else torch.arange(scene.rgb[i, ..., 0].numel(), device=scene.rgb.device)
            parts.append(pool[torch.randint(len(pool), (count,), generator=generator).to(pool.device)])
        rows.append(torch.cat(parts))
    flat = torch.stack(rows)
    y, x = flat // width, flat % width
    f = frames[:, None]
    jitter = torch.rand(*flat.shape, 2, generator=generator).to(flat.device)
    pixels = torch.stack([x, y], -1) + jitter
    camera = ray_directions(pixels, scene.k[frames])
    depth = found.depth[f, y, x]
    distance = depth / camera[..., 2]
    r = v.rotation()[frames]
    rays = Rays(
        origin=-(r.transpose(1, 2) @ v.shift[frames][..., None])[..., 0],
        direction=camera @ r,
        near=distance - sampling.band,
        far=distance + sampling.band,
    )
    skin, mouth, background = scene.skin[f, y, x], scene.inner_mouth[f, y, x], scene.background[f, y, x]
    surface = torch.arange(total, device=flat.device) < sampling.surface
    return Cast(
        rays,
        _bilinear(scene.rgb[frames], pixels),
        (skin | mouth).float(),
        (skin | background | mouth).float(),
        torch.where(mouth, 0.04, 1.0) * (skin | mouth) * surface,
    )


def _bilinear(
    images: Float[Tensor, "frames height width 3"], pixels: Float[Tensor, "frames rays 2"]
) -> Float[Tensor, "frames rays 3"]:
    """Colours at sub-pixel positions; pixel centres at .5."""
    height, width = images.shape[1:3]
    grid = pixels / pixels.new_tensor([width, height]) * 2 - 1
    sampled = torch.nn.functional.grid_sample(
        images.permute(0, 3, 1, 2), grid[:, None], align_corners=False, padding_mode="border"
    )
    return sampled[:, :, 0].permute(0, 2, 1)
