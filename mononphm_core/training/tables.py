"""The template tables of a prior: landmarks and a coarse surface as linear functions of the codes."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from mononphm_core.model.template import TemplateHead
from mononphm_core.training.codes import CodeBasis
from mononphm_core.training.sources import OpenHeads

GEO_DIRECTIONS = 200
APP_DIRECTIONS = 48
NEAR = 8
"""Local parts that a point keeps; the corners of a triangle may know a few more, with vanishing share."""


def make_template(
    heads: OpenHeads,
    codes: CodeBasis,
    data: Path,
    surface_vertices: int,
    people: Float[np.ndarray, "people d_geo"],
    appearance: CodeBasis,
    complexions: Float[np.ndarray, "complexions d_app"],
) -> TemplateHead:
    """Landmarks, anchors and a coarse surface as linear functions of the codes; and which codes real heads have."""
    table = np.load(data / "mediapipe478_on_ict.npz")
    vertex, faces = coarse_surface(heads, surface_vertices)
    one = np.ones((1, 3), np.float32) * np.array([1, 0, 0], np.float32)

    def single(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.repeat(v[:, None], 3, 1), np.repeat(one, len(v), 0)

    parts = {
        "mediapipe478": (heads.ict_to_ours[table["vertex_index"]], table["bary"].astype(np.float32)),
        "ibug68": single(heads.ibug68),
        "anchors65": single(heads.anchors),
        "surface": single(vertex),
    }
    groups, start = {}, 0
    for name, (corners, _) in parts.items():
        groups[name] = (start, start + len(corners))
        start += len(corners)
    corners = np.concatenate([c for c, _ in parts.values()])
    bary = np.concatenate([b for _, b in parts.values()])
    nodes, d_local = len(heads.anchors), codes.local_basis.shape[-1]
    local = np.zeros((len(corners), NEAR, 3, d_local), np.float32)
    anchor = np.zeros((len(corners), NEAR), np.int64)
    for i in range(len(corners)):
        dense = np.zeros((nodes, 3, d_local), np.float32)
        for corner, share in zip(corners[i], bary[i], strict=True):
            np.add.at(dense, codes.local_anchor[corner], share * codes.local_basis[corner])
        anchor[i] = np.argsort(-np.square(dense).sum((1, 2)))[:NEAR]
        local[i] = dense[anchor[i]]

    def mixed(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.einsum("pk,pk...->p...", bary, values[corners]).astype(np.float32))

    template = TemplateHead(
        mean=mixed(codes.mean),
        global_basis=mixed(codes.global_basis),
        local_basis=torch.from_numpy(local),
        local_anchor=torch.from_numpy(anchor),
        expression_basis=mixed(heads.expression.transpose(1, 2, 0)),
        z_canonical=torch.from_numpy(heads.z_canonical),
        surface_faces=torch.from_numpy(faces),
        landmark_spread_mm=torch.from_numpy(table["spread_mm"].astype(np.float32)),
        geo_span=span_of(
            codes, people, np.unique(np.concatenate([vertex, heads.ibug68, heads.anchors])), GEO_DIRECTIONS
        ),
        app_span=span_of(appearance, complexions, np.flatnonzero(heads.skeleton.part != 2)[::6], APP_DIRECTIONS),
        groups=groups,
    )
    return template


def span_of(
    codes: CodeBasis, z: Float[np.ndarray, "samples d"], vertices: Int[np.ndarray, "chosen"], count: int
) -> torch.Tensor:
    """z = span @ u: the codes that go with the leading principal components u (unit variance) of the decoded values.

    Components are ranked by what they do to the vertices, not by the codes' own variance, which is whitened.
    """
    small = CodeBasis(
        **{
            **codes.__dict__,
            "mean": codes.mean[vertices],
            "global_basis": codes.global_basis[vertices],
            "local_basis": codes.local_basis[vertices],
            "local_anchor": codes.local_anchor[vertices],
        }
    )
    x = (small.decode(z) - small.mean).reshape(len(z), -1).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        left, _, _ = torch.svd_lowrank(torch.from_numpy(x), q=min(count + 20, *x.shape), niter=4)
    scores = left[:, :count].numpy() * np.sqrt(len(z))
    return torch.from_numpy((z.T @ scores / len(z)).astype(np.float32))


def coarse_surface(heads: OpenHeads, count: int) -> tuple[Int[np.ndarray, "vertices"], Int[np.ndarray, "faces 3"]]:
    """A coarse triangulation of face, head and neck: farthest points, a triangle wherever three of their cells meet.

    Cells are geodesic Voronoi cells on the mesh, so the coarse surface has the topology of the fine one.
    """
    sk = heads.skeleton
    x = heads.neutral
    outer = sk.sheet[(sk.part[sk.sheet] <= 1).all(1) & (x[sk.sheet][..., 1] > heads.y_cut).all(1)]
    edges = np.concatenate([outer[:, [0, 1]], outer[:, [1, 2]], outer[:, [2, 0]]])
    length = np.linalg.norm(x[edges[:, 0]] - x[edges[:, 1]], axis=1)
    graph = coo_matrix((length, (edges[:, 0], edges[:, 1])), shape=(len(x), len(x))).tocsr()
    allowed = np.unique(outer)
    marks = x[heads.ibug68]
    density = 1 + 2 * np.exp(-np.linalg.norm(x[allowed][:, None] - marks[None], axis=-1).min(1) / 0.04)
    chosen = [int(heads.ibug68[30])]
    distance = np.linalg.norm(x[allowed] - x[chosen[0]], axis=1)
    for _ in range(count - 1):
        chosen.append(int(allowed[np.argmax(distance * density)]))
        distance = np.minimum(distance, np.linalg.norm(x[allowed] - x[chosen[-1]], axis=1))
    seeds = np.array(chosen)
    _, _, nearest = dijkstra(graph, directed=False, indices=seeds, min_only=True, return_predecessors=True)
    place = np.full(len(x), -1)
    place[seeds] = np.arange(len(seeds))
    cells = np.where(nearest >= 0, place[np.clip(nearest, 0, None)], -1)[outer]
    triple = cells[(cells[:, 0] != cells[:, 1]) & (cells[:, 1] != cells[:, 2]) & (cells[:, 0] != cells[:, 2])]
    triple = triple[(triple >= 0).all(1)]
    _, first = np.unique(np.sort(triple, 1), axis=0, return_index=True)
    return seeds, triple[np.sort(first)]
