"""The published tracker's leaves as the sequence that the rest of the program knows, and how well they fit."""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.model.head import HeadModel
from mononphm_core.rendering.published.shading import as_irradiance
from mononphm_core.tracking.fits import ACCEPT_IOU, ACCEPT_LANDMARK_SHARE
from mononphm_core.tracking.landmark_fit import LandmarkFit
from mononphm_core.tracking.published import blocks
from mononphm_core.tracking.published.configuration import PublishedConfig
from mononphm_core.tracking.published.landmarks import PAIRS, posed_anchors
from mononphm_core.tracking.published.loop import view_of
from mononphm_core.tracking.published.losses import is_head
from mononphm_core.tracking.published.sampling import Draws, draw_batch
from mononphm_core.tracking.published.track import PublishedTrack, Sequence
from mononphm_core.types import (
    CameraSource,
    FrameFit,
    HeadPose,
    IdentityCode,
    Intrinsics,
    ObservedClip,
    Stage,
    StopReason,
    TrackedSequence,
)


@dataclass(frozen=True)
class ClipFacts:
    """What the result says of the clip itself."""

    intrinsics: Intrinsics
    """Of the whole pictures, as used."""
    camera_source: CameraSource
    focal_uncertainty: float
    frame_index: tuple[int, ...]
    timestamp_s: tuple[float, ...]


def facts_of(clip: ObservedClip, fit: LandmarkFit) -> ClipFacts:
    """Of our own observations after the landmark fit."""
    k = clip.intrinsics
    return ClipFacts(
        dataclasses.replace(k, fx=k.fx * fit.focal_scale, fy=k.fy * fit.focal_scale),
        clip.camera_source,
        fit.focal_sigma,
        tuple(o.frame_index for o in clip.observations),
        tuple(o.timestamp_s for o in clip.observations),
    )


def freeze(
    model: HeadModel, facts: ClipFacts, sequence: Sequence, track: PublishedTrack, config: PublishedConfig
) -> TrackedSequence:
    """What the next station gets. Its world is the camera's, in OpenCV axes."""
    leaves = track.leaves
    return TrackedSequence(
        identity=IdentityCode(leaves.geo()[0].clone(), leaves.app()[0].clone()),
        z_exp=leaves.z_exp.clone(),
        poses=poses(sequence, track),
        light=as_irradiance(leaves.sh),
        intrinsics=facts.intrinsics,
        camera_source=facts.camera_source,
        focal_uncertainty=facts.focal_uncertainty,
        frame_index=facts.frame_index,
        timestamp_s=facts.timestamp_s,
        fits=measure(model, sequence, track, config),
        stop=StopReason.STEP_BUDGET,
        stage=Stage.STAGE2 if track.kind == "stage2" else Stage.STAGE1,
        history=dict(track.history),
        colour_correction=torch.cat([leaves.colour_matrix, leaves.colour_offset]),
    )


def poses(sequence: Sequence, track: PublishedTrack) -> HeadPose:
    """OpenCV camera -> first pose's world -> posed head: x_posed = R c2w x_camera + t, scale 1."""
    rotations, translations = [], []
    for row, frame in enumerate(sequence.frames):
        placement = track.leaves.placement(row, frame.w2c.float())
        c2w = torch.linalg.inv(frame.w2c.double()).float()
        rotations.append(placement.rotation @ c2w[:3, :3] @ torch.diag(c2w.new_tensor([1.0, -1.0, -1.0])))
        translations.append(placement.rotation @ c2w[:3, 3] + placement.translation)
    return HeadPose(torch.stack(rotations), torch.stack(translations), translations[0].new_ones(()))


@torch.no_grad()
def measure(
    model: HeadModel, sequence: Sequence, track: PublishedTrack, config: PublishedConfig
) -> tuple[FrameFit, ...]:
    """Distance of the 35 anchors from their landmarks, agreement of opacity and head, colour difference; acceptance.

    Anchors and rays, not the dense landmarks and the border of our own solver: its figures are not comparable.
    """
    draws, leaves, found = Draws(config.seed), track.leaves, []
    for row, frame in enumerate(sequence.frames):
        batch = draw_batch(frame, model.config.identity.anchors, draws, config)
        seen = blocks.render(
            model, leaves, lambda row=row, frame=frame: leaves.placement(row, frame.w2c.float()),  # type: ignore[misc]
            row, batch, track.sharpness, config.quirks, config.block_rays,
        )  # fmt: skip
        head, hit = is_head(batch.labels), seen.opacity > 0.5
        iou = float((hit & head).sum() / (hit | head).sum().clamp_min(1))
        difference = (leaves.corrected(seen.rgb) - batch.rgb).abs().mean(-1) / 2  # from [-1, 1] to [0, 1]
        landmarks = frame.landmarks_px
        error = landmark_distance(model, sequence, track, row, config) / frame.crop.scale
        face_px = float((landmarks[:, 1].max() - landmarks[:, 1].min()) / frame.crop.scale)
        found.append(
            FrameFit(
                landmark_error_px=error,
                silhouette_iou=iou,
                photometric_error=float(difference[head].mean()) if head.any() else 0.0,
                accepted=error < ACCEPT_LANDMARK_SHARE * face_px and iou > ACCEPT_IOU,
            )
        )
    return tuple(found)


def landmark_distance(
    model: HeadModel, sequence: Sequence, track: PublishedTrack, row: int, config: PublishedConfig
) -> float:
    """Mean distance of the anchors that were found from their landmarks, prepared pixels; infinite if none was."""
    frame, leaves = sequence.frames[row], track.leaves
    anchors = posed_anchors(model, leaves.geo(), leaves.z_exp[row : row + 1], None, config.quirks)
    if not anchors.valid.any():
        return float("inf")
    placement = leaves.placement(row, frame.w2c.float())
    view = view_of(frame)
    seen: Float[Tensor, "pairs 2"] = view.normalised((anchors.x - placement.translation) @ placement.rotation)
    detected = frame.landmarks_px.float()[[point for _, point, _ in PAIRS]]
    pixels = seen * seen.new_tensor(view.size)
    return float((pixels - detected)[anchors.valid].norm(dim=-1).mean())
