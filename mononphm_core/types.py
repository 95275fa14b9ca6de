"""The nouns: what travels between the stations of the road. Frozen: made by one station, never changed by the next.

upload -> Frame -> Observation -> stage 1 and 2, each a TrackedSequence -> HeadMesh + codes -> artifacts

Frames of reference (docs/conventions.md): *image* pixels, (x, y) with pixel centres at .5; *camera* OpenCV axes: x
right, y down, z forward; *world* what `w2c` maps from: for one fixed camera the camera's own frame; *posed*
head-centred, with expression, x = subject's left, y up, z out of the face; *canonical* the same person's neutral head
with slightly open mouth. Lengths of world, posed and canonical are head units: 1 = 250 mm.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

MM_PER_UNIT = 250.0
"""Millimetres in one head unit (the NPHM convention: FLAME metres times 4)."""


class Stage(str, Enum):
    """The stations a job passes, in order; the public names of progress reports."""

    DECODING = "decoding"
    PREPROCESSING = "preprocessing"
    STAGE1 = "stage1"
    STAGE2 = "stage2"
    MESHING = "meshing"
    EXPORTING = "exporting"


@dataclass(frozen=True)
class StepReport:
    """One sign of life from a running stage."""

    stage: Stage
    step: int
    total: int
    """Steps of this stage, done and planned; 0 <= step <= total."""
    frames_done: int = 0
    frames_total: int = 0
    message: str = ""


OnStep = Callable[[StepReport], None]
"""Called at least once a second of work. It may raise (a cancel does): nothing in the core swallows that."""


def ignore_steps(report: StepReport) -> None:
    """The `OnStep` of a caller who does not want to know."""


class StopReason(str, Enum):
    """Why an optimisation ended, as a sentence."""

    CONVERGED = "the loss no longer fell"
    STEP_BUDGET = "all planned steps were made"
    TIME_BUDGET = "the time budget was used up"


@dataclass(frozen=True)
class Frame:
    """One decoded picture of the clip, upright (display matrix and EXIF orientation already applied)."""

    rgb: UInt8[np.ndarray, "height width 3"]
    """sRGB."""
    frame_index: int
    """Position in the *decoded* clip, counted from 0 over all its pictures, also those that were not selected."""
    timestamp_s: float
    """Presentation time from the container, relative to the clip's first picture; never index / fps."""


@dataclass(frozen=True)
class MediaInfo:
    """What the file says of itself and what decoding counted."""

    media_type: str
    """`video/mp4`, `image/png`, ...: from the content."""
    is_video: bool
    width: int
    height: int
    """Pixels of the upright picture."""
    frames: int | None
    """Pictures in the clip; None while unknown (a container that does not say and was not decoded yet)."""
    fps: Fraction | None
    """Nominal rate; information only."""
    duration_s: float | None
    rotation: int
    """Degrees, of {0, 90, 180, 270}, counter-clockwise turn that was applied to make it upright."""
    focal_35mm: float | None = None
    """EXIF 35 mm-equivalent focal length, if the file has it."""
    pixel_aspect: float = 1.0
    """Width over height of one pixel of the upright picture (anamorphic clips); then fx = fy / pixel_aspect."""


@dataclass(frozen=True)
class Clip:
    """The selected frames of one input, in time order."""

    frames: tuple[Frame, ...]
    info: MediaInfo
    warnings: tuple[str, ...] = ()
    """Sentences for the user: a damaged tail, frames left out and by which rule."""


