"""Linear placement: exact for heads that differ by an affine map around each anchor."""

import numpy as np

from mononphm_core.training.placement import RIDGE, placement, vertex_area


def test_an_affine_change_of_the_whole_head_is_every_patchs_frame(coded, heads):
    """If a code direction moves every vertex by A x, each patch finds A, up to the ridge that stands for thickness."""
    codes = coded.geometry
    affine = np.array([[0.05, 0.02, 0.0], [0.01, -0.03, 0.02], [0.0, 0.04, 0.02]], np.float32)
    basis = np.zeros_like(codes.global_basis)
    basis[..., 0] = codes.mean @ affine.T
    plain = type(codes)(**{**codes.__dict__, "global_basis": basis, "local_basis": np.zeros_like(codes.local_basis)})
    found = placement(plain, heads.anchors, vertex_area(heads))
    np.testing.assert_allclose(found[:, 0, :, 0], codes.mean[heads.anchors] @ affine.T, atol=1e-6)
    for a, vertex in enumerate(heads.anchors):
        arm = codes.mean - codes.mean[vertex]
        near = (np.square(arm).sum(1) < 0.15**2) & (vertex_area(heads) > 0)
        w = vertex_area(heads)[near] * np.exp(-0.5 * np.square(arm[near]).sum(1) / 0.06**2)
        spread = np.einsum("v,vi,vj->ij", w / w.sum(), arm[near], arm[near])
        shrunk = affine @ spread @ np.linalg.inv(spread + RIDGE**2 * np.eye(3))
        np.testing.assert_allclose(found[a, 1:, :, 0], shrunk, atol=1e-4)
    assert not found[..., 1:].any()


def test_areas_add_up_to_the_skin_above_the_cut(heads):
    """Each triangle gives a third of its area to each corner; the stand-in ball has radius 0.4 and no mouth."""
    sk = heads.skeleton
    area = vertex_area(heads)
    assert (area[heads.mean_canonical()[:, 1] < heads.y_cut] == 0).all()
    assert (area >= 0).all()
    skin = area[np.unique(sk.sheet)].sum()
    whole = 4 * np.pi * 0.4**2
    assert 0.6 * whole < skin < whole
