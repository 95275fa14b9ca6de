"""The rasteriser against geometry and against one ray at a time."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import trimesh

from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.meshing.raster import Raster, rasterise
from mononphm_core.meshing.shade import crease_shade, shade
from mononphm_core.types import HeadMesh, Intrinsics

CAMERA = Intrinsics(90.0, 95.0, 31.0, 26.5, 64, 52)


def slow_raster(vertices: np.ndarray, faces: np.ndarray, camera: Intrinsics, near: float) -> Raster:
    """The slow twin: every pixel's ray against one triangle after the other, no projection and no boxes."""
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones_like(x)], axis=-1)
    depth = np.full(x.shape, np.inf)
    face_index = np.full(x.shape, -1)
    barycentric = np.zeros((*x.shape, 3))
    for number, face in enumerate(faces):
        corners = vertices[face].T  # corners @ b = depth * ray, with sum(b) = 1
        if abs(np.linalg.det(corners)) < 1e-12:
            continue
        b = rays @ np.linalg.inv(corners).T
        z = 1 / np.where(b.sum(-1) == 0, np.nan, b.sum(-1))
        b = b * z[..., None]
        hit = (b >= -1e-9).all(-1) & (z >= near) & (z < depth)
        depth[hit], face_index[hit], barycentric[hit] = z[hit], number, b[hit]
    return Raster(depth, face_index, barycentric)


def soup(triangles: int, seed: int, behind: bool) -> tuple[np.ndarray, np.ndarray]:
    """Random triangles of all sizes; with `behind`, many of them pass through the camera's plane."""
    random = np.random.default_rng(seed)
    centre = random.uniform([-2, -2, -1 if behind else 2.0], [2, 2, 6], (triangles, 1, 3))
    size = 10 ** random.uniform(-2, 0.3, (triangles, 1, 1))
    vertices = (centre + size * random.normal(size=(triangles, 3, 3))).reshape(-1, 3)
    if not behind:
        vertices[:, 2] = np.maximum(vertices[:, 2], 0.5)
    return vertices, np.arange(3 * triangles).reshape(-1, 3)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_fast_raster_sees_what_single_rays_see(seed, behind):
    """Triangles crossing each other, the border and the near plane: same face, depth and barycentrics everywhere."""
    vertices, faces = soup(150, seed, behind)
    fast, slow = rasterise(vertices, faces, CAMERA, near=0.3), slow_raster(vertices, faces, CAMERA, near=0.3)
    assert np.array_equal(fast.face_index, slow.face_index)
    assert fast.covered.mean() > 0.1
    seen = slow.covered
    assert np.allclose(fast.depth[seen], slow.depth[seen], rtol=1e-9)
    assert np.abs(fast.barycentric - slow.barycentric).max() < 1e-6  # slivers divide by small areas
    assert np.isinf(fast.depth[~seen]).all()


def fine_sphere(radius: float, centre: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    sphere = trimesh.creation.icosphere(subdivisions=6, radius=radius)
    return np.asarray(sphere.vertices) + centre, np.asarray(sphere.faces)


def test_the_depth_of_a_sphere_is_what_geometry_says():
    """Each pixel's ray meets the sphere where the quadratic says; facets of 1.5 mm cut off < 0.02 mm."""
    camera = Intrinsics(400.0, 400.0, 100.0, 80.0, 200, 160)
    centre = np.array([10.0, -5.0, 500.0])
    vertices, faces = fine_sphere(100.0, tuple(centre))
    raster = rasterise(vertices, faces, camera)
    x, y = np.meshgrid(np.arange(200) + 0.5, np.arange(160) + 0.5)
    rays = np.stack([(x - 100.0) / 400.0, (y - 80.0) / 400.0, np.ones_like(x)], axis=-1)
    a, half_b = (rays**2).sum(-1), rays @ centre
    root = half_b**2 - a * (centre @ centre - 100.0**2)
    expected = (half_b - np.sqrt(np.maximum(root, 0))) / a
    clearly = raster.covered & (root > 0.05 * root.max())  # at the rim depth is infinitely steep
    assert np.abs(raster.depth - expected)[clearly].max() < 0.05
    # The silhouette: only pixels whose centre lies within the facets' depth of the exact outline may differ.
    doubtful = np.abs(np.sqrt(np.maximum(centre @ centre - half_b**2 / a, 0)) - 100.0) < 0.03
    assert np.array_equal(raster.covered[~doubtful], (root > 0)[~doubtful])
    assert doubtful.sum() < 0.1 * np.pi * 2 * 80  # a tenth of the outline's pixels


def test_neighbours_leave_no_crack_and_no_pixel_to_nobody():
    """Pixel centres exactly on shared edges and corners: a wall of triangles covers everything."""
    steps = np.arange(0, 17) * 4.0 + 0.5  # edges run through pixel centres
    x, y = np.meshgrid(steps - 8, steps - 8)
    vertices = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
    corner = (np.arange(16)[:, None] * 17 + np.arange(16)).ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + 1, corner + 18], -1), np.stack([corner, corner + 18, corner + 17], -1)]
    )
    assert rasterise(vertices, faces, Intrinsics(1.0, 1.0, 0.0, 0.0, 40, 40)).covered.all()


