"""Stage 2 (MonoNPHM, section 4.3): all frames together, one person, one light, smooth motion."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mononphm_core.model.head import HeadModel
from mononphm_core.tracking.config import Stage1Config, Stage2Config
from mononphm_core.tracking.descent import descend
from mononphm_core.tracking.fits import measure
from mononphm_core.tracking.objective import Setting
from mononphm_core.tracking.result import fit_of, freeze, thaw
from mononphm_core.tracking.stage1 import prepare
from mononphm_core.types import ObservedClip, OnStep, Stage, StepReport, StopReason, TrackedSequence, ignore_steps


def refine(
    model: HeadModel,
    clip: ObservedClip,
    names: tuple[str, ...],
    tracked: TrackedSequence,
    config: Stage2Config,
    stage1: Stage1Config,
    seed: int = 0,
    on_step: OnStep = ignore_steps,
) -> TrackedSequence:
    """Continue from stage 1 with every leaf free; batches are runs of neighbouring frames: smoothness is seen."""
    frames = len(clip.observations)
    steps = max(1, round(config.passes * frames / config.batch))
    fit = fit_of(tracked, clip)
    first = prepare(model, clip, fit, stage1, names)
    setting = Setting(model, first.scene, config.weights, config.rays, first.prior, first.pairs)
    assert model.template is not None
    v = thaw(tracked, model.template)
    generator = torch.Generator().manual_seed(seed + 1)

    def report(done: int) -> None:
        seen = min(frames, done * config.batch)
        on_step(StepReport(Stage.STAGE2, done, steps, seen, frames, "all frames together"))

    moving = ("u_geo", "u_app", "z_exp", "turn", "shift")
    batches = runs(frames, config.batch, generator)
    history = descend(setting, v, batches, steps, config.rates, moving, generator, report, fit_light=True)
    fits = measure(setting, v, clip, generator)
    return freeze(v, clip, fit, fits, Stage.STAGE2, StopReason.STEP_BUDGET, history)


def runs(frames: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Runs of consecutive frames that cover the clip evenly, in random order, shifted from pass to pass."""
    while True:
        shift = int(torch.randint(batch, (1,), generator=generator)) if frames > batch else 0
        starts = list(range(-shift, frames, batch))
        for i in torch.randperm(len(starts), generator=generator).tolist():
            run = torch.arange(max(0, starts[i]), min(frames, starts[i] + batch))
            if len(run):
                yield run
