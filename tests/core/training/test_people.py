"""People of a further head among the training people."""

import numpy as np
import pytest

from mononphm_core.errors import AssetError
from mononphm_core.training.people import People, eye_motion, on_vertices, read_people, without_motion
from mononphm_core.training.sources import OtherHeads
from tests.core.training.tiny import TinyHeads


@pytest.fixture
def people():
    rng = np.random.default_rng(0)
    mean, components, eyes = (rng.standard_normal(n).astype(np.float32) for n in ((9, 3), (4, 9, 3), (5, 2, 4)))
    return People("made", "only for tests", mean, components, eyes)


def test_people_come_back_from_their_file(people, tmp_path):
    """Components in half precision; the licence with them, for it rules what is trained."""
    again = read_people(people.save(tmp_path), 9)
    assert (again.name, again.licence) == ("made", "only for tests")
    np.testing.assert_array_equal(again.mean, people.mean)
    np.testing.assert_array_equal(again.eyes, people.eyes)
    np.testing.assert_allclose(again.components, people.components, rtol=1e-3)


def test_people_of_another_skin_and_other_files_are_refused(people, tmp_path):
    """A wrong length would end as an index error deep in training, a pickle could do anything."""
    with pytest.raises(AssetError, match="9 vertices of skin; 14 are needed"):
        read_people(people.save(tmp_path), 14)
    (tmp_path / "people_bad.npz").write_bytes(b"no archive")
    with pytest.raises(AssetError, match="people_bad"):
        read_people(tmp_path / "people_bad.npz", 9)
    np.savez(tmp_path / "people_few.npz", mean=np.zeros((9, 3)))
    with pytest.raises(AssetError, match="people_few"):
        read_people(tmp_path / "people_few.npz", 9)


def test_eyeballs_move_with_their_lids():
    """A shift of all lids is the ball's shift; lids that slide on the ball leave it alone."""
    rng = np.random.default_rng(1)
    direction = rng.standard_normal((400, 3)) + np.array([0, 0, 1.5])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    ball = np.concatenate([direction, -direction]) * 1.2 + [3, 1, 5]
    lids = direction * 1.25 + ball.mean(0)
    shift = np.array([0.1, -0.3, 0.2])
    sliding = np.cross([0.2, 0.5, -0.1], lids - ball.mean(0))
    found = eye_motion(np.stack([np.tile(shift, (400, 1)), sliding]), lids, ball)
    np.testing.assert_allclose(found, [[*shift, 0], [0, 0, 0, 0]], atol=1e-9)


def test_what_only_moves_the_head_is_no_shape():
    """A shift and a small turn leave nothing; a shape without them stays, vertices that are not counted included."""
    rng = np.random.default_rng(2)
    x, counted = rng.standard_normal((60, 3)), np.arange(60) < 40
    motion = np.cross([0.01, 0.02, -0.03], x) + np.array([0.5, 0, 1])
    shape = rng.standard_normal((1, 60, 3))
    kept = without_motion(shape, x, counted)
    np.testing.assert_allclose(without_motion(motion[None], x, counted), 0, atol=1e-12)
    np.testing.assert_allclose(without_motion(kept + motion, x, counted), kept, atol=1e-9)


def test_skin_takes_its_displacement_and_eyeballs_their_own(people):
    """Vertices 0 to 8 are skin, then two eyeballs of four; training uses some of them."""
    rng = np.random.default_rng(3)
    neutral, part = rng.standard_normal((17, 3)), np.repeat([0, 7, 8], [9, 4, 4])
    used = np.array([0, 2, 8, *range(9, 17)])
    mean, components = on_vertices(people, neutral, part, used)
    np.testing.assert_allclose(mean[:3], people.mean[[0, 2, 8]])
    np.testing.assert_allclose(components[:, 1], people.components[:, 2])
    right = neutral[13:] - neutral[13:].mean(0)
    np.testing.assert_allclose(components[2, -4:], people.eyes[3, 1, :3] + people.eyes[3, 1, 3] * right, atol=1e-6)


def test_half_of_the_training_people_come_from_the_further_heads():
    """One that is far away tells who is whose; both halves are mirrored at times."""
    heads = TinyHeads()
    plain = [heads.sample(np.random.default_rng(seed)).neutral for seed in range(60)]
    far = np.zeros_like(heads.neutral)
    far[:, 0] = 7.0
    heads.others = [OtherHeads(far, 0.01 * heads.identity[:2])]
    places = np.array([heads.sample(np.random.default_rng(seed)).neutral[:, 0].mean() for seed in range(60)])
    theirs = np.abs(places) > 5
    assert 15 < theirs.sum() < 45
    assert (places[theirs] > 5).any() and (places[theirs] < -5).any()
    assert max(abs(x[:, 0].mean()) for x in plain) < 1
