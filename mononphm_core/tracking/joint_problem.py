"""The joint problem of a clip: residuals of landmarks and rim points, priors, and their normal equations.

Parameters: y (identity directions), log focal; then per frame turn (so(3), camera frame), shift, z_exp. Pixels are
those of the upright original.
"""

import numpy as np
import torch

from mononphm_core.geometry.rotations import so3_log
from mononphm_core.model.template import TemplateHead
from mononphm_core.tracking.config import LandmarkFitConfig
from mononphm_core.tracking.contours import Outline, rim
from mononphm_core.tracking.template_points import Points, symmetric_pairs
from mononphm_core.types import MM_PER_UNIT, Crop, ObservedClip


class JointProblem:
    """Residuals and normal equations of one clip."""

    def __init__(
        self,
        template: TemplateHead,
        clip: ObservedClip,
        config: LandmarkFitConfig,
        expression_names: tuple[str, ...],
        identity: np.ndarray | None,
    ) -> None:
        self.config = config
        self.landmark = Points.of(template, "mediapipe478")
        self.surface = Points.of(template, "surface")
        self.faces = template.surface_faces.numpy()
        self.lift = template.geo_span[:, : config.directions].double().numpy()
        if identity is not None:  # identity known: nothing to seek
            self.lift = self.lift[:, :0]
        start = np.zeros(self.landmark.identity.shape[-1]) if identity is None else identity
        self.landmark = self.landmark.seeking(self.lift, start)
        self.surface = self.surface.seeking(self.lift, start)
        self.start = start
        self.rims: list[np.ndarray] = [np.zeros(0, int) for _ in clip.observations]
        self.outlines = [Outline.of(o) for o in clip.observations]
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
        self.identity_prior = max(config.identity_prior, len(obs) / config.identity_prior_frames)

    def points(self, of: Points, y: np.ndarray, z_exp: np.ndarray) -> np.ndarray:
        """Posed points of every frame (or of one, for one expression)."""
        offset = np.einsum("lce,...e->...lc", of.expression, z_exp - self.z_canonical)
        return of.mean + of.identity @ y + offset

    def project(self, camera: np.ndarray, log_f: float) -> np.ndarray:
        """Original pixels."""
        return camera[..., :2] / np.maximum(camera[..., 2:], 0.05) * self.k[:2] * np.exp(log_f) + self.k[2:]

    def residuals(
        self, y: np.ndarray, log_f: float, rotation: np.ndarray, translation: np.ndarray, z_exp: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Landmarks: pixel errors, standard deviations (px), and camera points."""
        camera = np.einsum("fij,flj->fli", rotation, self.points(self.landmark, y, z_exp)) + translation[:, None]
        error = self.project(camera, log_f) - self.target
        px_per_mm = self.k[:2].mean() * np.exp(log_f) / (np.maximum(camera[..., 2], 0.05) * MM_PER_UNIT)
        sigma = np.hypot(
            self.config.detector_sigma * self.face_px[:, None], self.config.spread_share * self.spread * px_per_mm
        )
        return error, sigma, camera

    def weights(self, error: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Inverse variances with Huber's down-weighting, per landmark."""
        distance = np.linalg.norm(error, axis=-1) / sigma
        robust = np.minimum(1.0, self.config.huber / np.maximum(distance, 1e-9))
        return self.config.independent * self.confidence * robust / sigma**2

    def contour(
        self, i: int, y: np.ndarray, log_f: float, r: np.ndarray, t: np.ndarray, z_exp: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rim points of frame i: camera positions, signed distances (px), gradients, inverse variances."""
        rim_points = self.surface.some(self.rims[i])
        camera = self.points(rim_points, y, z_exp[i]) @ r[i].T + t[i]
        sampled = self.outlines[i].sample(self.project(camera, log_f))
        sigma = self.config.contour_sigma * self.face_px[i]
        robust = np.minimum(1.0, self.config.huber * sigma / np.maximum(np.abs(sampled[:, 0]), 1e-9))
        return camera, sampled[:, 0], sampled[:, 1:], self.config.contour_independent * robust / sigma**2

    def choose_rims(self, y: np.ndarray, log_f: float, r: np.ndarray, t: np.ndarray, z_exp: np.ndarray) -> None:
        """Take the present silhouette's rim in every frame."""
        k = self.k * np.array([np.exp(log_f), np.exp(log_f), 1, 1])
        for i in range(len(r)):
            camera = self.points(self.surface, y, z_exp[i]) @ r[i].T + t[i]
            self.rims[i] = rim(camera, self.faces, k, self.outlines[i], self.config.contour_points)

    def cost(self, y: np.ndarray, log_f: float, r: np.ndarray, t: np.ndarray, z_exp: np.ndarray) -> float:
        """What is minimised (Huber's function of the errors, and the priors)."""
        error, sigma, _ = self.residuals(y, log_f, r, t, z_exp)
        data = (self.config.independent * self.confidence * self._rho(np.linalg.norm(error, axis=-1) / sigma)).sum()
        for i in range(len(r)):
            if len(self.rims[i]):
                _, distance, _, _ = self.contour(i, y, log_f, r, t, z_exp)
                scaled = np.abs(distance) / (self.config.contour_sigma * self.face_px[i])
                data += self.config.contour_independent * self._rho(scaled).sum()
        prior = self.identity_prior * (y**2).sum() + (log_f / self.focal_prior) ** 2
        prior += ((z_exp / self.config.expression_sigma) ** 2).sum()
        a, b = self.pairs
        prior += (((z_exp[:, a] - z_exp[:, b]) / self.config.symmetry_sigma) ** 2).sum()
        prior += (self.rates(self.config.smooth_sigma_per_s)[:, None] * np.diff(z_exp, axis=0) ** 2).sum()
        prior += (self.rates(self.config.shift_sigma_per_s)[:, None] * np.diff(t, axis=0) ** 2).sum()
        prior += (self.rates(self.config.turn_sigma_per_s)[:, None] * _turns(r) ** 2).sum()
        return float(data + prior)

    def _rho(self, d: np.ndarray) -> np.ndarray:
        h = self.config.huber
        return np.where(d < h, d**2, 2 * h * d - h**2)

    def rates(self, sigma_per_s: float) -> np.ndarray:
        """Inverse variances of a random walk's change between neighbouring frames."""
        return 1.0 / (sigma_per_s**2 * np.maximum(np.diff(self.times), 1e-3))

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
            j = self._jacobian(camera[i], r[i], t[i], self.landmark, f)
            w = np.repeat(weight[i], 2)[:, None]
            at = np.r_[np.arange(shared), shared + i * own + np.arange(own)]
            block, right = (j * w).T @ j, (j * w).T @ error[i].reshape(-1)
            if len(self.rims[i]):
                points, distance, gradient, w_rim = self.contour(i, y, log_f, r, t, z_exp)
                j = self._jacobian(points, r[i], t[i], self.surface.some(self.rims[i]), f)
                j = np.einsum("pk,pkn->pn", gradient, j.reshape(len(points), 2, -1))
                block += (j * w_rim[:, None]).T @ j
                right += (j * w_rim[:, None]).T @ distance
            h[np.ix_(at, at)] += block
            g[at] += right
        self._add_priors(h, g, y, log_f, r, t, z_exp)
        return h, g

    @staticmethod
    def _jacobian(camera: np.ndarray, r: np.ndarray, t: np.ndarray, of: Points, f: np.ndarray) -> np.ndarray:
        """d pixel / d [y, log focal, turn, shift, z_exp]: (2 points, parameters)."""
        x, y, z = camera.T
        p = np.zeros((len(x), 2, 3))
        p[:, 0, 0], p[:, 0, 2] = f[0] / z, -f[0] * x / z**2
        p[:, 1, 1], p[:, 1, 2] = f[1] / z, -f[1] * y / z**2
        rotated = camera - t
        cross = np.zeros((len(x), 3, 3))
        cross[:, 0, 1], cross[:, 0, 2] = rotated[:, 2], -rotated[:, 1]
        cross[:, 1, 0], cross[:, 1, 2] = -rotated[:, 2], rotated[:, 0]
        cross[:, 2, 0], cross[:, 2, 1] = rotated[:, 1], -rotated[:, 0]
        pr = p @ r
        focal = np.stack([f[0] * x / z, f[1] * y / z], -1)[..., None]
        columns = [pr @ of.identity, focal, p @ cross, p, pr @ of.expression]
        return np.concatenate(columns, -1).reshape(2 * len(x), -1)

    def _add_priors(
        self, h: np.ndarray, g: np.ndarray, y: np.ndarray, log_f: float, r: np.ndarray, t: np.ndarray, z_exp: np.ndarray
    ) -> None:
        shared, own, d_exp = len(y) + 1, 6 + z_exp.shape[1], z_exp.shape[1]
        d = np.arange(len(y))
        h[d, d] += self.identity_prior
        g[: len(y)] += self.identity_prior * y
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
        turns = _turns(r)
        walks = [
            (6 + np.arange(d_exp), self.config.smooth_sigma_per_s, np.diff(z_exp, axis=0)),
            (3 + np.arange(3), self.config.shift_sigma_per_s, np.diff(t, axis=0)),
            (np.arange(3), self.config.turn_sigma_per_s, turns),
        ]
        for place, sigma, change in walks:
            for i, rate in enumerate(self.rates(sigma)):
                e0, e1 = starts[i] - 6 + place, starts[i + 1] - 6 + place
                h[e0, e0] += rate
                h[e1, e1] += rate
                h[e0, e1] -= rate
                h[e1, e0] -= rate
                g[e0] -= rate * change[i]
                g[e1] += rate * change[i]


def _turns(r: np.ndarray) -> np.ndarray:
    """so(3) step from each frame to the next, camera frame."""
    if len(r) < 2:
        return np.zeros((0, 3))
    return so3_log(torch.from_numpy(r[1:] @ r[:-1].transpose(0, 2, 1))).numpy()


def to_original(pixels: np.ndarray, crop: Crop) -> np.ndarray:
    """Crop pixels as pixels of the upright original."""
    return pixels / crop.scale + np.array([crop.left, crop.top])
