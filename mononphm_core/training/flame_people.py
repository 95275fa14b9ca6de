"""A FLAME file (Li et al. 2017) as a source of training people: its mean head and its shape components.

The template is registered to FLAME's mean head by the landmarks and nearest points; shape components are carried over,
less what moves the whole head. FLAME's expressions and jaw are not taken: the 53 named blendshapes keep their meaning.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mononphm_core.errors import AssetError
from mononphm_core.io.flame import Flame, LandmarkEmbedding
from mononphm_core.training.people import WIDEST, People, eye_motion, on_vertices, without_motion
from mononphm_core.training.registration import Registration, Source, Template, register

LICENCE = (
    "includes people of a FLAME file: FLAME's own licence (flame.is.tue.mpg.de) rules these weights. Most editions "
    "forbid commercial use and passing the model or what is derived from it on"
)
SKIN_PARTS = 5
"""Face, head and neck, mouth cavity, eye sockets; eyeballs and the rest come after them."""
LEAST_TRUSTED, FARTHEST_MM = 0.8, 2.0
"""Of the skin that every head shows, and of the landmarks; beyond them the landmarks are of another mesh."""
Arrays = dict[str, np.ndarray]
TRIED = 40
"""Random people whose triangles are looked at."""


@dataclass(frozen=True)
class Report:
    """How well the carrying went."""

    components: int
    trusted: float
    """Share of face, head and neck that found its own place on FLAME; the rest follows its neighbours."""
    landmarks_mm: float
    """Mean distance between FLAME's landmarks and where ours lie now."""
    spread_mm: float
    """Root mean square distance of random people from the mean one, face."""
    folded: float
    """Share of the face's triangles that turn by more than 90 degrees on random people."""
    lids_mm: float
    """Mean change of the distance between lids and eyeball, random people, against ICT's neutral head."""


def flame_people(data: Path, flame: Flame, embedding: LandmarkEmbedding) -> tuple[People, Report]:
    """FLAME's people on the skin of `data`. AssetError when the landmarks do not lie on this mesh as on a face."""
    ict = _ict(data)
    template = _template(ict)
    source = Source(
        flame.v_template.numpy(), flame.faces.numpy(), embedding.faces.numpy(), embedding.barycentrics.numpy()
    )
    found = register(template, source)
    balls = [ict["neutral"][ict["vert_part"] == side] for side in (7, 8)]
    mean = found.x - template.x
    carried = found.carry(flame.shape_dirs.numpy().transpose(2, 0, 1))
    components = without_motion(carried, found.x, template.outer)
    fields = np.concatenate([mean[None], components])
    eyes = np.stack([eye_motion(fields, template.x, ball) for ball in balls], 1)
    people = People("flame", LICENCE, mean.astype(np.float32), components.astype(np.float32), eyes.astype(np.float32))
    report = _report(people, found, source, ict)
    if report.trusted < LEAST_TRUSTED or report.landmarks_mm > FARTHEST_MM:
        raise AssetError(
            f"only {report.trusted:.0%} of the skin found its place on FLAME, landmarks {report.landmarks_mm:.1f} mm "
            "off: give the landmarks of this very mesh, iBUG-68 in their order"
        )
    return people, report


def _report(people: People, found: Registration, source: Source, ict: Arrays) -> Report:
    template = found.template
    there = found.scale * source.marks[-51:] @ found.rotation.T + found.translation
    off = np.linalg.norm(found.x[template.marks[-51:]] - there, axis=1)
    used = np.arange(len(ict["neutral"]))
    mean, components = on_vertices(people, ict["neutral"], ict["vert_part"], used)
    rng = np.random.default_rng(0)
    weights = np.clip(rng.standard_normal((TRIED, len(components))), -WIDEST, WIDEST).astype(np.float32)
    average = ict["neutral"] + mean
    heads = average + np.einsum("pk,kvc->pvc", weights, components)
    face = np.flatnonzero(ict["vert_part"] == 0)
    triangles = template.triangles[(ict["vert_part"][template.triangles] == 0).all(1)]
    turned = (_directions(heads, triangles) * _directions(average[None], triangles)).sum(-1) < 0
    return Report(
        len(components), float(found.trusted[template.outer].mean()), 10 * float(off.mean()),
        10 * float(np.sqrt(np.square(heads - average)[:, face].sum(-1).mean())), float(turned.mean()),
        10 * _lids_change(ict, heads),
    )  # fmt: skip


def _directions(x: np.ndarray, triangles: Int[np.ndarray, "triangles 3"]) -> np.ndarray:
    """Normals, not of unit length, of the triangles of several heads."""
    corner = x[:, triangles]
    found: np.ndarray = np.cross(corner[:, :, 1] - corner[:, :, 0], corner[:, :, 2] - corner[:, :, 0])
    return found


def _lids_change(ict: Arrays, heads: np.ndarray) -> float:
    """Of the distance between the eye's landmarks (36 to 47) and the eyeball, mean over heads; cm."""
    changes = []
    for part, marks in ((8, range(36, 42)), (7, range(42, 48))):
        ball, rim = ict["vert_part"] == part, ict["ibug68_jaw_alt"][list(marks)]

        def gap(x: np.ndarray, ball: np.ndarray = ball, rim: np.ndarray = rim) -> np.ndarray:
            centre = x[..., ball, :].mean(-2, keepdims=True)
            radius = np.linalg.norm(x[..., ball, :] - centre, axis=-1).mean(-1, keepdims=True)
            between: np.ndarray = np.linalg.norm(x[..., rim, :] - centre, axis=-1) - radius
            return between

        changes.append(np.abs(gap(heads) - gap(ict["neutral"])).mean())
    return float(np.mean(changes))


def _template(ict: Arrays) -> Template:
    skin = int((ict["vert_part"] < SKIN_PARTS).sum())
    triangles = ict["tri"][(ict["tri"] < skin).all(1)]
    return Template(ict["neutral"][:skin], triangles, ict["ibug68_jaw_alt"], ict["vert_part"][:skin] < 2)


def _ict(data: Path) -> Arrays:
    try:
        with np.load(data / "ict_facekit.npz") as file:
            whole = {name: file[name].astype(np.int64) for name in ("tri", "vert_part", "ibug68_jaw_alt")}
            return {"neutral": file["neutral"].astype(np.float64)} | whole
    except FileNotFoundError as missing:
        raise AssetError(
            f"{missing.filename} is needed: FLAME is carried to it. `mononphm train data` makes it"
        ) from missing
