"""Any triangle mesh of a head laid out on ICT-FaceKit's skin, by landmarks and nearest points (non-rigid registration).

The template's vertices x move onto the source, which a similarity of the landmarks brought near. A few times for each
of ever shorter lengths,

    minimise   sum_v mass_v trust_v |u_v - target_v|^2 + sum_l area |u_l - target_l|^2 + length^4 |laplacian u|^2

u is the whole displacement; a vertex's target is the foot of its perpendicular on the plane of its nearest triangle,
so that it may slide; a landmark's is the landmark. Not trusted, and so led by its neighbours, is a vertex whose nearest
point lies on the source's border, is far away or faces another way. Upper and lower lip are looked for apart.

Lengths are centimetres on the template's side.
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra

from mononphm_core.errors import InputError
from mononphm_core.geometry.sheet import LEAST_AREA, Sheet
from mononphm_core.geometry.triangles import barycentric_of, vertex_areas
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.types import HeadMesh

SCHEDULE = ((6.0, 5.0), (3.0, 5.0), (1.5, 1.5), (0.8, 0.5), (0.4, 0.15), (0.25, 0.15))
"""(length, area that a landmark stands for in cm^2)."""
STEPS = 4
"""Of each length."""
REACH = 0.5
"""A nearest point is trusted up to so many lengths away ..."""
LEAST_REACH = 0.4
"""... and up to so far in any case."""
FACING = 0.5
"""Least cosine between the normals of a vertex and of its nearest triangle."""
UPPER_LIP, LOWER_LIP = (*range(49, 54), 61, 62, 63), (*range(55, 60), 65, 66, 67)
"""iBUG-68, corners left out."""
LIP_CM, CORNER_CM = 2.5, 0.3
"""How far along the skin from its landmarks a lip goes, and how near to the other one both names are given."""
DETAIL_CM = 0.12
"""Half of a carried wave of 2 pi times this length is lost: 7.5 mm; longer ones stay."""


@dataclass(frozen=True, eq=False)
class Template:
    """The skin that is moved."""

    x: Float[np.ndarray, "vertices 3"]
    triangles: Int[np.ndarray, "triangles 3"]
    marks: Int[np.ndarray, "68"]
    """iBUG-68 vertices."""
    outer: Bool[np.ndarray, "vertices"]
    """What every head shows: no mouth cavity, no eye sockets. The rest follows."""


@dataclass(frozen=True, eq=False)
class Source:
    """A head in any place, size and unit."""

    x: Float[np.ndarray, "vertices 3"]
    triangles: Int[np.ndarray, "triangles 3"]
    mark_triangle: Int[np.ndarray, "marks"]
    mark_share: Float[np.ndarray, "marks 3"]
    """iBUG-68 in barycentric coordinates; or its last 51, and the jaw line leads nothing."""

    @property
    def marks(self) -> Float[np.ndarray, "marks 3"]:
        """Where they are."""
        return np.einsum("mk,mkc->mc", self.mark_share, self.x[self.triangles[self.mark_triangle]])

    def skin(self) -> Bool[np.ndarray, "triangles"]:
        """The connected piece that carries most landmarks: eyeballs, teeth and clothes are others."""
        joined = np.concatenate([self.triangles[:, [0, 1]], self.triangles[:, [1, 2]]])
        count = len(self.x)
        _, piece = connected_components(coo_array((np.ones(len(joined)), joined.T), shape=(count, count)))
        found: np.ndarray = piece[self.triangles[:, 0]]
        return found == np.bincount(found[self.mark_triangle]).argmax()


@dataclass(frozen=True, eq=False)
class Registration:
    """For every vertex of the template a point on a triangle of the source."""

    template: Template
    corners: Int[np.ndarray, "vertices 3"]
    """Vertices of the source."""
    share: Float[np.ndarray, "vertices 3"]
    trusted: Bool[np.ndarray, "vertices"]
    """Where that point is the vertex's own; elsewhere neighbours say what is carried."""
    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    """x_template = scale * R @ x_source + t."""
    x: Float[np.ndarray, "vertices 3"]
    """The source's shape on the template's triangles."""

    def carry(self, fields: Float[np.ndarray, "fields source 3"]) -> Float[np.ndarray, "fields vertices 3"]:
        """Displacements of the source's vertices (its axes and unit) as displacements of the template's, in cm."""
        at = np.einsum("vk,fvkc->fvc", self.share, fields[:, self.corners])
        turned = self.scale * at @ self.rotation.T
        smooth = self._sheet.smooth(turned.transpose(1, 0, 2).reshape(len(self.corners), -1))
        found: np.ndarray = smooth.reshape(len(self.corners), -1, 3).transpose(1, 0, 2)
        return found

    @functools.cached_property
    def _sheet(self) -> Sheet:
        return Sheet(self.x, self.template.triangles, self.trusted.astype(float), DETAIL_CM)


