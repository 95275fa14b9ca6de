"""What `draft`, `standard` and `high` mean for the tracker."""

from dataclasses import replace

from mononphm_core.config import Quality
from mononphm_core.tracking.config import Stage1Config, Stage2Config, TrackingConfig

EFFORT = {"draft": 0.4, "standard": 1.0, "high": 2.5}
"""Steps relative to the standard."""


def tracking_config(quality: Quality, smaller: bool = False) -> TrackingConfig:
    """Steps by quality; `smaller` looks at fewer frames at once, for when memory ran out."""
    first, second, effort = Stage1Config(), Stage2Config(), EFFORT[quality]
    batch = 2 if smaller else first.batch
    fit = replace(
        first.landmark_fit,
        iterations=max(8, round(first.landmark_fit.iterations * effort)),
        contour_rounds=max(2, round(first.landmark_fit.contour_rounds * effort)),
    )
    return TrackingConfig(
        stage1=replace(first, colour_steps=max(8, round(first.colour_steps * effort)), batch=batch, landmark_fit=fit),
        stage2=replace(second, iterations=max(3, round(second.iterations * effort))),
    )
