"""Numbers of the tracker, in one place. Weights are data; each has a test that moving it moves the result."""

from dataclasses import dataclass, field

from mononphm_core.tracking.landmark_fit import LandmarkFitConfig


@dataclass(frozen=True)
class Weights:
    """What each term is worth. Terms are mean squared deviations in standard deviations, or mean absolute differences."""

    colour: float = 60.0
    """Mean absolute sRGB difference on skin."""
    mask: float = 40.0
    """Mean absolute difference of opacity and mask, near the silhouette and on skin."""
    landmarks: float = 12.0
    """Mean Huber cost of the dense landmarks."""
    identity_prior: float = 0.05
    """Sum of squares of the identity's coordinates, which have unit variance."""
    appearance_prior: float = 0.02
    expression_prior: float = 0.12
    """Sum of squared standard deviations (see LandmarkFitConfig.expression_sigma)."""
    expression_bounds: float = 200.0
    """Sum of squares outside [0, 1]."""
    symmetry_prior: float = 0.10
    smooth_pose: float = 0.0
    """Mean squared second difference over neighbouring frames, in the units of PoseNoise; stage 2 only."""
    smooth_expression: float = 0.0


@dataclass(frozen=True)
class Rates:
    """Step sizes of Adam, per step and unit of each parameter."""

    rotation: float = 3e-3
    """Radians."""
    translation: float = 3e-3
    """Head units."""
    z_exp: float = 1.5e-2
    u_geo: float = 3e-2
    u_app: float = 6e-2


@dataclass(frozen=True)
class RaySampling:
    """Which rays of a frame are cast in one step."""

    surface: int = 120
    """On visible skin."""
    border: int = 60
    """Within `border_px` of the head's silhouette, where the mask is sure."""
    border_px: float = 12.0
    """Crop pixels."""
    samples: int = 12
    """Intervals along a ray, in a band around the template's surface."""
    coloured: int = 3
    """Intervals of largest weight that are asked for colour."""
    band: tuple[float, float] = (0.07, 0.035)
    """Half width of the band at the first and last step, head units."""
    sharpness: tuple[float, float] = (150.0, 450.0)
    """Of the signed distance's sigmoid at the first and last step, 1/head unit."""


@dataclass(frozen=True)
class Stage1Config:
    """Frame by frame: identity, appearance and light on good frames, then expression and pose of every frame."""

    identity_frames: int = 6
    identity_steps: int = 36
    frame_steps: int = 14
    batch: int = 4
    """Frames in one evaluation of the field."""
    weights: Weights = field(default_factory=Weights)
    rates: Rates = field(default_factory=Rates)
    rays: RaySampling = field(default_factory=RaySampling)
    landmark_fit: LandmarkFitConfig = field(default_factory=LandmarkFitConfig)


@dataclass(frozen=True)
class Stage2Config:
    """All frames together: one identity, one light, poses and expressions that move smoothly."""

    passes: float = 10.0
    """How often each frame is visited."""
    batch: int = 4
    weights: Weights = field(default_factory=lambda: Weights(smooth_pose=1.0, smooth_expression=1.0))
    rates: Rates = field(
        default_factory=lambda: Rates(rotation=1.5e-3, translation=1.5e-3, z_exp=8e-3, u_geo=1.5e-2, u_app=2e-2)
    )
    rays: RaySampling = field(default_factory=lambda: RaySampling(band=(0.035, 0.025), sharpness=(300.0, 600.0)))


@dataclass(frozen=True)
class TrackingConfig:
    """Both stages."""

    stage1: Stage1Config = field(default_factory=Stage1Config)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    seed: int = 0
