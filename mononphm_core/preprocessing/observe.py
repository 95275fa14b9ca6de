"""A clip becomes observations: the road of this package on one screen."""

import logging
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from mononphm_core.config import CameraChoice, PreprocessingConfig
from mononphm_core.errors import NoFaceFound
from mononphm_core.preprocessing import camera as cameras
from mononphm_core.preprocessing import landmarks
from mononphm_core.preprocessing.appearance import portrait
from mononphm_core.preprocessing.boxes import Box
from mononphm_core.preprocessing.crops import Window, windows
from mononphm_core.preprocessing.finder import Finder
from mononphm_core.preprocessing.following import Sighting, choose_track, tracks_of
from mononphm_core.preprocessing.head_pose import QuickPose, quick_pose
from mononphm_core.preprocessing.masks import masks_of
from mononphm_core.preprocessing.upright import quarter_turns
from mononphm_core.types import (
    Clip,
    Crop,
    FrameQuality,
    Intrinsics,
    Observation,
    ObservedClip,
    OnStep,
    Stage,
    StepReport,
    ignore_steps,
)

log = logging.getLogger(__name__)

_PLAUSIBLE_ERROR = 0.08
"""Median reprojection error over face height above which points are no face (faces: 0.01 to 0.03)."""


@dataclass(frozen=True)
class _Seen:
    """The followed face in one frame."""

    at: int
    points: Float[np.ndarray, "478 2"]
    """Pixels of the turned, undistorted frame."""
    pose: QuickPose


class _Pictures:
    """The clip's frames as everything below sees them: undistorted, upright, at the decoder's size."""

    def __init__(self, clip: Clip, original: Intrinsics) -> None:
        height, width = clip.frames[0].rgb.shape[:2]
        self._stored = cameras.reduced(original, width, height)
        self._undistort = cameras.Undistorter(self._stored)
        self._clip, self.turns = clip, 0

    @property
    def intrinsics(self) -> Intrinsics:
        """Of one picture, without distortion."""
        return cameras.turned(self._stored, self.turns)

    def __call__(self, at: int) -> UInt8[np.ndarray, "h w 3"]:
        flat = self._undistort.picture(self._clip.frames[at].rgb)
        return np.ascontiguousarray(np.rot90(flat, self.turns))

    def seen(self) -> np.ndarray:
        return np.rot90(self._undistort.seen(self._stored.width, self._stored.height), self.turns)


def observe(
    clip: Clip,
    camera: CameraChoice,
    config: PreprocessingConfig,
    reference_points: Float[np.ndarray, "478 3"],
    on_step: OnStep = ignore_steps,
) -> ObservedClip:
    """Follow one face through the clip and describe it in every frame.

    `reference_points` are the mean head's face-mesh points in posed head units: used for yaw, visibility and to
    refuse implausible points, not for the answer itself. If the pixels had to be turned upright, all results
    (intrinsics too) are those of the turned picture; `turned_deg` and a warning say so. Raises NoFaceFound, and
    ConfigError for a camera or face rule that does not fit the clip. `on_step` hears `Stage.PREPROCESSING`.
    """
    original, source, uncertainty = cameras.camera_of(clip.info, camera, config.default_fov_deg)
    pictures, report = _Pictures(clip, original), _Reporter(len(clip.frames), on_step)
    warnings: list[str] = []
    with Finder() as finder:
        pictures.turns = quarter_turns(finder, range(len(clip.frames)), pictures)
        if pictures.turns:
            warnings.append(f"The pictures are not upright; they were turned by {90 * pictures.turns} degrees.")
        seen = _follow(finder, pictures, clip, config.face, reference_points, warnings, report)
        observations = _describe(finder, pictures, clip, seen, config, reference_points, report)
    used = {o.frame_index for o in observations}
    missed = tuple(frame.frame_index for frame in clip.frames if frame.frame_index not in used)
    if missed:
        warnings.append(f"In {len(missed)} of {len(clip.frames)} frames no usable face was found; they are left out.")
    return ObservedClip(
        observations,
        cameras.turned(original, pictures.turns),
        source,
        uncertainty,
        missed,
        tuple(warnings),
        turned_deg=90 * pictures.turns,
    )


def _follow(
    finder: Finder,
    pictures: _Pictures,
    clip: Clip,
    rule: str,
    reference: Float[np.ndarray, "478 3"],
    warnings: list[str],
    report: "_Reporter",
) -> list[_Seen]:
    """The chosen person in every frame where it can be measured, in time order."""
    sightings: list[list[Sighting]] = []
    for at, frame in enumerate(clip.frames):
        rgb = pictures(at)
        faces = finder.faces(rgb)
        sightings.append([Sighting(at, frame.timestamp_s, face, portrait(rgb, face.points)) for face in faces])
        report.step("searching")
    if not any(sightings):
        raise NoFaceFound(_no_face(len(clip.frames)))
    intrinsics = pictures.intrinsics
    plausible = [[s for s in row if _plausible(s.face.points, reference, intrinsics)] for row in sightings]
    if not any(plausible):
        raise NoFaceFound(_no_face(len(clip.frames)))
    track, warning = choose_track(tracks_of(plausible), rule, intrinsics.width, intrinsics.height)
    warnings += [warning] if warning else []
    found = {s.at: s.face.points for s in track.sightings}
    for at, box in _gaps(track.sightings).items():
        points = finder.mesh_near(pictures(at), box)
        if points is not None and Box.around(points).iou(box) > 0.4:
            found[at] = points
    seen = [_Seen(at, points, pose) for at, points in sorted(found.items()) if (pose := _pose(points, reference, intrinsics))]
    if not seen:
        raise NoFaceFound(_no_face(len(clip.frames)))
    return seen


