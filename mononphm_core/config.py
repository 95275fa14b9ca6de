"""The one config tree. Frozen; every leaf says its unit and its source ("measured": on our synthetic clips)."""

from dataclasses import dataclass, field, replace
from typing import Literal

Quality = Literal["draft", "standard", "high"]


@dataclass(frozen=True)
class FrameSelection:
    """Which pictures of a clip are reconstructed. `fps` and `stride` exclude each other; `max_frames` thins evenly."""

    start_s: float = 0.0
    end_s: float | None = None
    fps: float | None = None
    stride: int | None = None
    max_frames: int | None = None
    keys: int | None = None
    """Of what all that leaves, only so many, spread evenly."""
    part: tuple[int, int] | None = None
    """Of what all that leaves, from the first-th on (from 0) to before the last-th: one stretch of a long clip."""


@dataclass(frozen=True)
class MediaLimits:
    """What a file may declare and what decoding may count before it is refused."""

    max_bytes: int = 2 << 30
    max_pixels: int = 64_000_000
    """Of one picture, declared or counted."""
    max_duration_s: float = 900.0
    max_frames: int = 40_000
    """Pictures decoded, not selected."""
    min_side_px: int = 64
    max_aspect: float = 6.0
    decode_seconds: float = 180.0
    """Processor time of the decoder process."""
    decode_memory_bytes: int = 3 << 30
    """Address space of the decoder process."""
    max_side_px: int = 1920
    """Larger pictures are reduced to this before they leave the decoder (intrinsics stay those of the original)."""


@dataclass(frozen=True)
class CameraChoice:
    """What the user knows of the camera; all None: EXIF, else an estimate."""

    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    fov_deg: float | None = None
    """Horizontal field of view of the upright original."""


@dataclass(frozen=True)
class PreprocessingConfig:
    crop_px: int = 256
    """Side of the square observation crop."""
    crop_margin: float = 1.9
    """Side of the crop over the height of the face landmarks: hair, ears and neck must fit."""
    default_fov_deg: float = 40.0
    """Larger side of the picture, when nothing is known: between a phone's portrait and a web camera."""
    face: str = "largest"
    """`largest`, `center` or an index from the left."""
    known: tuple[tuple[float, float, float], ...] = ()
    """(seconds, x, y): where the person's face is known to be now and then, pixels of the upright original. Then `face`
    does not count."""
    turned_deg: int | None = None
    """Counter-clockwise turn that makes the pictures upright, where it is known."""


@dataclass(frozen=True)
class MeshingConfig:
    resolution: int = 96
    """Grid cells along the longest side of the box, as the published dense grid would have."""
    box_min: tuple[float, float, float] = (-0.55, -0.52, -0.75)
    box_max: tuple[float, float, float] = (0.55, 0.68, 0.42)
    """Canonical and posed head units."""


@dataclass(frozen=True)
class ReconstructionConfig:
    """Everything that the road from clip to artifacts needs to know."""

    quality: Quality = "standard"
    selection: FrameSelection = field(default_factory=FrameSelection)
    camera: CameraChoice = field(default_factory=CameraChoice)
    limits: MediaLimits = field(default_factory=MediaLimits)
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    meshing: MeshingConfig = field(default_factory=MeshingConfig)
    stages: tuple[int, ...] | None = None
    """(1,) or (1, 2); None: both for a clip, the first for a still."""
    seed: int = 0

    def with_(self, **changes: object) -> "ReconstructionConfig":
        """A copy with some leaves changed."""
        return replace(self, **changes)  # type: ignore[arg-type]
