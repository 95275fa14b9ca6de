"""The prior's albedo with the person's own laid over it: photos freed of their light, where they show the head well.

    albedo = (srgb^2.2 / irradiance(normal))^(1/2.2)

What one side shows and the other does not is mirrored; what no photo shows stays the prior's, but in the photos' tone:
their ratio, smooth, is carried over the surface into the unseen parts, so that no seam is left, not even where the
texture's plane is cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mononphm_core.animation.photo import Photo, Witness, irradiance
from mononphm_core.animation.surface import carried_on, withdrawn
from mononphm_core.animation.texture import ASKED_HEIGHT, ASKED_WIDTH, texels
from mononphm_core.animation.topology import LEFT_EYE, MOUTH, Topology
from mononphm_core.meshing.colours import to_bytes
from mononphm_core.meshing.texels import outwards
from mononphm_core.rendering.light import GAMMA

MIDDLE_U = 0.375
"""Texture coordinate about which face and neck are mirrored."""
TONE = 0.05
"""Of the texture's width: coarser differences between photo and prior are tone, and are carried on."""
TONE_LENGTH = 0.06
"""Head units (15 mm): the same on the surface."""
STRANDS = 0.15
"""Logarithm of albedo: detail stronger than this is a strand of hair or a shadow, and is not mirrored."""
UNSURE, SURE = 0.12, 0.7
"""A photo's share of a corner up to which it is not used at all; from which fully."""
HAIR_SLOPE, HAIR_FROM, HAIR_TO = 0.95, 0.145, 0.225
"""Canonical head units: y - HAIR_SLOPE z of the hairline."""
SHARPER = 4.0
"""Power of the shares with which photos are mixed: the best one leads, its neighbours only meet it smoothly."""
SCORE_PX = 240
"""Longest side of the pictures that the result is compared in."""

Image3 = Float[np.ndarray, "height width 3"]
Image1 = Float[np.ndarray, "height width"]


@dataclass(frozen=True)
class Portrait:
    """A texture and how well it reproduces the photos."""

    texture: UInt8[np.ndarray, "height width 3"]
    psnr_db: float
    """Rendered with the fitted light against the photos that were used, where they show skin."""
    seen_share: float
    """Of the head's texture: from the photos."""
    held_out_psnr_db: float | None
    """The same against a photo that was not used, in the light that explains it best for this texture."""
    difference: Float[np.ndarray, "corners"]
    """Mean absolute sRGB difference between the prior in the fitted light and the photos; -1 where none shows it."""


def portray(
    topology: Topology,
    prior: UInt8[np.ndarray, "height width 3"],
    photos: Sequence[Photo],
    held_out: Photo | None = None,
) -> Portrait:
    """Lay the photos over `prior`, whose first row is at v = 1. Same photos, same bytes.

    `held_out` gives no colour; it only measures.
    """
    height, width = prior.shape[:2]
    base = np.maximum(prior.astype(np.float32) / 255, 0.02)
    witnesses = [Witness(topology, photo) for photo in photos]
    at_corners = _at_corners(topology, base)
    lights = [witness.light(at_corners) for witness in witnesses]
    layers = [_layer(topology, w, light, (width, height)) for w, light in zip(witnesses, lights, strict=True)]
    own, bare, seen = _mixed(layers)
    texture = _joined(own, bare, seen, np.log(base), topology)
    face = _resized(_covered(topology, LEFT_EYE).astype(np.float32), (width, height)) > 0.5
    scores = [_squared_error(w, light, texture, topology) for w, light in zip(witnesses, lights, strict=True)]
    unused = None
    if held_out is not None:
        other = Witness(topology, held_out)
        unused = _psnr_db([_squared_error(other, other.light(_at_corners(topology, texture)), texture, topology)])
    return Portrait(
        texture=to_bytes(texture),
        psnr_db=_psnr_db(scores),
        seen_share=float(seen[face].mean()),
        held_out_psnr_db=unused,
        difference=_difference(witnesses, lights, at_corners),
    )


def _psnr_db(scores: Sequence[tuple[float, int]]) -> float:
    error = sum(e for e, _ in scores) / max(sum(n for _, n in scores), 1)
    return float(-10 * np.log10(max(error, 1e-6)))


