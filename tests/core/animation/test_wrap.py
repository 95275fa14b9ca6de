"""Fixed triangles on fields whose zero set is known."""

import dataclasses

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import label

from mononphm_core.animation import topology as topologies
from mononphm_core.animation.topology import FACE, LEFT_EYE, MOUTH, Topology, fits, load_topology
from mononphm_core.animation.wrap import Field, rows_behind_lips, tucked, wrap_frame, wrap_person
from mononphm_core.io import registry
from mononphm_core.meshing.clean import face_areas
from mononphm_core.meshing.raster import rasterise
from mononphm_core.types import HeadMesh, Intrinsics

RADIUS = 0.3
BALL_AT, BALL_RADIUS = np.array([0.0, 0.0, 0.9]), 0.05


def sphere(centre: np.ndarray, radius: float, slope: float = 1.0) -> Field:
    """A sphere; `slope` other than 1 is a distance that is not quite one, as a network's."""
    middle = torch.tensor(centre, dtype=torch.float32)

    def distance(x: torch.Tensor) -> torch.Tensor:
        return slope * ((x - middle).norm(dim=1) - radius)

    def gradient(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return distance(x), slope * (x - middle) / (x - middle).norm(dim=1, keepdim=True)

    return Field(distance, gradient)


def union(*fields: Field) -> Field:
    """The nearest of several."""

    def gradient(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        each = [field.gradient(x) for field in fields]
        nearest = torch.stack([d for d, _ in each]).argmin(0)
        pick = torch.arange(len(x))
        return torch.stack([d for d, _ in each])[nearest, pick], torch.stack([g for _, g in each])[nearest, pick]

    return Field(lambda x: gradient(x)[0], gradient)


@pytest.fixture(scope="module")
def tiny() -> Topology:
    """A ball for a head, a small one before it for an eye, one blendshape that pushes the head's upper half."""
    head, eye = trimesh.creation.icosphere(subdivisions=4), trimesh.creation.icosphere(subdivisions=2)
    vertices = np.concatenate([head.vertices * RADIUS, eye.vertices * BALL_RADIUS + BALL_AT])
    faces = np.concatenate([head.faces, eye.faces + len(head.vertices)]).astype(np.int64)
    part = np.where(np.arange(len(vertices)) < len(head.vertices), FACE, LEFT_EYE)
    push = np.zeros((1, len(vertices), 3), np.float32)
    push[0, :, 1] = np.where(part == FACE, np.clip(vertices[:, 1], 0, None) * 0.03, 0)
    corners = np.arange(len(vertices))
    return Topology(
        vertices.astype(np.float32), part, faces, corners, np.zeros((len(vertices), 2), np.float32), faces,
        np.zeros(0, np.int64), np.zeros((10, 3), np.int64), np.zeros((10, 3), np.float32), ("push",), push,
    )  # fmt: skip


@pytest.mark.parametrize("slope", [1.0, 0.8, 1.2])
def test_the_triangles_end_on_the_zero_set(tiny, slope):
    """A head that is 2 mm off everywhere lies on the sphere after four steps, whatever the field's slope."""
    field = union(sphere(np.array([0.004, -0.004, 0.0]), RADIUS * 1.02, slope), sphere(BALL_AT, BALL_RADIUS))
    wrapped = wrap_person(tiny, tiny.mean, field)
    skin = tiny.skin
    distance = np.linalg.norm(wrapped[skin] - [0.004, -0.004, 0.0], axis=1) - RADIUS * 1.02
    assert np.abs(distance).max() < 1e-4  # a fortieth of a millimetre


def test_an_eyeball_stays_a_sphere_where_the_field_moves_and_grows_it(tiny):
    """Moved and sized so that its front lies on the zero set, never bent."""
    there = BALL_AT + np.array([0.0, 0.0, 0.003])
    field = union(sphere(np.zeros(3), RADIUS), sphere(there, BALL_RADIUS * 1.03))
    wrapped = wrap_person(tiny, tiny.mean, field)
    ball = wrapped[~tiny.skin]
    radii = np.linalg.norm(ball - ball.mean(0), axis=1)
    assert np.ptp(radii) < 1e-5
    front = ball[ball[:, 2] > BALL_AT[2] + 0.9 * BALL_RADIUS]
    assert np.abs(np.linalg.norm(front - there, axis=1) - BALL_RADIUS * 1.03).max() < 4e-4  # a tenth of a millimetre


def test_a_field_that_contradicts_the_triangles_does_not_lead_them(tiny):
    """Inside out: every gradient disagrees, so nothing is torn; between closed lips it is just so."""
    inside_out = sphere(np.zeros(3), RADIUS * 1.01, slope=-1.0)
    wrapped = wrap_person(tiny, tiny.mean, inside_out)
    np.testing.assert_allclose(wrapped[tiny.skin], tiny.mean[tiny.skin], atol=1e-6)


def test_a_frame_moves_with_its_blendshape_and_asks_only_where_something_moves(tiny):
    """The lower half has no blendshape: it stays where the canonical head is, to the bit."""
    field = union(sphere(np.zeros(3), RADIUS * 1.01), sphere(BALL_AT, BALL_RADIUS))
    linear = tiny.mean + tiny.expression[0]
    wrapped = wrap_frame(tiny, linear, np.zeros_like(linear), field)
    upper = tiny.expressive
    assert np.abs(np.linalg.norm(wrapped[upper & (wrapped[:, 1] > 0.1)], axis=1) - RADIUS * 1.01).max() < 3e-4
    low = tiny.skin & (tiny.mean[:, 1] < -0.1)
    assert np.abs(wrapped[low] - linear[low]).max() < 1e-3


def test_the_shipped_triangles_fit_the_default_model():
    """The bundled prior's template points are vertices of the shipped table; without that there is no animation.glb."""
    card = registry.find_model()
    model = registry.warm_model(card, "cpu")
    assert fits(load_topology(), model.template, card.expression_names)


def test_a_template_of_another_mesh_is_refused():
    """Points that move otherwise are other points: a wrong head is worse than none."""
    card = registry.find_model()
    template = registry.warm_model(card, "cpu").template
    other = dataclasses.replace(load_topology(), expression=load_topology().expression * 1.1)
    assert not fits(other, template, card.expression_names)
    assert not fits(load_topology(), None, card.expression_names)
    assert not fits(load_topology(), template, card.expression_names[::-1])


def test_the_shipped_table_is_one_sheet_with_three_rims_and_two_closed_eyeballs():
    """Euler's numbers: a sheet with two lids and a neck open (2 - 3 = -1), two spheres (2 each)."""
    table = load_topology()
    for parts, euler in (((FACE, topologies.NECK, MOUTH), -1), ((LEFT_EYE,), 2), ((topologies.RIGHT_EYE,), 2)):
        faces = table.faces[np.isin(table.part[table.faces[:, 0]], parts)]
        edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0)
        assert len(np.unique(faces)) - len(edges) + len(faces) == euler
    assert face_areas(HeadMesh(table.mean, table.faces)).min() > 0.0
    np.testing.assert_array_equal(table.corner_vertex[table.corner_faces], table.faces)
    assert table.corner_uv.min() >= 0.0 and table.corner_uv.max() <= 1.0


def test_an_open_mouth_does_not_show_through_a_deep_fold_below_the_lip():
    """The cavity is drawn back: a chin pressed in by 6 mm hides it, and the lips stay where they were."""
    table = load_topology()
    mouth = table.part == MOUTH
    x = table.mean + table.expression[table.expression_names.index("jawOpen")].astype(np.float64)
    fold_y = x[rows_behind_lips(table) == 1, 1].min() - 0.05
    pressed = x.copy()
    away = (x[~mouth, :2] - [0.0, fold_y]) / [0.08, 0.02]
    pressed[~mouth, 2] -= 0.024 * np.exp(-np.square(away).sum(1))
    assert shown(table, pressed) > 1
    assert shown(table, tucked(table, pressed)) == 1
    np.testing.assert_array_equal(tucked(table, x)[~mouth], x[~mouth])


def shown(table: Topology, x: np.ndarray) -> int:
    """In how many places the cavity is seen from in front."""
    camera = Intrinsics(1200.0, 1200.0, 256.0, 256.0, 512, 512)
    raster = rasterise(x * [1, -1, -1] + [0.0, 0.0, 4.0], table.faces, camera)
    inner = (table.part == MOUTH)[table.faces[raster.face_index]].all(-1)
    return int(label(raster.covered & inner)[1])
