"""Stage 1 (MonoNPHM, section 4.3): the person on the best frames, then every frame's expression and pose by itself."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mononphm_core.errors import AssetError
from mononphm_core.model.head import HeadModel
from mononphm_core.tracking.config import Stage1Config
from mononphm_core.tracking.descent import History, descend
from mononphm_core.tracking.fits import measure
from mononphm_core.tracking.landmark_fit import LandmarkFit, fit_landmarks
from mononphm_core.tracking.objective import Setting
from mononphm_core.tracking.result import freeze
from mononphm_core.tracking.scene import Scene
from mononphm_core.tracking.template_points import symmetric_pairs
from mononphm_core.tracking.variables import Variables
from mononphm_core.types import ObservedClip, OnStep, Stage, StepReport, StopReason, TrackedSequence, ignore_steps


def prepare(
    model: HeadModel, clip: ObservedClip, fit: LandmarkFit, config: Stage1Config, names: tuple[str, ...]
) -> Setting:
    """Everything that both stages need and neither changes."""
    if model.template is None:
        raise AssetError("this model has no landmark template; tracking from pictures needs one")
    device = next(model.parameters()).device
    prior = config.landmark_fit
    scene = Scene.of(
        clip, fit.focal_scale, fit.translation[:, 2], model.template, prior.detector_sigma, prior.spread_share, device
    )
    left, right = symmetric_pairs(names)
    pairs = (torch.from_numpy(left).to(device), torch.from_numpy(right).to(device))
    return Setting(model, scene, config.weights, config.rays, prior, pairs)


def track(
    model: HeadModel,
    clip: ObservedClip,
    names: tuple[str, ...],
    config: Stage1Config,
    seed: int = 0,
    on_step: OnStep = ignore_steps,
) -> TrackedSequence:
    """From observations to one person and a pose and expression per frame."""
    frames = len(clip.observations)
    generator = torch.Generator().manual_seed(seed)
    chunks = [torch.arange(i, min(i + config.batch, frames)) for i in range(0, frames, config.batch)]
    total = config.identity_steps + config.frame_steps * len(chunks) + 2
    on_step(StepReport(Stage.STAGE1, 0, total, 0, frames, "landmarks of all frames"))
    assert model.template is not None
    fit = fit_landmarks(model.template, clip, names, config.landmark_fit)
    setting = prepare(model, clip, fit, config, names)
    v = Variables.start(fit, model.template)
    on_step(StepReport(Stage.STAGE1, 1, total, 0, frames, "the person"))

    good = best_frames(clip, config.identity_frames)
    history = descend(
        setting, v, rotating(good, config.batch, generator), config.identity_steps, config.rates,
        ("u_geo", "u_app", "z_exp", "turn", "shift"), generator,
        lambda n: on_step(StepReport(Stage.STAGE1, 1 + n, total, 0, frames, "the person")), fit_light=True,
    )  # fmt: skip
    for i, chunk in enumerate(chunks):
        before = 1 + config.identity_steps + i * config.frame_steps
        done = int(chunk[0])
        part = descend(
            setting, v, forever(chunk), config.frame_steps, config.rates, ("z_exp", "turn", "shift"), generator,
            lambda n, before=before, done=done: on_step(  # type: ignore[misc]
                StepReport(Stage.STAGE1, before + n, total, done, frames, "expressions and poses")
            ),
            fit_light=False,
        )  # fmt: skip
        append(history, part)
    fits = measure(setting, v, clip, generator)
    on_step(StepReport(Stage.STAGE1, total, total, frames, frames, "done"))
    return freeze(v, clip, fit, fits, Stage.STAGE1, StopReason.STEP_BUDGET, history)


def best_frames(clip: ObservedClip, count: int) -> Tensor:
    """Frames that carry the identity: sharp, well in view, and spread over the range of yaw."""
    quality = [o.quality for o in clip.observations]
    score = np.array([q.sharpness * q.in_view for q in quality])
    yaw = np.array([q.yaw_deg for q in quality])
    order = np.argsort(yaw)
    groups = np.array_split(order, min(count, len(order)))
    return torch.tensor(sorted(int(g[np.argmax(score[g])]) for g in groups))


def rotating(frames: Tensor, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Random batches without repetition inside one, in time order, each frame equally often."""
    while True:
        order = frames[torch.randperm(len(frames), generator=generator)]
        for start in range(0, len(order), batch):
            yield order[start : start + batch].sort().values


def forever(frames: Tensor) -> Iterator[Tensor]:
    """The same batch again and again."""
    while True:
        yield frames


def append(history: History, more: History) -> None:
    """Add the terms of later steps."""
    for name, values in more.items():
        history.setdefault(name, []).extend(values)
