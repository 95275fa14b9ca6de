"""Our own observations as the frames that the published tracker reads, where its own preprocessing was not run.

What differs from files made by the published tools, and stays so: landmarks are the iBUG-68 points of our dense
detector; labels come from our masks, without a parser; the first pose is that of our landmark fit instead of a FLAME
tracker's; pictures are our square crops.
"""

import numpy as np
import torch
from jaxtyping import Float

from mononphm_core.preprocessing.published.labels import labels_of
from mononphm_core.preprocessing.published.observation import BACKGROUND, CLOTH, INNER_MOUTH, PublishedObservation
from mononphm_core.preprocessing.published.prepare import ray_directions
from mononphm_core.quirks import PublishedQuirks
from mononphm_core.tracking.landmark_fit import LandmarkFit
from mononphm_core.tracking.published.track import Sequence
from mononphm_core.types import CameraSource, Crop, Observation, ObservedClip


def sequence_of(
    clip: ObservedClip, fit: LandmarkFit, is_video: bool, quirks: PublishedQuirks, device: torch.device
) -> Sequence:
    """The clip as the published tracker reads it; the world is the head as the landmark fit posed it."""
    frames = tuple(_frame(o, fit, i, quirks, device) for i, o in enumerate(clip.observations))
    return Sequence(frames, motion_of(clip), is_video, clip.camera_source == CameraSource.GIVEN)


def motion_of(clip: ObservedClip) -> Float[np.ndarray, "frames 68 2"]:
    """Landmarks of every frame as shares of the original picture."""
    size = np.array([clip.intrinsics.width, clip.intrinsics.height])
    found = [o.landmarks_px.numpy() / o.crop.scale + [o.crop.left, o.crop.top] for o in clip.observations]
    return np.stack(found) / size


def _frame(
    o: Observation, fit: LandmarkFit, row: int, quirks: PublishedQuirks, device: torch.device
) -> PublishedObservation:
    top, bottom, left, right = _inside(o)
    part = (slice(top, bottom), slice(left, right))
    fx, fy = (f * fit.focal_scale for f in (o.intrinsics.fx, o.intrinsics.fy))
    k = np.array([[fx, 0, o.intrinsics.cx - left], [0, fy, o.intrinsics.cy - top], [0, 0, 1]], np.float32)
    w2c = np.eye(4)
    w2c[:3, :3], w2c[:3, 3] = fit.rotation[row], fit.translation[row]
    w2c = np.diag([1.0, -1.0, -1.0, 1.0]) @ w2c  # OpenCV camera axes to OpenGL's
    c2w = np.linalg.inv(w2c)
    direction = ray_directions(k, c2w[:3, :3], (right - left, bottom - top), quirks)
    s, labels = o.crop.scale, labels_of(o)[part]
    return PublishedObservation(
        frame_index=o.frame_index,
        rgb=(2 * o.rgb[part] - 1).to(device),
        labels=labels.where(labels != CLOTH, BACKGROUND).to(device),
        inner_mouth=(labels == INNER_MOUTH).to(device),
        landmarks_px=(o.landmarks_px - torch.tensor([left, top])).float().to(device),
        direction=torch.from_numpy(direction).float().to(device),
        origin=torch.from_numpy(c2w[:3, 3].copy()).float().to(device),
        w2c=torch.from_numpy(w2c).float().to(device),
        k=torch.from_numpy(k).to(device),
        crop=Crop(o.crop.left + left / s, o.crop.top + top / s, s, right - left, bottom - top),
    )


def _inside(o: Observation) -> tuple[int, int, int, int]:
    """Rows and columns of the crop that lie in the picture: what is outside it says nothing about the head."""
    rows, columns = torch.nonzero(o.valid.any(1))[:, 0], torch.nonzero(o.valid.any(0))[:, 0]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
