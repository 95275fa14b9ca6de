"""Terms, weights, leaves: each weight moves something, and nothing is lost between the stages."""

import dataclasses

import numpy as np
import pytest
import torch

from mononphm_core.errors import Diverged
from mononphm_core.tracking import losses
from mononphm_core.tracking.config import LandmarkFitConfig, Stage1Config, Stage2Config, Weights
from mononphm_core.tracking.descent import find_colours
from mononphm_core.tracking.field import PosedHeads
from mononphm_core.tracking.joint_problem import JointProblem
from mononphm_core.tracking.landmark_fit import LandmarkFit, state_of
from mononphm_core.tracking.objective import Setting, evaluate, weighted_sum
from mononphm_core.tracking.quality import tracking_config
from mononphm_core.tracking.result import freeze, thaw
from mononphm_core.tracking.scene import candidates
from mononphm_core.tracking.stage1 import best_frames, prepare, rotating
from mononphm_core.tracking.variables import Variables, coordinates
from mononphm_core.types import FrameFit, Stage
from tests.core.tracking.synthetic import DIRECTIONS, NAMES, clip_of, model, truth


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
def setting(clip) -> Setting:
    rays = dataclasses.replace(Stage1Config().rays, surface=40, border=40)
    return prepare(model(), clip, 1.0, Stage1Config().weights, rays)


@pytest.fixture
def leaves(fit) -> Variables:
    """Near the truth, with a complexion that is not the mean's."""
    v = Variables.start(fit, model().template)
    draw = torch.Generator().manual_seed(3)
    v.u_app = v.u_app + 0.5 * torch.randn(v.u_app.shape, generator=draw)
    return v


def looked(setting: Setting, v: Variables):
    found = candidates(setting.scene, setting.model.template, v, setting.sampling)
    return evaluate(setting, v, found, torch.arange(3), torch.Generator().manual_seed(0))


def test_every_weight_has_a_term_and_every_term_pulls_at_the_complexion(setting, leaves):
    """Weights are data: one that moves nothing is a lie, a term without a weight would be lost."""
    leaves.u_app = leaves.u_app.requires_grad_(True)
    terms = looked(setting, leaves).terms
    assert terms.keys() == {f.name for f in dataclasses.fields(Weights)}
    for name, value in terms.items():
        (gradient,) = torch.autograd.grad(value, [leaves.u_app], retain_graph=True)
        assert 1e-6 < float(gradient.norm()) < float("inf"), name


def test_colours_are_found_and_geometry_is_left_alone(setting, leaves):
    """A search for colours that could move the shape would trade depth for colour, as it once did."""
    before = leaves.z_exp.clone(), leaves.u_geo.clone(), leaves.shift.clone()
    batches = rotating(torch.arange(3), 3, torch.Generator().manual_seed(0))
    history = find_colours(setting, leaves, batches, 12, 0.1, torch.Generator().manual_seed(0), lambda _: None)
    assert history["colour"][-1] < 0.7 * history["colour"][0]
    assert not leaves.u_app.requires_grad
    for old, new in zip(before, (leaves.z_exp, leaves.u_geo, leaves.shift), strict=True):
        assert torch.equal(old, new)


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
    terms = {"colour": torch.tensor(float("nan")), "appearance_prior": torch.tensor(1.0)}
    with pytest.raises(Diverged, match="colour term became non-finite at step 17"):
        weighted_sum(terms, Weights(), 17)


def test_rays_of_the_true_head_hit_it(setting, fit):
    """At the true codes and poses the first guess of the rays meets the field's surface, within the band."""
    seen = looked(setting, Variables.start(fit, model().template))
    inside = seen.cast.inside[:, :40] > 0.5
    assert inside.all()
    assert (seen.rendering.opacity[:, :40][inside] > 0.5).float().mean() > 0.8


def test_freezing_and_thawing_loses_nothing(leaves, clip, fit):
    """What stage 1 hands over is where stage 2 begins."""
    fits = tuple(FrameFit(1.0, 0.9, 0.1, True) for _ in clip.observations)
    frozen = freeze(leaves, clip, fit, fits, Stage.STAGE1, {})
    back = thaw(frozen, model().template)
    torch.testing.assert_close(back.rotation(), leaves.rotation(), rtol=0, atol=1e-6)
    torch.testing.assert_close(back.shift, leaves.shift, rtol=0, atol=3e-6)  # twice through a float32 rotation, 65 cm
    torch.testing.assert_close(back.z_geo, leaves.z_geo, rtol=0, atol=1e-4)
    torch.testing.assert_close(back.z_app, leaves.z_app, rtol=0, atol=1e-4)
    assert torch.equal(back.z_exp, leaves.z_exp)
    assert torch.equal(back.light, leaves.light)
    problem = JointProblem(model().template, clip, LandmarkFitConfig(directions=DIRECTIONS), NAMES, None)
    again = state_of(frozen, clip, problem)
    np.testing.assert_allclose(again.t, leaves.shift, rtol=0, atol=3e-6)
    np.testing.assert_allclose(again.s, leaves.u_geo[:DIRECTIONS], rtol=0, atol=1e-3)
    assert again.log_f == pytest.approx(0.0)
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


def test_colours_count_only_where_the_picture_is_sure():
    """Rays of weight 0 (hair, clothes, outside) teach nothing."""
    weight = torch.tensor([[1.0, 1.0, 0.0]])
    rgb = torch.tensor([[[0.1, 0.1, 0.1], [0.5, 0.5, 0.5], [9.0, 9.0, 9.0]]])
    assert losses.colour(rgb, torch.zeros(1, 3, 3), weight).item() == pytest.approx(0.3)


def test_more_quality_is_more_steps_and_less_memory_is_smaller_batches():
    """`smaller` is what a second attempt after exhausted memory asks for."""
    draft, standard, high = (tracking_config(q) for q in ("draft", "standard", "high"))
    for get in (
        lambda c: c.stage1.colour_steps, lambda c: c.stage1.landmark_fit.rounds, lambda c: c.stage2.iterations
    ):  # fmt: skip
        assert get(draft) < get(standard) < get(high)
    small = tracking_config("standard", smaller=True)
    assert small.stage1.batch < standard.stage1.batch
    assert (standard.stage1, standard.stage2) == (Stage1Config(), Stage2Config())
