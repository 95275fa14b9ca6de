"""One triangulation for every head: vertices, texture coordinates and expressions of ICT-FaceKit on our axes.

The table is independent of a prior's weights; `bind` finds it in the prior's template (whose surface points are some of
its vertices) and refuses a prior that was made on another one. `scripts/make_topology.py` makes the file.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from mononphm_core.errors import AssetError
from mononphm_core.model.template import TemplateHead

FILE = Path(__file__).resolve().parent.parent / "assets" / "topology" / "ict-head.npz"
FACE, NECK, MOUTH, LEFT_EYE, RIGHT_EYE = 0, 1, 2, 7, 8
"""Values of `Topology.part`."""
LEAST_MOTION = 0.1 / 250
LARGEST_MISFIT = 0.05 / 250
"""Between the template's expression tables and ours, head units: half precision and rounding stay below."""


@dataclass(frozen=True, eq=False)
class Topology:
    """A head with fixed triangles. Lengths in head units, canonical axes."""

    mean: Float[np.ndarray, "vertices 3"]
    """The average head in the canonical expression."""
    part: Int[np.ndarray, "vertices"]
    faces: Int[np.ndarray, "faces 3"]
    """Counter-clockwise seen from outside; eyeballs are spheres of their own."""
    corner_vertex: Int[np.ndarray, "corners"]
    """The vertex of each corner: vertices on a texture seam have several corners."""
    corner_uv: Float[np.ndarray, "corners 2"]
    """Texture coordinates in [0, 1], v upwards."""
    corner_faces: Int[np.ndarray, "faces 3"]
    """`faces` in terms of corners."""
    control_vertex: Int[np.ndarray, "controls"]
    """The vertex of each of the template's surface, ibug68 and anchors65 points; -1 below the neck's edge."""
    iris_vertex: Int[np.ndarray, "irises 3"]
    iris_share: Float[np.ndarray, "irises 3"]
    """Where the detector's ten iris points lie: five on the right eyeball, then five on the left."""
    expression_names: tuple[str, ...]
    expression: Float[np.ndarray, "shapes vertices 3"]
    """Displacement by one whole unit of each blendshape."""

    @functools.cached_property
    def skin(self) -> Bool[np.ndarray, "vertices"]:
        """All but the eyeballs."""
        return self.part < LEFT_EYE

    @functools.cached_property
    def expressive(self) -> Bool[np.ndarray, "vertices"]:
        """What some blendshape moves by more than a tenth of a millimetre."""
        return np.linalg.norm(self.expression, axis=-1).max(0) > LEAST_MOTION


@functools.cache
def load_topology(path: Path = FILE) -> Topology:
    """The table that ships with the program."""
    try:
        with np.load(path) as file:
            table = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise AssetError(f"the table of triangles {path.name} can't be read: {error}") from error
    names = tuple(str(name) for name in table["expression_names"])
    expression = np.zeros((len(names), len(table["mean"]), 3), np.float32)
    moved = table["expression_delta"] * table["expression_step"]
    expression[table["expression_shape"], table["expression_vertex"]] = moved
    return Topology(
        mean=table["mean"],
        part=table["part"].astype(np.int64),
        faces=table["faces"].astype(np.int64),
        corner_vertex=table["corner_vertex"].astype(np.int64),
        corner_uv=(table["corner_uv"] / 65535).astype(np.float32),
        corner_faces=table["corner_faces"].astype(np.int64),
        control_vertex=table["control_vertex"].astype(np.int64),
        iris_vertex=table["iris_vertex"].astype(np.int64),
        iris_share=table["iris_share"],
        expression_names=names,
        expression=expression,
    )


def fits(topology: Topology, template: TemplateHead | None, expression_names: tuple[str, ...]) -> bool:
    """Whether the template's points are this topology's vertices: their expressions must be the same to 0.05 mm."""
    if template is None or expression_names != topology.expression_names:
        return False
    rows = control_rows(template)
    if len(rows) != len(topology.control_vertex):
        return False
    known = topology.control_vertex >= 0
    theirs = template.expression_basis[rows][known].cpu().numpy().transpose(2, 0, 1)
    return bool(np.abs(theirs - topology.expression[:, topology.control_vertex[known]]).max() <= LARGEST_MISFIT)


def control_rows(template: TemplateHead) -> Int[np.ndarray, "controls"]:
    """Rows of the template in the order of `Topology.control_vertex`."""
    groups = [template.groups[name] for name in ("surface", "ibug68", "anchors65") if name in template.groups]
    return np.concatenate([np.arange(*span) for span in groups]) if groups else np.zeros(0, np.int64)
