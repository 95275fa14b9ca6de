"""Meshes as the published program makes them: every point of its box, nothing cut or dropped, its bytes of colour."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mononphm_core.meshing.isosurface import Lattice, Vector, extract_on
from mononphm_core.quirks import PublishedQuirks
from mononphm_core.types import ColourField, HeadMesh, SdfField

BOX_MIN: Vector = (-0.55, -0.5, -0.95)
BOX_MAX: Vector = (0.55, 0.75, 0.4)
"""Posed head units."""


def published_surface(
    sdf: SdfField, resolution: int, chunk: int = 40_000, device: torch.device | None = None
) -> HeadMesh:
    """The zero set on a grid of `resolution` points along every side of the box, whose cells are therefore no cubes.

    Surfaces cut by the box stay open. No gradient. Raises NoSurface.
    """
    cells = resolution - 1
    return extract_on(Lattice(BOX_MIN, BOX_MAX, (cells, cells, cells)), sdf, chunk, device)


def published_colours(
    mesh: HeadMesh,
    colour: ColourField,
    correction: Float[Tensor, "4 3"] | None,
    quirks: PublishedQuirks,
    chunk: int = 40_000,
    device: torch.device | None = None,
) -> HeadMesh:
    """Albedo at the vertices, to bytes, then through the camera's colours, then to bytes again.

    Truncated both times. The second time the published program does not clip: colours wrap around (13).
    """
    points = torch.from_numpy(np.ascontiguousarray(mesh.vertices, np.float32))
    found = []
    with torch.no_grad():
        for start in range(0, len(points), chunk):
            x = points[start : start + chunk]
            values = colour(x if device is None else x.to(device)).float()
            found.append(corrected(truncated(255 * values.cpu().numpy(), wrap=False), correction, quirks))
    return replace(mesh, colours=np.concatenate(found))


def corrected(
    bytes_in: UInt8[np.ndarray, "vertices 3"], correction: Float[Tensor, "4 3"] | None, quirks: PublishedQuirks
) -> UInt8[np.ndarray, "vertices 3"]:
    """Bytes to [-1, 1], times the first three rows plus the last, to bytes."""
    if correction is None:
        return bytes_in
    matrix = correction.detach().cpu().numpy()
    values = (bytes_in.astype(np.float32) / 255 * 2 - 1) @ matrix[:3] + matrix[3]
    return truncated((values + 1) / 2 * 255, wrap=quirks.mesh_colour_wraps)


def truncated(values: Float[np.ndarray, "*shape"], wrap: bool) -> UInt8[np.ndarray, "*shape"]:
    """Bytes towards zero; beyond 0..255 modulo 256 or clipped. Not a number is 0."""
    whole = np.trunc(np.nan_to_num(values.astype(np.float64))).astype(np.int64)
    return (whole % 256 if wrap else whole.clip(0, 255)).astype(np.uint8)
