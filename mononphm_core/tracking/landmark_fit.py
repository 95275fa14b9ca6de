"""The start of tracking: identity, expressions, poses and focal length of a whole clip from its landmarks and outlines.

The template is linear in both codes, so this is a small nonlinear least-squares problem (curved only by rotation and
projection). It is solved by Levenberg-Marquardt for all frames jointly: one identity, one camera, and per frame a pose
and an expression. The identity is sought among plausible people: z_geo = geo_span @ y, with y standard normal.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.errors import Diverged
from mononphm_core.geometry.rotations import so3_exp
from mononphm_core.model.template import TemplateHead
from mononphm_core.tracking.arrow import Arrow
from mononphm_core.tracking.config import MOST_SIGMAS, LandmarkFitConfig
from mononphm_core.tracking.joint_problem import JointProblem, State
from mononphm_core.tracking.pinhole import POSE
from mononphm_core.types import MM_PER_UNIT, ObservedClip, StopReason, TrackedSequence, Uncertainty

FOCAL_BIAS = 0.15
"""Systematic part of a focal length's error, relative: no number of frames takes away what their landmarks share.
Measured on two rendered clips whose heads turn: 26 and 13 % without the detector's bias taken out, 4 % on one of them
with it, where the normal equations say 3 % each time."""


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
    """Standard deviation of log(focal), with what landmarks err in every frame alike; 0 for a given camera."""
    error_px: Float[np.ndarray, "frames"]
    """Mean distance of the confident landmarks, original pixels."""
    stop: StopReason = StopReason.CONVERGED
    uncertainty: Uncertainty | None = None


def fit_landmarks(
    template: TemplateHead,
    clip: ObservedClip,
    expression_names: tuple[str, ...],
    config: LandmarkFitConfig = LandmarkFitConfig(),
    identity: Float[np.ndarray, "d_geo"] | None = None,
    on_round: Callable[[int], None] = lambda _: None,
) -> LandmarkFit:
    """Joint fit of all frames. With `identity` given, only poses, expressions and the camera are sought.

    Errors: Diverged, when no step lowers the cost from a start that is not a number.
    """
    problem = JointProblem(template, clip, config, expression_names, identity)
    frames = len(clip.observations)
    z_exp = np.tile(0.3 * problem.z_canonical, (frames, 1))
    r, t = first_poses(problem, z_exp)
    at = State(np.zeros(problem.landmark.identity.shape[-1]), 0.0, r, t, z_exp)
    if not np.isfinite(problem.cost(at)):
        raise Diverged(0, "landmarks")
    at, equations, stop = minimise(problem, at, config.iterations, config.stop_share)
    on_round(1)
    for number in range(config.contour_rounds):
        problem.choose_rims(at)
        at, equations, stop = minimise(problem, at, config.contour_iterations, config.stop_share)
        on_round(2 + number)
    return result(problem, at, equations, clip.focal_uncertainty, stop)


def result(
    problem: JointProblem, at: State, equations: Arrow, focal_uncertainty: float, stop: StopReason
) -> LandmarkFit:
    """What the fit says, with its uncertainty."""
    error, _, _ = problem.landmarks(at)
    distance = np.linalg.norm(error, axis=-1)
    mean = (distance * problem.confidence).sum(1) / np.maximum(problem.confidence.sum(1), 1e-9)
    deviation = equations.factor(0.0, np.ones(len(equations.gradient), bool)).deviations()
    n = len(at.s)
    own = deviation[n + 1 :].reshape(len(at.r), -1)
    uncertainty = Uncertainty(
        identity=leaf(deviation[:n]),
        turn_deg=leaf(np.degrees(own[:, :3])),
        shift=leaf(own[:, 3:POSE]),
        z_exp=leaf(own[:, POSE:]),
    )
    sigma = min(float(np.hypot(deviation[n], FOCAL_BIAS)), focal_uncertainty)
    z_geo = problem.start + problem.lift @ at.s
    return LandmarkFit(z_geo, at.z_exp, at.r, at.t, float(np.exp(at.log_f)), sigma, mean, stop, uncertainty)


def leaf(values: Float[np.ndarray, "*shape"]) -> Float[Tensor, "*shape"]:
    """As the tensors of a tracked sequence are."""
    return torch.from_numpy(np.ascontiguousarray(values)).float()


def state_of(tracked: TrackedSequence, clip: ObservedClip, problem: JointProblem) -> State:
    """A tracked sequence as a point of the search."""
    r = tracked.poses.rotation.transpose(1, 2).double()
    t = -(r @ tracked.poses.translation.double()[..., None])[..., 0]
    s = np.linalg.lstsq(problem.lift, tracked.identity.z_geo.double().cpu().numpy() - problem.start, rcond=None)[0]
    log_f = float(np.log(tracked.intrinsics.fx / clip.intrinsics.fx))
    return State(s, log_f, r.cpu().numpy(), t.cpu().numpy(), tracked.z_exp.double().cpu().numpy())


def figures(problem: JointProblem, at: State) -> dict[str, float]:
    """What tells a good fit from a worse one without knowing the truth: means over the clip.

    `texture_disagreement` is the local contrast by which frames differ on the skin; `wobble_mm` the root mean square
    change of motion of the face's points over three close frames, which real heads have too, but less of (0 where the
    chosen frames are further apart).
    """
    error, _, _ = problem.landmarks(at)
    distance = np.linalg.norm(error, axis=-1)
    face = problem.landmark.posed(at.s, at.z_exp) @ at.r.transpose(0, 2, 1) + at.t[:, None]
    jolt = np.diff(face, n=2, axis=0)[problem.evenly_near()]
    return {
        "landmark_error_px": float((distance * problem.confidence).sum() / max(problem.confidence.sum(), 1e-9)),
        "wobble_mm": float(np.sqrt((jolt**2).sum(-1).mean()) * MM_PER_UNIT) if len(jolt) else 0.0,
        "texture_disagreement": problem.disagreement(at),
    }


def minimise(problem: JointProblem, at: State, iterations: int, stop_share: float) -> tuple[State, Arrow, StopReason]:
    """Levenberg-Marquardt; stops when the cost falls by less than a share. Also the last equations and why it ended."""
    best, damping = problem.cost(at), 1e-3
    equations = problem.normal_equations(at)
    for _ in range(iterations):
        low, high = room(at)
        gain = 0.0
        for _ in range(5):
            trial = moved(at, equations.bounded_step(damping, low, high))
            cost = problem.cost(trial)
            if cost < best:
                gain, best, damping, at = best - cost, cost, max(damping / 4, 1e-7), trial
                break
            damping *= 6
        if gain <= stop_share * best:
            return at, equations, StopReason.CONVERGED
        equations = problem.normal_equations(at)
    return at, equations, StopReason.STEP_BUDGET


def moved(at: State, step: Float[np.ndarray, "parameters"]) -> State:
    """The state after a step of all parameters."""
    n, frames = len(at.s), len(at.r)
    own = step[n + 1 :].reshape(frames, -1)
    return State(
        at.s + step[:n],
        at.log_f + float(step[n]),
        so3_exp(torch.from_numpy(own[:, :3].copy())).numpy() @ at.r,
        at.t + own[:, 3:POSE],
        np.clip(at.z_exp + own[:, POSE:], 0.0, 1.0),
    )


def room(at: State) -> tuple[np.ndarray, np.ndarray]:
    """How far every parameter may go down and up: identity within its sigmas, blendshape weights within [0, 1]."""
    bound = np.full(len(at.s), MOST_SIGMAS)
    unbounded = np.full((len(at.r), POSE), np.inf)
    low = np.concatenate([-unbounded, -at.z_exp], 1).ravel()
    high = np.concatenate([unbounded, 1.0 - at.z_exp], 1).ravel()
    return np.concatenate([-bound - at.s, [-0.2], low]), np.concatenate([bound - at.s, [0.2], high])


def first_poses(problem: JointProblem, z_exp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Perspective-n-point of every frame against the mean head, on the points that wander least."""
    points = problem.landmark.posed(np.zeros(problem.landmark.identity.shape[-1]), z_exp)
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
