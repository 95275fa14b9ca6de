"""Axis-parallel rectangles in pixels: the little geometry that face following needs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Box:
    """[left, left + width] x [top, top + height], pixels, centres at .5."""

    left: float
    top: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def side(self) -> float:
        """Of the square with the same area."""
        return float(np.sqrt(max(self.area, 0.0)))

    def iou(self, other: "Box") -> float:
        """Intersection over union, 0..1."""
        wide = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        high = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        common = max(wide, 0.0) * max(high, 0.0)
        union = self.area + other.area - common
        return common / union if union > 0 else 0.0

    def distance(self, other: "Box") -> float:
        """Between the centres, in mean sides: 0 the same place, 1 side by side."""
        (x, y), (u, v) = self.centre, other.centre
        return float(np.hypot(x - u, y - v)) / max((self.side + other.side) / 2, 1e-9)

    def scaled(self, factor: float) -> "Box":
        """About the image origin: the same box in a picture resized by `factor`."""
        return Box(self.left * factor, self.top * factor, self.width * factor, self.height * factor)

    def moved(self, right: float, down: float) -> "Box":
        """The same box in a picture whose origin lies at (-right, -down) of this one."""
        return Box(self.left + right, self.top + down, self.width, self.height)

    def between(self, other: "Box", share: float) -> "Box":
        """Linear between this (0) and the other (1)."""
        a, b = np.array(self.numbers()), np.array(other.numbers())
        return Box(*(float(v) for v in a + (b - a) * share))

    def numbers(self) -> tuple[float, float, float, float]:
        return self.left, self.top, self.width, self.height

    @staticmethod
    def around(points: Float[np.ndarray, "points 2"]) -> "Box":
        low, high = points.min(axis=0), points.max(axis=0)
        return Box(float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))
