"""The albedo of a head as one picture: the colour field asked where each texel lies on the surface."""

import functools

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from mononphm_core.animation.topology import LEFT_EYE, RIGHT_EYE, Topology
from mononphm_core.meshing.colours import to_bytes
from mononphm_core.meshing.raster import Raster
from mononphm_core.meshing.texels import outwards, texture_raster
from mononphm_core.types import ColourField, SdfField

ASKED_WIDTH, ASKED_HEIGHT = 512, 384
"""Texels at which the field is asked: it knows no finer detail."""
WIDTH, HEIGHT = 1024, 1024
"""Powers of two: every reader can make smaller copies of it."""
OPEN_EYE = 0.0016
"""Head units (0.4 mm): an eyeball's texel nearer to the zero set than this is not behind a lid."""


def bake(
    topology: Topology,
    vertices: Float[np.ndarray, "vertices 3"],
    colour: ColourField,
    distance: SdfField,
    chunk: int = 8192,
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture, its first row at v = 1. `vertices` in the frame of the two fields. No gradient.

    Texels that no triangle covers take the colour of the nearest that one does: nothing bleeds in at the seams. So do
    the parts of the eyeballs that lids cover: the field has the lid's colour there.
    """
    raster = texels(topology, ASKED_WIDTH, ASKED_HEIGHT)
    seen = raster.covered
    where = raster.interpolate(vertices[topology.corner_vertex], topology.corner_faces)[seen].astype(np.float32)
    points = torch.from_numpy(where)
    part = topology.part[topology.faces[raster.face_index[seen], 0]]
    known = np.ones(len(where), bool)
    ball = np.isin(part, (LEFT_EYE, RIGHT_EYE))
    with torch.no_grad():
        known[ball] = np.abs(distance(points[torch.from_numpy(ball)]).cpu().numpy()) < OPEN_EYE
        asked = points[torch.from_numpy(known)]
        parts = [colour(asked[k : k + chunk]).float().cpu().numpy() for k in range(0, len(asked), chunk)]
    full = np.zeros((len(where), 3), np.float32)
    full[known] = np.nan_to_num(np.concatenate(parts))
    picture, have = np.zeros((*seen.shape, 3), np.float32), np.zeros(seen.shape, bool)
    picture[seen], have[seen] = full, known
    eyes = np.zeros(seen.shape, bool)
    eyes[seen] = ball
    picture = outwards(picture, have & eyes, within=eyes)
    large = cv2.resize(outwards(picture, seen), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return to_bytes(large)


@functools.lru_cache(maxsize=2)
def texels(topology: Topology, width: int, height: int) -> Raster:
    """Which triangle covers which texel."""
    return texture_raster(topology.corner_uv, topology.corner_faces, width, height)
