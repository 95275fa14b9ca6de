"""The average head bent by 5 mm, so that every place is known; and a coarse triangulation of the unbent one."""

from types import SimpleNamespace

import igl
import numpy as np
import trimesh

from mononphm_core.animation.topology import MOUTH, load_topology
from mononphm_core.io import registry
from mononphm_core.training.registration import Source, Template

CM = 25.0
"""Of a head unit."""
TEMPLATE_TRIANGLES = 8000


def waves(seed: int, x: np.ndarray, size: float):
    """A smooth random field, `size` in the root mean square, wavelengths 8 to 16 cm."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal((8, 3))
    wave = direction / np.linalg.norm(direction, axis=1, keepdims=True) * (2 * np.pi / rng.uniform(8, 16, (8, 1)))
    shift, push = rng.uniform(0, 2 * np.pi, 8), rng.standard_normal((8, 3))
    scale = size / np.sqrt(np.square(np.sin(x @ wave.T + shift) @ push).sum(1).mean())
    return lambda p: scale * np.sin(p @ wave.T + shift) @ push


def on_triangles(points: np.ndarray, x: np.ndarray, triangles: np.ndarray):
    """Distance, triangle and barycentric coordinates of the nearest surface points."""
    squared, triangle, foot = igl.point_mesh_squared_distance(points, x, triangles)
    corner = x[triangles[triangle]]
    share = trimesh.triangles.points_to_barycentric(corner, foot, method="cramer")
    return np.sqrt(squared), triangle.astype(np.int64), share


def bent_head() -> SimpleNamespace:
    """Turned, in metres, without the mouth's cavity but with eyeballs."""
    topology = load_topology()
    x, faces = topology.mean.astype(np.float64) * CM, topology.faces
    points = registry.warm_model(registry.find_model(), "cpu").template
    start = points.groups["ibug68"][0] - points.groups["surface"][0]
    marks = topology.control_vertex[start : start + 68]
    skin = faces[topology.skin[faces[:, 0]]]
    coarse, triangles, _, birth = igl.decimate(x[topology.skin], skin.astype(np.int32), TEMPLATE_TRIANGLES)
    triangles = triangles.astype(np.int64)
    _, triangle, share = on_triangles(x[marks], coarse, triangles)
    corner = triangles[triangle, share.argmax(1)]
    template = Template(coarse, triangles, corner, topology.part[birth] != MOUTH)
    field = waves(3, x, 0.5)
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])[:3, :3]
    outside = faces[(topology.part[faces] != MOUTH).all(1)]
    true = x + field(x)
    _, triangle, share = on_triangles(coarse[corner] + field(coarse[corner]), true, outside)
    source = Source(0.01 * true @ turn.T + [3, -1, 2], outside, triangle, share)
    return SimpleNamespace(
        template=template, source=source, field=field, turn=turn, true=true, topology=topology, birth=birth
    )
