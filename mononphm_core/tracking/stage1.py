"""Stage 1: the person, every pose and every expression from landmarks and outlines of the whole clip; then colours."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mononphm_core.errors import AssetError
from mononphm_core.model.head import HeadModel
from mononphm_core.tracking.config import RaySampling, Stage1Config, Weights
from mononphm_core.tracking.descent import find_colours
from mononphm_core.tracking.fits import measure
from mononphm_core.tracking.landmark_fit import fit_landmarks
from mononphm_core.tracking.objective import Setting
from mononphm_core.tracking.result import freeze
from mononphm_core.tracking.scene import Scene
from mononphm_core.tracking.variables import Variables
from mononphm_core.types import ObservedClip, OnStep, Stage, StepReport, TrackedSequence, ignore_steps


def prepare(model: HeadModel, clip: ObservedClip, focal_scale: float, weights: Weights, rays: RaySampling) -> Setting:
    """What rendering needs and no stage changes."""
    if model.template is None:
        raise AssetError("this model has no landmark template; tracking from pictures needs one")
    return Setting(model, Scene.of(clip, focal_scale, next(model.parameters()).device), weights, rays)


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
    if model.template is None:
        raise AssetError("this model has no landmark template; tracking from pictures needs one")
    solving = config.landmark_fit.rounds
    total = solving + config.colour_steps + 1

    def report(step: int, done: int, what: str) -> None:
        on_step(StepReport(Stage.STAGE1, step, total, done, frames, what))

    report(0, 0, "landmarks of all frames")
    fit = fit_landmarks(
        model.template, clip, names, config.landmark_fit,
        on_round=lambda n: report(n, frames * n // (solving + 1), "shape, poses and expressions"),
    )  # fmt: skip
    setting = prepare(model, clip, fit.focal_scale, config.weights, config.rays)
    v = Variables.start(fit, model.template)
    history = find_colours(
        setting, v, rotating(best_frames(clip, config.colour_frames), config.batch, generator), config.colour_steps,
        config.colour_rate, generator, lambda n: report(solving + n, frames, "colours"),
    )  # fmt: skip
    fits = measure(setting, v, clip, generator)
    report(total, frames, "done")
    return freeze(v, clip, fit, fits, Stage.STAGE1, history)


def best_frames(clip: ObservedClip, count: int) -> Tensor:
    """Frames that carry the colours: sharp, well lit, well seen, and spread over the range of yaw."""
    quality = [o.quality for o in clip.observations]
    score = np.array([q.sharpness * q.weight for q in quality])
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
