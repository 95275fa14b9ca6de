"""Vertex colours from a colour field."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8

from mononphm_core.types import ColourField, HeadMesh


def colour_vertices(
    mesh: HeadMesh, colour: ColourField, chunk: int = 65536, device: torch.device | None = None
) -> HeadMesh:
    """The mesh with the field's sRGB albedo at its vertices, which must be in the field's frame. No gradient."""
    points = torch.from_numpy(np.ascontiguousarray(mesh.vertices, np.float32))
    colours = np.empty((len(points), 3), np.uint8)
    with torch.no_grad():
        for start in range(0, len(points), chunk):
            x = points[start : start + chunk]
            values = colour(x if device is None else x.to(device))
            colours[start : start + chunk] = to_bytes(values.float().cpu().numpy())
    return replace(mesh, colours=colours)


def to_bytes(srgb: Float[np.ndarray, "*shape 3"]) -> UInt8[np.ndarray, "*shape 3"]:
    """[0, 1] to 0..255, rounded; beyond the ends clipped (the published code wraps around there), not a number is 0."""
    return np.rint(np.clip(np.nan_to_num(srgb, nan=0.0), 0.0, 1.0) * 255.0).astype(np.uint8)
