"""The solid that teaches distances: closed, and measured as brute force measures it."""

import numpy as np
import pytest
import trimesh

from mononphm_core.training.sources import _boundary_loops
from mononphm_core.training.supervision import DistanceField, sample_distances, sample_surface, solid, surface_density

pytest.importorskip("igl", reason="training needs the extra `train`")


def winding(vertices, faces, points):
    """Exact generalised winding numbers: sum of signed solid angles over 4 pi (Van Oosterom and Strackee 1983)."""
    a, b, c = (vertices[faces[:, k]][None] - points[:, None] for k in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    volume = np.einsum("pfi,pfi->pf", a, np.cross(b, c))
    dot = np.einsum("pfi,pfi->pf", a, b) * lc + np.einsum("pfi,pfi->pf", b, c) * la
    dot += np.einsum("pfi,pfi->pf", c, a) * lb
    return np.arctan2(volume, la * lb * lc + dot).sum(1) / (2 * np.pi)


def brute_distance(vertices, faces, points):
    """Nearest of all triangles, one by one."""
    best = np.full(len(points), np.inf)
    for triangle in vertices[faces]:
        near = trimesh.triangles.closest_point(np.repeat(triangle[None], len(points), 0), points)
        best = np.minimum(best, np.linalg.norm(near - points, axis=1))
    return best


def test_the_closed_sheet_has_every_edge_exactly_twice(heads):
    """Once in each direction: watertight, consistently oriented, a ball's topology."""
    vertices, faces = solid(heads.skeleton, heads.neutral)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    directed = {tuple(edge) for edge in edges.tolist()}
    assert len(directed) == len(edges)
    assert directed == {(b, a) for a, b in directed}
    assert len(np.unique(faces)) - len(edges) // 2 + len(faces) == 2
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume > 0  # triangles look outwards


def test_boundary_loops_are_the_holes(heads):
    """Two lid rims and the neck: closed chains along edges that one triangle has."""
    loops = _boundary_loops(heads.skeleton.sheet)
    assert len(loops) == 3
    edges = {tuple(e) for e in heads.skeleton.sheet[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).tolist()}
    for loop in loops:
        steps = list(zip(loop.tolist(), np.roll(loop, -1).tolist(), strict=True))
        assert all(step in edges and step[::-1] not in edges for step in steps)


def test_distances_are_those_of_brute_force_with_the_sign_of_the_winding_number(heads):
    """Search trees and the fast winding number against every triangle; eyeballs are part of the head."""
    field = DistanceField(heads.skeleton, heads.neutral)
    points = np.random.default_rng(3).uniform(-0.55, 0.55, (300, 3)).astype(np.float32)
    eye = heads.neutral[np.unique(heads.skeleton.sclera[0])]
    points = np.concatenate([points, eye.mean(0) + (eye - eye.mean(0)) * 0.6, eye.mean(0) + (eye - eye.mean(0)) * 1.3])
    vertices, closed = solid(heads.skeleton, heads.neutral)
    vertices = vertices.astype(np.float64)
    inside = np.abs(winding(vertices, closed, points)) > 0.5
    for ball in heads.skeleton.sclera:
        inside |= np.abs(winding(vertices, ball, points)) > 0.5
    outside_balls = [
        ball[np.abs(winding(vertices, closed, vertices[ball].mean(1))) < 0.5] for ball in heads.skeleton.sclera
    ]
    skin = np.concatenate([heads.skeleton.sheet, *outside_balls])
    assert all(0 < len(seen) < len(ball) for seen, ball in zip(outside_balls, heads.skeleton.sclera, strict=True))
    expected = brute_distance(vertices, skin, points.astype(np.float64)) * np.where(inside, -1, 1)
    found = field(points)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-6)
    clear = np.abs(expected) > 1e-3  # on the surface itself the sign is rounding
    assert ((found < 0) == inside)[clear].all()
    assert 20 < inside.sum() < len(inside) - 20


def test_samples_lie_near_the_surface_and_above_the_cut(heads):
    """Four in five within the two shells (1.5 and 7.5 mm), none below the neck."""
    head = heads.sample(np.random.default_rng(0))
    samples = sample_distances(heads, head, surface_density(heads), np.random.default_rng(1), 1000)
    assert (samples.x_canonical[:, 1] > heads.y_cut).all()
    assert (np.abs(samples.sdf) < 3 * 7.5 / 250).mean() > 0.75
    again = sample_distances(heads, head, surface_density(heads), np.random.default_rng(1), 1000)
    assert np.array_equal(samples.sdf, again.sdf)


def test_surface_points_fall_where_the_density_is_and_nowhere_else(heads):
    """Nothing below the neck cut or on the hidden backs of the eyes; uniform inside a triangle."""
    density = surface_density(heads)
    triangle, bary = sample_surface(np.random.default_rng(2), density, 20_000)
    assert (density[triangle] > 0).all()
    faces = np.concatenate([heads.skeleton.sheet, *heads.skeleton.sclera])
    centres = heads.mean_canonical()[faces[triangle]].mean(1)
    assert centres[:, 1].min() > heads.y_cut
    assert (bary >= 0).all()
    np.testing.assert_allclose(bary.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(bary.mean(0), 1 / 3, atol=0.01)  # standard error 0.002
    counts = np.bincount(triangle, minlength=len(density))
    assert np.corrcoef(counts, density)[0, 1] > 0.8
