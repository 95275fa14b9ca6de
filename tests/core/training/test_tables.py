"""The template tables say of named points what the codes say of all vertices."""

import numpy as np
import pytest
import torch

from mononphm_core.training.tables import coarse_surface, make_template, span_of


@pytest.fixture(scope="module")
def template(heads, coded, tmp_path_factory):
    """Five landmarks on the stand-in heads; one lies inside a triangle."""
    folder = tmp_path_factory.mktemp("tables")
    corners = heads.skeleton.sheet[[3, 50, 200, 400, 600]]
    bary = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0.2, 0.3, 0.5]], np.float32)
    np.savez(folder / "mediapipe478_on_ict.npz", vertex_index=corners, bary=bary, spread_mm=np.arange(5.0))
    people = coded.geometry.encode(coded.shapes)
    complexions = np.random.default_rng(0).standard_normal((30, coded.appearance.encode(coded.shapes[:1]).shape[1]))
    made = make_template(heads, coded.geometry, folder, 120, people, coded.appearance, complexions.astype(np.float32))
    return made, corners, bary, people


def test_named_points_are_where_the_decoded_head_has_them(template, heads, coded):
    """Anchors and landmarks of a code: the same linear map, cut out."""
    made, corners, bary, people = template
    z = people[7:8]
    decoded = coded.geometry.decode(z)[0]
    anchors = made.canonical(torch.from_numpy(z), "anchors65")[0].numpy()
    np.testing.assert_allclose(anchors, decoded[heads.anchors], atol=1e-5)
    landmarks = made.canonical(torch.from_numpy(z), "mediapipe478")[0].numpy()
    expected = np.einsum("pk,pkc->pc", bary, decoded[corners])
    np.testing.assert_allclose(landmarks[:4], expected[:4], atol=1e-5)
    np.testing.assert_allclose(landmarks[4], expected[4], atol=1e-3)  # the farthest parts of its corners are left out


def test_expressions_move_named_points_as_they_move_the_head(template, heads, coded):
    """x_posed = x_canonical + expression (z_exp - z_canonical)."""
    made, _, _, people = template
    z_exp = np.random.default_rng(1).random(len(heads.expression_names)).astype(np.float32)
    posed = made.posed(torch.from_numpy(people[:1]), torch.from_numpy(z_exp)[None], "ibug68")[0].numpy()
    offset = np.tensordot(z_exp - heads.z_canonical, heads.expression, 1)
    expected = (coded.geometry.decode(people[:1])[0] + offset)[heads.ibug68]
    np.testing.assert_allclose(posed, expected, atol=1e-5)


def test_the_coarse_surface_is_a_surface(heads):
    """No edge has three triangles, all triangles look outwards, and it stays on the outer skin above the neck."""
    vertices, faces = coarse_surface(heads, 120)
    x = heads.neutral[vertices]
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    assert len({tuple(e) for e in edges.tolist()}) == len(edges)
    normal = np.cross(x[faces[:, 1]] - x[faces[:, 0]], x[faces[:, 2]] - x[faces[:, 0]])
    outwards = np.einsum("fi,fi->f", normal, x[faces].mean(1))
    assert (outwards > 0).all()  # the stand-in head is a ball
    assert np.isin(vertices, np.unique(heads.skeleton.sheet)).all()
    assert x[:, 1].min() > heads.y_cut


def test_the_span_reaches_every_head_that_varies_in_few_ways(coded):
    """Five modes and their mirror images make the stand-in people: ten directions say all that their codes say."""
    z = coded.geometry.encode(coded.shapes)
    span = span_of(coded.geometry, z, np.arange(0, coded.shapes.shape[1], 2), 10).numpy()
    u, *_ = np.linalg.lstsq(span, z.T, rcond=None)
    again = coded.geometry.decode((span @ u).T)
    differ = coded.geometry.decode(z) - coded.shapes.mean(0)
    assert np.square(again - coded.geometry.decode(z)).mean() < 1e-3 * np.square(differ).mean()
    np.testing.assert_allclose(
        np.sqrt(np.square(u).mean(1)), 1, atol=0.05
    )  # unit variance: the prior that tracking uses
