"""FLAME fitted to iBUG-68 landmarks of a clip: one shape, and expression, jaw and head pose of each frame.

minimise  sum |pi(K (R_t x(s, e_t, j_t) + T_t)) - landmark|^2 / sigma^2 + |s|^2 + |e|^2 + |j|^2 / JAW_STD^2

x: FLAME's landmarks in its own frame, metres; R, T: to the OpenCV camera. Gauss-Newton with Levenberg's damping; a
frame's own unknowns are eliminated, so that time grows with frames and not with their cube.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap

from mononphm_core.errors import AssetError, Diverged, NoFaceFound
from mononphm_core.geometry.rotations import so3_exp
from mononphm_core.io.flame import Flame, LandmarkEmbedding

JAW, JAW_STD = 2, 0.3
"""Its joint, and how far it turns, radians."""
MAX_SHAPE, MAX_EXPRESSION = 50, 20
"""Components that are fitted at most: 136 numbers a frame say no more."""
LANDMARK_STD = 0.01
"""Of a detector's landmark, shares of the face's height."""
STEPS, DONE = 60, 1e-10
"""Steps at most, and the share of the cost below which a step no longer matters."""
CHUNK = 16
"""Frames whose derivatives are held at once."""

Skinning = Callable[..., tuple[Tensor, Tensor]]
"""`smplx.lbs.lbs`, or what has its arguments."""


@dataclass(frozen=True)
class FlameFit:
    """A clip's FLAME parameters; `rotation` and `translation` take FLAME's frame to the OpenCV camera, metres."""

    shape: Float[Tensor, "n_shape"]
    expression: Float[Tensor, "frames n_expression"]
    jaw: Float[Tensor, "frames 3"]
    rotation: Float[Tensor, "frames 3 3"]
    translation: Float[Tensor, "frames 3"]
    error_px: float
    """Root mean square distance of fitted and given landmarks."""


def smplx_skinning() -> Skinning:
    """Blendshapes and skinning of the smplx package; AssetError where it is not installed."""
    try:
        from smplx.lbs import lbs
    except ImportError as error:
        raise AssetError('FLAME fitting needs smplx, which is not installed: pip install -e ".[flame]"') from error
    return lbs


def fit_flame(
    flame: Flame,
    embedding: LandmarkEmbedding,
    landmarks_px: Float[Tensor, "frames 68 2"],
    k: Float[Tensor, "3 3"],
    skin: Skinning,
    landmark_std: float = LANDMARK_STD,
) -> FlameFit:
    """Fit all frames together. NoFaceFound for a frame without a first pose, Diverged if the cost is no number."""
    seen = landmarks_px[:, -len(embedding.faces) :].double()  # 51: without the jaw line
    face_height_px = float((seen[..., 1].amax(1) - seen[..., 1].amin(1)).mean())
    problem = _Problem(flame, embedding, k.double(), skin, landmark_std * face_height_px)
    state = problem.start(seen)
    cost, damping = problem.cost(state, seen), 1e-3
    for step in range(STEPS):
        if not np.isfinite(cost):
            raise Diverged(step, "landmarks")
        system = problem.system(state, seen)
        while damping < 1e8:
            trial = _moved(state, *_solve(system, damping))
            reached = problem.cost(trial, seen)
            if reached < cost:
                break
            damping *= 8
        else:
            break
        gain, state, cost, damping = cost - reached, trial, reached, max(damping / 8, 1e-9)
        if gain <= DONE * cost:
            break
    error = (problem.projected(state) - seen).square().sum(-1).mean().sqrt()
    n = problem.n_expression
    return FlameFit(
        state.shape, state.frames[:, :n], state.frames[:, n:], state.rotation, state.translation, float(error)
    )


@dataclass(frozen=True)
class _State:
    shape: Float[Tensor, "n_shape"]
    frames: Float[Tensor, "frames n_moving"]
    """Expression, then jaw."""
    rotation: Float[Tensor, "frames 3 3"]
    translation: Float[Tensor, "frames 3"]


class _Problem:
    """FLAME reduced to the corners of its landmarks and its joints, which is exact: joints are linear in the shape."""

    def __init__(
        self, flame: Flame, embedding: LandmarkEmbedding, k: Float[Tensor, "3 3"], skin: Skinning, std_px: float
    ) -> None:
        corners = flame.faces[embedding.faces].flatten()
        shapes, expressions = flame.shape_dirs[..., :MAX_SHAPE], flame.expression_dirs[..., :MAX_EXPRESSION]
        self.n_shape, self.n_expression = shapes.shape[-1], expressions.shape[-1]
        dirs, joints = torch.cat([shapes, expressions], -1), len(flame.parents)
        zero = flame.v_template.new_zeros
        self._arrays = (
            torch.cat([flame.v_template[corners], flame.j_regressor @ flame.v_template])[None],
            torch.cat([dirs[corners], torch.einsum("jv,vcd->jcd", flame.j_regressor, dirs)]),
            torch.cat([flame.pose_dirs[corners].flatten(0, 1), zero(3 * joints, flame.pose_dirs.shape[-1])]).T,
            torch.cat([zero(joints, len(corners)), torch.eye(joints, dtype=torch.float64)], -1),
            flame.parents,
            torch.cat([flame.weights[corners], torch.eye(joints, dtype=torch.float64)]),
        )
        self._barycentrics, self._k, self._skin, self._std_px = embedding.barycentrics, k, skin, std_px
        self._precision = zero(self.n_expression + 9)
        self._precision[: self.n_expression] = 1.0
        self._precision[self.n_expression : self.n_expression + 3] = JAW_STD**-2

    def points(
        self, shape: Float[Tensor, "frames n_shape"], moving: Float[Tensor, "frames n_moving"]
    ) -> Float[Tensor, "frames landmarks 3"]:
        """Landmarks in FLAME's frame; neck, eyes and root are not turned."""
        betas = torch.cat([shape, moving[:, : self.n_expression]], -1)
        still = moving.new_zeros(len(moving), 3 * JAW)
        pose = torch.cat([still, moving[:, self.n_expression :], still], -1)
        corners = self._skin(betas, pose, *self._arrays)[0][:, : 3 * len(self._barycentrics)]
        return (corners.unflatten(1, (-1, 3)) * self._barycentrics[..., None]).sum(2)

    def start(self, seen: Float[Tensor, "frames landmarks 2"]) -> _State:
        """The mean face, posed frame by frame by SQPnP."""
        moving = seen.new_zeros(len(seen), self.n_expression + 3)
        shape = seen.new_zeros(self.n_shape)
        model = self.points(shape[None], moving[:1])[0].numpy()
        rotations, translations = [], []
        for t, picture in enumerate(seen.numpy()):
            found, turn, shift = cv2.solvePnP(model, picture, self._k.numpy(), np.zeros(5), flags=cv2.SOLVEPNP_SQPNP)
            if not found or shift[2, 0] <= 0:
                raise NoFaceFound(f"frame {t}: no head pose fits the landmarks")
            rotations.append(torch.from_numpy(cv2.Rodrigues(turn)[0]))
            translations.append(torch.from_numpy(shift[:, 0]))
        return _State(shape, moving, torch.stack(rotations), torch.stack(translations))

    def projected(self, state: _State) -> Float[Tensor, "frames landmarks 2"]:
        """Pixels."""
        x = self.points(state.shape.expand(len(state.frames), -1), state.frames)
        return self._pixels(x @ state.rotation.mT + state.translation[:, None])

    def cost(self, state: _State, seen: Float[Tensor, "frames landmarks 2"]) -> float:
        """What is minimised."""
        residual = (self.projected(state) - seen) / self._std_px
        moving = self._precision[: state.frames.shape[1]] * state.frames.square()
        return float(residual.square().sum() + state.shape.square().sum() + moving.sum())

    def system(self, state: _State, seen: Float[Tensor, "frames landmarks 2"]) -> tuple[Tensor, ...]:
        """Normal equations by blocks: (shape, coupling, frames) and the two negative half gradients."""

        def residual(shape: Tensor, own: Tensor, rotation: Tensor, target: Tensor) -> Tensor:
            moving, turn, shift = own.split([own.shape[0] - 6, 3, 3])
            x = self.points(shape[None], moving[None])[0]
            return ((self._pixels(x @ (rotation @ so3_exp(turn)).mT + shift) - target) / self._std_px).flatten()

        own = torch.cat([state.frames, torch.zeros_like(state.translation), state.translation], -1)
        both = vmap(jacrev(residual, argnums=(0, 1)), in_dims=(None, 0, 0, 0), chunk_size=CHUNK)
        by_shape, by_own = both(state.shape, own, state.rotation, seen)
        r = ((self.projected(state) - seen) / self._std_px).flatten(1)
        return (
            torch.einsum("trs,trq->sq", by_shape, by_shape) + torch.eye(self.n_shape, dtype=r.dtype),
            by_shape.mT @ by_own,
            by_own.mT @ by_own + torch.diag(self._precision),
            -torch.einsum("trs,tr->s", by_shape, r) - state.shape,
            -torch.einsum("tro,tr->to", by_own, r) - self._precision * own,
        )

    def _pixels(self, x_camera: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 2"]:
        homogeneous = x_camera @ self._k.T
        return homogeneous[..., :2] / homogeneous[..., 2:]


def _solve(system: tuple[Tensor, ...], damping: float) -> tuple[Tensor, Tensor]:
    """[[a, b], [b', c]] (shape, own) = (g, h) with damped diagonals; `own` is eliminated (Schur's complement)."""
    a, b, c, g, h = system
    a, c = (m + damping * torch.diag_embed(m.diagonal(dim1=-2, dim2=-1)) for m in (a, c))
    reduced = torch.linalg.solve(c, torch.cat([b.mT, h[..., None]], -1))
    shape = torch.linalg.solve(a - (b @ reduced[..., :-1]).sum(0), g - (b @ reduced[..., -1:]).sum(0)[:, 0])
    return shape, reduced[..., -1] - reduced[..., :-1] @ shape


def _moved(state: _State, shape: Tensor, own: Tensor) -> _State:
    moving, turn, shift = own.split([own.shape[1] - 6, 3, 3], -1)
    return replace(
        state,
        shape=state.shape + shape,
        frames=state.frames + moving,
        rotation=state.rotation @ so3_exp(turn),
        translation=state.translation + shift,
    )