class CameraSource(str, Enum):
    GIVEN = "given"
    EXIF = "exif"
    ESTIMATED = "estimated"


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera of one image size, pixels; pixel centres at .5, so the image spans [0, width] x [0, height].

    `distortion` (k1, k2, p1, p2, k3) is the Brown-Conrady model of OpenCV; preprocessing removes it before anything
    else sees pixels.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """K, such that pixel ~ K @ x_camera."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def cropped(self, left: float, top: float, scale: float, width: int, height: int) -> "Intrinsics":
        """The same camera for the crop that starts at (left, top) and is then resized by `scale`."""
        return Intrinsics(
            self.fx * scale, self.fy * scale, (self.cx - left) * scale, (self.cy - top) * scale, width, height
        )


@dataclass(frozen=True)
class Crop:
    """Where a crop lies in the upright original: x_original = x_crop / scale + left, y alike (pixels)."""

    left: float
    top: float
    scale: float
    width: int
    height: int
    """Size of the crop after resizing."""


@dataclass(frozen=True)
class Observation:
    """All that the tracker may know about one frame. Made by preprocessing, never changed after.

    All image arrays and pixel coordinates are those of one square crop, the same size for every frame of a clip.
    """

    frame_index: int
    timestamp_s: float
    rgb: Float[Tensor, "height width 3"]
    """Cropped sRGB in [0, 1]; the decoder's own [-1, 1] stays inside model/. Undistorted. Black outside."""
    valid: Bool[Tensor, "height width"]
    """False where the crop reaches over the border of the original picture."""
    skin: Bool[Tensor, "height width"]
    """Face, ears and neck skin that is surely visible: opacity should be 1 and colour counts."""
    foreground: Bool[Tensor, "height width"]
    """Person: skin, hair, neck, clothes. Outside it opacity should be 0; hair is inside it and outside `skin`."""
    foreground_opacity: Float[Tensor, "height width"]
    """The same with a soft edge, 0..1; above a half where `foreground` is true."""
    hair: Bool[Tensor, "height width"]
    """Coloured like what lies above the forehead, and hanging together with it; empty for a bald head."""
    occluder: Bool[Tensor, "height width"]
    """Something else in front of the face; never `skin`, and landmarks below it have little confidence."""
    inner_mouth: Bool[Tensor, "height width"]
    """Between the lips: teeth, tongue, cavity."""
    landmarks_px: Float[Tensor, "68 2"]
    """iBUG-68, (x, y) in crop pixels."""
    dense_landmarks_px: Float[Tensor, "478 2"]
    """MediaPipe face-mesh points in crop pixels, where the model has them: the detector's measured bias is taken out.
    468..477 are the irises."""
    dense_confidence: Float[Tensor, "478"]
    """0 (ignore) .. 1; lower at large yaw on the far side, outside the image, and where points jitter over time."""
    intrinsics: Intrinsics
    """K of this crop, square pixels of this crop."""
    crop: Crop
    quality: "FrameQuality"


@dataclass(frozen=True)
class FrameQuality:
    """How far one frame can be trusted, all from the picture alone."""

    sharpness: float
    """0..1, relative to the clip's sharpest face."""
    yaw_deg: float
    """Turn of the head about its vertical axis; positive: towards the subject's left."""
    face_px: float
    """Height of the face in original pixels."""
    in_view: float
    """Share of the dense landmarks inside the picture, 0..1."""
    exposure: float = 1.0
    """Share of the face's pixels that are neither black nor burnt out, 0..1."""
    visible: float = 1.0
    """Share of the dense landmarks that face the camera, are in view and lie under nothing else, 0..1."""

    @property
    def weight(self) -> float:
        """How much this frame says of who it is, 0.1..1: sharp, well exposed and seen before blurred and half hidden.

        The product of sharpness over 0.3, exposure over 0.8, and visible over 0.5, each at most 1.
        """
        shares = (self.sharpness / 0.3, self.exposure / 0.8, self.visible / 0.5)
        product = 1.0
        for share in shares:
            product *= min(max(share, 0.0), 1.0)
        return max(product, 0.1)


@dataclass(frozen=True)
class ObservedClip:
    """What preprocessing found in a clip."""

    observations: tuple[Observation, ...]
    """Only frames with a face, in time order."""
    intrinsics: Intrinsics
    """Of the upright original picture."""
    camera_source: CameraSource
    focal_uncertainty: float
    """One standard deviation of log(focal): 0 for a given camera, about 0.3 for a guess."""
    missed_frames: tuple[int, ...]
    """frame_index of the selected frames in which no (usable) face was found."""
    warnings: tuple[str, ...] = ()
    turned_deg: int = 0
    """Counter-clockwise turn of {0, 90, 180, 270} that made the clip's frames upright before anything was measured;
    everything here, `intrinsics` included, is of the turned picture."""


@dataclass(frozen=True)
class IdentityCode:
    """One person. Flat, as the published code stores them: [global, 65 local parts, 1 free part]."""

    z_geo: Float[Tensor, "d_geo"]
    z_app: Float[Tensor, "d_app"]


@dataclass(frozen=True)
class HeadPose:
    """x_posed = scale * R @ x_world + t, this direction only; `inverse` is the other. One row per frame, one scale."""

    rotation: Float[Tensor, "frames 3 3"]
    translation: Float[Tensor, "frames 3"]
    """Head units."""
    scale: Float[Tensor, ""]

    def to_posed(self, x_world: Float[Tensor, "frames points 3"]) -> Float[Tensor, "frames points 3"]:
        """World points of every frame, in that frame's posed head space."""
        return self.scale * x_world @ self.rotation.transpose(-1, -2) + self.translation[:, None]

    def to_world(self, x_posed: Float[Tensor, "frames points 3"]) -> Float[Tensor, "frames points 3"]:
        """The inverse of `to_posed`."""
        return (x_posed - self.translation[:, None]) @ self.rotation / self.scale