def register(template: Template, source: Source) -> Registration:
    """The template on the source. InputError if the source's landmarks are neither 68 nor 51."""
    if len(source.mark_triangle) not in (68, 51):
        raise InputError(f"{len(source.mark_triangle)} landmarks; 68 are needed, or the last 51 of them")
    leading = template.marks[-51:]  # the jaw line is another curve for everybody
    scale, rotation, translation = similarity(source.marks[-51:], template.x[leading])
    moved = scale * source.x @ rotation.T + translation
    target = Source(moved, source.triangles, source.mark_triangle[-51:], source.mark_share[-51:])
    wanted = _Wanted(template, target)
    nowhere = np.zeros(len(template.x))
    x = _bent(template, target, template.x, nowhere, *SCHEDULE[1])
    for length, area in SCHEDULE:
        for _ in range(STEPS):
            near = wanted.nearest(x, max(LEAST_REACH, REACH * length))
            x = _bent(template, target, x + near.step, near.trusted.astype(float), length, area)
    near = wanted.nearest(x, LEAST_REACH)
    on = np.einsum("vk,vkc->vc", near.share, moved[near.corners])
    sheet = Sheet(x, template.triangles, near.trusted.astype(float), DETAIL_CM)
    shape = x + sheet.smooth(np.where(near.trusted[:, None], on - x, 0.0))
    return Registration(template, near.corners, near.share, near.trusted, scale, rotation, translation, shape)


def similarity(
    x: Float[np.ndarray, "points 3"],
    target: Float[np.ndarray, "points 3"],
    weight: Float[np.ndarray, "points"] | None = None,
) -> tuple[float, Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """target ~ scale * R @ x + t, least squares, points weighted alike or by `weight` (Umeyama 1991)."""
    w = np.full(len(x), 1 / len(x)) if weight is None else weight / weight.sum()
    from_, to = w @ x, w @ target
    a, b = x - from_, target - to
    u, stretch, vt = np.linalg.svd((b * w[:, None]).T @ a)
    flip = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * flip) @ vt
    scale = float((stretch * flip).sum() / (w @ np.square(a).sum(1)))
    return scale, rotation, to - scale * rotation @ from_


def _bent(
    template: Template,
    source: Source,
    pull: Float[np.ndarray, "vertices 3"],
    trust: Float[np.ndarray, "vertices"],
    length: float,
    area: float,
) -> Float[np.ndarray, "vertices 3"]:
    """The template bent towards `pull`, and its landmarks towards the source's as if each were `area` of skin."""
    mass = np.maximum(vertex_areas(template.x, template.triangles), LEAST_AREA)
    marks = template.marks[-51:]
    weight, target = trust.copy(), np.where(trust[:, None] > 0, pull - template.x, 0.0)
    lead = area / mass[marks]
    total = weight[marks] + lead
    meant = lead[:, None] * (source.marks - template.x[marks]) + weight[marks][:, None] * target[marks]
    weight[marks], target[marks] = total, meant / total[:, None]
    return template.x + Sheet(template.x, template.triangles, weight, length).smooth(target)


