"""The skin's own texture: what it says of a clip, and that it says it through exact slopes."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from mononphm_core.tracking.config import LandmarkFitConfig
from mononphm_core.tracking.joint_problem import JointProblem, State
from mononphm_core.tracking.landmark_fit import figures, minimise, moved
from mononphm_core.tracking.texture import facing
from mononphm_core.types import ObservedClip
from tests.core.tracking.synthetic import CROP, DIRECTIONS, NAMES, Truth, clip_of, model, truth

CONFIG = LandmarkFitConfig(directions=DIRECTIONS, contour_rounds=0)


def painted(t: Truth) -> ObservedClip:
    """The clip with spots that stick to the skin, under a light that changes from frame to frame."""
    clip, template = clip_of(t), model().template
    surface = template.posed(t.z_geo.expand(len(t.z_exp), -1), t.z_exp, "surface") @ t.rotation.mT
    surface = (surface + t.translation[:, None]).double().numpy()
    spots = np.random.default_rng(5).choice(surface.shape[1], 260, replace=False)
    k = clip.observations[0].intrinsics
    faces = template.surface_faces.numpy()
    observations = []
    for i, o in enumerate(clip.observations):
        image = np.full((CROP.height * 4, CROP.width * 4, 3), 0.55, np.float32)
        front = facing(surface[i], faces) > 0.1
        for number in spots[front[spots]]:
            x = surface[i, number]
            at = (x[:2] / x[2] * [k.fx, k.fy] + [k.cx, k.cy]) * 4
            cv2.circle(image, tuple((at * 16).astype(int).tolist()), 6 * 16, (0.25, 0.2, 0.2), -1, cv2.LINE_AA, 4)
        small = cv2.resize(image, (CROP.width, CROP.height), interpolation=cv2.INTER_AREA) * (1.0 - 0.2 * i)
        observations.append(dataclasses.replace(o, rgb=torch.from_numpy(small)))
    return dataclasses.replace(clip, observations=tuple(observations))


@pytest.fixture(scope="module")
def person() -> Truth:
    return truth(3, turn_deg=24.0)


@pytest.fixture(scope="module")
def clip(person) -> ObservedClip:
    return painted(person)


def state(person: Truth) -> State:
    """The truth as a point of the search."""
    return State(
        person.u.double().numpy(), 0.0, person.rotation.double().numpy(), person.translation.double().numpy(),
        person.z_exp.double().numpy(),
    )  # fmt: skip


def problem_of(clip: ObservedClip, config: LandmarkFitConfig = CONFIG) -> JointProblem:
    return JointProblem(model().template, clip, config, NAMES, None)


def test_at_the_truth_the_frames_agree_and_beside_it_they_do_not(person, clip):
    """Whatever the light of a frame: shading is taken out before anything is compared."""
    problem = problem_of(clip)
    problem.look_at_texture(state(person), 1.5)
    step = np.zeros(DIRECTIONS + 1 + 3 * (6 + len(NAMES)))
    step[DIRECTIONS + 1 + 59 + 1] = 0.06  # the middle frame turned by 3.4 degrees
    there, beside = (figures(problem, at)["texture_disagreement"] for at in (state(person), moved(state(person), step)))
    assert there < 0.8 * beside


def test_a_turned_frame_is_turned_back_by_the_texture(person, clip):
    """Landmarks are told to say nothing: the skin alone must bring the frame back to the others.

    From 3.4 degrees, two pixels at the nose of this small picture, to about half a pixel: what lies below is not in it.
    """
    blind = dataclasses.replace(CONFIG, independent=1e-6, identity_prior=1e6)
    problem = problem_of(clip, blind)
    problem.look_at_texture(state(person), 1.5)
    step = np.zeros(DIRECTIONS + 1 + 3 * (6 + len(NAMES)))
    step[DIRECTIONS + 1 + 59 + 1] = 0.06
    spoilt = moved(state(person), step)
    found, _, _ = minimise(problem, spoilt, 8, 1e-6)

    def apart(at: State) -> float:
        """Turn between the first two frames against the true one, radians."""
        true = person.rotation[1].double().numpy() @ person.rotation[0].double().numpy().T
        between = at.r[1] @ at.r[0].T @ true.T
        return float(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1)))

    assert apart(found) < 0.5 * apart(spoilt)


def test_the_slope_of_the_texture_term_is_that_of_its_cost(person, clip):
    """The mean texture is not a parameter, and needs no slope of its own: it is the best one already."""
    config = dataclasses.replace(CONFIG, independent=1e-9, huber=1e6, texture_independent=1.0, turn_sigma_per_s=1e9)
    problem = problem_of(clip, config)
    at = state(person)
    problem.look_at_texture(at, 3.0)
    draw = np.random.default_rng(0)
    size = DIRECTIONS + 1 + 3 * (6 + len(NAMES))
    at = moved(at, 0.004 * draw.standard_normal(size))
    g = problem.normal_equations(at).gradient
    frame = DIRECTIONS + 1 + 59
    for place in (0, 2, frame, frame + 1, frame + 3, frame + 4, frame + 5, frame + 6 + NAMES.index("jawOpen")):
        step = np.zeros(size)
        step[place] = 2e-4
        slope = (problem.cost(moved(at, step)) - problem.cost(moved(at, -step))) / 4e-4
        assert g[place] == pytest.approx(slope / 2, rel=0.08, abs=0.02 * np.abs(g).max()), place  # bilinear pictures


def test_moving_its_weight_moves_the_result(person, clip):
    """Half a weight that does nothing would be a lie."""
    found = []
    for weight in (0.0, 0.3):
        problem = problem_of(clip, dataclasses.replace(CONFIG, texture_independent=weight))
        problem.look_at_texture(state(person), 0.7)
        at, _, _ = minimise(problem, state(person), 3, 1e-6)
        found.append(at.r)
    assert np.abs(found[0] - found[1]).max() > 1e-6


def test_one_frame_has_nothing_to_agree_with(person):
    """A still image: no point is seen twice."""
    one = painted(person)
    one = dataclasses.replace(one, observations=one.observations[:1])
    problem = problem_of(one)
    at = state(person)
    problem.look_at_texture(State(at.s, 0.0, at.r[:1], at.t[:1], at.z_exp[:1]), 0.7)
    assert len(problem.textured) == 0


def test_a_face_turned_away_is_not_facing():
    """Cosine of a sphere's points: 1 where it is nearest, negative behind."""
    n = 24
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, n, endpoint=False), np.linspace(0.1, np.pi - 0.1, n), indexing="ij")
    x = np.stack([np.sin(v) * np.cos(u), np.cos(v), np.sin(v) * np.sin(u)], -1).reshape(-1, 3)
    grid = np.arange(n * n).reshape(n, n)
    a, b = grid[:, :-1].ravel(), grid[:, 1:].ravel()
    c, d = np.roll(grid, -1, 0)[:, :-1].ravel(), np.roll(grid, -1, 0)[:, 1:].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([c, b, d], 1)])
    away = np.cross(x[faces[:, 1]] - x[faces[:, 0]], x[faces[:, 2]] - x[faces[:, 0]])
    if (away * x[faces[:, 0]]).sum() < 0:
        faces = faces[:, [0, 2, 1]]
    camera = x + np.array([0, 0, 20.0])
    wanted = -(x * camera).sum(1) / np.linalg.norm(camera, axis=1)
    middle = np.abs(x[:, 1]) < 0.9  # the open ends of the grid have no full ring of triangles
    np.testing.assert_allclose(facing(camera, faces)[middle], wanted[middle], atol=0.03)
