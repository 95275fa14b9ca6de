"""The joint landmark fit on landmarks whose codes, poses and camera are known."""

import dataclasses

import numpy as np
import pytest
import torch

from mononphm_core.geometry.rotations import angle_between_deg
from mononphm_core.tracking.config import LandmarkFitConfig
from mononphm_core.tracking.contours import BORDER_PX, Outline, rim
from mononphm_core.tracking.joint_problem import JointProblem, State
from mononphm_core.tracking.landmark_fit import FOCAL_BIAS, fit_landmarks, moved
from tests.core.tracking.synthetic import CROP, DIRECTIONS, NAMES, Truth, clip_of, model, truth

TRUSTING = LandmarkFitConfig(
    directions=DIRECTIONS, iterations=40, independent=300.0, contour_rounds=0, gap_independent=0.0
)
"""Every landmark counts fully: priors are felt as little as exact landmarks deserve."""


@pytest.fixture(scope="module")
def person() -> Truth:
    return truth(4)


def skin_error_mm(person: Truth, fit) -> float:
    """Mean distance of the fitted face's landmarks from the true ones, in camera space."""
    template = model().template

    def camera(z_geo, z_exp, r, t):
        return template.posed(z_geo.expand(len(z_exp), -1), z_exp, "mediapipe478") @ r.mT + t[:, None]

    found = (torch.as_tensor(a, dtype=torch.float32) for a in (fit.z_geo, fit.z_exp, fit.rotation, fit.translation))
    there = camera(person.z_geo, person.z_exp, person.rotation, person.translation)
    return float((camera(*found) - there).norm(dim=-1).mean() * 250)


def test_exact_landmarks_give_back_the_person_and_every_pose(person):
    """The template made them, so the template explains them: a fifth of a millimetre at 65 cm."""
    fit = fit_landmarks(model().template, clip_of(person), NAMES, TRUSTING)
    assert fit.error_px.max() < 0.01
    turned = angle_between_deg(torch.from_numpy(fit.rotation).float(), person.rotation)
    assert turned.max() < 0.05
    assert skin_error_mm(person, fit) < 0.2
    assert fit.focal_scale == pytest.approx(1.0, abs=1e-3)
    assert fit.focal_sigma == 0.0
    assert ((fit.z_exp >= 0) & (fit.z_exp <= 1)).all()
    smile = NAMES.index("mouthSmile_L")
    np.testing.assert_allclose(fit.z_exp[:, smile], person.z_exp[:, smile], atol=0.01)


def test_the_focal_length_is_found_when_the_head_turns(person):
    """Perspective shows distance, distance and size the focal length; the prior alone would leave it."""
    clip = clip_of(person)
    wrong = dataclasses.replace(clip.intrinsics, fx=1.2 * clip.intrinsics.fx, fy=1.2 * clip.intrinsics.fy)
    guessed = dataclasses.replace(clip, intrinsics=wrong, focal_uncertainty=0.3)
    fit = fit_landmarks(model().template, guessed, NAMES, TRUSTING)
    assert fit.focal_scale == pytest.approx(1 / 1.2, rel=0.01)
    assert FOCAL_BIAS < fit.focal_sigma < 0.3  # many frames make the fit sure of its noise, not of its bias
    believed = fit_landmarks(model().template, dataclasses.replace(guessed, focal_uncertainty=0.0), NAMES, TRUSTING)
    assert believed.focal_scale == pytest.approx(1.0, abs=1e-3)


def test_the_cost_never_rises(person, monkeypatch):
    """Levenberg-Marquardt takes a step only if it helps; between choices of rim points the cost is one function."""
    costs: list[float] = []
    equations = JointProblem.normal_equations

    def noted(problem, at):
        costs.append(problem.cost(at))
        return equations(problem, at)

    monkeypatch.setattr(JointProblem, "normal_equations", noted)
    fit_landmarks(model().template, clip_of(person), NAMES, dataclasses.replace(TRUSTING, independent=0.12))
    assert len(costs) > 2
    assert all(later < earlier for earlier, later in zip(costs, costs[1:], strict=False))


def test_the_gradient_of_the_normal_equations_is_the_slope_of_half_the_cost(person):
    """Every block of parameters against central differences, where the model of the errors is constant.

    (The spread in pixels follows depth, and the prior of turns is linearised; both are switched off here. That gaps of
    lids and lips shrink with distance is left out of their slope: less than a tenth of what is allowed here.)
    """
    config = dataclasses.replace(
        TRUSTING, independent=0.12, gap_independent=0.33, spread_share=0.0, turn_sigma_per_s=1e9, turn_jolt_sigma=1e9
    )
    problem = JointProblem(
        model().template, dataclasses.replace(clip_of(person), focal_uncertainty=0.3), config, NAMES, None
    )
    draw = np.random.default_rng(0)
    at = State(
        0.5 * draw.standard_normal(DIRECTIONS), 0.05, person.rotation.double().numpy(),
        person.translation.double().numpy(), person.z_exp.double().numpy() + 0.05,
    )  # fmt: skip
    g = problem.normal_equations(at).gradient
    frame = DIRECTIONS + 1 + 6 + len(NAMES)
    for place in (0, 5, DIRECTIONS, frame, frame + 1, frame + 2, frame + 3, frame + 5, frame + 6 + 20, frame + 6 + 40):
        step = np.zeros(len(g))
        step[place] = 1e-5
        slope = (problem.cost(moved(at, step)) - problem.cost(moved(at, -step))) / 2e-5
        assert g[place] == pytest.approx(slope / 2, rel=1e-3, abs=1e-3 * np.abs(g).max()), place