@dataclass(frozen=True)
class _Near:
    corners: Int[np.ndarray, "vertices 3"]
    share: Float[np.ndarray, "vertices 3"]
    trusted: Bool[np.ndarray, "vertices"]
    step: Float[np.ndarray, "vertices 3"]
    """To the plane of the nearest triangle."""


class _Wanted:
    """Nearest points of the source's skin."""

    def __init__(self, template: Template, source: Source) -> None:
        import igl

        self._igl = igl
        self.template, self.x = template, np.ascontiguousarray(source.x, np.float64)
        skin = source.triangles[source.skin()].astype(np.int64)
        corner = self.x[skin]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        size = np.linalg.norm(normal, axis=1)
        self.triangles, self.normal = skin[size > 0], normal[size > 0] / size[size > 0, None]
        self.border = _border(self.triangles)
        upper, lower = lips(self.x, self.triangles, source.triangles[source.mark_triangle], source.mark_share)
        mine = np.repeat(template.marks[-51:, None], 3, 1), np.eye(3)[np.zeros(51, int)]
        over, under = lips(template.x, template.triangles, *mine)
        of = self.triangles
        self.groups = [
            (over & ~under, ~(lower & ~upper)[of].all(1)),
            (under & ~over, ~(upper & ~lower)[of].all(1)),
            (over == under, np.ones(len(of), bool)),
        ]

    def nearest(self, x: Float[np.ndarray, "vertices 3"], reach: float) -> _Near:
        """Of each vertex."""
        found = np.zeros(len(x), np.int64)
        foot = np.zeros(x.shape)
        for mine, theirs in self.groups:
            rows = np.flatnonzero(theirs)
            _, at, foot[mine] = self._igl.point_mesh_squared_distance(x[mine], self.x, self.triangles[rows])
            found[mine] = rows[at]
        corners, normal = self.triangles[found], self.normal[found]
        share = np.clip(barycentric_of(foot, self.x[corners]), 0.0, 1.0)
        ends = ((share < 1e-6) & self.border[found]).any(1)
        away = foot - x
        facing = (vertex_normals(HeadMesh(x, self.template.triangles)) * normal).sum(1) > FACING
        trusted = self.template.outer & ~ends & facing & (np.linalg.norm(away, axis=1) < reach)
        return _Near(corners, share, trusted, (away * normal).sum(1)[:, None] * normal)


def lips(
    x: Float[np.ndarray, "vertices 3"],
    triangles: Int[np.ndarray, "triangles 3"],
    marks: Int[np.ndarray, "51 3"],
    share: Float[np.ndarray, "51 3"],
) -> tuple[Bool[np.ndarray, "vertices"], Bool[np.ndarray, "vertices"]]:
    """Which vertices belong to the upper lip, which to the lower; along the skin, for they may touch. Corners: both."""
    edge = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edge = np.unique(np.sort(edge, axis=1), axis=0)
    length = np.linalg.norm(x[edge[:, 0]] - x[edge[:, 1]], axis=1)
    graph = coo_array((length, edge.T), shape=(len(x), len(x))).tocsr()
    own = np.take_along_axis(marks, share.argmax(1)[:, None], 1)[:, 0]
    up, down = (
        dijkstra(graph, directed=False, indices=own[np.array(lip) - 17], min_only=True, limit=2 * LIP_CM)
        for lip in (UPPER_LIP, LOWER_LIP)
    )
    near = np.minimum(up, down) < LIP_CM
    return near & (up < down + CORNER_CM), near & (down < up + CORNER_CM)


def _border(triangles: Int[np.ndarray, "triangles 3"]) -> Bool[np.ndarray, "triangles 3"]:
    """Whether the edge opposite each corner has one triangle only."""
    edge = np.sort(triangles[:, [[1, 2], [2, 0], [0, 1]]].reshape(-1, 2), axis=1)
    _, which, count = np.unique(edge, axis=0, return_inverse=True, return_counts=True)
    found: np.ndarray = (count[which.ravel()] == 1).reshape(-1, 3)
    return found
