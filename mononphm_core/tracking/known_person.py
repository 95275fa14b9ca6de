"""One stretch of a long clip: poses and expressions of a person, through a camera, that are known already.

Who it is, the camera and the light come from key frames of the whole clip; so what is left couples a frame only with
its neighbours, and stretches can be tracked apart. Margins take the ends of a stretch out of sight (`joining`).
"""

from dataclasses import replace

import numpy as np
import torch

from mononphm_core.errors import AssetError
from mononphm_core.model.head import HeadModel
from mononphm_core.tracking.config import TrackingConfig
from mononphm_core.tracking.fits import measure
from mononphm_core.tracking.joint_problem import JointProblem, State
from mononphm_core.tracking.landmark_fit import fit_landmarks
from mononphm_core.tracking.result import freeze
from mononphm_core.tracking.stage1 import prepare
from mononphm_core.tracking.stage2 import with_texture
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
    landmarks = config.stage1.landmark_fit
    frames, total = len(clip.observations), landmarks.rounds + len(config.stage2.blurs_px) + 1

    def report(step: int) -> None:
        on_step(StepReport(Stage.STAGE2, step, total, frames * step // total, frames, "poses and expressions"))

    report(0)
    fit = fit_landmarks(template, found, names, landmarks, z_geo, report)
    stages_told: dict[str, dict[str, float]] = {}
    if 2 in stages and frames > 1:
        problem = JointProblem(template, found, landmarks, names, z_geo)
        start, rounds = State(np.zeros(0), 0.0, fit.rotation, fit.translation, fit.z_exp), landmarks.rounds
        textured, stages_told = with_texture(
            problem, start, config.stage2, landmarks.stop_share, 0.0, lambda done: report(rounds + done)
        )
        fit = textured or fit
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
