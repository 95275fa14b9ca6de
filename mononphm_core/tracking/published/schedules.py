"""Everything that changes with the step, as data: rates, sharpness, landmark and smoothness weights.

`m` is the multiplier of a run: 1 for a first frame or a still, 0.5, 0.25 or 0.1 for later frames by how much they move,
0.25 for stage 2. Thresholds are given for m = 1. The published object's own values are in the tests, every change.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from mononphm_core.tracking.published.configuration import STAGE2_MULTIPLIER, STEPS, Kind

Phase = Literal["first", "later", "joint"]
"""A clip's first frame or a still; a later frame of stage 1; stage 2."""


@dataclass(frozen=True)
class Rates:
    """Step sizes of the optimisers (Adam; sparse Adam for what every frame has of its own)."""

    codes: float
    """z_geo, z_app and the colour correction."""
    expression: float
    light: float
    rotation: float
    translation: float

    def scaled(self, by: float, *names: str) -> "Rates":
        """Some of them times a factor."""
        return replace(self, **{name: by * getattr(self, name) for name in names})


LATER = 0.99
"""On all rates of later frames; poses besides a tenth, as they start where the last frame ended."""
SET_CODES = 5e-4
"""What the rates of codes and expression become at step 150, whatever they were."""
START: dict[Phase, Rates] = {
    "first": Rates(5e-4, 2e-4, 5e-2, 5e-3, 2.5e-3),
    "later": Rates(5e-4, 2e-4, 5e-2, 5e-3, 2.5e-3)
    .scaled(LATER, "codes", "expression", "light", "rotation", "translation")
    .scaled(0.1, "rotation", "translation"),
    "joint": Rates(2e-4, 1e-4, 1e-4, 3e-4, 1e-4),
}
HALVINGS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (32, ("rotation", "translation")),
    (150, ("light",)),
    (200, ("codes", "expression", "rotation", "translation")),
    (225, ("codes", "expression", "light")),
)
"""Stage 1: at which step (times m, rounded down) which rates are halved. For a still of 1251 steps too."""
SETTING = 150
"""Step (times m) at which codes and expression are set to SET_CODES."""
SHARPEST = 0.8
SHARPENING = 0.15
LANDMARK_WEIGHTS = ((25, 100.0), (50, 50.0), (100, 20.0), (math.inf, 10.0))
"""Before which step (times m and frames; not rounded) the landmark term is worth how much."""
LANDMARK_WEIGHT_JOINT = 5.0
WITHOUT_COLOUR = 20.0
"""Factor on the landmark term where the colour term is switched off."""
SMOOTH = ((2000.0, 50_000.0), (1000.0, 25_000.0))
"""Weights of the expressions' and the poses' differences, in the first half of the steps and in the second."""


@dataclass(frozen=True)
class Timetable:
    """One optimisation: how many steps, and what holds at each."""

    phase: Phase
    base: int
    """Steps for m = 1 and one frame."""
    multiplier: float
    frames: int = 1
    """Optimised together."""

    @staticmethod
    def of(kind: Kind, phase: Phase, multiplier: float, frames: int = 1) -> "Timetable":
        """The published number of steps."""
        return Timetable(phase, STEPS[kind], multiplier, frames)

    @property
    def steps(self) -> int:
        """How many there are; at least one."""
        return max(1, int(self.base * self.multiplier * self.frames))

    def rates(self, step: int) -> Rates:
        """Step sizes at a step, counted from 0."""
        rates = START[self.phase]
        if self.phase == "joint":
            times = (step >= self.steps // 2) + (step >= int(0.75 * self.steps))
            return rates.scaled(0.5**times, "codes", "expression", "light", "rotation", "translation")
        for at, names in HALVINGS:
            if step < int(at * self.multiplier):
                break
            if at == SETTING:
                value = SET_CODES * (LATER if self.phase == "later" else 1.0)
                rates = replace(rates, codes=value, expression=value)
            rates = rates.scaled(0.5, *names)
        return rates

    def exponent(self, step: int) -> float:
        """v; the surface's sharpness is exp(10 v): 20 to 149 at the start, at most 2981, 1/head unit."""
        start, every = (0.3, 25) if self.phase == "first" else (0.5, 50)
        return min(start + SHARPENING * math.floor(step / self.frames / (every * self.multiplier)), SHARPEST)

    def sharpness(self, step: int) -> float:
        """exp(10 v)."""
        return math.exp(10 * self.exponent(step))

    def landmark_weight(self, step: int) -> float:
        """Of the landmark term."""
        if self.phase == "joint":
            return LANDMARK_WEIGHT_JOINT
        reached = step / (self.multiplier * self.frames)
        return next(weight for before, weight in LANDMARK_WEIGHTS if reached < before)

    def smooth_weights(self, step: int) -> tuple[float, float]:
        """Of neighbouring frames' differences, expression and pose."""
        return SMOOTH[0] if step <= self.steps // 2 else SMOOTH[1]


def multipliers(points: Float[np.ndarray, "frames points 2"]) -> list[float]:
    """m of every frame from how far the face moved: 1, then 0.5, 0.25 or 0.1.

    Mean squared change of the normalised landmarks against the clip's mean of it: above twice, above half, below.
    """
    if len(points) < 2:
        return [1.0] * len(points)
    change = np.nanmean(np.square(np.diff(points.astype(np.float64), axis=0)), axis=(1, 2))
    mean = np.nanmean(change)
    return [1.0, *(0.5 if c > 2 * mean else 0.25 if c > 0.5 * mean else 0.1 for c in change)]


def joint(frames: int, scale: float = 1.0) -> Timetable:
    """Stage 2 over so many frames."""
    return Timetable.of("stage2", "joint", STAGE2_MULTIPLIER * scale, frames)
