"""Terms, weights, leaves: each weight moves something, and nothing is lost between the stages."""

import dataclasses

import pytest
import torch

from mononphm_core.errors import Diverged
from mononphm_core.tracking import losses
from mononphm_core.tracking.config import Stage1Config, Stage2Config, Weights
from mononphm_core.tracking.field import PosedHeads
from mononphm_core.tracking.landmark_fit import LandmarkFit
from mononphm_core.tracking.objective import Setting, evaluate, weighted_sum
from mononphm_core.tracking.quality import tracking_config
from mononphm_core.tracking.result import fit_of, freeze, thaw
from mononphm_core.tracking.scene import candidates
from mononphm_core.tracking.stage1 import best_frames, prepare, rotating
from mononphm_core.tracking.stage2 import runs
from mononphm_core.tracking.variables import Variables, coordinates
from mononphm_core.types import FrameFit, Stage, StopReason
from tests.core.tracking.synthetic import DIRECTIONS, NAMES, clip_of, model, truth

LEAVES = ("u_geo", "u_app", "z_exp", "turn", "shift")


@pytest.fixture(scope="module")
def person():
    return truth(3, turn_deg=20.0)


@pytest.fixture(scope="module")
def clip(person):
    return clip_of(person)


@pytest.fixture
def fit(person):
    """The truth, as the landmark fit would say it."""
    return LandmarkFit(
        person.z_geo.numpy(), person.z_exp.numpy(), person.rotation.numpy(), person.translation.numpy(), 1.0, 0.0,
        torch.zeros(3).numpy(),
    )  # fmt: skip


@pytest.fixture
def setting(clip, fit) -> Setting:
    config = dataclasses.replace(Stage1Config(), rays=dataclasses.replace(Stage1Config().rays, surface=40, border=40))
    first = prepare(model(), clip, fit, config, NAMES)
    return dataclasses.replace(first, weights=Weights(smooth_pose=1.0, smooth_expression=1.0))


@pytest.fixture
def leaves(fit) -> Variables:
    """Near the truth, but nowhere at a place where a term is flat: unsymmetric, out of bounds, turned, moved."""
    v = Variables.start(fit, model().template)
    draw = torch.Generator().manual_seed(3)
    v.u_geo = v.u_geo + 0.1 * torch.randn(v.u_geo.shape, generator=draw)
    v.u_app = v.u_app + 0.5 * torch.randn(v.u_app.shape, generator=draw)
    v.z_exp = v.z_exp + 0.2 * torch.randn(v.z_exp.shape, generator=draw)
    v.turn = v.turn + 0.03 * torch.randn(v.turn.shape, generator=draw)
    v.shift = v.shift + 0.01 * torch.randn(v.shift.shape, generator=draw)
    return v


def looked(setting: Setting, v: Variables):
    found = candidates(setting.scene, setting.model.template, v, setting.sampling)
    return evaluate(setting, v, found, torch.arange(3), 0.06, 200.0, torch.Generator().manual_seed(0))


def test_every_weight_has_a_term_and_every_term_pulls_at_a_leaf(setting, leaves):
    """Weights are data: one that moves nothing is a lie, a term without a weight would be lost."""
    for name in LEAVES:
        setattr(leaves, name, getattr(leaves, name).requires_grad_(True))
    terms = looked(setting, leaves).terms
    assert terms.keys() == {f.name for f in dataclasses.fields(Weights)}
    for name, value in terms.items():
        gradients = torch.autograd.grad(
            value, [getattr(leaves, leaf) for leaf in LEAVES], allow_unused=True, retain_graph=True
        )
        pull = sum(float(g.norm()) for g in gradients if g is not None)
        assert 1e-6 < pull < float("inf"), name


def test_pose_and_identity_feel_the_picture_through_the_rendering(setting, leaves):
    """Mask and colour reach every leaf that they can depend on: the chain from pixels to codes is whole."""
    for name in LEAVES:
        setattr(leaves, name, getattr(leaves, name).requires_grad_(True))
    terms = looked(setting, leaves).terms
    for term, reached in {"mask": LEAVES[:1] + LEAVES[2:], "colour": LEAVES}.items():
        gradients = torch.autograd.grad(terms[term], [getattr(leaves, n) for n in reached], retain_graph=True)
        assert all(g.norm() > 1e-7 for g in gradients), term


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Weights)])
def test_moving_a_weight_moves_the_loss_by_its_term(name):
    """The only place where weights and terms meet: a sum of products."""
    terms = {f.name: torch.tensor(1.0 + i) for i, f in enumerate(dataclasses.fields(Weights))}
    weights = Weights()
    more = dataclasses.replace(weights, **{name: getattr(weights, name) + 0.5})
    difference = weighted_sum(terms, more, 0) - weighted_sum(terms, weights, 0)
    assert difference.item() == pytest.approx(0.5 * terms[name].item(), rel=1e-3)


