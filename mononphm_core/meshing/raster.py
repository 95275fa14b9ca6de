"""A z-buffer rasteriser for triangles, on the CPU, without a loop over triangles.

A pixel belongs to a triangle when its centre (at .5) lies inside the projected triangle, edges included: neighbours
leave no crack. Triangles are sorted by the size of their pixel box into classes of powers of two; within a class all
boxes are tested at once. Barycentrics are perspective-correct: with l the barycentrics on the screen,

    1 / z = sum_k l_k / z_k,    b_k = (l_k / z_k) * z

The slow readable twin, one ray against one triangle at a time, is in the tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from mononphm_core.types import Intrinsics

NEAR = 1e-3
"""Default near plane, in the unit of the vertices."""
TESTS_AT_ONCE = 1 << 20
"""Pixel-in-triangle tests held in memory together."""
LEVELS = 64
"""More than there are powers of two in any picture's side."""
EDGE_TOLERANCE = 1e-9
"""How far outside, as a barycentric, still counts: rounding must not take a centre on an edge from both neighbours."""


@dataclass(frozen=True)
class Raster:
    """What each pixel of one view sees."""

    depth: Float[np.ndarray, "height width"]
    """z of the nearest surface in the camera frame, unit of the vertices; infinite where there is none."""
    face_index: Int[np.ndarray, "height width"]
    """-1 where there is none."""
    barycentric: Float[np.ndarray, "height width 3"]
    """Perspective-correct, of the triangle's three corners; zero where there is none."""

    @property
    def covered(self) -> Bool[np.ndarray, "height width"]:
        """The silhouette."""
        return self.face_index >= 0

    def interpolate(
        self, values: Shaped[np.ndarray, "vertices channels"], faces: Int[np.ndarray, "faces 3"]
    ) -> Float[np.ndarray, "height width channels"]:
        """Values at the corners carried to the pixels; zero where there is no surface."""
        out = np.zeros((*self.depth.shape, values.shape[1]))
        seen = self.covered
        out[seen] = np.einsum("pk,pkc->pc", self.barycentric[seen], values[faces[self.face_index[seen]]])
        return out


def rasterise(
    vertices_camera: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    intrinsics: Intrinsics,
    near: float = NEAR,
) -> Raster:
    """The nearest triangle at every pixel centre of `intrinsics`, both sides of a triangle counted.

    Vertices are in the OpenCV camera frame (x right, y down, z forward). What lies nearer than `near` is clipped away
    exactly. Lens distortion, if the camera has any, moves the corners; edges between them stay straight.
    """
    corners, owner, mix = clip_near(vertices_camera.astype(np.float64)[faces], near)
    screen = project(corners.reshape(-1, 3), intrinsics).reshape(-1, 3, 2)
    width, height = intrinsics.width, intrinsics.height
    depth = np.full(width * height, np.inf)
    face_index = np.full(width * height, -1, np.int64)
    barycentric = np.zeros((width * height, 3))
    for pixel, triangle, b, z in _fragments(screen, corners[..., 2], width, height):
        face = owner[triangle]
        order = np.lexsort((face, z, pixel))  # per pixel the nearest first; equal depths: the lower face wins
        first = order[np.r_[True, np.diff(pixel[order]) > 0]] if len(order) else order
        at = pixel[first]
        nearer = (z[first] < depth[at]) | ((z[first] == depth[at]) & (face[first] < face_index[at]))
        first, at = first[nearer], at[nearer]
        depth[at], face_index[at] = z[first], face[first]
        barycentric[at] = np.einsum("pk,pkc->pc", b[first], mix[triangle[first]])
    shape = (height, width)
    return Raster(depth.reshape(shape), face_index.reshape(shape), barycentric.reshape(*shape, 3))


def project(x: Float[np.ndarray, "points 3"], intrinsics: Intrinsics) -> Float[np.ndarray, "points 2"]:
    """Image pixels of camera points, lens distortion (Brown-Conrady) included."""
    u, v = x[:, 0] / x[:, 2], x[:, 1] / x[:, 2]
    if any(intrinsics.distortion):
        k1, k2, p1, p2, k3 = intrinsics.distortion
        r2 = u * u + v * v
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        u, v = (
            u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u),
            v * radial + p1 * (r2 + 2 * v * v) + 2 * p2 * u * v,
        )
    return np.stack([intrinsics.fx * u + intrinsics.cx, intrinsics.fy * v + intrinsics.cy], axis=-1)


