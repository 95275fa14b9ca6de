"""How well a tracked clip explains its pictures: the per-frame figures of the manifest, without gradients."""

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.geometry.cameras import project
from mononphm_core.tracking.config import RaySampling
from mononphm_core.tracking.objective import Setting, evaluate
from mononphm_core.tracking.scene import candidates
from mononphm_core.tracking.variables import Variables
from mononphm_core.types import FrameFit, ObservedClip

ACCEPT_LANDMARK_SHARE = 0.035
"""Mean landmark distance over face height above which a frame is not accepted."""
ACCEPT_IOU = 0.80


def measure(setting: Setting, v: Variables, clip: ObservedClip, generator: torch.Generator) -> tuple[FrameFit, ...]:
    """Landmark distance, agreement of opacity and mask near the silhouette, colour difference; and the accept flag."""
    template = setting.model.template
    assert template is not None
    result = []
    dense = RaySampling(surface=250, border=250, border_px=20.0, samples=10, coloured=2, band=0.06)
    found = candidates(setting.scene, template, v, dense)
    wide = Setting(setting.model, setting.scene, setting.weights, dense)
    with torch.no_grad():
        distances = landmark_distances(setting, v)
        for i, observation in enumerate(clip.observations):
            frame = torch.tensor([i], device=v.z_exp.device)
            looked = evaluate(wide, v, found, frame, generator)
            sure = looked.cast.mask_weight > 0
            hit, inside = looked.rendering.opacity > 0.5, looked.cast.inside > 0.5
            union = ((hit | inside) & sure).sum()
            iou = float(((hit & inside) & sure).sum() / union.clamp_min(1))
            confidence = setting.scene.confidence[i]
            error = float((distances[i] * confidence).sum() / confidence.sum().clamp_min(1e-6)) / observation.crop.scale
            result.append(
                FrameFit(
                    landmark_error_px=error,
                    silhouette_iou=iou,
                    photometric_error=float(looked.terms["colour"]),
                    accepted=error < ACCEPT_LANDMARK_SHARE * observation.quality.face_px and iou > ACCEPT_IOU,
                )
            )
    return tuple(result)


def landmark_distances(setting: Setting, v: Variables) -> Float[Tensor, "frames points"]:
    """Pixels between the template's and the detector's dense landmarks, crop scale."""
    template = setting.model.template
    assert template is not None
    posed = template.posed(v.z_geo.expand(len(v.z_exp), -1), v.z_exp, "mediapipe478")
    camera = posed @ v.rotation().transpose(1, 2) + v.shift[:, None]
    return (project(camera, setting.scene.k) - setting.scene.landmarks_px).norm(dim=-1)