def test_a_term_that_is_no_number_is_named_with_its_step():
    """The message is what a maintainer gets to see."""
    terms = {"colour": torch.tensor(1.0), "mask": torch.tensor(float("nan"))}
    with pytest.raises(Diverged, match="mask term became non-finite at step 17"):
        weighted_sum(terms, Weights(), 17)


def test_the_truth_explains_its_landmarks(setting, fit):
    """At the true codes and poses the landmark term is zero, and the first guess of the rays hits the head."""
    seen = looked(setting, Variables.start(fit, model().template))
    assert seen.terms["landmarks"] < 1e-3
    inside = seen.cast.inside[:, :40] > 0.5
    assert inside.all()
    assert (seen.rendering.opacity[:, :40][inside] > 0.5).float().mean() > 0.8


def test_freezing_and_thawing_loses_nothing(leaves, clip, fit):
    """What stage 1 hands over is where stage 2 begins."""
    fits = tuple(FrameFit(1.0, 0.9, 0.1, True) for _ in clip.observations)
    frozen = freeze(leaves, clip, fit, fits, Stage.STAGE1, StopReason.STEP_BUDGET, {})
    back = thaw(frozen, model().template)
    torch.testing.assert_close(back.rotation(), leaves.rotation(), rtol=0, atol=1e-6)
    torch.testing.assert_close(back.shift, leaves.shift, rtol=0, atol=3e-6)  # twice through a float32 rotation, 65 cm
    torch.testing.assert_close(back.z_geo, leaves.z_geo, rtol=0, atol=1e-4)
    torch.testing.assert_close(back.z_app, leaves.z_app, rtol=0, atol=1e-4)
    assert torch.equal(back.z_exp, leaves.z_exp)
    assert torch.equal(back.light, leaves.light)
    again = fit_of(frozen, clip)
    torch.testing.assert_close(torch.from_numpy(again.translation), leaves.shift, rtol=0, atol=3e-6)
    assert again.focal_scale == pytest.approx(fit.focal_scale)
    assert frozen.poses.to_world(torch.zeros(3, 1, 3))[:, 0].sub(leaves.shift).norm() < 1e-5  # the head's origin


def test_coordinates_find_the_person_in_the_span(person):
    """Least squares is exact for a code that came from the span."""
    span = model().template.geo_span
    u = torch.zeros(span.shape[1])
    u[:DIRECTIONS] = person.u
    torch.testing.assert_close(coordinates(span, span @ u), u, rtol=0, atol=1e-3)


def test_posed_heads_are_the_model_asked_with_one_identity_per_frame(person):
    """What is worked out once for all frames is what `condition` works out for each."""
    m = model()
    z_app = torch.zeros(m.config.identity.d_app)
    heads = PosedHeads.of(m, person.z_geo, z_app, person.z_exp)
    x = 0.8 * torch.rand(3, 30, 3, generator=torch.Generator().manual_seed(0)) - 0.4
    conditioned = m.condition(person.z_geo.expand(3, -1), person.z_exp, z_app.expand(3, -1))
    torch.testing.assert_close(heads.distance(x), m.sdf(x, conditioned), rtol=0, atol=1e-5)
    colour = m.query(x, conditioned).colour
    torch.testing.assert_close(heads.colour(x), colour, rtol=0, atol=1e-4)
    torch.testing.assert_close(heads.normal(x).norm(dim=-1), torch.ones(3, 30), rtol=0, atol=1e-5)


def test_runs_are_consecutive_and_visit_every_frame_once_a_pass():
    """Neighbours are seen together, and the joints between runs move from pass to pass."""
    batches = runs(10, 4, torch.Generator().manual_seed(0))
    for _ in range(20):
        seen: list[int] = []
        while len(seen) < 10:
            run = next(batches).tolist()
            assert run == list(range(run[0], run[-1] + 1))
            assert 1 <= len(run) <= 4
            seen += run
        assert sorted(seen) == list(range(10))
    assert next(runs(3, 4, torch.Generator())).tolist() == [0, 1, 2]