def clip_near(
    corners: Float[np.ndarray, "faces 3 3"], near: float
) -> tuple[Float[np.ndarray, "pieces 3 3"], Int[np.ndarray, "pieces"], Float[np.ndarray, "pieces 3 3"]]:
    """What remains of each triangle in front of the plane z = near.

    Returns the corners of the pieces, the triangle each comes from, and the corners as barycentrics of that triangle.
    """
    front = corners[..., 2] >= near
    count = front.sum(axis=-1)
    whole = np.flatnonzero(count == 3)
    cut = np.flatnonzero((count == 1) | (count == 2))
    if len(cut) == 0:
        return corners[whole], whole, np.broadcast_to(np.eye(3), (len(whole), 3, 3))
    one = count[cut] == 1
    lonely = np.where(one, front[cut].argmax(-1), (~front[cut]).argmax(-1))
    z = corners[cut, :, 2]
    rows = np.arange(len(cut))
    tip = np.eye(3)[lonely]
    others = [np.eye(3)[(lonely + k) % 3] for k in (1, 2)]
    crossings = []
    for k in (1, 2):
        z_tip, z_other = z[rows, lonely], z[rows, (lonely + k) % 3]
        share = ((near - z_tip) / (z_other - z_tip))[:, None]
        crossings.append(tip + share * (others[k - 1] - tip))
    pieces = [
        np.stack([tip, crossings[0], crossings[1]], axis=1)[one],
        np.stack([crossings[0], others[0], others[1]], axis=1)[~one],
        np.stack([crossings[0], others[1], crossings[1]], axis=1)[~one],
    ]
    owner = np.concatenate([whole, cut[one], cut[~one], cut[~one]])
    mix = np.concatenate([np.broadcast_to(np.eye(3), (len(whole), 3, 3)), *pieces])
    return mix @ corners[owner], owner, mix


Fragments = tuple[
    Int[np.ndarray, "fragments"],
    Int[np.ndarray, "fragments"],
    Float[np.ndarray, "fragments 3"],
    Float[np.ndarray, "fragments"],
]


def _fragments(
    screen: Float[np.ndarray, "pieces 3 2"], z: Float[np.ndarray, "pieces 3"], width: int, height: int
) -> Iterator[Fragments]:
    """Pixel, triangle, perspective-correct barycentrics and depth of each pixel centre in each triangle, in parts."""
    first, last = np.empty((len(screen), 2), np.int64), np.empty((len(screen), 2), np.int64)
    for axis, size in enumerate((width, height)):  # columns apart: reducing a short axis costs ten times as much
        a, b, c = (screen[:, k, axis] for k in range(3))
        first[:, axis] = np.clip(np.ceil(np.minimum(np.minimum(a, b), c) - 0.5), 0, size)
        last[:, axis] = np.clip(np.floor(np.maximum(np.maximum(a, b), c) - 0.5), -1, size - 1)
    extent = last - first + 1
    edges = screen[:, [1, 2, 0]] - screen
    area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    visible = np.flatnonzero((extent[:, 0] > 0) & (extent[:, 1] > 0) & (area != 0.0))
    level = np.ceil(np.log2(extent[visible])).astype(np.int64)
    kind = level[:, 0] * LEVELS + level[:, 1]
    for box in np.unique(kind):
        members = visible[kind == box]
        dx, dy = np.meshgrid(np.arange(2 ** (box // LEVELS)), np.arange(2 ** (box % LEVELS)))
        offsets = np.stack([dx.ravel(), dy.ravel()], axis=-1)
        portion = max(TESTS_AT_ONCE // len(offsets), 1)
        for start in range(0, len(members), portion):
            yield _test(members[start : start + portion], offsets, first, last, screen, edges, area, z, width)


def _test(
    members: Int[np.ndarray, "members"],
    offsets: Int[np.ndarray, "tests 2"],
    first: Int[np.ndarray, "pieces 2"],
    last: Int[np.ndarray, "pieces 2"],
    screen: Float[np.ndarray, "pieces 3 2"],
    edges: Float[np.ndarray, "pieces 3 2"],
    area: Float[np.ndarray, "pieces"],
    z: Float[np.ndarray, "pieces 3"],
    width: int,
) -> Fragments:
    """All pixel centres of equal boxes against their own triangle."""
    x = first[members, 0, None] + offsets[:, 0]
    y = first[members, 1, None] + offsets[:, 1]
    inside = (x <= last[members, 0, None]) & (y <= last[members, 1, None])
    screen_b = []
    for k in range(3):  # the barycentric of corner k: area against the edge from k+1 to k+2
        start, edge = screen[members, (k + 1) % 3, :, None], edges[members, (k + 1) % 3, :, None]
        across = edge[:, 0] * (y + 0.5 - start[:, 1]) - edge[:, 1] * (x + 0.5 - start[:, 0])
        screen_b.append(across / area[members, None])
        inside &= screen_b[-1] >= -EDGE_TOLERANCE
    row, test = np.nonzero(inside)
    triangle = members[row]
    over_z = np.stack([b[row, test] for b in screen_b], axis=-1) / z[triangle]
    depth = 1.0 / over_z.sum(axis=-1)
    return y[row, test] * width + x[row, test], triangle, over_z * depth[:, None], depth
