"""Batches, pool and complexions: drawn from a seed, made once, and true to the heads they come from."""

import dataclasses

import numpy as np
import pytest
import torch

from mononphm_core.training.appearance import EVEN_TONES, Painter
from mononphm_core.training.batches import BatchMaker, BatchSizes
from mononphm_core.training.pool import Pool, write_crowd, write_shard
from mononphm_core.training.sources import sample_expression
from mononphm_core.training.supervision import DistanceField
from tests.core.training.tiny import NAMES

pytest.importorskip("igl", reason="training needs the extra `train`")
SIZES = BatchSizes(heads=3, distances=40, correspondences=50, colours=30)


@pytest.fixture(scope="module")
def shards(heads, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    write_shard(heads, folder, 0, 300, seed=0, count=4)
    return folder


@pytest.fixture(scope="module")
def maker(heads, painter, coded):
    return BatchMaker(heads, painter, coded.geometry, coded.appearance, complexions=5)


def test_a_batch_is_a_function_of_its_seed(maker, shards):
    """A run can be repeated; another seed is another batch."""
    pool = Pool(shards).heads
    one, two, other = (maker.draw(np.random.default_rng(s), pool, SIZES) for s in (4, 4, 5))
    for name, value in one.__dict__.items():
        assert torch.equal(value, two.__dict__[name]), name
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()
    assert not torch.equal(one.x_canonical, other.x_canonical)
    assert one.x_canonical.shape == (3, 40, 3)
    assert one.x_target.shape == (3, 50, 3)
    assert one.colour.shape == (3, 30, 3)
    assert one.colour.abs().max() <= 1


def test_codes_in_a_batch_are_those_of_its_heads(maker, shards, coded, heads):
    """Anchors and distances of a row belong to the person whose code the row carries."""
    pool = Pool(shards).heads
    batch = maker.draw(np.random.default_rng(4), pool, SIZES)
    whose = [
        int(np.argmin([np.abs(h.canonical[heads.anchors] - a.numpy()).max() for h in pool])) for a in batch.anchors
    ]
    for row, person in enumerate(whose):
        z = coded.geometry.encode(pool[person].canonical[None])[0]
        np.testing.assert_allclose(batch.z_geo[row].numpy(), z, atol=1e-4)
        known = {tuple(p) for p in pool[person].distances.x_canonical.tolist()}
        assert all(tuple(p) in known for p in batch.x_canonical[row].tolist())


def test_at_the_canonical_expression_posed_points_are_canonical_points(maker, shards, heads):
    """The deformation field is zero there by definition of the canonical head."""
    posed, target = maker.correspondences(np.random.default_rng(0), Pool(shards).heads[0], heads.z_canonical, 60)
    np.testing.assert_allclose(posed, target, atol=1e-6)
    wide = heads.z_canonical.copy()
    wide[3] = 1.0
    posed, target = maker.correspondences(np.random.default_rng(0), Pool(shards).heads[0], wide, 60)
    assert np.abs(posed - target).max() > 1e-4


def test_a_shard_is_a_function_of_its_number_and_seed(heads, shards, tmp_path):
    """An interrupted pool is filled up later with the heads that it would have had; nothing half-written remains."""
    again = np.load(write_shard(heads, tmp_path, 0, 300, seed=0, count=4))
    first = np.load(shards / "shard_0000.npz")
    other = np.load(write_shard(heads, tmp_path, 1, 300, seed=0, count=4))
    assert all(np.array_equal(first[k], again[k]) for k in first.files)
    assert not np.array_equal(first["canonical"], other["canonical"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shard_0000.npz", "shard_0001.npz"]


def test_a_pool_finds_shards_that_appear_while_it_is_open(heads, tmp_path):
    """Training starts with the first shard and takes the others as they come."""
    write_shard(heads, tmp_path, 0, 100, seed=0, count=2)
    pool = Pool(tmp_path)
    assert len(pool.heads) == 2
    write_shard(heads, tmp_path, 1, 100, seed=0, count=3)
    assert pool.refresh() == 5 == pool.refresh()


def test_random_expressions_are_ones_that_a_face_can_make():
    """Weights in [0, 1]; both eyes look the same way; nothing pulls left and right, or up and down, at once."""
    rng = np.random.default_rng(0)
    weights = np.stack([sample_expression(rng, NAMES) for _ in range(400)])
    at = {name: weights[:, i] for i, name in enumerate(NAMES)}
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert (weights.max(0) > 0.2).all()  # every shape is taught
    for a, b in (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight"), ("eyeLookUp_L", "eyeLookDown_L")):
        assert (np.minimum(at[a], at[b]) == 0).all()
    looking = (at["eyeLookIn_L"] > 0) | (at["eyeLookOut_L"] > 0)
    np.testing.assert_array_equal(at["eyeLookOut_R"][looking], at["eyeLookIn_L"][looking])
    assert (at["mouthClose"] <= 0.8 * at["jawOpen"] + 1e-6).all()


def test_the_mirrored_skin_is_the_skin_seen_in_a_mirror(painter):
    """`flip` exchanges left and right of the face texture and touches nothing else of it."""
    look = dataclasses.replace(painter.sample(np.random.default_rng(2)), flip=False, brow_alpha=0.0)
    points = painter.vertices()
    mirrored = dataclasses.replace(points, uv=np.where([True, False], 1 - points.uv, points.uv).astype(np.float32))
    on_face = (points.part == 0) & (points.uv[:, 0] <= 1.0)
    flipped = painter.paint(dataclasses.replace(look, flip=True), points)
    np.testing.assert_allclose(flipped[on_face], painter.paint(look, mirrored)[on_face], atol=1e-6)
    assert 0 <= flipped.min() <= flipped.max() <= 1


def test_eyes_have_a_dark_pupil_an_iris_and_a_white(painter):
    """By angle from the optical axis, whatever the complexion."""
    look = painter.sample(np.random.default_rng(3))
    points = painter.vertices()
    ball = np.flatnonzero(points.part >= 7)[:3]
    angles = np.array([[0.05, 0], [0.35, 0], [1.2, 0]], np.float32)
    three = type(points)(points.uv[ball], points.part[ball], points.x_cm[ball], angles)
    pupil, iris, white = painter.paint(look, three)
    assert pupil.max() < 0.3
    assert (white > iris).all()
    np.testing.assert_allclose(white, look.sclera ** (1 / 2.2), atol=1e-5)


def test_a_crowd_is_a_function_of_its_seed_and_has_no_distances(heads, tmp_path):
    """The cheap people: a file of shapes, found by the pool beside its shards."""
    write_shard(heads, tmp_path, 0, 100, seed=0, count=2)
    path = write_crowd(heads, tmp_path, 3, 4, seed=0)
    first = np.load(path)
    pool = Pool(tmp_path)
    assert len(pool.heads) == 2
    assert len(pool.crowd) == 4
    np.testing.assert_array_equal(np.stack([h.canonical for h in pool.crowd]), first)
    assert all(len(h.distances.sdf) == 0 for h in pool.crowd)
    np.testing.assert_array_equal(np.load(write_crowd(heads, tmp_path, 3, 4, seed=0)), first)
    assert not np.array_equal(np.load(write_crowd(heads, tmp_path, 4, 4, seed=0)), first)
    assert pool.refresh() == 2
    assert len(pool.crowd) == 8


def test_the_shell_agrees_with_the_distances_of_a_search(maker, heads, shards):
    """Half of the points lie on the skin; displaced ones are as far from it as they were displaced, but where the skin
    folds or the triangle is at an edge of the coarse stand-in: nine in ten agree."""
    head = Pool(shards).heads[1]
    shell = maker.shell(np.random.default_rng(3), head, 400)
    true = DistanceField(heads.skeleton, head.canonical)(shell.x_canonical)
    on = shell.sdf == 0
    assert on.sum() >= 200
    np.testing.assert_allclose(true[on], 0, atol=2e-5)
    assert (np.abs(true - shell.sdf) < 2e-4).mean() > 0.9
    assert np.abs(shell.sdf[~on]).max() > 1e-3


def test_without_skins_complexions_are_even_with_eyes_and_hair(heads, tmp_path):
    """What `mononphm train data` makes from ICT-FaceKit alone has no pictures of skin, and still trains."""
    plain = Painter(tmp_path, heads)
    points = plain.vertices()
    look = dataclasses.replace(plain.sample(np.random.default_rng(0)), hair_alpha=0.0, beard_alpha=0.0, tint=np.ones(3))
    colour = plain.paint(look, points)
    skin = colour[points.part == 0]
    assert np.ptp(skin, axis=0).max() < 1e-5
    one, two = (EVEN_TONES[i] for i in look.skins)
    np.testing.assert_allclose(skin[0], ((1 - look.mix) * one + look.mix * two) ** (1 / 2.2), atol=1e-5)
    ball = points.part >= 7
    front = ball & (plain.eye[:, 0] < 0.15)
    assert colour[front].max() < colour[ball & (plain.eye[:, 0] > 1.0)].min()
