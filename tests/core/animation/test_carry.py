"""The neutral head's triangles carried by a deformation whose inverse is known."""

import numpy as np
import pytest
import torch
import trimesh

from mononphm_core.animation.carry import Expression, carried_head, follow
from mononphm_core.animation.wrap import Field
from mononphm_core.geometry.sheet import laplacian
from mononphm_core.types import HeadMesh

RADIUS = 0.4


def ball() -> HeadMesh:
    made = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
    colours = np.random.default_rng(0).integers(0, 256, (len(made.vertices), 3), dtype=np.uint8)
    return HeadMesh(np.asarray(made.vertices, np.float32), np.asarray(made.faces, np.int64), colours)


def stretch(z: torch.Tensor) -> torch.Tensor:
    """Diagonal of the map from canonical to posed: z[0] widens, z[1] lengthens."""
    return torch.stack([1 + z[0], 1 + z[1], torch.ones(())])


def stretched(z: torch.Tensor) -> Expression:
    """A ball that widens and lengthens: the backward map divides, the field is the ball's of the divided point."""

    def displaced(x: torch.Tensor) -> torch.Tensor:
        return x / stretch(z)

    def distance(x: torch.Tensor) -> torch.Tensor:
        return displaced(x).norm(dim=-1) - RADIUS

    def gradient(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        canonical = displaced(x)
        return distance(x), canonical / canonical.norm(dim=-1, keepdim=True) / stretch(z)

    return Expression(displaced, Field(distance, gradient))


def test_every_vertex_goes_where_the_inverse_of_the_deformation_says():
    """Closed form: x * (1 + z). Two independent motions are two shapes, whatever the number of frames; one more
    keeps all weights above 0. Colours stay."""
    z = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.05, 0.1], [0.0, -0.05], [0.08, 0.03]])
    neutral, heard = ball(), []
    head = carried_head(neutral, z, stretched, 0.2, heard.append)
    assert len(head.names) == 3
    assert head.weights.min() >= 0.0
    assert head.largest_error_mm <= 0.2
    for row, code in enumerate(z):
        found = head.vertices + np.tensordot(head.weights[row], head.shapes, 1)
        np.testing.assert_allclose(found, neutral.vertices * stretch(code).numpy(), atol=5e-4)  # 0.12 mm of the bound
    np.testing.assert_array_equal(head.colours, neutral.colours)
    assert head.texture is None
    assert heard == [1, 2, 3, 4, 5]


def test_normals_turn_with_the_surface():
    """Of an ellipsoid they are those of x / s^2."""
    head = carried_head(ball(), torch.tensor([[0.0, 0.0], [0.1, 0.0]]), stretched, 0.01, lambda done: None)
    normal = head.normals + np.tensordot(head.weights[1], head.shape_normals, 1)
    expected = head.vertices / [1.1, 1, 1]
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    assert (normal * expected).sum(-1).min() / np.linalg.norm(normal, axis=-1).max() > 0.999


def test_what_the_field_adds_beyond_the_deformation_is_added_along_its_gradient():
    """Ambient coordinates: here the surface swells by 0.5 mm while no point is displaced."""

    def swollen(z: torch.Tensor) -> Expression:
        def gradient(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            size = x.norm(dim=-1, keepdim=True)
            return size[:, 0] - RADIUS - 0.002 * z[0], x / size

        return Expression(lambda x: x, Field(lambda x: gradient(x)[0], gradient))

    head = carried_head(ball(), torch.tensor([[0.0], [1.0]]), swollen, 0.001, lambda done: None)
    size = np.linalg.norm(head.vertices + np.tensordot(head.weights[1], head.shapes, 1), axis=-1)
    np.testing.assert_allclose(size, RADIUS + 0.002, atol=1e-5)


def test_lost_vertices_follow_their_neighbours():
    """Harmonic: an offset that is the same everywhere is found again; a lost one lies between its neighbours'."""
    mesh = ball()
    stiffness, _ = laplacian(mesh.vertices, mesh.faces)
    lost = mesh.vertices[:, 2] > 0.3
    offsets = np.tile([0.01, -0.02, 0.03], (len(mesh.vertices), 1))
    filled = follow(stiffness, np.where(lost[:, None], 9.0, offsets), lost)
    np.testing.assert_allclose(filled, offsets, atol=1e-6)
    tilted = np.where(lost[:, None], np.nan, mesh.vertices)
    filled = follow(stiffness, tilted, lost)
    assert np.isfinite(filled).all()
    assert filled[lost].max() <= np.nanmax(tilted) + 1e-9
    assert follow(stiffness, offsets, np.zeros(len(offsets), bool)) is offsets


def test_a_still_head_has_no_shapes():
    """One frame, the neutral one."""
    head = carried_head(ball(), torch.zeros(1, 2), stretched, 0.2, lambda done: None)
    assert head.names == ()
    assert head.weights.shape == (1, 0)
    assert head.largest_error_mm == pytest.approx(0, abs=0.02)