def _at_corners(
    topology: Topology, image: Float[np.ndarray, "height width channels"]
) -> Float[np.ndarray, "corners channels"]:
    """A picture of the texture's plane at the corners."""
    height, width = image.shape[:2]
    at = (topology.corner_uv * [width, -height] + [-0.5, height - 0.5]).astype(np.float32)
    given = image.astype(np.float32)
    return cv2.remap(given, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]


def _difference(
    witnesses: Sequence[Witness], lights: Sequence[Float[np.ndarray, "9 3"]], albedo: Float[np.ndarray, "corners 3"]
) -> Float[np.ndarray, "corners"]:
    """How badly the model alone explains what the photos show, of the whole range of colours."""
    total, weight = np.zeros(len(albedo)), np.zeros(len(albedo))
    for witness, light in zip(witnesses, lights, strict=True):
        drawn = np.clip(albedo * irradiance(witness.normals, light) ** (1 / GAMMA), 0, 1)
        total += witness.share * np.abs(drawn - witness.sampled(witness.rgb)).mean(1)
        weight += witness.share
    return np.where(weight > UNSURE, total / np.maximum(weight, 1e-9), -1.0)


Layer = tuple[Image3, Image1, Image1]
"""Logarithm of the albedo, 1 where it is bare skin, and 0..1 how much it is to be trusted."""


