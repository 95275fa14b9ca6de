"""Which rays one iteration casts, with the published order of random draws."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from mononphm_core.preprocessing.published.observation import PublishedObservation
from mononphm_core.rendering.published.fine import WorldRays
from mononphm_core.tracking.published.configuration import PublishedConfig
from mononphm_core.tracking.published.landmarks import STARTS


class Draws:
    """The two random streams of the published program, NumPy's legacy generator and torch's, with one seed.

    Draws of one iteration, in this order: frame and view (NumPy); candidates' x, their y, which of those on the head,
    which of all, the coarse pass's jitter, the landmark starts' noise (torch). Nothing else is random.
    """

    def __init__(self, seed: int) -> None:
        self.numpy = np.random.RandomState(seed)
        self.torch = torch.Generator().manual_seed(seed)

    def frame(self, frames: int) -> int:
        """Which frame, uniformly; and the view, of which there is one."""
        chosen = int(self.numpy.randint(0, frames))
        self.numpy.randint(0, 1)
        return chosen

    def integers(self, low: int, high: int, count: int) -> Int[Tensor, "count"]:
        """low .. high - 1, uniformly."""
        return torch.randint(low, high, (count,), generator=self.torch)

    def jitter(self, rays: int, samples: int) -> Float[Tensor, "rays samples"]:
        """[0, 1)."""
        return torch.rand(rays, samples, generator=self.torch)

    def starts(self, anchors: int) -> Float[Tensor, "anchors starts 3"]:
        """Standard normal."""
        return torch.randn(1, anchors, STARTS, 3, generator=self.torch)[0]


@dataclass(frozen=True)
class Batch:
    """The rays of one iteration with what the picture says at their pixels, and the iteration's randomness."""

    rays: WorldRays
    rgb: Float[Tensor, "rays 3"]
    labels: UInt8[Tensor, "rays"]
    inner_mouth: Bool[Tensor, "rays"]
    jitter: Float[Tensor, "rays samples"]
    noise: Float[Tensor, "anchors starts 3"]


def draw_batch(frame: PublishedObservation, anchors: int, draws: Draws, config: PublishedConfig) -> Batch:
    """Rays of one frame: three quarters where there is a label, the rest anywhere; pixels may come twice."""
    height, width = frame.labels.shape
    border = config.border_px
    x = draws.integers(border, width - border, config.candidates)
    y = draws.integers(border, height - border, config.candidates)
    on_head = torch.nonzero(frame.labels.cpu()[y, x] != 0)[:, 0]
    if not len(on_head):
        on_head = torch.arange(len(x))
    headed = int(config.foreground_share * config.rays)
    first = on_head[draws.integers(0, len(on_head), headed)]
    rest = draws.integers(0, len(x), config.rays - headed)
    chosen = torch.cat([first, rest])
    column, row = x[chosen].to(frame.rgb.device), y[chosen].to(frame.rgb.device)
    return Batch(
        WorldRays(frame.origin.float(), frame.direction[row, column]),
        frame.rgb[row, column],
        frame.labels[row, column],
        frame.inner_mouth[row, column],
        draws.jitter(config.rays, config.samples).to(frame.rgb.device),
        draws.starts(anchors).to(frame.rgb.device),
    )
