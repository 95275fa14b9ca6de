"""What a code means: zero is the mean person, a mirrored person has mirrored codes, people come back."""

import numpy as np

from mononphm_core.training.codes import _shares


def split(basis, z):
    d_global, d_local = basis.global_basis.shape[-1], basis.local_basis.shape[-1]
    return z[:, :d_global], z[:, d_global:].reshape(len(z), -1, d_local)


def test_people_come_back_from_their_codes(coded):
    """Up to the residual that the basis states, which is far below how people differ."""
    z = coded.geometry.encode(coded.shapes)
    error = coded.geometry.decode(z) - coded.shapes
    rms = np.sqrt((error**2).sum(-1).mean())
    differ = np.sqrt(((coded.shapes - coded.shapes.mean(0)) ** 2).sum(-1).mean())
    assert rms <= 1.02 * coded.geometry.residual_rms
    assert coded.geometry.residual_rms < 0.1 * differ


def test_the_zero_code_is_the_mean_person_and_the_mean_person_has_the_zero_code(coded):
    """The prior is a normal distribution around the mean."""
    mean = coded.shapes.mean(0)
    zero = coded.geometry.encode(mean[None])
    np.testing.assert_allclose(zero, 0, atol=1e-3)
    np.testing.assert_allclose(coded.geometry.decode(np.zeros_like(zero))[0], mean, atol=1e-6)


def test_codes_have_zero_mean_and_unit_variance(coded):
    """Whitened: a unit of every global entry is equally likely."""
    z_global, _ = split(coded.geometry, coded.geometry.encode(coded.shapes))
    np.testing.assert_allclose(z_global.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(z_global.std(0), 1, atol=1e-2)


def test_a_mirrored_person_has_the_codes_of_left_and_right_exchanged(coded, heads):
    """A symmetric face has equal codes on both sides. Global entries keep their size; those of skewness change sign."""
    people = coded.shapes[:10]
    mirrored = people[:, heads.skeleton.mirror] * np.array([-1, 1, 1], np.float32)
    here, there = (split(coded.geometry, coded.geometry.encode(x)) for x in (people, mirrored))
    np.testing.assert_allclose(np.abs(here[0]), np.abs(there[0]), atol=2e-2)
    pairs = 2 * heads.pairs
    swapped = here[1][:, :pairs].reshape(10, -1, 2, here[1].shape[-1])[:, :, ::-1].reshape(10, pairs, -1)
    np.testing.assert_allclose(swapped, there[1][:, :pairs], atol=2e-2)
    assert np.abs(here[1][:, :pairs] - there[1][:, :pairs]).max() > 0.5  # the people are not symmetric themselves


def test_the_shares_of_the_anchors_sum_to_one_and_fade_out():
    """A vertex belongs to its nearest anchors; the share vanishes where another anchor becomes nearer."""
    rng = np.random.default_rng(0)
    x, centres = rng.uniform(-1, 1, (200, 3)), rng.uniform(-1, 1, (9, 3))
    anchor, share = _shares(x, centres, 0.4, 3)
    np.testing.assert_allclose(share.sum(1), 1, atol=1e-6)
    distance = np.linalg.norm(x[:, None] - centres[None], axis=-1)
    assert (np.sort(distance, 1)[:, :3] == np.take_along_axis(distance, anchor, 1)).all()
    ordered = np.sort(distance, 1)
    about_to_change = (ordered[:, 2] > 0.97 * ordered[:, 3]) & (ordered[:, 0] < 0.5 * ordered[:, 3])
    assert about_to_change.sum() > 3
    assert share[about_to_change, 2].max() < 0.03**2 / 0.5**2
