"""pytorch3d beside our own: the same pictures and the same neighbours.

Where it is not installed, a stand-in speaks its documented interface in plain NumPy (x left, y up, the shorter side in
[-1, 1], pixel centres, perspective-correct barycentrics): what is tested then is our translation, not pytorch3d.
"""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from mononphm_core.geometry import neighbours as near
from mononphm_core.meshing import device_raster
from mononphm_core.meshing.raster import rasterise
from mononphm_core.types import Intrinsics
from tests.core.meshing.test_raster import CAMERA, fine_sphere, soup

REAL = importlib.util.find_spec("pytorch3d") is not None
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def rasterize_meshes(mesh, image_size, faces_per_pixel, perspective_correct, **_):
    """The stand-in: every piece against every pixel, in the documented screen."""
    assert faces_per_pixel == 1 and perspective_correct
    height, width = image_size
    short = min(height, width)
    x = (width - 1 - np.arange(width) + 0.5 - width / 2) * 2 / short
    y = (height - 1 - np.arange(height) + 0.5 - height / 2) * 2 / short
    at = np.stack(np.meshgrid(x, y), -1)
    depth, face = np.full((height, width), np.inf), np.full((height, width), -1)
    barycentric = np.full((height, width, 3), -1.0)
    corners = mesh.points.double().numpy()[mesh.faces.numpy()]
    for number, (a, b, c) in enumerate(corners):
        area = np.cross(b[:2] - a[:2], c[:2] - a[:2])
        if area == 0:
            continue
        flat = np.stack([np.cross(q[:2] - p[:2], at - p[:2]) / area for p, q in ((b, c), (c, a), (a, b))], -1)
        right = flat / np.array([a[2], b[2], c[2]])
        right = right / right.sum(-1, keepdims=True)
        z = right @ np.array([a[2], b[2], c[2]])
        hit = (flat > 0).all(-1) & (z < depth)
        depth[hit], face[hit], barycentric[hit] = z[hit], number, right[hit]
    return (
        torch.from_numpy(face)[None, ..., None],
        None,
        torch.from_numpy(barycentric).float()[None, ..., None, :],
        None,
    )


def knn_points(p1, p2, K):
    """The stand-in: all pairs, in single precision; in no order among themselves."""
    return SimpleNamespace(idx=torch.cdist(p1, p2).topk(K, largest=False).indices.flip(-1))


@pytest.fixture(params=[pytest.param("real", marks=pytest.mark.skipif(not REAL, reason="no pytorch3d")), "stand-in"])
def pytorch3d(request, monkeypatch):
    if request.param == "real":
        yield DEVICE
        return
    parts = {
        "pytorch3d": {}, "pytorch3d.renderer": {}, "pytorch3d.renderer.mesh": {},
        "pytorch3d.renderer.mesh.rasterize_meshes": {"rasterize_meshes": rasterize_meshes},
        "pytorch3d.structures": {"Meshes": lambda points, faces: SimpleNamespace(points=points[0], faces=faces[0])},
        "pytorch3d.ops": {"knn_points": knn_points},
    }  # fmt: skip
    for name, content in parts.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    yield torch.device("cpu")


@pytest.mark.filterwarnings("ignore:Arrays of 2-dimensional vectors:DeprecationWarning")
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    "camera", [CAMERA, Intrinsics(90.0, 95.0, 26.5, 31.0, 52, 64, (-0.2, 0.05, 0.01, -0.008, 0.0))]
)
def test_both_rasterisers_see_the_same(pytorch3d, behind, camera):
    """Wide and tall pictures, lens distortion, triangles through the near plane: same triangle, depth, barycentrics."""
    vertices, faces = soup(80, 1, behind)
    ours = rasterise(vertices, faces, camera, near=0.3)
    theirs = device_raster.rasterise_on(pytorch3d, vertices, faces, camera, near=0.3)
    assert ours.covered.mean() > 0.1
    same = ours.face_index == theirs.face_index
    assert same.mean() > 0.999  # single precision at the edges
    seen = same & ours.covered
    assert np.allclose(ours.depth[seen], theirs.depth[seen], rtol=1e-3)
    assert np.median(np.abs(ours.barycentric - theirs.barycentric)[seen]) < 1e-4


def test_an_empty_view_is_an_empty_raster(pytorch3d):
    """Everything behind the camera."""
    vertices, faces = fine_sphere(1.0, (0.0, 0.0, -5.0))
    assert not device_raster.rasterise_on(pytorch3d, vertices, faces, CAMERA).covered.any()


@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_are_those_of_the_tree(pytorch3d, k):
    """Far from the origin, where single precision is coarse: distances are double all the same, nearest first."""
    random = np.random.default_rng(0)
    points, queries = random.normal(size=(500, 3)) + 1000.0, random.normal(size=(70, 3)) + 1000.0
    distance, index = near.DeviceNeighbours(points, pytorch3d).query(queries, k)
    expected, at = cKDTree(points).query(queries, k)
    assert np.allclose(distance, expected, atol=1e-9) and np.array_equal(index, at)


def test_what_draws_and_what_measures_takes_the_device_where_there_is_one(pytorch3d, monkeypatch):
    """The choice is made in one place, and both follow it."""
    vertices, faces = soup(20, 2, behind=False)
    for module in (device_raster, near):
        monkeypatch.setattr(module, "pytorch3d_device", lambda: pytorch3d)
    a, b = vertices[:40], vertices[20:]
    assert isinstance(near.neighbours(a), near.DeviceNeighbours)
    assert near.neighbours(a).query(b)[0] == pytest.approx(cKDTree(a).query(b)[0])
    drawn = []

    def noted(device, *what):
        drawn.append(device)
        return rasterise(*what)

    monkeypatch.setattr(device_raster, "rasterise_on", noted)
    device_raster.draw(vertices, faces, CAMERA)
    assert drawn == [pytorch3d]
