"""Numbers of the tracker, in one place. Weights are data; each has a test that moving it moves the result."""

from dataclasses import dataclass, field

MOST_SIGMAS = 3.0
"""No coordinate of an identity goes further from the mean: the networks never saw anybody there."""


@dataclass(frozen=True)
class LandmarkFitConfig:
    """Weights and sizes of the joint problem. Stage 1 solves it without, stage 2 with the texture terms."""

    directions: int = 150
    """Identity directions that are sought."""
    iterations: int = 14
    stop_share: float = 1e-4
    """The search stops when a step lowers the cost by less than this share."""
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
    lid_sigma: float = 0.005
    """Of the distance between upper and lower lid, share of the face height (rendered people: 0.002 to 0.008)."""
    lip_sigma: float = 0.008
    """The same of the lips (0.006 to 0.008)."""
    gap_independent: float = 0.33
    """Gaps that count: the three of an eye share their error. 0: no terms for lids and lips."""
    symmetry_sigma: float = 0.15
    """Of the difference between the left and right weight of a pair."""
    smooth_sigma_per_s: float = 3.0
    """How fast a blendshape weight may change: standard deviation after one second (times the root of the time)."""
    shift_sigma_per_s: float = 0.15
    """How fast a head moves, head units after one second."""
    turn_sigma_per_s: float = 0.6
    """How fast a head turns, radians after one second."""
    turn_jolt_sigma: float = 8.0
    """White acceleration of a head's turn, radians / s^2 times the root of a second: 4 degrees a frame^2 at 24 Hz."""
    shift_jolt_sigma: float = 2.0
    """The same of its place, head units."""
    neighbour_s: float = 0.12
    """Frames further apart than this say nothing of each other's acceleration."""
    texture_sigma: float = 0.15
    """Of a point's local contrast between frames."""
    texture_independent: float = 0.1
    """Surface points that count: neighbours share what disturbs them."""
    contour_rounds: int = 3
    """How often rim points are chosen anew; 0: landmarks alone."""
    contour_iterations: int = 4
    contour_points: int = 120
    """Rim points of a frame."""
    contour_sigma: float = 0.006
    """Uncertainty of the mask's border, share of the face height."""
    contour_independent: float = 0.2
    """Rim points that count: neighbours share their error."""

    @property
    def rounds(self) -> int:
        """How often the problem is solved: without, then with rim points."""
        return 1 + self.contour_rounds


@dataclass(frozen=True)
class Weights:
    """What each term of the colour search is worth."""

    colour: float = 60.0
    """Mean absolute sRGB difference on skin."""
    appearance_prior: float = 0.02
    """Sum of squares of the complexion's coordinates, which have unit variance."""


@dataclass(frozen=True)
class RaySampling:
    """Which rays of a frame are cast in one step."""

    surface: int = 120
    """On visible skin."""
    border: int = 0
    """Within `border_px` of the head's silhouette, where the mask is sure; for figures, colours need none."""
    border_px: float = 12.0
    """Crop pixels."""
    samples: int = 12
    """Intervals along a ray, in a band around the template's surface."""
    coloured: int = 3
    """Intervals of largest weight that are asked for colour."""
    band: float = 0.05
    """Half width of the band, head units."""
    sharpness: float = 300.0
    """Of the signed distance's sigmoid, 1/head unit."""


@dataclass(frozen=True)
class Stage1Config:
    """Shape, poses and expressions from landmarks and outlines, all frames jointly; then the person's colours."""

    colour_frames: int = 6
    colour_steps: int = 36
    colour_rate: float = 6e-2
    """Step size of Adam, standard deviations of the complexion."""
    batch: int = 4
    """Frames in one evaluation of the field."""
    weights: Weights = field(default_factory=Weights)
    rays: RaySampling = field(default_factory=RaySampling)
    landmark_fit: LandmarkFitConfig = field(default_factory=LandmarkFitConfig)


@dataclass(frozen=True)
class Stage2Config:
    """The same problem once more, with the clip's own texture in it."""

    blurs_px: tuple[float, ...] = (1.5, 0.7)
    """One round each, the picture seen through a Gaussian of so many crop pixels."""
    iterations: int = 5
    """Most Gauss-Newton steps of a round."""
    worse: float = 1.25
    """The landmark error may become so much larger; more means that the texture has led astray."""


@dataclass(frozen=True)
class TrackingConfig:
    """Both stages."""

    stage1: Stage1Config = field(default_factory=Stage1Config)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    seed: int = 0