def _gaps(sightings: list[Sighting]) -> dict[int, Box]:
    """Where the face should be in short gaps (up to half a second) of the track."""
    expected = {}
    for before, after in zip(sightings, sightings[1:], strict=False):
        if after.time_s - before.time_s <= 0.5:
            for at in range(before.at + 1, after.at):
                share = (at - before.at) / (after.at - before.at)
                expected[at] = before.face.box.between(after.face.box, share)
    return expected


def _pose(points: np.ndarray, reference: np.ndarray, intrinsics: Intrinsics) -> QuickPose | None:
    pose = quick_pose(points, reference, intrinsics)
    return pose if pose is not None and pose.error < _PLAUSIBLE_ERROR else None


def _plausible(points: np.ndarray, reference: np.ndarray, intrinsics: Intrinsics) -> bool:
    return _pose(points, reference, intrinsics) is not None


def _describe(
    finder: Finder,
    pictures: _Pictures,
    clip: Clip,
    seen: list[_Seen],
    config: PreprocessingConfig,
    reference: Float[np.ndarray, "478 3"],
    report: "_Reporter",
) -> tuple[Observation, ...]:
    times = [clip.frames[face.at].timestamp_s for face in seen]
    frames_of = windows([Box.around(f.points) for f in seen], times, config.crop_margin, config.crop_px)
    steady = landmarks.steadiness([face.points for face in seen], times)
    content = pictures.seen()
    crops = []
    for face, window in zip(seen, frames_of, strict=True):
        crop = window.crop(pictures(face.at))
        crops.append((crop, finder.person(crop)))
        report.step("masking")
    blur = [_sharpness(crop, window.to_crop(f.points)) for (crop, _), window, f in zip(crops, frames_of, seen, strict=True)]
    sharpest = max(max(blur), 1e-12)
    return tuple(
        _observation(clip, pictures, face, window, crop, person, content, config, confidence, reference, sharp / sharpest)
        for face, window, (crop, person), confidence, sharp in zip(seen, frames_of, crops, steady, blur, strict=True)
    )


def _observation(
    clip: Clip,
    pictures: _Pictures,
    face: _Seen,
    window: Window,
    crop: UInt8[np.ndarray, "crop crop 3"],
    person: Float[np.ndarray, "crop crop"],
    content: np.ndarray,
    config: PreprocessingConfig,
    steady: Float[np.ndarray, "478"],
    reference: Float[np.ndarray, "478 3"],
    sharpness: float,
) -> Observation:
    frame, camera = clip.frames[face.at], pictures.intrinsics
    points = window.to_crop(face.points)
    valid = window.valid(content)
    masks = masks_of(crop, person, points, valid)
    in_view = landmarks.inside(face.points, camera.width, camera.height)
    confidence = landmarks.facing(face.pose, reference) * steady * in_view
    to_original = (clip.info.height if pictures.turns % 2 == 0 else clip.info.width) / camera.height
    quality = FrameQuality(sharpness, face.pose.yaw_deg, float(np.ptp(face.points[:, 1])) * to_original, float(in_view.mean()))
    return Observation(
        frame_index=frame.frame_index,
        timestamp_s=frame.timestamp_s,
        rgb=torch.from_numpy(crop.astype(np.float32) / 255.0),
        valid=torch.from_numpy(valid),
        skin=torch.from_numpy(masks.skin),
        foreground=torch.from_numpy(masks.foreground),
        inner_mouth=torch.from_numpy(masks.inner_mouth),
        landmarks_px=torch.from_numpy(landmarks.ibug68(points).astype(np.float32)),
        dense_landmarks_px=torch.from_numpy(points.astype(np.float32)),
        dense_confidence=torch.from_numpy(confidence.astype(np.float32)),
        intrinsics=camera.cropped(window.left, window.top, window.scale, config.crop_px, config.crop_px),
        crop=Crop(
            window.left * to_original,
            window.top * to_original,
            window.scale / to_original,
            config.crop_px,
            config.crop_px,
        ),
        quality=quality,
    )


def _sharpness(crop: UInt8[np.ndarray, "crop crop 3"], points: Float[np.ndarray, "478 2"]) -> float:
    """Variance of the Laplacian over the face, relative to its grey variance (exposure falls out)."""
    low = np.clip(points.min(axis=0), 0, len(crop) - 8).astype(int)
    high = np.clip(points.max(axis=0), low + 8, len(crop)).astype(int)
    grey = cv2.cvtColor(crop[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY).astype(np.float64)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var() / (grey.var() + 1.0))


def _no_face(frames: int) -> str:
    looked = "the picture" if frames == 1 else f"any of the {frames} frames looked at"
    return (
        f"No face was found in {looked}, in any of four orientations. Send a clip in which one face is clearly "
        "visible, at least about 60 pixels high and not turned away."
    )


class _Reporter:
    """Steps of the two passes over the frames."""

    def __init__(self, frames: int, on_step: OnStep) -> None:
        self._done, self._frames, self._on_step = 0, frames, on_step

    def step(self, message: str) -> None:
        self._done += 1
        done = min(self._done, 2 * self._frames)
        self._on_step(
            StepReport(Stage.PREPROCESSING, done, 2 * self._frames, max(0, done - self._frames), self._frames, message)
        )
