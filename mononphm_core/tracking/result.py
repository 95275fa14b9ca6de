"""From the optimiser's leaves to the frozen sequence, and back."""

import dataclasses

import numpy as np
import torch

from mononphm_core.model.template import TemplateHead
from mononphm_core.tracking.descent import History
from mononphm_core.tracking.landmark_fit import LandmarkFit
from mononphm_core.tracking.variables import Variables, coordinates
from mononphm_core.types import FrameFit, ObservedClip, Stage, StopReason, TrackedSequence


def freeze(
    v: Variables,
    clip: ObservedClip,
    fit: LandmarkFit,
    fits: tuple[FrameFit, ...],
    stage: Stage,
    stop: StopReason,
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
        stop=stop,
        stage=stage,
        history=history,
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


def fit_of(sequence: TrackedSequence, clip: ObservedClip) -> LandmarkFit:
    """The camera and depths of a tracked sequence, as the landmark fit would have said them."""
    to_camera = sequence.poses.rotation.transpose(1, 2)
    shift = -(to_camera @ sequence.poses.translation[..., None])[..., 0]
    return LandmarkFit(
        sequence.identity.z_geo.cpu().numpy(), sequence.z_exp.cpu().numpy(), to_camera.cpu().numpy(),
        shift.cpu().numpy(), sequence.intrinsics.fx / clip.intrinsics.fx, sequence.focal_uncertainty,
        np.array([f.landmark_error_px for f in sequence.fits]),
    )  # fmt: skip
