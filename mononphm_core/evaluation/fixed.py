"""How far the fixed triangles of a glTF head lie from the surfaces of its own run. Millimetres of the run.

*to meshes*: from the head's corners on the face, as each frame's weights and motion place them, to the nearest point of
that frame's mesh. *from meshes*: from what of that mesh can be seen from in front to the nearest fixed triangle.
Nothing is aligned: both files claim to lie in the same world.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mononphm_core.errors import InputError
from mononphm_core.evaluation import figures, visible
from mononphm_core.evaluation.delivery import Delivery
from mononphm_core.evaluation.figures import Figures
from mononphm_core.evaluation.surfaces import Surface
from mononphm_core.io.animated import Animated
from mononphm_core.types import HeadMesh

SAMPLES, KEPT = 40000, 6000
"""Points on a mesh, and how many of those that can be seen are measured."""
MM = 1000.0
TO_OPENCV = np.array([1.0, -1.0, -1.0])
"""glTF axes to the world of cameras.json."""


@dataclass(frozen=True)
class FixedFrame:
    """One frame."""

    frame_index: int
    to_meshes: Figures
    from_meshes: Figures


@dataclass(frozen=True)
class FixedScore:
    """A clip. `to_dict` is what `mononphm evaluate animation --json` prints."""

    frames: tuple[FixedFrame, ...]

    def mean(self) -> dict[str, Figures | None]:
        """Over frames, which count equally."""
        return {
            "to_meshes": figures.mean_of([frame.to_meshes for frame in self.frames]),
            "from_meshes": figures.mean_of([frame.from_meshes for frame in self.frames]),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"mean": self.mean(), **asdict(self)}


def score(head: Animated, face: Bool[np.ndarray, "corners"], run: Delivery) -> FixedScore:
    """Compare `head`, whose corners `face` names, with the meshes of `run`. InputError when no frame is in both."""
    rows = {index: row for row, index in enumerate(head.frame_index) if index in run.files}
    if not rows:
        raise InputError("no frame of the animated head has a mesh in this run")
    return FixedScore(tuple(_frame(head, face, run, index, row) for index, row in sorted(rows.items())))


def _frame(head: Animated, face: Bool[np.ndarray, "corners"], run: Delivery, index: int, row: int) -> FixedFrame:
    e = run.w2c[index]
    x_camera = (MM * head.world(row) * TO_OPENCV) @ e[:3, :3].T + e[:3, 3]
    mesh = Surface(run.mesh(index))
    fixed = Surface(HeadMesh(x_camera, head.faces))
    points = mesh.sample(SAMPLES)
    seen = np.flatnonzero(visible.from_in_front(_in_head(head, row, points, e)))
    return FixedFrame(
        index,
        figures.of_distances(mesh.nearest(x_camera[face]).distances),
        figures.of_distances(fixed.nearest(points[seen[:: max(1, len(seen) // KEPT)]]).distances),
    )


def _in_head(
    head: Animated, row: int, x_camera: Float[np.ndarray, "points 3"], w2c: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "points 3"]:
    """Points before the camera in the head's own axes, millimetres, its scale left as it is."""
    x_world = (x_camera - w2c[:3, 3]) @ w2c[:3, :3] * TO_OPENCV
    return np.asarray(head.turn(row).inv().apply(x_world - MM * head.translation[row]))
