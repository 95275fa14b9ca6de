"""Mouths that just close, and eyes that are taught as far as they are open."""

import numpy as np
import pytest
import trimesh

from mononphm_core.training.batches import BatchMaker
from mononphm_core.training.closing import LOWER, UPPER, Closing, under_skin
from mononphm_core.training.pool import NO_DISTANCES, PoolHead
from tests.core.training.tiny import NAMES


@pytest.fixture
def lips(heads):
    """The stand-in heads with lips: three pairs of vertices 3 mm apart, and shapes that close them."""
    heads = type(heads)()
    rows = np.arange(6) + 40
    heads.ibug68 = np.full(68, 0)
    heads.ibug68[[*UPPER, *LOWER]] = rows
    canonical = heads.neutral.copy()
    canonical[rows[3:]] = canonical[rows[:3]] - np.array([0, 0.012, 0], np.float32)
    heads.expression = np.zeros_like(heads.expression)
    for name, fall in (
        ("mouthClose", 0.1),
        ("mouthShrugLower", 0.03),
        ("mouthPress_L", 0.01),
        ("mouthPress_R", 0.01),
        ("jawOpen", -0.2),
    ):
        heads.expression[NAMES.index(name), rows[3:], 1] = fall
    return heads, canonical


@pytest.mark.parametrize("shape", ["mouthClose", "mouthPress"])
def test_lips_meet_and_overlap_as_asked(lips, shape):
    """Gaps are linear in the weights: one division closes them, whatever the jaw does; both sides press alike."""
    heads, canonical = lips
    closing = Closing(heads)
    jaw = np.zeros(len(NAMES), np.float32)
    jaw[NAMES.index("jawOpen")] = 0.3  # the canonical pose: the lips stand as they were put, 3 mm apart
    np.testing.assert_allclose(closing.gaps_mm(canonical, jaw), 3.0, atol=1e-4)
    met = closing.lips_met(canonical, jaw, shape, overlap_mm=0.5)
    posed = canonical + np.tensordot(met - heads.z_canonical, heads.expression, 1)
    gaps = (posed[heads.ibug68[list(UPPER)], 1] - posed[heads.ibug68[list(LOWER)], 1]) * 250
    np.testing.assert_allclose(gaps, -0.5, atol=1e-3)
    np.testing.assert_allclose(closing.gaps_mm(canonical, met), gaps, atol=1e-3)
    wide = jaw.copy()
    wide[NAMES.index("jawOpen")] = 1.0  # 35 mm more than any weight up to 1 can close
    assert closing.lips_met(canonical, wide, shape)[NAMES.index(shape if shape in NAMES else f"{shape}_L")] == 1.0


def test_a_share_of_expressions_is_closed_and_the_rest_untouched(lips):
    """Three in ten mouths, one in eight eyes; nothing is opened that was closed, and no eye is wide and shut."""
    heads, canonical = lips
    closing = Closing(heads)
    rng = np.random.default_rng(0)
    given = np.zeros(len(NAMES), np.float32)
    given[[NAMES.index("eyeWide_L"), NAMES.index("jawOpen")]] = 0.3
    drawn = np.stack([closing.varied(rng, canonical, given) for _ in range(400)])
    mouths = np.array([closing.gaps_mm(canonical, z).max() < 0.31 for z in drawn])
    shut = drawn[:, NAMES.index("eyeBlink_L")] == 1.0
    assert 0.22 < mouths.mean() < 0.38
    assert 0.06 < shut.mean() < 0.18
    assert (drawn[shut, NAMES.index("eyeWide_L")] == 0).all()
    untouched = ~mouths & ~shut & (drawn[:, NAMES.index("eyeBlink_R")] == 0)
    assert (drawn[untouched] == given).all()
    assert given[NAMES.index("eyeWide_L")] == np.float32(0.3)  # the argument is left alone


def test_what_a_lid_covers_is_found_by_the_rays_through_it():
    """A ball under half a shell of twice its size: its points are covered where the shell is, and nowhere else; a shell
    that sinks into the ball by half a millimetre still covers, one deep inside does not."""
    ball = np.array(trimesh.creation.icosphere(subdivisions=2, radius=0.05).vertices)
    shell = trimesh.creation.icosphere(subdivisions=3, radius=1.0)
    upper = np.array(shell.vertices)[np.array(shell.faces)]
    upper = upper[upper[..., 1].min(1) >= 0]
    centre = np.array([0.3, -0.1, 0.2])
    clear = np.abs(ball[:, 1]) > 0.01  # the shell's edge is a triangle wide
    for radius, covers in ((0.1, True), (0.05 - 0.5 / 250, True), (0.03, False)):
        found = under_skin(upper * radius + centre, centre, ball + centre)
        np.testing.assert_array_equal(found[clear], (ball[clear, 1] > 0) & covers)


def test_half_shut_eyes_are_taught_in_their_open_half(heads, painter, coded):
    """A triangle of skin before the upper half of an eyeball hides that half; no point of it is taught, the lower half
    goes on to be. (The rule that hid the whole ball as soon as a blink began left half-shut eyes to chance.)"""
    maker = BatchMaker(heads, painter, coded.geometry, coded.appearance, complexions=2)
    x = heads.mean_canonical()
    ball = np.unique(heads.skeleton.sclera[0])
    centre = x[ball].mean(0)
    lid = heads.skeleton.sheet[0]
    x[lid] = centre + np.array([[-3, 0, 0.12], [3, 0, 0.12], [0, 3, 0.12]], np.float32)
    maker.lids = (np.array([0]), np.array([], np.int64))
    head = PoolHead(x, NO_DISTANCES, np.ones(len(maker.triangles), bool))
    maker.taught = np.zeros(len(maker.triangles))
    maker.taught[np.flatnonzero(heads.skeleton.part[maker.triangles[:, 0]] == 7)] = 1 / len(heads.skeleton.sclera[0])
    _, target = maker.correspondences(np.random.default_rng(0), head, heads.z_canonical, 800)
    arm = target - centre
    before = arm[:, 2] > 0.7 * np.linalg.norm(arm, axis=1)
    assert (before & (arm[:, 1] < -0.04)).sum() > 10
    assert (before & (arm[:, 1] > 0.04)).sum() == 0  # displaced along coarse normals, so not to the millimetre
