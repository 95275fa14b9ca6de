"""Weights and sizes of the published configurations, one value each for a still, a clip's stage 1, and stage 2."""

from dataclasses import dataclass, field
from typing import Literal

from mononphm_core.quirks import PUBLISHED, PublishedQuirks

Kind = Literal["image", "video", "stage2"]


@dataclass(frozen=True)
class PublishedWeights:
    """What each term of one iteration is worth (losses.py says what each is)."""

    colour: float
    mask: float
    symmetry_geo: float
    symmetry_app: float
    local_geo: float
    local_app: float
    global_geo: float
    global_app: float
    expression: float
    """On every frame but the first."""
    expression_first: float
    """On the first frame, where expression and identity are told apart."""


WEIGHTS: dict[Kind, PublishedWeights] = {
    "image": PublishedWeights(100, 25, 1, 1, 1000, 1000, 50, 100, 500, 500),
    "video": PublishedWeights(100, 25, 1, 1, 1000, 1000, 25, 50, 150, 1000),
    "stage2": PublishedWeights(100, 10, 1, 1, 500, 500, 50, 50, 100, 100),
}
"""stage1_ffhq, stage1_kinect and stage2_kinect of the published configuration files."""
GLOBAL_MODEL_FACTOR = 10.0
"""On the two global weights for a model without local codes."""
IMAGE_EXPRESSION_UNCALIBRATED = 250.0
"""Of a still whose camera was not given."""

STEPS: dict[Kind, int] = {"image": 1251, "video": 251, "stage2": 251}
"""Before the multipliers of schedules.py."""
STAGE2_MULTIPLIER = 0.25

GRADIENT_LIMIT = 0.1
"""Norm to which the gradients of z_geo and of z_app are clipped, each by itself."""


@dataclass(frozen=True)
class PublishedConfig:
    """One run of the published tracker. The defaults are the published values."""

    rays: int = 450
    """Of one iteration."""
    foreground_share: float = 0.75
    """Of the rays, drawn where there is a label."""
    candidates: int = 10_000
    """Pixels that the rays of one iteration are drawn from."""
    border_px: int = 2
    """At the picture's rim, never drawn."""
    samples: int = 32
    """Coarse and fine ones along a ray, each."""
    iterations_scale: float = 1.0
    """Factor on every number of steps and on every threshold of the schedules. Anything but 1 is no longer the
    published algorithm; it is for tests and short looks."""
    block_rays: int | None = None
    """Rays rendered with a graph at once; None: by the size of the network (`blocks.py`). Exact for any."""
    quirks: PublishedQuirks = field(default_factory=lambda: PUBLISHED)
    seed: int = 0
