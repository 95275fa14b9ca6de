"""The start of tracking: identity, expressions, poses and focal length of a whole clip from its dense landmarks alone.

The template is linear in both codes, so this is a small nonlinear least-squares problem (the only curvature is rotation and
projection). It is solved by Levenberg-Marquardt for all frames jointly: one identity, one camera, and per frame a pose and an
expression. The identity is sought in the directions that landmarks can see (singular vectors of the template's Jacobian); the rest of
the code keeps its prior mean.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from mononphm_core.errors import Diverged
from mononphm_core.geometry.rotations import so3_exp
from mononphm_core.model.template import TemplateHead
from mononphm_core.types import MM_PER_UNIT, ObservedClip

import torch


@dataclass(frozen=True)
class LandmarkFitConfig:
    """Weights and sizes of the joint landmark fit."""

    directions: int = 110
    """Identity directions that are sought."""
    iterations: int = 14
    detector_sigma: float = 0.006
    """Detector noise, share of the face height (measured)."""
    spread_share: float = 0.6
    """How much of a point's scatter on the skin is independent noise (the rest is shared by its neighbours)."""
    independent: float = 0.12
    """Landmarks that count: 478 points are not 478 independent measurements."""
    huber: float = 2.0
    """Standard deviations beyond which an error grows linearly only."""
    identity_prior: float = 1.0
    expression_sigma: float = 0.28
    """Of a blendshape weight around 0 (training mixtures)."""
    symmetry_sigma: float = 0.15
    """Of the difference between the left and right weight of a pair."""
    smooth_sigma_per_s: float = 3.0
    """How fast a blendshape weight may change: standard deviation after one second (times the root of the time)."""


@dataclass(frozen=True)
class LandmarkFit:
    """The clip as landmarks explain it. Poses map posed head points to the camera: x_camera = R x_posed + t (head units)."""

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


