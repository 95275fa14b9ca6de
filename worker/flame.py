"""A clip -> FLAME's head poses, as a folder prepared for the published program (its pictures and tracker part)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mononphm_core.config import CameraChoice, FrameSelection, MediaLimits, PreprocessingConfig
from mononphm_core.errors import InputError
from mononphm_core.io import registry
from mononphm_core.io.flame import read_embedding, read_flame
from mononphm_core.io.media import read_clip
from mononphm_core.preprocessing.camera import reduced
from mononphm_core.preprocessing.observe import observe
from mononphm_core.preprocessing.published.flame import FlameFit, fit_flame, smplx_skinning
from mononphm_core.types import OnStep
from worker import models, pipeline


@dataclass(frozen=True)
class FlameRequest:
    """What is fitted to what."""

    clip: Path
    flame: Path
    embedding: Path
    camera: CameraChoice
    selection: FrameSelection


def run(request: FlameRequest, folder: Path, on_step: OnStep) -> FlameFit:
    """Fit, then write `folder`, which must be empty or new. Frames without a face are left out, the rest
    counted anew.

    AssetError comes before the clip is opened: when smplx, the FLAME file or the embedding is missing or does not fit.
    """
    skin, flame = smplx_skinning(), read_flame(request.flame)
    embedding = read_embedding(request.embedding, flame)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; name a new folder")
    clip = read_clip(request.clip, request.selection, MediaLimits(), on_step)
    reference = pipeline.mean_landmarks(registry.warm_model(models.find(), "cpu"))
    observed = observe(clip, request.camera, PreprocessingConfig(), reference, on_step)
    if observed.turned_deg:
        raise InputError(f"The pictures are turned by {observed.turned_deg} degrees; turn them upright")
    by_index = {frame.frame_index: frame.rgb for frame in clip.frames}
    pictures = [by_index[seen.frame_index] for seen in observed.observations]
    k = reduced(observed.intrinsics, pictures[0].shape[1], pictures[0].shape[0])
    share = k.width / observed.intrinsics.width
    landmarks = torch.stack(
        [
            (seen.landmarks_px.double() / seen.crop.scale + torch.tensor([seen.crop.left, seen.crop.top])) * share
            for seen in observed.observations
        ]
    )
    matrix = torch.from_numpy(np.asarray(k.matrix(), np.float64))
    fit = fit_flame(flame, embedding, landmarks, matrix, skin)
    (folder / "source").mkdir(parents=True)
    for t, rgb in enumerate(pictures):
        Image.fromarray(rgb).save(folder / "source" / f"{t:05d}.png")
    write_poses(fit, matrix, folder)
    return fit


def write_poses(fit: FlameFit, k: Float[Tensor, "3 3"], folder: Path) -> None:
    """The metrical tracker's files (R, t, K of each frame, OpenCV axes, metres), and the whole fit beside them."""
    tracker = folder / "metrical_tracker" / folder.resolve().name
    (tracker / "checkpoint").mkdir(parents=True)
    for t, (rotation, translation) in enumerate(zip(fit.rotation, fit.translation, strict=True)):
        np.savez(
            tracker / "checkpoint" / f"{t:05d}_cam_params_opencv.npz",
            R=rotation[None].numpy().astype(np.float32),
            t=translation[None].numpy().astype(np.float32),
            K=k[None].numpy().astype(np.float32),
        )
    np.savez(tracker / "flame.npz", shape=fit.shape, expression=fit.expression, jaw=fit.jaw)