def test_rotating_batches_visit_every_frame_equally_often():
    """In time order inside a batch, none twice."""
    frames = torch.tensor([1, 4, 5, 8, 9])
    batches = rotating(frames, 2, torch.Generator().manual_seed(0))
    drawn = [next(batches) for _ in range(9)]
    assert all((b.diff() > 0).all() for b in drawn)
    assert torch.bincount(torch.cat(drawn), minlength=10).tolist() == [0, 3, 0, 0, 3, 3, 0, 0, 3, 3]


def test_the_best_frames_are_sharp_and_show_all_sides(clip):
    """One frame a group of yaw, the sharpest of it; never more than there are."""
    yaws = [-40.0, -38.0, 0.0, 2.0, 39.0, 41.0]
    sharp = [0.2, 0.9, 0.9, 0.1, 0.8, 0.3]
    frames = [
        dataclasses.replace(
            clip.observations[0], quality=dataclasses.replace(clip.observations[0].quality, yaw_deg=y, sharpness=s)
        )
        for y, s in zip(yaws, sharp, strict=True)
    ]
    six = dataclasses.replace(clip, observations=tuple(frames))
    assert best_frames(six, 3).tolist() == [1, 2, 4]
    assert best_frames(six, 99).tolist() == list(range(6))


def test_the_huber_cost_is_a_parabola_that_becomes_a_line():
    """In standard deviations; the two meet with one value and slope; confidence 0 means unseen."""

    def cost(distance: float) -> float:
        at = torch.tensor([[[distance, 0.0], [500.0, 0.0]]])
        return losses.landmarks(at, torch.zeros(1, 2, 2), 2 * torch.ones(1, 2), torch.tensor([[1.0, 0.0]]), 2.0).item()

    assert cost(2.0) == pytest.approx(1.0)
    assert cost(4.0) == pytest.approx(4.0)
    assert cost(8.0) == pytest.approx(2 * 2 * 4 - 4)
    assert cost(4.01) - cost(4.0) == pytest.approx(cost(4.0) - cost(3.99), rel=0.01)


def test_masks_and_colours_count_only_where_the_picture_is_sure():
    """Rays of weight 0 (hair, clothes, outside) teach nothing."""
    weight = torch.tensor([[1.0, 1.0, 0.0]])
    opacity, inside = torch.tensor([[1.0, 0.25, 0.9]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert losses.mask(opacity, inside, weight).item() == pytest.approx(0.125)
    rgb = torch.tensor([[[0.1, 0.1, 0.1], [0.5, 0.5, 0.5], [9.0, 9.0, 9.0]]])
    assert losses.colour(rgb, torch.zeros(1, 3, 3), weight).item() == pytest.approx(0.3)


def test_smoothness_is_zero_at_rest_and_falls_with_time():
    """A random walk: the same change in four times the time costs a quarter; one frame cannot be rough."""
    still = torch.ones(4, 2)
    moving = torch.tensor([[0.0], [1.0], [2.0]])
    times = torch.tensor([0.0, 0.1, 0.2])
    assert losses.roughness(still, torch.arange(4.0), torch.ones(2)).item() == 0
    assert losses.roughness(moving[:1], times[:1], torch.ones(1)).item() == 0
    fast = losses.roughness(moving, times, torch.ones(1)).item()
    assert fast == pytest.approx(10.0)
    assert losses.roughness(moving, 4 * times, torch.ones(1)).item() == pytest.approx(fast / 4)
    assert losses.roughness(moving, times, 2 * torch.ones(1)).item() == pytest.approx(fast / 4)


def test_bounds_cost_nothing_inside():
    """Blendshape weights live in [0, 1]."""
    z = torch.tensor([[0.0, 1.0, 0.4], [-0.5, 0.5, 1.2]])
    assert losses.outside_unit(z).item() == pytest.approx((0.25 + 0.04) / 2)


def test_more_quality_is_more_steps_and_less_memory_is_smaller_batches():
    """`smaller` is what a second attempt after exhausted memory asks for."""
    draft, standard, high = (tracking_config(q) for q in ("draft", "standard", "high"))
    for get in (lambda c: c.stage1.identity_steps, lambda c: c.stage1.frame_steps, lambda c: c.stage2.passes):
        assert get(draft) < get(standard) < get(high)
    small = tracking_config("standard", smaller=True)
    assert small.stage1.batch < standard.stage1.batch
    assert small.stage2.batch < standard.stage2.batch
    assert (standard.stage1, standard.stage2) == (Stage1Config(), Stage2Config())