def test_position_interpolated_over_a_tilted_triangle_is_the_ray_point():
    """What perspective-correct means: the interpolated corner positions lie on the pixel's own ray."""
    vertices = np.array([[-1.0, -1.0, 1.5], [1.5, -0.5, 6.0], [0.0, 1.5, 3.0]])
    faces = np.array([[0, 1, 2]])
    raster = rasterise(vertices, faces, CAMERA)
    v, u = np.nonzero(raster.covered)
    assert len(u) > 300
    x = raster.interpolate(vertices, faces)[v, u]
    assert np.allclose(CAMERA.fx * x[:, 0] / x[:, 2] + CAMERA.cx, u + 0.5, atol=1e-9)
    assert np.allclose(CAMERA.fy * x[:, 1] / x[:, 2] + CAMERA.cy, v + 0.5, atol=1e-9)
    assert np.allclose(x[:, 2], raster.depth[v, u])


def test_lens_distortion_moves_points_as_opencv_does():
    """The overlay is drawn on the original, distorted picture; OpenCV's projection is the public definition."""
    camera = replace(CAMERA, distortion=(-0.2, 0.05, 0.01, -0.008, 0.002))
    point = np.array([0.2, -0.15, 1.0])
    expected, _ = cv2.projectPoints(point[None], np.zeros(3), np.zeros(3), camera.matrix(), np.array(camera.distortion))
    small = 0.02 * np.array([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]])
    raster = rasterise(point + small, np.array([[0, 1, 2], [0, 2, 3]]), camera)
    v, u = np.nonzero(raster.covered)
    assert len(u) >= 9
    assert np.abs([u.mean() + 0.5, v.mean() + 0.5] - expected.ravel()).max() < 0.5
    plain = rasterise(point + small, np.array([[0, 1, 2], [0, 2, 3]]), CAMERA)
    assert not np.array_equal(plain.covered, raster.covered)


def test_nothing_in_view_is_an_empty_raster():
    """Behind the camera, beside the picture, and no triangle at all."""
    vertices, faces = fine_sphere(1.0, (0.0, 0.0, -5.0))
    assert not rasterise(vertices, faces, CAMERA).covered.any()
    assert not rasterise(vertices + np.array([100.0, 0.0, 10.0]), faces, CAMERA).covered.any()
    assert not rasterise(vertices, faces[:0], CAMERA).covered.any()


def two_boxes() -> HeadMesh:
    """A wall with a sharp valley: /\\/\\ in x, along y."""
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    z = np.array([5.0, 4.0, 5.0, 4.0, 5.0])
    vertices = np.concatenate([np.stack([x, np.full(5, y), z], -1) for y in (-2.0, 2.0)])
    left = np.arange(4)
    faces = np.concatenate([np.stack([left, left + 5, left + 1], -1), np.stack([left + 1, left + 5, left + 6], -1)])
    return HeadMesh(vertices, faces)


def test_a_valley_is_darker_than_a_ridge():
    """Creases must be seen at a glance: that is what the preview is for."""
    mesh = two_boxes()
    camera = Intrinsics(100.0, 100.0, 60.0, 60.0, 120, 120)
    creases = crease_shade(rasterise(mesh.vertices, mesh.faces, camera))
    valley, ridge = creases[60, 60], creases[60, 85]  # x = 0 at z = 5, x = 1 at z = 4
    assert valley < 0.8 * ridge
    assert ridge > 0.95


def test_shading_is_brightest_where_the_surface_faces_the_light_and_black_outside():
    """A ball under a light from over the left shoulder; the picture stays in [0, 1]."""
    vertices, faces = fine_sphere(1.0, (0.0, 0.0, 5.0))
    mesh = HeadMesh(vertices, faces)
    camera = Intrinsics(200.0, 200.0, 60.0, 60.0, 120, 120)
    raster = rasterise(vertices, faces, camera)
    picture = shade(raster, vertex_normals(mesh), faces)
    assert picture.min() >= 0 and picture.max() <= 1
    assert (picture[~raster.covered] == 0).all()
    assert picture[45, 48, 0] > picture[75, 72, 0] + 0.1
    turned = shade(raster, -vertex_normals(mesh), faces)  # the inside of an open neck is lit too
    assert np.allclose(picture, turned)


def test_albedo_tints_the_shaded_surface():
    """A red ball is red: colours go through the same barycentrics."""
    vertices, faces = fine_sphere(1.0, (0.0, 0.0, 5.0))
    raster = rasterise(vertices, faces, CAMERA)
    red = np.tile([0.9, 0.1, 0.1], (len(vertices), 1))
    picture = shade(raster, vertex_normals(HeadMesh(vertices, faces)), faces, red)[raster.covered]
    assert np.allclose(picture[:, 0], 9 * picture[:, 1], rtol=1e-6)
