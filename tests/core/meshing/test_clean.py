"""Mesh surgery, colours and placing against closed forms."""

import numpy as np
import pytest
import torch
import trimesh

from mononphm_core.errors import NoSurface
from mononphm_core.meshing.clean import cut_below, face_areas, largest_component, signed_volume, vertex_normals
from mononphm_core.meshing.colours import colour_vertices, to_bytes
from mononphm_core.meshing.place import to_world_mm
from mononphm_core.types import HeadMesh, HeadPose


def ball(radius: float = 1.0, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> HeadMesh:
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return HeadMesh(np.asarray(sphere.vertices + centre, np.float32), np.asarray(sphere.faces, np.int64))


def together(first: HeadMesh, second: HeadMesh) -> HeadMesh:
    return HeadMesh(
        np.concatenate([first.vertices, second.vertices]),
        np.concatenate([first.faces, second.faces + len(first.vertices)]),
    )


@pytest.mark.parametrize("order", [0, 1])
def test_the_largest_part_by_area_stays_untouched(order):
    """A floater with more triangles but less area goes; the part that stays is what it was, vertex for vertex."""
    big, small = ball(1.0), ball(0.2, (3.0, 0.0, 0.0))
    small = HeadMesh(small.vertices, np.concatenate([small.faces, small.faces]))
    kept = largest_component(together(*((big, small) if order == 0 else (small, big))))
    assert np.array_equal(kept.vertices, big.vertices)
    assert np.array_equal(kept.faces, big.faces)


def test_an_empty_mesh_has_no_largest_part():
    with pytest.raises(NoSurface):
        largest_component(HeadMesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int64)))


@pytest.mark.parametrize("y", [-0.6, -0.1234, 0.0, 0.5])
def test_a_cut_sphere_is_a_spherical_cap_with_its_rim_on_the_plane(y):
    """Area of a cap of height h is 2 pi r h; the facets of this ball lose 0.2 % of the area."""
    cap = cut_below(ball(), y)
    assert cap.vertices[:, 1].min() == pytest.approx(y, abs=1e-6)
    assert face_areas(cap).sum() == pytest.approx(2 * np.pi * (1 - y), rel=4e-3)
    edges = np.sort(cap.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=-1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    assert np.abs(cap.vertices[edges[uses == 1]][..., 1] - y).max() < 1e-6  # open at the plane and nowhere else
    assert uses.max() == 2
    assert (np.einsum("vi,vi->v", vertex_normals(cap), cap.vertices) > 0.9).all()  # outward, also at the rim


def test_a_cut_through_coloured_vertices_mixes_their_colours():
    """Half way along an edge from black to white is grey."""
    mesh = HeadMesh(
        np.array([[0, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32),
        np.array([[0, 1, 2]]),
        np.array([[0, 0, 0], [255, 255, 255], [255, 255, 255]], np.uint8),
    )
    cut = cut_below(mesh, 0.0)
    assert len(cut.faces) == 2
    assert face_areas(cut).sum() == pytest.approx(2.0 - 0.5)
    assert sorted(cut.colours[:, 0].tolist()) == [128, 128, 255, 255]


def test_a_cut_above_everything_leaves_no_surface():
    with pytest.raises(NoSurface, match="below the cut"):
        cut_below(ball(), 2.0)


def test_normals_of_a_sphere_point_away_from_its_centre():
    mesh = ball()
    assert np.einsum("vi,vi->v", vertex_normals(mesh), mesh.vertices).min() > 0.9999


def test_colours_are_rounded_and_clipped_and_never_wrap():
    """The published code lets 256 become 0: a bright cheek turns black. Ours ends at 255."""
    values = np.array([[-0.2, 0.0, 0.499], [1.0, 1.004, 7.0], [np.nan, np.inf, -np.inf]])
    assert to_bytes(values).tolist() == [[0, 0, 127], [255, 255, 255], [0, 255, 0]]


def test_each_vertex_gets_the_colour_of_its_own_place():
    """A field that paints position: also across the borders of the portions."""
    mesh = ball(0.5)
    painted = colour_vertices(mesh, lambda x: x + 0.5, chunk=1000)
    assert np.abs(painted.colours / 255.0 - (mesh.vertices + 0.5)).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(painted.faces, mesh.faces)


def test_a_placed_mesh_returns_by_the_pose_and_grows_with_its_scale():
    """`to_world_mm` must be the inverse of HeadPose.to_posed, times 250; volumes scale with the cube."""
    generator = torch.Generator().manual_seed(3)
    rotation, _ = torch.linalg.qr(torch.randn(4, 3, 3, generator=generator))
    rotation = rotation * torch.linalg.det(rotation)[:, None, None]
    poses = HeadPose(rotation, torch.randn(4, 3, generator=generator), torch.tensor(0.8))
    mesh = ball(0.4)
    placed = to_world_mm(mesh, poses, 2)
    world = torch.from_numpy(placed.vertices / 250.0).expand(4, -1, -1)
    assert np.abs(poses.to_posed(world)[2].numpy() - mesh.vertices).max() < 1e-5
    assert signed_volume(placed) == pytest.approx(signed_volume(mesh) * (250.0 / 0.8) ** 3, rel=1e-4)
