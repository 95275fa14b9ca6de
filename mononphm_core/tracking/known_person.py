"""One stretch of a long clip: poses and expressions of a person, through a camera, that are known already.

Who it is, the camera and the light come from key frames of the whole clip; so what is left couples a frame only with
its neighbours, and stretches can be tracked apart. Margins take the ends of a stretch out of sight (`joining`).
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from mononphm_core.errors import AssetError
from mononphm_core.model.head import HeadModel
from mononphm_core.tracking.config import TrackingConfig
from mononphm_core.tracking.fits import measure
from mononphm_core.tracking.joint_problem import JointProblem, State
from mononphm_core.tracking.landmark_fit import LandmarkFit, figures, fit_landmarks, minimise, result
from mononphm_core.tracking.result import freeze
from mononphm_core.tracking.stage1 import prepare
from mononphm_core.tracking.variables import Variables, coordinates
from mononphm_core.types import ObservedClip, OnStep, Stage, StepReport, TrackedSequence, ignore_steps


def follow(
    model: HeadModel,
    clip: ObservedClip,
    names: tuple[str, ...],
    known: TrackedSequence,
    stages: tuple[int, ...],
    config: TrackingConfig,
    seed: int = 0,
    on_step: OnStep = ignore_steps,
) -> TrackedSequence:
    """The person of `known` through `clip`, one row a frame; identity, camera and light are those of `known`."""
    template = model.template
    if template is None:
        raise AssetError("this model has no landmark template; tracking from pictures needs one")
    focal_scale = known.intrinsics.fx / clip.intrinsics.fx
    found = replace(clip, intrinsics=known.intrinsics, focal_uncertainty=0.0)
    z_geo = known.identity.z_geo.double().cpu().numpy()
    frames, total = len(clip.observations), config.stage1.landmark_fit.rounds + len(config.stage2.blurs_px) + 1

    def report(step: int) -> None:
        on_step(StepReport(Stage.STAGE2, step, total, frames * step // total, frames, "poses and expressions"))

    report(0)
    fit = fit_landmarks(template, found, names, config.stage1.landmark_fit, z_geo, report)
    stages_told: dict[str, dict[str, float]] = {}
    if 2 in stages and frames > 1:
        problem = JointProblem(template, found, config.stage1.landmark_fit, names, z_geo)
        fit, stages_told = _with_texture(problem, fit, config, report)
    v = Variables.start(fit, template)
    v.u_app, v.light = coordinates(template.app_span, known.identity.z_app), known.light.clone()
    setting = prepare(model, clip, focal_scale, config.stage1.weights, config.stage1.rays)
    fits = measure(setting, v, clip, torch.Generator().manual_seed(seed))
    report(total)
    stage = Stage.STAGE2 if 2 in stages else Stage.STAGE1
    return replace(
        freeze(v, found, fit, fits, stage, known.history),
        identity=known.identity,
        intrinsics=known.intrinsics,
        camera_source=known.camera_source,
        focal_uncertainty=known.focal_uncertainty,
        stages=stages_told,
    )


def _with_texture(
    problem: JointProblem, fit: LandmarkFit, config: TrackingConfig, report: Callable[[int], None]
) -> tuple[LandmarkFit, dict[str, dict[str, float]]]:
    """The fit with the skin's own texture in it, where that is better by the measures of stage 2; and these."""
    start = at = State(np.zeros(0), 0.0, fit.rotation, fit.translation, fit.z_exp)
    equations, stop = problem.normal_equations(at), fit.stop
    for number, blur_px in enumerate(config.stage2.blurs_px):
        problem.look_at_texture(at, blur_px)
        problem.choose_rims(at)
        at, equations, stop = minimise(problem, at, config.stage2.iterations, config.stage1.landmark_fit.stop_share)
        report(config.stage1.landmark_fit.rounds + number + 1)
    before, after = figures(problem, start), figures(problem, at)
    better = (
        after["texture_disagreement"] < before["texture_disagreement"]
        and after["wobble_mm"] <= before["wobble_mm"]
        and after["landmark_error_px"] <= config.stage2.worse * before["landmark_error_px"]
    )
    told = {"stage1": before, "stage2": after | {"kept": float(better)}}
    return (result(problem, at, equations, 0.0, stop) if better else fit), told
