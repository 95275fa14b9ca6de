"""Numbers of the tracker, in one place. Weights are data; each has a test that moving it moves the result."""

from dataclasses import dataclass, field

MOST_SIGMAS = 3.0
"""No coordinate of an identity goes further from the mean: the networks never saw anybody there."""


@dataclass(frozen=True)
class LandmarkFitConfig:
    """Weights and sizes of the joint landmark fit."""

    directions: int = 150
    """Identity directions that are sought."""
    iterations: int = 14
    detector_sigma: float = 0.006
    """Detector noise, share of the face height (measured)."""
    spread_share: float = 0.6
    """How much of a point's scatter on the skin is independent noise (the rest is shared by its neighbours)."""
    independent: float = 0.12
    """Landmarks that count: 478 points are not 478 independent measurements."""
    huber: float = 2.0
    """Standard deviations beyond which an error grows linearly only."""
    identity_prior: float = 1.0
    """Weight of the squared coordinates, for a still."""
    identity_prior_frames: float = 6.0
    """The prior grows with the clip, by one for so many frames: a landmark's bias is the same in every frame, and more
    frames must not make the fit surer of it."""
    expression_sigma: float = 0.28
    """Of a blendshape weight around 0 (training mixtures)."""
    symmetry_sigma: float = 0.15
    """Of the difference between the left and right weight of a pair."""
    smooth_sigma_per_s: float = 3.0
    """How fast a blendshape weight may change: standard deviation after one second (times the root of the time)."""
    shift_sigma_per_s: float = 0.15
    """How fast a head moves, head units after one second."""
    turn_sigma_per_s: float = 0.6
    """How fast a head turns, radians after one second."""
    contour_rounds: int = 3
    """How often rim points are chosen anew; 0: landmarks alone."""
    contour_iterations: int = 4
    contour_points: int = 120
    """Rim points of a frame."""
    contour_sigma: float = 0.006
    """Uncertainty of the mask's border, share of the face height."""
    contour_independent: float = 0.08
    """Rim points that count: neighbours share their error."""


@dataclass(frozen=True)
class Weights:
    """What each term is worth: mean squared deviations in standard deviations, or mean absolute differences."""

    colour: float = 60.0
    """Mean absolute sRGB difference on skin."""
    mask: float = 40.0
    """Mean absolute difference of opacity and mask, near the silhouette and on skin."""
    landmarks: float = 12.0
    """Mean Huber cost of the dense landmarks."""
    identity_prior: float = 0.08
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