def test_moving_any_weight_of_the_problem_moves_the_result(person):
    """Weights are data: one that moves nothing is a lie. Noisy landmarks, so that no prior is idle."""
    clip = clip_of(person)
    draw = torch.Generator().manual_seed(1)
    noisy = [
        dataclasses.replace(o, dense_landmarks_px=o.dense_landmarks_px + 0.8 * torch.randn(478, 2, generator=draw))
        for o in clip.observations
    ]
    clip = dataclasses.replace(clip, observations=tuple(noisy), focal_uncertainty=0.3)
    short = LandmarkFitConfig(directions=DIRECTIONS, iterations=4, contour_rounds=1, contour_iterations=2)
    short = dataclasses.replace(short, neighbour_s=0.5)
    usual = fit_landmarks(model().template, clip, NAMES, short)
    for name in (
        "detector_sigma", "spread_share", "independent", "huber", "identity_prior", "expression_sigma",
        "symmetry_sigma", "smooth_sigma_per_s", "shift_sigma_per_s", "turn_sigma_per_s", "turn_jolt_sigma",
        "shift_jolt_sigma", "contour_sigma", "contour_independent", "lid_sigma", "lip_sigma", "gap_independent",
    ):  # fmt: skip
        other = fit_landmarks(
            model().template, clip, NAMES, dataclasses.replace(short, **{name: 0.5 * getattr(short, name)})
        )
        moved_by = max(np.abs(a - b).max() for a, b in ((usual.z_exp, other.z_exp), (usual.rotation, other.rotation)))
        assert moved_by > 1e-9, name


def test_a_certain_clip_is_surer_than_an_uncertain_one(person):
    """Standard deviations from the normal equations: smaller with better landmarks, largest along the view."""
    clip = clip_of(person)
    sure, unsure = (
        fit_landmarks(model().template, clip, NAMES, dataclasses.replace(TRUSTING, independent=w, iterations=6))
        for w in (300.0, 0.12)
    )
    for name in ("identity", "turn_deg", "shift", "z_exp"):
        a, b = getattr(sure.uncertainty, name), getattr(unsure.uncertainty, name)
        assert (a > 0).all()
        assert (a < b).float().mean() > 0.95
    shift = unsure.uncertainty.shift
    assert (shift[:, 2] > 3 * shift[:, 0]).all()


def test_a_known_identity_is_kept_and_the_rest_is_found(person):
    """Only poses and expressions are sought then."""
    fit = fit_landmarks(model().template, clip_of(person), NAMES, TRUSTING, identity=person.z_geo.double().numpy())
    np.testing.assert_allclose(fit.z_geo, person.z_geo.numpy(), atol=1e-6)
    assert skin_error_mm(person, fit) < 0.2
    assert fit.error_px.max() < 0.01


def test_one_wild_landmark_hardly_moves_the_head(person):
    """Huber: beyond two deviations an error pulls with constant force."""
    clip = clip_of(person)
    spoilt = clip.observations[0].dense_landmarks_px.clone()
    spoilt[10] += 200.0
    first = dataclasses.replace(clip.observations[0], dense_landmarks_px=spoilt)
    config = dataclasses.replace(TRUSTING, independent=0.12)
    wild = dataclasses.replace(clip, observations=(first, *clip.observations[1:]))
    plain, robust = (fit_landmarks(model().template, c, NAMES, config) for c in (clip, wild))
    moved = angle_between_deg(torch.from_numpy(plain.rotation), torch.from_numpy(robust.rotation))
    assert moved.max() < 2.0


def test_the_outline_of_a_disc_is_its_distance_and_points_inwards(person):
    """Signed distance in original pixels, unit gradient towards the person."""
    y, x = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    disc = (x - 64).square() + (y - 60).square() < 30**2
    observation = dataclasses.replace(clip_of(person).observations[0], foreground=disc, skin=disc)
    outline = Outline.of(observation)
    angle = np.linspace(0, 6, 30)[:, None]
    direction = np.concatenate([np.cos(angle), np.sin(angle)], 1)
    for radius in (22.0, 30.0, 38.0):
        crop_px = np.array([64.0, 60.0]) + radius * direction
        sampled = outline.sample(crop_px / CROP.scale + [CROP.left, CROP.top])
        np.testing.assert_allclose(sampled[:, 0], (30 - radius) / CROP.scale, atol=1.0 / CROP.scale)  # a crop pixel
        assert (np.einsum("pk,pk->p", sampled[:, 1:], -direction) > 0.9).all()
        assert outline.is_skin(crop_px / CROP.scale + [CROP.left, CROP.top]).all() == (radius < 29)


def test_rim_points_lie_on_the_border_of_the_mask_that_their_own_surface_made(person):
    """Without bias: points merely near the silhouette are millimetres inside, and would widen every head."""
    clip, template = clip_of(person), model().template
    posed = template.posed(person.z_geo.expand(4, -1), person.z_exp, "surface") @ person.rotation.mT
    camera = (posed + person.translation[:, None]).double().numpy()
    k = np.array([clip.intrinsics.fx, clip.intrinsics.fy, clip.intrinsics.cx, clip.intrinsics.cy])
    for x, observation in zip(camera, clip.observations, strict=True):
        outline = Outline.of(observation)
        found = rim(x, template.surface_faces.numpy(), k, outline, 200)
        at = (1 - found.share)[:, None] * x[found.ends[:, 0]] + found.share[:, None] * x[found.ends[:, 1]]
        distance = outline.sample(at[:, :2] / at[:, 2:] * k[:2] + k[2:])[:, 0] * CROP.scale
        assert len(found.share) > 40
        assert abs(np.median(distance) + BORDER_PX) < 0.35  # crop pixels; this mask is exact, real ones are too wide
