"""Stage 2: the whole clip once more, with the person's own texture tying the frames together; kept only if better."""

from collections.abc import Callable
from dataclasses import replace

import torch

from mononphm_core.errors import AssetError
from mononphm_core.model.head import HeadModel
from mononphm_core.tracking.config import Stage1Config, Stage2Config
from mononphm_core.tracking.fits import measure
from mononphm_core.tracking.joint_problem import JointProblem, State
from mononphm_core.tracking.landmark_fit import LandmarkFit, figures, minimise, result, state_of
from mononphm_core.tracking.result import freeze, thaw
from mononphm_core.tracking.stage1 import prepare
from mononphm_core.tracking.variables import Variables
from mononphm_core.types import ObservedClip, OnStep, Stage, StepReport, TrackedSequence, ignore_steps


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
    """Continue from stage 1 with every geometric parameter free.

    The result replaces stage 1's only if the skin agrees better between the frames, the head is steadier, and the
    landmarks are not lost; the figures of both are kept either way (`TrackedSequence.stages`).
    """
    if model.template is None:
        raise AssetError("this model has no landmark template; tracking from pictures needs one")
    frames, rounds = len(clip.observations), len(config.blurs_px)

    def report(done: int) -> None:
        on_step(
            StepReport(Stage.STAGE2, done, rounds + 1, frames * done // (rounds + 1), frames, "all frames together")
        )

    report(0)
    problem = JointProblem(model.template, clip, stage1.landmark_fit, names, None)
    start, stop_share = state_of(tracked, clip, problem), stage1.landmark_fit.stop_share
    fit, stages = with_texture(problem, start, config, stop_share, clip.focal_uncertainty, report)
    if fit is None:
        report(rounds + 1)
        return replace(tracked, stage=Stage.STAGE2, stages=stages)
    old = thaw(tracked, model.template)
    v = Variables.start(fit, model.template)
    v.u_app, v.light = old.u_app, old.light
    setting = prepare(model, clip, fit.focal_scale, stage1.weights, stage1.rays)
    fits = measure(setting, v, clip, torch.Generator().manual_seed(seed + 1))
    report(rounds + 1)
    return replace(freeze(v, clip, fit, fits, Stage.STAGE2, tracked.history), stages=stages)


def with_texture(
    problem: JointProblem,
    start: State,
    config: Stage2Config,
    stop_share: float,
    focal_uncertainty: float,
    report: Callable[[int], None],
) -> tuple[LandmarkFit | None, dict[str, dict[str, float]]]:
    """The fit with the skin's texture in the cost, None where it is no better; and the figures before and after.

    `report` hears how many of the rounds are done.
    """
    at, several = start, len(start.r) > 1
    for number, blur_px in enumerate(config.blurs_px if several else ()):
        problem.look_at_texture(at, blur_px)
        problem.choose_rims(at)
        at, equations, stop = minimise(problem, at, config.iterations, stop_share)
        report(number + 1)
    before, after = figures(problem, start), figures(problem, at)
    better = several and (
        after["texture_disagreement"] < before["texture_disagreement"]
        and after["wobble_mm"] <= before["wobble_mm"]
        and after["landmark_error_px"] <= config.worse * before["landmark_error_px"]
    )
    told = {"stage1": before, "stage2": after | {"kept": float(better)}}
    return (result(problem, at, equations, focal_uncertainty, stop) if better else None), told