def _layer(topology: Topology, witness: Witness, light: Float[np.ndarray, "9 3"], size: tuple[int, int]) -> Layer:
    """One photo in the texture's plane."""
    bare, share = witness.sampled(witness.skin), withdrawn(topology, witness.share)
    maps = np.concatenate([witness.pixels - 0.5, share[:, None], bare[:, None], irradiance(witness.normals, light)], 1)
    raster = texels(topology, ASKED_WIDTH, ASKED_HEIGHT)
    coarse = outwards(raster.interpolate(maps, topology.corner_faces).astype(np.float32), raster.covered)
    fine = _resized(coarse, size)
    srgb = cv2.remap(
        witness.rgb, fine[..., 0].copy(), fine[..., 1].copy(), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    albedo = np.maximum(srgb, 0.02) / np.maximum(fine[..., 4:], 1e-3) ** (1 / GAMMA)
    trust = np.clip((fine[..., 2] - UNSURE) / (SURE - UNSURE), 0.0, 1.0)
    return np.log(albedo), np.clip(fine[..., 3], 0.0, 1.0), trust


def _mixed(layers: Sequence[Layer]) -> Layer:
    """One layer of several."""
    best = np.maximum(np.max([trust for _, _, trust in layers], 0), 1e-6)
    weights = [(trust / best) ** SHARPER * trust for _, _, trust in layers]
    total = np.maximum(np.sum(weights, 0), 1e-9)
    own = sum((w[..., None] * albedo for (albedo, _, _), w in zip(layers, weights, strict=True)), np.zeros(()))
    bare = sum((w * skin for (_, skin, _), w in zip(layers, weights, strict=True)), np.zeros(()))
    return own / total[..., None], bare / total, np.clip(best, 0.0, 1.0)


def _joined(own: Image3, bare: Image1, seen: Image1, prior: Image3, topology: Topology) -> Image3:
    """Logarithms in, sRGB out: own colours where `seen`, bare skin mirrored, then the prior in the photos' tone.

    The tone of skin goes to skin, that of hair to the scalp.
    """
    size = prior.shape[1], prior.shape[0]
    flipped = _resized(_covered(topology, MOUTH).astype(np.float32), size)
    other, other_seen = _mirror(own), _mirror((seen * bare)[..., None])[..., 0] * flipped
    scalp = _scalp(topology, size)[..., None]
    difference = own - prior
    skin_tone, hair_tone = (_tone(topology, difference, seen**2 * share) for share in (bare, 1 - bare))
    base = prior + skin_tone + scalp * (hair_tone - skin_tone)
    detail = other - base - _blurred(other - base, other_seen)
    smooth = np.exp(-np.square(cv2.GaussianBlur(np.abs(detail).max(2), (0, 0), 2.0) / STRANDS))
    filled = base + (other_seen * (1 - seen) * smooth)[..., None] * detail
    return np.exp(filled + seen[..., None] * (own - filled))


def _mirror(image: Float[np.ndarray, "height width channels"]) -> Float[np.ndarray, "height width channels"]:
    """Turned about the middle of the face; the rest of the plane stays what it is."""
    width = image.shape[1]
    middle = round(2 * MIDDLE_U * width)
    out = image.copy()
    out[:, :middle] = image[:, middle - 1 :: -1][:, :middle]
    return out


def _tone(topology: Topology, values: Image3, weight: Image1) -> Image3:
    """The coarse part of `values`, carried over the surface into where `weight` is 0."""
    size = values.shape[1], values.shape[0]
    near = cv2.GaussianBlur(weight, (0, 0), 0.005 * size[0])
    mean = cv2.GaussianBlur(values * weight[..., None], (0, 0), 0.005 * size[0]) / np.maximum(near, 1e-4)[..., None]
    corners = _at_corners(topology, np.concatenate([mean, near[..., None]], 2)).astype(np.float64)
    tone = carried_on(topology, corners[:, :3], corners[:, 3], TONE_LENGTH)
    raster = texels(topology, ASKED_WIDTH, ASKED_HEIGHT)
    return _resized(outwards(raster.interpolate(tone, topology.corner_faces).astype(np.float32), raster.covered), size)


def _blurred(values: Image3, weight: Image1) -> Image3:
    """The coarse part of `values` among those that have weight."""
    sigma = TONE * values.shape[1]
    near = cv2.GaussianBlur(weight, (0, 0), sigma)[..., None]
    return cv2.GaussianBlur(values * weight[..., None], (0, 0), sigma) / np.maximum(near, 1e-4)


def _squared_error(
    witness: Witness, light: Float[np.ndarray, "9 3"], texture: Image3, topology: Topology
) -> tuple[float, int]:
    """Sum of squared sRGB differences and their number: the textured head in the photo's light against the photo."""
    camera, raster = witness.raster(SCORE_PX)
    size = (camera.width, camera.height)
    corners = np.concatenate([topology.corner_uv, witness.normals], 1)
    seen = raster.interpolate(corners, topology.corner_faces)
    normals = seen[..., 2:] / np.maximum(np.linalg.norm(seen[..., 2:], axis=-1, keepdims=True), 1e-6)
    x = (seen[..., 0] * texture.shape[1] - 0.5).astype(np.float32)
    y = ((1 - seen[..., 1]) * texture.shape[0] - 0.5).astype(np.float32)
    drawn = cv2.remap(texture, x, y, cv2.INTER_LINEAR) * irradiance(normals, light) ** (1 / GAMMA)
    picture = cv2.resize(witness.rgb, size, interpolation=cv2.INTER_AREA)
    skin = cv2.resize(witness.skin, size, interpolation=cv2.INTER_AREA)
    inside = raster.covered & (skin > 0.99)
    error = np.clip(drawn[inside], 0, 1) - picture[inside]
    return float((error**2).sum()), error.size


def _covered(topology: Topology, before: int) -> Bool[np.ndarray, "rows columns"]:
    """Which texels belong to a part of the head whose number is below `before`."""
    raster = texels(topology, ASKED_WIDTH, ASKED_HEIGHT)
    return raster.covered & (topology.part[topology.faces[raster.face_index, 0]] < before)


def _scalp(topology: Topology, size: tuple[int, int]) -> Image1:
    """1 where hair grows on the average head, 0 on the face, soft between: a plane from the hairline to the nape."""
    raster = texels(topology, ASKED_WIDTH, ASKED_HEIGHT)
    x = raster.interpolate(topology.mean[topology.corner_vertex], topology.corner_faces)
    height = outwards((x[..., 1:2] - HAIR_SLOPE * x[..., 2:3]).astype(np.float32), raster.covered)[..., 0]
    return np.clip((_resized(height, size) - HAIR_FROM) / (HAIR_TO - HAIR_FROM), 0.0, 1.0)


def _resized(
    image: Float[np.ndarray, "rows columns *channels"], size: tuple[int, int]
) -> Float[np.ndarray, "height width *channels"]:
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