@dataclass(frozen=True)
class FrameFit:
    """How well one frame was explained; the figures the manifest shows."""

    landmark_error_px: float
    """Mean distance of the confident dense landmarks, in original pixels."""
    silhouette_iou: float
    """Rendered opacity against the skin mask, inside the region where the mask is sure."""
    photometric_error: float
    """Mean absolute sRGB difference on skin, 0..1."""
    accepted: bool


@dataclass(frozen=True)
class Uncertainty:
    """Standard deviations of a tracked sequence, from the last normal equations: what landmarks, outlines, texture and
    priors leave open, if they err as assumed. Systematic errors of the detector come on top."""

    identity: Float[Tensor, "directions"]
    """Of the identity's directions, which have variance 1 a priori."""
    turn_deg: Float[Tensor, "frames 3"]
    """About the camera's axes."""
    shift: Float[Tensor, "frames 3"]
    """Camera frame, head units; z is the distance."""
    z_exp: Float[Tensor, "frames d_exp"]


@dataclass(frozen=True)
class TrackedSequence:
    """One person through one clip: what stage 1 hands to stage 2 and stage 2 to meshing."""

    identity: IdentityCode
    z_exp: Float[Tensor, "frames d_exp"]
    poses: HeadPose
    light: Float[Tensor, "9 3"]
    """Order-2 spherical harmonics of the irradiance, camera frame; one for the clip."""
    intrinsics: Intrinsics
    """Of the upright original; tracking may have refined the focal length when it was only estimated."""
    camera_source: CameraSource
    focal_uncertainty: float
    frame_index: tuple[int, ...]
    timestamp_s: tuple[float, ...]
    fits: tuple[FrameFit, ...]
    stop: StopReason
    stage: Stage
    """The stage that made it."""
    history: dict[str, list[float]] = field(default_factory=dict)
    """Loss terms per step, for the manifest and for plots."""
    uncertainty: Uncertainty | None = None
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    """Figures of stage 1 and stage 2 on the same measures; `kept` is 1 where stage 2's result was better and kept."""
    colour_correction: Float[Tensor, "4 3"] | None = None
    """The camera's colours, where the solver sought them (the published one): in the decoder's [-1, 1], a row times the
    first three rows plus the last."""


@dataclass(frozen=True)
class HeadMesh:
    """A triangle mesh. Which frame its vertices live in is said by whoever returns it."""

    vertices: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    """Counter-clockwise seen from outside."""
    colours: UInt8[np.ndarray, "vertices 3"] | None = None
    """sRGB albedo."""


@dataclass(frozen=True)
class MorphHead:
    """One triangulation with shapes to add to it: what an animated file holds. Posed head units (y up, face to z)."""

    vertices: Float[np.ndarray, "corners 3"]
    """Weight 0: the neutral head. Vertices on a texture seam appear once for each side of it."""
    normals: Float[np.ndarray, "corners 3"]
    faces: Int[np.ndarray, "faces 3"]
    names: tuple[str, ...]
    shapes: Float[np.ndarray, "shapes corners 3"]
    """What one whole unit of each adds to `vertices`."""
    shape_normals: Float[np.ndarray, "shapes corners 3"]
    """What it adds to `normals`, to first order."""
    weights: Float[np.ndarray, "frames shapes"]
    """Of the clip's frames, in the order of the sequence."""
    largest_error_mm: float
    """Longest distance of a vertex of a frame from where shapes and weights put it."""
    uv: Float[np.ndarray, "corners 2"] | None = None
    """Texture coordinates in [0, 1], v upwards."""
    texture: UInt8[np.ndarray, "height width 3"] | None = None
    """sRGB albedo, first row at v = 1."""
    colours: UInt8[np.ndarray, "corners 3"] | None = None
    """sRGB albedo of the corners, where there is no texture."""
    measures: dict[str, Float[np.ndarray, "corners"]] = field(default_factory=dict)
    """Figures of the corners for coloured views; below 0: not known there."""


@runtime_checkable
class SdfField(Protocol):
    """A signed distance, negative inside; what rendering and meshing know of a network."""

    def __call__(self, x: Float[Tensor, "points 3"]) -> Float[Tensor, "points"]: ...


@runtime_checkable
class ColourField(Protocol):
    """An sRGB albedo in [0, 1]."""

    def __call__(self, x: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]: ...
