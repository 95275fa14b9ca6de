"""The published solver, on our own observations and on folders that were prepared for it: the road on one screen."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from mononphm_core.model.head import HeadModel
from mononphm_core.model.template import TemplateHead
from mononphm_core.preprocessing.published.observation import PublishedClip
from mononphm_core.tracking.landmark_fit import fit_landmarks
from mononphm_core.tracking.published.configuration import PublishedConfig
from mononphm_core.tracking.published.observed import motion_of, sequence_of
from mononphm_core.tracking.published.result import ClipFacts, facts_of, freeze
from mononphm_core.tracking.published.sampling import Draws
from mononphm_core.tracking.published.track import Sequence, kind_of, stage1, stage2, timetables
from mononphm_core.types import (
    CameraSource,
    Intrinsics,
    ObservedClip,
    OnStep,
    Stage,
    StepReport,
    TrackedSequence,
    ignore_steps,
)


def solve(
    model: HeadModel,
    template: TemplateHead,
    names: tuple[str, ...],
    clip: ObservedClip,
    is_video: bool,
    stages: tuple[int, ...],
    config: PublishedConfig,
    on_step: OnStep = ignore_steps,
    during: Callable[[str], AbstractContextManager[None]] = lambda stage: nullcontext(),
) -> TrackedSequence:
    """Stage 1, and stage 2 if it is among `stages` and there is more than one frame; each inside `during(its name)`.

    `template` (with the names of its blendshapes) gives the first poses, as the FLAME tracker does there; it may be
    another prior's than `model`'s, as long as both live in the same head space. Errors: Diverged.
    """
    device = model.identity.mean_anchors.device
    frames = len(clip.observations)
    total = sum(table.steps for table in timetables(motion_of(clip), kind_of(is_video), config))
    draws = Draws(config.seed)
    with during("stage1"):
        on_step(StepReport(Stage.STAGE1, 0, total, 0, frames, "first poses"))
        fit = fit_landmarks(template, clip, names)
        sequence = sequence_of(clip, fit, is_video, config.quirks, device)
        track = stage1(model, sequence, config, draws, on_step)
    if 2 in stages and frames > 1:
        with during("stage2"):
            track = stage2(model, sequence, track, config, draws, on_step)
    return freeze(model, facts_of(clip, fit), sequence, track, config)


TRACKED_CAMERA = 0.1
"""One standard deviation of log(focal) where another tracker estimated it: better than a guess, not calibrated."""


def solve_prepared(
    model: HeadModel,
    clip: PublishedClip,
    stages: tuple[int, ...],
    config: PublishedConfig,
    fps: float,
    on_step: OnStep = ignore_steps,
    during: Callable[[str], AbstractContextManager[None]] = lambda stage: nullcontext(),
) -> TrackedSequence:
    """The same for a prepared folder, whose first poses are in it. `fps` only dates the frames."""
    device = model.identity.mean_anchors.device
    frames = tuple(o.to(device) for o in clip.observations)
    index = tuple(o.frame_index for o in frames)
    sequence = Sequence(frames, clip.landmarks[list(index)].numpy(), len(frames) > 1, clip.intrinsics_given)
    draws = Draws(config.seed)
    with during("stage1"):
        track = stage1(model, sequence, config, draws, on_step)
    if 2 in stages and len(frames) > 1:
        with during("stage2"):
            track = stage2(model, sequence, track, config, draws, on_step)
    fx, fy, cx, cy = (float(clip.k[row, column]) for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))
    source = CameraSource.GIVEN if clip.intrinsics_given else CameraSource.ESTIMATED
    facts = ClipFacts(
        Intrinsics(fx, fy, cx, cy, *clip.size),
        source,
        0.0 if clip.intrinsics_given else TRACKED_CAMERA,
        index,
        tuple(i / fps for i in index),
    )
    return freeze(model, facts, sequence, track, config)
