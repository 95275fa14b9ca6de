"""From the optimiser's leaves to the frozen sequence, and back."""

import dataclasses

import torch

from mononphm_core.model.template import TemplateHead
from mononphm_core.tracking.descent import History
from mononphm_core.tracking.landmark_fit import LandmarkFit
from mononphm_core.tracking.variables import Variables, coordinates
from mononphm_core.types import FrameFit, ObservedClip, Stage, TrackedSequence


def freeze(
    v: Variables,
    clip: ObservedClip,
    fit: LandmarkFit,
    fits: tuple[FrameFit, ...],
    stage: Stage,
    history: History,
) -> TrackedSequence:
    """What the next station gets."""
    k = clip.intrinsics
    found = dataclasses.replace(k, fx=k.fx * fit.focal_scale, fy=k.fy * fit.focal_scale)
    return TrackedSequence(
        identity=v.identity(),
        z_exp=v.z_exp.detach().clone(),
        poses=v.poses(),
        light=v.light.detach().clone(),
        intrinsics=found,
        camera_source=clip.camera_source,
        focal_uncertainty=fit.focal_sigma,
        frame_index=tuple(o.frame_index for o in clip.observations),
        timestamp_s=tuple(o.timestamp_s for o in clip.observations),
        fits=fits,
        stop=fit.stop,
        stage=stage,
        history=history,
        uncertainty=fit.uncertainty,
    )


def thaw(sequence: TrackedSequence, template: TemplateHead) -> Variables:
    """Leaves that start where an earlier stage ended."""
    pose = sequence.poses
    to_camera = pose.rotation.transpose(1, 2)
    shift = -(to_camera @ pose.translation[..., None])[..., 0]
    return Variables(
        template.geo_span, template.app_span, coordinates(template.geo_span, sequence.identity.z_geo),
        coordinates(template.app_span, sequence.identity.z_app), sequence.z_exp.clone(), to_camera.clone(),
        torch.zeros_like(pose.translation), shift, sequence.light.clone(),
    )  # fmt: skip
