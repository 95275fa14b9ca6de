"""The joint problem of a clip: errors of landmarks and rim points, priors, and their normal equations.

Parameters: s (identity directions) and log focal are shared; every frame has turn (so(3), camera frame), shift and
z_exp. Pixels are those of the upright original.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from mononphm_core.geometry.rotations import so3_log
from mononphm_core.model.template import TemplateHead
from mononphm_core.tracking import closure
from mononphm_core.tracking.arrow import Arrow
from mononphm_core.tracking.config import LandmarkFitConfig
from mononphm_core.tracking.contours import Outline, Rim, rim
from mononphm_core.tracking.pinhole import POSE, Seen, add_frame, add_identity, projected, projection_slope
from mononphm_core.tracking.template_points import Points, symmetric_pairs
from mononphm_core.tracking.texture import Texture
from mononphm_core.types import MM_PER_UNIT, Crop, ObservedClip


@dataclass(frozen=True)
class State:
    """A point of the search. Poses map the head to the camera: x_camera = R x_posed + t."""

    s: Float[np.ndarray, "shared"]
    log_f: float
    r: Float[np.ndarray, "frames 3 3"]
    t: Float[np.ndarray, "frames 3"]
    z_exp: Float[np.ndarray, "frames d_exp"]


class JointProblem:
    """Residuals and normal equations of one clip."""

    def __init__(
        self,
        template: TemplateHead,
        clip: ObservedClip,
        config: LandmarkFitConfig,
        expression_names: tuple[str, ...],
        identity: Float[np.ndarray, "d_geo"] | None,
    ) -> None:
        self.config = config
        self.z_canonical = template.z_canonical.double().cpu().numpy()
        self.lift = template.geo_span[:, : config.directions].double().cpu().numpy()
        if identity is not None:  # identity known: nothing to seek
            self.lift = self.lift[:, :0]
        self.start = np.zeros(len(self.lift)) if identity is None else identity
        self.landmark = Points.of(template, "mediapipe478").seeking(self.lift, self.start)
        self.surface = Points.of(template, "surface").seeking(self.lift, self.start)
        self.faces = template.surface_faces.cpu().numpy()
        self.rims = [Rim.none() for _ in clip.observations]
        self.outlines = [Outline.of(o) for o in clip.observations]
        self.spread = template.landmark_spread_mm.double().cpu().numpy()
        obs = self.observations = clip.observations
        self.texture: Texture | None = None
        self.times = np.array([o.timestamp_s for o in obs])
        self.target = np.stack([to_original(o.dense_landmarks_px.double().numpy(), o.crop) for o in obs])
        self.confidence = np.stack([o.quality.weight * o.dense_confidence.double().numpy() for o in obs])
        self.face_px = np.array([o.quality.face_px for o in obs])
        self.gap = closure.between(self.landmark)
        self.upward = closure.upward(self.target)
        self.gap_expected = closure.gaps(self.target, self.upward)
        self.gap_expected += closure.rest_gaps(self.landmark) * self.face_px[:, None]
        self.gap_confidence = np.minimum(
            self.confidence[:, closure.PAIRS[:, 0]], self.confidence[:, closure.PAIRS[:, 1]]
        )
        share = np.array([config.lid_sigma] * len(closure.LIDS) + [config.lip_sigma] * len(closure.LIPS))
        self.gap_sigma = share * self.face_px[:, None]
        k = clip.intrinsics
        self.k = np.array([k.fx, k.fy, k.cx, k.cy])
        self.focal_prior = max(clip.focal_uncertainty, 1e-6)
        self.pairs = symmetric_pairs(expression_names)
        self.identity_prior = max(config.identity_prior, len(obs) / config.identity_prior_frames)

    def camera(self, at: State) -> Float[np.ndarray, "4"]:
        """fx, fy, cx, cy."""
        f = np.exp(at.log_f)
        return self.k * np.array([f, f, 1, 1])

    def landmarks(
        self, at: State
    ) -> tuple[Float[np.ndarray, "frames points 2"], Float[np.ndarray, "frames points"], np.ndarray]:
        """Pixel errors, standard deviations (px), and camera points."""
        x = self.landmark.posed(at.s, at.z_exp) @ at.r.transpose(0, 2, 1) + at.t[:, None]
        error = projected(x, self.camera(at)) - self.target
        px_per_mm = self.camera(at)[:2].mean() / (np.maximum(x[..., 2], 0.05) * MM_PER_UNIT)
        sigma = np.hypot(
            self.config.detector_sigma * self.face_px[:, None], self.config.spread_share * self.spread * px_per_mm
        )
        return error, sigma, x

    def weights(self, error: np.ndarray, sigma: np.ndarray) -> Float[np.ndarray, "frames points"]:
        """Inverse variances with Huber's down-weighting, per landmark."""
        distance = np.linalg.norm(error, axis=-1) / sigma
        robust = np.minimum(1.0, self.config.huber / np.maximum(distance, 1e-9))
        return self.config.independent * self.confidence * robust / sigma**2

    def gap_errors(self, at: State, x: Float[np.ndarray, "frames points 3"]) -> Float[np.ndarray, "frames pairs"]:
        """By how many pixels lids and lips stand too far open; `x` are the landmarks' camera points."""
        return closure.gaps(projected(x, self.camera(at)), self.upward) - self.gap_expected

    def contour(self, i: int, at: State) -> tuple[Points, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rim points of frame i: points, camera positions, signed distances (px), gradients, inverse variances."""
        points = self.rims[i].of(self.surface)
        x = points.posed(at.s, at.z_exp[i : i + 1])[0] @ at.r[i].T + at.t[i]
        sampled = self.outlines[i].sample(projected(x, self.camera(at)))
        sigma = self.config.contour_sigma * self.face_px[i]
        robust = np.minimum(1.0, self.config.huber * sigma / np.maximum(np.abs(sampled[:, 0]), 1e-9))
        return points, x, sampled[:, 0], sampled[:, 1:], self.config.contour_independent * robust / sigma**2

    def surface_in(self, at: State) -> Float[np.ndarray, "frames points 3"]:
        """The surface's points, camera frame."""
        x: np.ndarray = self.surface.posed(at.s, at.z_exp) @ at.r.transpose(0, 2, 1) + at.t[:, None]
        return x

    def look_at_texture(self, at: State, blur_px: float) -> None:
        """From now on the frames' textures must agree, seen through a blur; visible points are chosen here."""
        x = self.surface_in(at)
        self.texture = Texture(self.observations, blur_px)
        self.texture.look(x, projected(x, self.camera(at)), self.faces)
        self.textured = np.flatnonzero(self.texture.seen.any(0))
        self.texture.seen = self.texture.seen[:, self.textured]
        self.skin = self.surface.some(self.textured)

    def disagreement(self, at: State) -> float:
        """Root mean square of the texture's errors, as last looked at; 0 for one frame."""
        if self.texture is None or not len(self.textured):
            return 0.0
        x = self.skin.posed(at.s, at.z_exp) @ at.r.transpose(0, 2, 1) + at.t[:, None]
        error, _, weight = self.texture.errors(
            projected(x, self.camera(at)), self.config.texture_sigma, self.config.huber
        )
        return float(np.sqrt((weight[:, None] * error**2).sum() / max(weight.sum(), 1e-9)))

    def choose_rims(self, at: State) -> None:
        """Take the present silhouette's rim in every frame."""
        x = self.surface_in(at)
        for i in range(len(x)):
            self.rims[i] = rim(x[i], self.faces, self.camera(at), self.outlines[i], self.config.contour_points)

    def cost(self, at: State) -> float:
        """What is minimised (Huber's function of the errors, and the priors)."""
        error, sigma, x = self.landmarks(at)
        data = (self.config.independent * self.confidence * self._rho(np.linalg.norm(error, axis=-1) / sigma)).sum()
        open_by = self._rho(np.abs(self.gap_errors(at, x)) / self.gap_sigma)
        data += (self.config.gap_independent * self.gap_confidence * open_by).sum()
        for i in range(len(at.r)):
            if len(self.rims[i].share):
                _, _, distance, _, _ = self.contour(i, at)
                scaled = np.abs(distance) / (self.config.contour_sigma * self.face_px[i])
                data += self.config.contour_independent * self._rho(scaled).sum()
        if self.texture is not None:
            x = self.skin.posed(at.s, at.z_exp) @ at.r.transpose(0, 2, 1) + at.t[:, None]
            error, _, _ = self.texture.errors(
                projected(x, self.camera(at)), self.config.texture_sigma, self.config.huber
            )
            scaled = np.linalg.norm(error, axis=1) / self.config.texture_sigma
            data += self.config.texture_independent * (self.texture.seen * self._rho(scaled)).sum()
        prior = self.identity_prior * (at.s**2).sum() + (at.log_f / self.focal_prior) ** 2
        prior += ((at.z_exp / self.config.expression_sigma) ** 2).sum()
        a, b = self.pairs
        prior += (((at.z_exp[:, a] - at.z_exp[:, b]) / self.config.symmetry_sigma) ** 2).sum()
        for _, rates, change in self._walks(at):
            prior += (rates[:, None] * change**2).sum()
        for _, rates, change in self._accelerations(at):
            prior += (rates[:, None] * change**2).sum()
        return float(data + prior)

    def _rho(self, d: np.ndarray) -> np.ndarray:
        h = self.config.huber
        return np.where(d < h, d**2, 2 * h * d - h**2)

    def normal_equations(self, at: State) -> Arrow:
        """J^T W J and J^T W e of everything."""
        error, sigma, x = self.landmarks(at)
        weight, k = self.weights(error, sigma), self.camera(at)
        to = Arrow.zeros(len(at.s) + 1, len(at.r), POSE + at.z_exp.shape[1])
        p = projection_slope(x, k)
        metric, pull = weight[..., None, None] * (p.swapaxes(-1, -2) @ p), weight[..., None] * _carried(p, error)
        total = np.zeros_like(metric[0])
        for i in range(len(at.r)):
            total += add_frame(to, i, Seen(self.landmark, x[i], metric[i], pull[i]), at.r[i], at.t[i])
            if len(self.rims[i].share):
                points, x_rim, distance, gradient, w = self.contour(i, at)
                slope = _carried(projection_slope(x_rim, k), gradient)
                seen = Seen(
                    points,
                    x_rim,
                    w[:, None, None] * slope[:, :, None] * slope[:, None],
                    (w * distance)[:, None] * slope,
                )
                add_identity(to, points, add_frame(to, i, seen, at.r[i], at.t[i]))
        add_identity(to, self.landmark, total)
        self._add_gaps(to, at, x)
        if self.texture is not None:
            self._add_texture(to, at, self.texture)
        self._add_priors(to, at)
        return to

    def _add_gaps(self, to: Arrow, at: State, x: Float[np.ndarray, "frames points 3"]) -> None:
        c, (upper, lower) = self.config, closure.PAIRS.T
        error = self.gap_errors(at, x)
        robust = np.minimum(1.0, c.huber * self.gap_sigma / np.maximum(np.abs(error), 1e-9))
        weight = c.gap_independent * self.gap_confidence * robust / self.gap_sigma**2
        middle = projection_slope((x[:, upper] + x[:, lower]) / 2, self.camera(at))
        slope = (self.upward[:, None, None] @ middle)[:, :, 0]
        metric = weight[..., None, None] * slope[..., :, None] * slope[..., None, :]
        pull = (weight * error)[..., None] * slope
        total = np.zeros_like(metric[0])
        for i in range(len(at.r)):
            seen = Seen(self.gap, x[i, upper] - x[i, lower], metric[i], pull[i], shifts=0.0)
            total += add_frame(to, i, seen, at.r[i], at.t[i])
        add_identity(to, self.gap, total)

    def _add_texture(self, to: Arrow, at: State, texture: Texture) -> None:
        c, k = self.config, self.camera(at)
        x = self.skin.posed(at.s, at.z_exp) @ at.r.transpose(0, 2, 1) + at.t[:, None]
        error, slope, weight = texture.errors(projected(x, k), c.texture_sigma, c.huber)
        weight = weight * c.texture_independent / c.texture_sigma**2
        total = np.zeros((len(self.skin.mean), 3, 3))
        for i in range(len(at.r)):
            g = np.einsum("cvk,vkx->cvx", slope[i], projection_slope(x[i], k))
            metric = np.einsum("cvx,cvy,v->vxy", g, g, weight[i])
            pull = np.einsum("cvx,cv,v->vx", g, error[i], weight[i])
            total += add_frame(to, i, Seen(self.skin, x[i], metric, pull), at.r[i], at.t[i])
        add_identity(to, self.skin, total)

    def _add_priors(self, to: Arrow, at: State) -> None:
        n, (a, b) = len(at.s), self.pairs
        d = np.arange(n)
        to.shared[d, d] += self.identity_prior
        to.g_shared[:n] += self.identity_prior * at.s
        to.shared[n, n] += self.focal_prior**-2
        to.g_shared[n] += at.log_f * self.focal_prior**-2
        e = POSE + np.arange(at.z_exp.shape[1])
        to.own[:, e, e] += self.config.expression_sigma**-2
        to.g_own[:, POSE:] += at.z_exp * self.config.expression_sigma**-2
        s = self.config.symmetry_sigma**-2
        a, b = POSE + a, POSE + b
        to.own[:, a, a] += s
        to.own[:, b, b] += s
        to.own[:, a, b] -= s
        to.own[:, b, a] -= s
        difference = s * (at.z_exp[:, a - POSE] - at.z_exp[:, b - POSE])
        to.g_own[:, a] += difference
        to.g_own[:, b] -= difference
        for place, rates, change in self._walks(at):
            _add_chain(to, place, rates, change, (-1.0, 1.0))
        for place, rates, change in self._accelerations(at):
            _add_chain(to, place, rates, change, (1.0, -2.0, 1.0))

    def _walks(self, at: State) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Places among a frame's parameters, inverse variances and values of the change to the next frame."""
        dt = np.maximum(np.diff(self.times), 1e-3)
        c = self.config
        return [
            (POSE + np.arange(at.z_exp.shape[1]), 1 / (c.smooth_sigma_per_s**2 * dt), np.diff(at.z_exp, axis=0)),
            (3 + np.arange(3), 1 / (c.shift_sigma_per_s**2 * dt), np.diff(at.t, axis=0)),
            (np.arange(3), 1 / (c.turn_sigma_per_s**2 * dt), turns(at.r)),
        ]

    def evenly_near(self) -> Bool[np.ndarray, "middles"]:
        """For every frame between two others: whether the three follow each other closely and evenly."""
        dt = np.diff(self.times)
        before, after = dt[:-1], dt[1:]
        near = np.maximum(before, after) < self.config.neighbour_s
        return near & (np.abs(before - after) < 0.2 * (before + after))

    def _accelerations(self, at: State) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The same for the change of the change, where three frames follow each other closely and evenly."""
        if len(at.r) < 3:
            return []
        scale = self.evenly_near() / (0.5 * (self.times[2:] - self.times[:-2]) + 1e-6) ** 3
        c, turn = self.config, turns(at.r)
        return [
            (np.arange(3), scale / c.turn_jolt_sigma**2, np.diff(turn, axis=0)),
            (3 + np.arange(3), scale / c.shift_jolt_sigma**2, np.diff(at.t, n=2, axis=0)),
        ]


def _add_chain(to: Arrow, place: np.ndarray, rates: np.ndarray, change: np.ndarray, stencil: tuple[float, ...]) -> None:
    """Add (stencil * parameters)^2 rates / 2 along the frames; `change` is its present value."""
    for gap_a, a in enumerate(stencil):
        stop = len(rates) + gap_a
        to.own[gap_a:stop, place, place] += a * a * rates[:, None]
        to.g_own[gap_a:stop, place] += a * rates[:, None] * change
        for gap_b in range(gap_a + 1, len(stencil)):
            to.link[gap_b - gap_a - 1][gap_a:stop, place] += a * stencil[gap_b] * rates[:, None]


def _carried(p: Float[np.ndarray, "*batch 2 3"], e: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 3"]:
    """P^T e."""
    carried: np.ndarray = (e[..., None, :] @ p)[..., 0, :]
    return carried


def turns(r: Float[np.ndarray, "frames 3 3"]) -> Float[np.ndarray, "steps 3"]:
    """so(3) step from each frame to the next, camera frame."""
    if len(r) < 2:
        return np.zeros((0, 3))
    return so3_log(torch.from_numpy(r[1:] @ r[:-1].transpose(0, 2, 1))).numpy()


def to_original(pixels: np.ndarray, crop: Crop) -> np.ndarray:
    """Crop pixels as pixels of the upright original."""
    return pixels / crop.scale + np.array([crop.left, crop.top])
