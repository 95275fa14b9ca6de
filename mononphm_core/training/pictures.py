"""What a run looks like: a sheet of held-out heads, drawn now and then beside the log. Nobody is chosen."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from mononphm_core.errors import NoSurface
from mononphm_core.meshing.clean import cut_below, largest_component, vertex_normals
from mononphm_core.meshing.colours import colour_vertices
from mononphm_core.meshing.isosurface import extract_surface
from mononphm_core.meshing.raster import rasterise
from mononphm_core.meshing.shade import shade
from mononphm_core.model.head import Conditioned, HeadModel
from mononphm_core.training.batches import Batch
from mononphm_core.types import HeadMesh, Intrinsics

PEOPLE, CELLS = 4, 72
BOX = ((-0.55, -0.52, -0.78), (0.55, 0.68, 0.45))
NECK_CUT = -0.46
TILE = (160, 200)
"""Width and height, pixels."""
CAMERA = Intrinsics(490.0, 490.0, TILE[0] / 2, TILE[1] / 2, *TILE)
CENTRE, AWAY = np.array([0.0, 0.03, -0.1]), np.array([0.0, 0.0, 2.7])
"""The middle of a head, and where the camera sees it, head units."""
FACING = np.array([1.0, -1.0, -1.0])
"""Posed head axes to those of a camera that the face looks into."""


def write_sheet(model: HeadModel, batch: Batch, path: Path) -> None:
    """Above the first people of `batch` in colour, below in clay, each with an expression of its own."""
    columns = [column(model, batch, row) for row in range(min(PEOPLE, len(batch.z_exp)))]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(columns, 1)).save(path)


def column(model: HeadModel, batch: Batch, row: int) -> UInt8[np.ndarray, "height width 3"]:
    """One head twice; grey where the field has no surface yet."""
    with torch.no_grad():
        one = model.condition(batch.z_geo[row : row + 1], batch.z_exp[row : row + 1], batch.z_app[row : row + 1])
        try:
            device = batch.z_geo.device
            mesh = extract_surface(functools.partial(_distance, model, one), *BOX, CELLS, device=device)
            mesh = largest_component(cut_below(mesh, NECK_CUT))
            mesh = colour_vertices(mesh, functools.partial(_albedo, model, one), device=device)
        except NoSurface:
            return np.full((2 * TILE[1], TILE[0], 3), 128, np.uint8)
    return np.concatenate([_view(mesh), _view(replace(mesh, colours=None))])


def _view(mesh: HeadMesh) -> UInt8[np.ndarray, "height width 3"]:
    x = (mesh.vertices - CENTRE) * FACING + AWAY
    normals = vertex_normals(replace(mesh, vertices=x))
    albedo = None if mesh.colours is None else mesh.colours / 255
    return np.rint(255 * shade(rasterise(x, mesh.faces, CAMERA), normals, mesh.faces, albedo)).astype(np.uint8)


def _distance(model: HeadModel, one: Conditioned, x: Float[Tensor, "points 3"]) -> Float[Tensor, "points"]:
    return model.sdf(x[None], one)[0]


def _albedo(model: HeadModel, one: Conditioned, x: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    colour = model.query(x[None], one).colour
    assert colour is not None
    return (colour[0] + 1) / 2
