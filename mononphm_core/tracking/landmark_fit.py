"""The start of tracking: identity, expressions, poses and focal length of a whole clip from its landmarks and outlines.

The template is linear in both codes, so this is a small nonlinear least-squares problem (curved only by rotation and
projection). It is solved by Levenberg-Marquardt for all frames jointly: one identity, one camera, and per frame a pose
and an expression. The identity is sought among plausible people: z_geo = geo_span @ y, with y standard normal.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float

from mononphm_core.errors import Diverged
from mononphm_core.geometry.rotations import so3_exp
from mononphm_core.model.template import TemplateHead
from mononphm_core.tracking.config import MOST_SIGMAS, LandmarkFitConfig
from mononphm_core.tracking.joint_problem import JointProblem
from mononphm_core.types import ObservedClip


@dataclass(frozen=True)
class LandmarkFit:
    """The clip as landmarks and outlines explain it. Poses map the head to the camera: x_camera = R x_posed + t."""

    z_geo: Float[np.ndarray, "d_geo"]
    z_exp: Float[np.ndarray, "frames d_exp"]
    rotation: Float[np.ndarray, "frames 3 3"]
    translation: Float[np.ndarray, "frames 3"]
    focal_scale: float
    """Found focal length over the one that was given."""
    focal_sigma: float
    """Posterior standard deviation of log(focal)."""
    error_px: Float[np.ndarray, "frames"]
    """Mean distance of the confident landmarks, original pixels."""


def fit_landmarks(
    template: TemplateHead,
    clip: ObservedClip,
    expression_names: tuple[str, ...],
    config: LandmarkFitConfig = LandmarkFitConfig(),
    identity: Float[np.ndarray, "d_geo"] | None = None,
) -> LandmarkFit:
    """Joint fit of all frames. With `identity` given, only poses, expressions and the camera are sought.

    Errors: Diverged, when no step lowers the cost from a start that is not a number.
    """
    problem = JointProblem(template, clip, config, expression_names, identity)
    frames = len(clip.observations)
    z_exp = np.tile(0.3 * problem.z_canonical, (frames, 1))
    r, t = first_poses(problem, z_exp)
    state: _State = (np.zeros(problem.lift.shape[-1]), 0.0, r, t, z_exp)
    if not np.isfinite(problem.cost(*state)):
        raise Diverged(0, "landmarks")
    state, h = _minimise(problem, state, config.iterations)
    for _ in range(config.contour_rounds):
        problem.choose_rims(*state)
        state, h = _minimise(problem, state, config.contour_iterations)
    y, log_f, r, t, z_exp = state
    error, _, _ = problem.residuals(*state)
    distance = np.linalg.norm(error, axis=-1)
    mean = (distance * problem.confidence).sum(1) / np.maximum(problem.confidence.sum(1), 1e-9)
    sigma = _focal_sigma(h, len(y)) if clip.focal_uncertainty > 0 else 0.0
    return LandmarkFit(problem.start + problem.lift @ y, z_exp, r, t, float(np.exp(log_f)), sigma, mean)


_State = tuple[np.ndarray, float, np.ndarray, np.ndarray, np.ndarray]
"""y, log focal, rotations, translations, expressions."""


def _minimise(problem: JointProblem, state: _State, iterations: int) -> tuple[_State, np.ndarray]:
    """Levenberg-Marquardt; stops when the cost falls by less than a ten-thousandth. Also the last normal matrix."""
    best, damping, h = problem.cost(*state), 1e-3, np.eye(1)
    for _ in range(iterations):
        y, log_f, r, t, z_exp = state
        own = 6 + z_exp.shape[1]
        h, g = problem.normal_equations(*state)
        low, high = _room(state)
        gain = 0.0
        for _ in range(5):
            step = _bounded_step(h, g, damping, low, high)
            part = step[len(y) + 1 :].reshape(len(r), own)
            trial = (
                y + step[: len(y)],
                log_f + float(step[len(y)]),
                so3_exp(torch.from_numpy(part[:, :3])).numpy() @ r,
                t + part[:, 3:6],
                np.clip(z_exp + part[:, 6:], 0.0, 1.0),
            )
            cost = problem.cost(*trial)
            if cost < best:
                gain, best, damping, state = best - cost, cost, max(damping / 4, 1e-7), trial
                break
            damping *= 6
        if gain < 1e-4 * best:
            break
    return state, h


def _bounded_step(h: np.ndarray, g: np.ndarray, damping: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The damped step that minimises the quadratic model within `low` <= step <= `high`, by an active set.

    Parameters that a step would carry over their bound are set on it, and the others solved again around them. Clipping
    alone would spoil the step of everything that was solved together with them. At most six rounds, then clipped.
    """
    a = h + np.diag(damping * np.diag(h))
    step = np.zeros(len(g))
    fixed = ((low >= 0) & (g > 0)) | ((high <= 0) & (g < 0))  # on the bound, and the cost falls outwards
    for _ in range(6):
        free = ~fixed
        factor = scipy.linalg.cho_factor(a[np.ix_(free, free)], overwrite_a=True)
        step[free] = -scipy.linalg.cho_solve(factor, g[free] + a[np.ix_(free, fixed)] @ step[fixed])
        over = free & ((step < low) | (step > high))
        if not over.any():
            break
        step[over] = np.clip(step[over], low[over], high[over])
        fixed |= over
    return np.clip(step, low, high)


def _room(state: _State) -> tuple[np.ndarray, np.ndarray]:
    """How far every parameter may go down and up: y within its sigmas, blendshape weights within [0, 1]."""
    y, _, r, _, z_exp = state
    unbounded = np.full((len(r), 6), np.inf)
    rows = [np.concatenate([sign * unbounded, room], 1).ravel() for sign, room in ((-1, -z_exp), (1, 1.0 - z_exp))]
    shared = [np.append(-MOST_SIGMAS - y, -0.2), np.append(MOST_SIGMAS - y, 0.2)]
    return np.concatenate([shared[0], rows[0]]), np.concatenate([shared[1], rows[1]])


def _focal_sigma(h: np.ndarray, place: int) -> float:
    """Posterior standard deviation of log(focal): the inverse normal matrix's diagonal entry."""
    unit = np.zeros(len(h))
    unit[place] = 1.0
    factor = scipy.linalg.cho_factor(h + 1e-9 * np.eye(len(h)))
    return float(np.sqrt(max(scipy.linalg.cho_solve(factor, unit)[place], 0.0)))


def first_poses(problem: JointProblem, z_exp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Perspective-n-point of every frame against the mean head, on the points that wander least."""
    points = problem.points(problem.landmark, np.zeros(problem.lift.shape[-1]), z_exp)
    firm = problem.spread < np.median(problem.spread)
    k = np.array([[problem.k[0], 0, problem.k[2]], [0, problem.k[1], problem.k[3]], [0, 0, 1]])
    undistorted = np.zeros(5)
    rotations, translations = [], []
    for x, target, confidence in zip(points, problem.target, problem.confidence, strict=True):
        use = firm & (confidence > 0.2 * confidence.max())
        _, log, t = cv2.solvePnP(x[use], target[use], k, undistorted, flags=cv2.SOLVEPNP_SQPNP)
        log, t = cv2.solvePnPRefineLM(x[use], target[use], k, undistorted, log, t)
        rotations.append(cv2.Rodrigues(log)[0])
        translations.append(t[:, 0])
    return np.stack(rotations), np.stack(translations)