class _Problem:
    """Residuals and normal equations. Parameters: y (identity directions), log focal; per frame: rotation, translation, z_exp."""

    def __init__(
        self,
        template: TemplateHead,
        clip: ObservedClip,
        config: LandmarkFitConfig,
        expression_names: tuple[str, ...],
        identity: np.ndarray | None,
    ) -> None:
        self.config = config
        rows = template.rows("mediapipe478")
        nodes = (template.local_anchor.max().item() if identity is None else 0) + 1
        nodes = int(max(nodes, 65))
        full = template.identity_jacobian("mediapipe478", nodes).double().numpy()
        flat = full.reshape(-1, full.shape[-1])
        _, _, vt = np.linalg.svd(flat, full_matrices=False)
        self.lift = vt[: config.directions].T
        self.basis = full @ self.lift
        self.mean = template.mean[rows].double().numpy()
        self.identity = identity
        if identity is not None:  # identity known: nothing to seek
            self.mean = self.mean + full @ identity
            self.basis, self.lift = self.basis[..., :0], self.lift[:, :0]
        self.expression = template.expression_basis[rows].double().numpy()
        self.z_canonical = template.z_canonical.double().numpy()
        self.spread = template.landmark_spread_mm.double().numpy()
        obs = clip.observations
        self.times = np.array([o.timestamp_s for o in obs])
        self.target = np.stack([to_original(o.dense_landmarks_px.double().numpy(), o.crop) for o in obs])
        self.confidence = np.stack([o.dense_confidence.double().numpy() for o in obs])
        self.face_px = np.array([o.quality.face_px for o in obs])
        k = clip.intrinsics
        self.k = np.array([k.fx, k.fy, k.cx, k.cy])
        self.focal_prior = max(clip.focal_uncertainty, 1e-6)
        self.pairs = symmetric_pairs(expression_names)

    def points(self, y: np.ndarray, z_exp: np.ndarray) -> np.ndarray:
        """Posed landmarks of every frame."""
        canonical = self.mean + self.basis @ y
        return canonical + np.einsum("lce,fe->flc", self.expression, z_exp - self.z_canonical)

    def residuals(
        self, y: np.ndarray, log_f: float, rotation: np.ndarray, translation: np.ndarray, z_exp: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixel errors, standard deviations (px), and camera points."""
        camera = np.einsum("fij,flj->fli", rotation, self.points(y, z_exp)) + translation[:, None]
        depth = np.maximum(camera[..., 2:], 0.05)
        f, c = self.k[:2] * np.exp(log_f), self.k[2:]
        error = camera[..., :2] / depth * f + c - self.target
        px_per_mm = f.mean() / (depth[..., 0] * MM_PER_UNIT)
        sigma = np.hypot(
            self.config.detector_sigma * self.face_px[:, None], self.config.spread_share * self.spread * px_per_mm
        )
        return error, sigma, camera

    def weights(self, error: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Inverse variances with Huber's down-weighting, per landmark."""
        distance = np.linalg.norm(error, axis=-1) / sigma
        robust = np.minimum(1.0, self.config.huber / np.maximum(distance, 1e-9))
        return self.config.independent * self.confidence * robust / sigma**2

    def cost(self, y: np.ndarray, log_f: float, r: np.ndarray, t: np.ndarray, z_exp: np.ndarray) -> float:
        """What is minimised (Huber's function of the errors, and the priors)."""
        error, sigma, _ = self.residuals(y, log_f, r, t, z_exp)
        d = np.linalg.norm(error, axis=-1) / sigma
        h = self.config.huber
        rho = np.where(d < h, d**2, 2 * h * d - h**2)
        prior = self.config.identity_prior * (y**2).sum() + (log_f / self.focal_prior) ** 2
        prior += ((z_exp / self.config.expression_sigma) ** 2).sum()
        a, b = self.pairs
        prior += (((z_exp[:, a] - z_exp[:, b]) / self.config.symmetry_sigma) ** 2).sum()
        prior += (self.rates()[:, None] * np.diff(z_exp, axis=0) ** 2).sum()
        return float((self.config.independent * self.confidence * rho).sum() + prior)

    def rates(self) -> np.ndarray:
        """Inverse variances of the change of a weight between neighbouring frames."""
        return 1.0 / (self.config.smooth_sigma_per_s**2 * np.maximum(np.diff(self.times), 1e-3))

    def normal_equations(
        self, y: np.ndarray, log_f: float, r: np.ndarray, t: np.ndarray, z_exp: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Dense J^T W J and J^T W e over [y, log f, frame 0 (6 + d_exp), frame 1, ...]."""
        error, sigma, camera = self.residuals(y, log_f, r, t, z_exp)
        weight = self.weights(error, sigma)
        f, frames, d_exp = self.k[:2] * np.exp(log_f), len(r), z_exp.shape[1]
        shared, own = len(y) + 1, 6 + d_exp
        h = np.zeros((shared + frames * own,) * 2)
        g = np.zeros(len(h))
        for i in range(frames):
            x, y_, z = camera[i].T
            p = np.zeros((len(x), 2, 3))
            p[:, 0, 0], p[:, 0, 2] = f[0] / z, -f[0] * x / z**2
            p[:, 1, 1], p[:, 1, 2] = f[1] / z, -f[1] * y_ / z**2
            rotated = camera[i] - t[i]
            cross = np.zeros((len(x), 3, 3))
            cross[:, 0, 1], cross[:, 0, 2] = rotated[:, 2], -rotated[:, 1]
            cross[:, 1, 0], cross[:, 1, 2] = -rotated[:, 2], rotated[:, 0]
            cross[:, 2, 0], cross[:, 2, 1] = rotated[:, 1], -rotated[:, 0]
            pr = p @ r[i]
            focal = np.stack([f[0] * x / z, f[1] * y_ / z], -1)[..., None]
            common = np.concatenate([pr @ self.basis, focal], -1)
            mine = np.concatenate([p @ cross, p, pr @ self.expression], -1)
            j = np.concatenate([common, mine], -1).reshape(-1, shared + own)
            w = np.repeat(weight[i], 2)[:, None]
            block, right = (j * w).T @ j, (j * w).T @ error[i].reshape(-1)
            at = np.r_[np.arange(shared), shared + i * own + np.arange(own)]
            h[np.ix_(at, at)] += block
            g[at] += right
        self._add_priors(h, g, y, log_f, z_exp)
        return h, g

    def _add_priors(self, h: np.ndarray, g: np.ndarray, y: np.ndarray, log_f: float, z_exp: np.ndarray) -> None:
        shared, own, d_exp = len(y) + 1, 6 + z_exp.shape[1], z_exp.shape[1]
        d = np.arange(len(y))
        h[d, d] += self.config.identity_prior
        g[: len(y)] += self.config.identity_prior * y
        h[shared - 1, shared - 1] += self.focal_prior**-2
        g[shared - 1] += log_f * self.focal_prior**-2
        a, b = self.pairs
        starts = shared + own * np.arange(len(z_exp)) + 6
        for i, start in enumerate(starts):
            e = start + np.arange(d_exp)
            h[e, e] += self.config.expression_sigma**-2
            g[e] += z_exp[i] * self.config.expression_sigma**-2
            s = self.config.symmetry_sigma**-2
            difference = s * (z_exp[i, a] - z_exp[i, b])
            h[start + a, start + a] += s
            h[start + b, start + b] += s
            h[start + a, start + b] -= s
            h[start + b, start + a] -= s
            g[start + a] += difference
            g[start + b] -= difference
        for i, rate in enumerate(self.rates()):
            e0, e1 = starts[i] + np.arange(d_exp), starts[i + 1] + np.arange(d_exp)
            h[e0, e0] += rate
            h[e1, e1] += rate
            h[e0, e1] -= rate
            h[e1, e0] -= rate
            change = rate * (z_exp[i] - z_exp[i + 1])
            g[e0] += change
            g[e1] -= change


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
    problem = _Problem(template, clip, config, expression_names, identity)
    frames, d_exp = len(clip.observations), problem.expression.shape[-1]
    y, log_f = np.zeros(problem.basis.shape[-1]), 0.0
    z_exp = np.tile(0.3 * problem.z_canonical, (frames, 1))
    r, t = first_poses(problem, z_exp)
    best, damping = problem.cost(y, log_f, r, t, z_exp), 1e-3
    if not np.isfinite(best):
        raise Diverged(0, "landmarks")
    own = 6 + d_exp
    h = np.eye(1)
    for _ in range(config.iterations):
        h, g = problem.normal_equations(y, log_f, r, t, z_exp)
        free = _free(g, z_exp, len(y) + 1, own)
        improved = False
        for _ in range(5):
            step = np.zeros(len(g))
            a = h[np.ix_(free, free)] + damping * np.diag(np.diag(h)[free])
            step[free] = -np.linalg.solve(a, g[free])
            part = step[len(y) + 1 :].reshape(frames, own)
            turned = so3_exp(torch.from_numpy(part[:, :3])).numpy() @ r
            trial = (
                y + step[: len(y)],
                log_f + float(np.clip(step[len(y)], -0.2, 0.2)),
                turned,
                t + part[:, 3:6],
                np.clip(z_exp + part[:, 6:], 0.0, 1.0),
            )
            cost = problem.cost(*trial)
            if cost < best:
                gain, best, damping, improved = best - cost, cost, max(damping / 4, 1e-7), True
                y, log_f, r, t, z_exp = trial
                break
            damping *= 6
        if not improved or gain < 1e-4 * best:
            break
    error, _, _ = problem.residuals(y, log_f, r, t, z_exp)
    distance = np.linalg.norm(error, axis=-1)
    mean = (distance * problem.confidence).sum(1) / np.maximum(problem.confidence.sum(1), 1e-9)
    z_geo = problem.lift @ y if identity is None else identity
    sigma = float(np.sqrt(np.linalg.pinv(h)[len(y), len(y)])) if clip.focal_uncertainty > 0 else 0.0
    return LandmarkFit(z_geo, z_exp, r, t, float(np.exp(log_f)), sigma, mean)


def _free(g: np.ndarray, z_exp: np.ndarray, shared: int, own: int) -> np.ndarray:
    """Parameters that may move: a blendshape weight at its bound whose cost falls outwards may not."""
    free = np.ones(len(g), bool)
    gradient = g[shared:].reshape(len(z_exp), own)[:, 6:]
    held = ((z_exp <= 0) & (gradient > 0)) | ((z_exp >= 1) & (gradient < 0))
    free[shared:].reshape(len(z_exp), own)[:, 6:] = ~held
    return free


def first_poses(problem: _Problem, z_exp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Perspective-n-point of every frame against the mean head, on the points that wander least."""
    points = problem.points(np.zeros(problem.basis.shape[-1]), z_exp)
    firm = problem.spread < np.median(problem.spread)
    k = np.array([[problem.k[0], 0, problem.k[2]], [0, problem.k[1], problem.k[3]], [0, 0, 1]])
    rotations, translations = [], []
    for x, target, confidence in zip(points, problem.target, problem.confidence, strict=True):
        use = firm & (confidence > 0.2 * confidence.max())
        _, log, t = cv2.solvePnP(x[use], target[use], k, None, flags=cv2.SOLVEPNP_SQPNP)
        log, t = cv2.solvePnPRefineLM(x[use], target[use], k, None, log, t)
        rotations.append(cv2.Rodrigues(log)[0])
        translations.append(t[:, 0])
    return np.stack(rotations), np.stack(translations)


def symmetric_pairs(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the left and right members of paired blendshapes; gaze pairs are left out (eyes turn together, not apart)."""
    place = {name: i for i, name in enumerate(names)}
    left = [i for n, i in place.items() if n.endswith("_L") and n[:-1] + "R" in place and not _one_sided(n)]
    return np.array(left, int), np.array([place[names[i][:-1] + "R"] for i in left], int)


def _one_sided(name: str) -> bool:
    return name.startswith(("eyeLookIn", "eyeLookOut"))


def to_original(pixels: Float[np.ndarray, "points 2"], crop: "object") -> Float[np.ndarray, "points 2"]:
    """Crop pixels as pixels of the upright original."""
    return pixels / crop.scale + np.array([crop.left, crop.top])  # type: ignore[attr-defined]
