"""Measure the face mesh's systematic bias against the model's points, on rendered heads that nobody tests with.

    python scripts/landmark_bias.py render --data DIR --points mediapipe478_on_ict.npz --people 0 70 --out a.npz
    python scripts/landmark_bias.py fit a.npz b.npz ... --out mononphm_core/assets/landmarks/face_mesh_bias.npz

`render`: DIR holds the open head data that `mononphm train` learns from. Every person has four pictures: random shape,
expression, complexion, light, background, focal length and turn (yaw to 42 degrees); 320 px wide, about two seconds
each. `fit` prints the error before and after on every fifth person, who is left out for that, then fits all.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from mononphm_core import numerics
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.meshing.raster import rasterise
from mononphm_core.preprocessing.bias import features, similarity
from mononphm_core.preprocessing.finder import Finder
from mononphm_core.preprocessing.landmarks import aligned
from mononphm_core.preprocessing.outlines import INNER_LIPS, LIPS
from mononphm_core.rendering.light import sh_basis
from mononphm_core.training.appearance import Appearance, Painter
from mononphm_core.training.sources import HeadSample, OpenHeads, sample_expression
from mononphm_core.types import HeadMesh, Intrinsics

SIDE, VIEWS = 320, 4
SEED = 515
"""People are drawn from [515, number]: no training or test head is."""
FACE_UNITS, CENTRE = 0.80, np.array([0.0, -0.05, 0.1])
DIRECTIONS, RIDGE = 15, 40.0
NOSE = (168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327, 64, 294, 48, 278)
EYES = (
    *(33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    *(362, 382, 381, 380, 374, 373, 390, 249, 263, 466, 388, 387, 386, 385, 384, 398),
)
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 46, 53, 52, 65, 55, 285, 295, 282, 283, 276)
SHARES = {"nose": 1.0, "rest": 0.5, "eyes, mouth": 0.0, "brows": 0.0}
"""Of the offset, by what it was worth on five other rendered people: the nose gains on all of them, cheeks and outline
gain on wide faces and lose on plain ones, eyes and mouth hardly change, and brows depend on how they were painted."""


@dataclass(frozen=True)
class Studio:
    """What every picture needs."""

    heads: OpenHeads
    painter: Painter
    corner: np.ndarray
    """Vertex rows of every face-mesh point's triangle; -1 where our heads lack it."""
    bary: np.ndarray

    @staticmethod
    def of(data: Path, points: Path) -> "Studio":
        heads, table = OpenHeads(data), np.load(points)
        corner = heads.ict_to_ours[table["vertex_index"]]
        return Studio(heads, Painter(data, heads), corner, table["bary"].astype(np.float64))


def shoot(
    studio: Studio, rng: np.random.Generator, head: HeadSample, look: Appearance
) -> tuple[UInt8[np.ndarray, "side side 3"], Float[np.ndarray, "478 2"]]:
    """One picture, and the pixels of the model's points in it."""
    heads, painter = studio.heads, studio.painter
    quiet = rng.random() >= 0.75
    names = heads.expression_names
    weights = np.zeros(len(names)) if quiet else sample_expression(rng, names) * rng.uniform(0.3, 1)
    x = head.neutral + np.tensordot(weights, heads.expression, 1)
    angles = [rng.uniform(-42, 42), rng.normal(0, 9), rng.normal(0, 6)]
    turn = np.diag([1.0, -1.0, -1.0]) @ Rotation.from_euler("YXZ", angles, degrees=True).as_matrix()
    focal = SIDE * rng.uniform(1.1, 3.4)
    away = focal * FACE_UNITS / (rng.uniform(0.45, 0.72) * SIDE)
    shift = np.array([*(rng.uniform(-0.06, 0.06, 2) * away / focal * SIDE), away]) - turn @ CENTRE
    camera = x @ turn.T + shift
    raster = rasterise(camera, painter.triangles, Intrinsics(focal, focal, SIDE / 2, SIDE / 2, SIDE, SIDE))
    seen = raster.covered
    triangle, bary = raster.face_index[seen], raster.barycentric[seen]
    points = painter.at(triangle, bary.astype(np.float32))
    albedo = painter.paint(look, points).astype(np.float64) ** 2.2
    normal = vertex_normals(HeadMesh(camera, painter.triangles))[painter.triangles[triangle]]
    normal = np.einsum("pk,pkc->pc", bary, normal) * [1, -1, -1]
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    image = background(rng)
    image[seen] = albedo * light(rng, normal) + gloss(rng, normal, points.part >= 7)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.45, 0.8))
    noisy = np.clip(image, 0, 1) ** (1 / 2.2) + rng.normal(0, rng.uniform(0.003, 0.015), image.shape)
    on_skin = np.einsum("pkc,pk->pc", x[studio.corner], studio.bary) @ turn.T + shift
    pixels = on_skin[:, :2] / on_skin[:, 2:] * focal + SIDE / 2
    return np.clip(noisy * 255 + 0.5, 0, 255).astype(np.uint8), pixels


def background(rng: np.random.Generator) -> Float[np.ndarray, "side side 3"]:
    """Soft coloured blots, linear."""
    blots = rng.uniform(0, 1, (int(rng.integers(2, 24)),) * 2 + (3,)).astype(np.float32) * rng.uniform(0.3, 1)
    return cv2.resize(blots, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 1).astype(np.float64) ** 2.2


def light(rng: np.random.Generator, normal: Float[np.ndarray, "pixels 3"]) -> Float[np.ndarray, "pixels 3"]:
    """Irradiance: a sky and one side."""
    side = rng.normal((0.0, 0.5, 0.0))
    side[2] = abs(side[2]) + 0.3
    sh = np.zeros((9, 3))
    sh[0], sh[1:4] = rng.uniform(0.35, 0.7), (rng.uniform(0.2, 0.8) * side / np.linalg.norm(side))[:, None]
    sh *= np.exp(rng.normal(0, 0.06, 3))
    sh[4:] = rng.normal(0, 0.05, (5, 1))
    return np.maximum(sh_basis(torch.from_numpy(normal)).numpy() @ sh, 0.03)


def gloss(rng: np.random.Generator, normal: Float[np.ndarray, "pixels 3"], eye: np.ndarray) -> np.ndarray:
    """Highlights of wet eyes and of skin."""
    half = np.array([rng.normal(0, 0.3), rng.normal(0.3, 0.2), 1.0])
    cosine = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1)
    return np.where(eye, 0.7 * cosine**150, 0.05 * cosine**18)[:, None]


def render(studio: Studio, first: int, last: int, out: Path) -> None:
    """Pictures of people [first, last), and where the detector and the truth put the points."""
    people, detected, true = [], [], []
    with Finder() as finder:
        for person in range(first, last):
            rng = np.random.default_rng([SEED, person])
            head, look = studio.heads.sample(rng, wide=0.6), studio.painter.sample(rng)
            for _ in range(VIEWS):
                rgb, pixels = shoot(studio, rng, head, look)
                faces = finder.faces(rgb)
                if not faces:
                    continue
                points = finder.steady(rgb, max(faces, key=lambda face: face.box.area).points)
                if np.median(np.linalg.norm(points - pixels, axis=1)) < 0.1 * np.ptp(points[:, 1]):
                    people.append(person), detected.append(points), true.append(pixels)
    known = (studio.corner >= 0).all(axis=1)
    np.savez_compressed(out, person=people, detected=detected, true=true, known=known)


def fit(tables: list[Path], out: Path) -> None:
    """Principal directions of the detected shapes, ridge regression of the offsets on them."""
    loaded = [np.load(path) for path in tables]
    person, detected, true = (np.concatenate([t[name] for t in loaded]) for name in ("person", "detected", "true"))
    known = loaded[0]["known"]
    mean = detected[0] - detected[0].mean(axis=0)
    for _ in range(3):
        mean = np.mean([aligned(points, mean) for points in detected], axis=0)
        mean = (mean - mean.mean(axis=0)) / np.ptp(mean[:, 1])
    shapes, offsets = [], []
    for points, truth in zip(detected, true, strict=True):
        shape = aligned(points, mean)
        moved = ((truth - points) @ np.array([1, 1j])) * similarity(points, shape)
        shapes.append((shape - mean).ravel())
        offsets.append((np.stack([moved.real, moved.imag], axis=1) * known[:, None]).ravel())
    x, y = np.array(shapes), np.array(offsets)
    held = person % 5 == 0
    basis, spread, table = regression(x[~held], y[~held])
    left = y[held] - features(x[held] @ basis.T / spread) @ table
    for name, error in (("before", y[held]), ("after", left)):
        print(name, np.linalg.norm(error.reshape(len(error), -1, 2)[:, known], axis=-1).mean().round(5), "heights")
    basis, spread, table = regression(x, y)
    share = np.full(478, SHARES["rest"])
    share[list(NOSE)], share[list(BROWS)] = SHARES["nose"], SHARES["brows"]
    share[[*EYES, *LIPS, *INNER_LIPS]] = SHARES["eyes, mouth"]
    share[~known] = 0.0
    arrays = {"mean": mean, "basis": basis, "spread": spread, "table": table, "share": share}
    np.savez_compressed(out, **{name: array.astype(np.float32) for name, array in arrays.items()})


def regression(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions, their standard deviations, and the table."""
    _, sizes, directions = np.linalg.svd(x, full_matrices=False)
    basis, spread = directions[:DIRECTIONS], sizes[:DIRECTIONS] / np.sqrt(len(x))
    phi = features(x @ basis.T / spread)
    ridge = RIDGE * np.eye(phi.shape[1])
    ridge[0, 0] = 1e-6
    return basis, spread, np.linalg.solve(phi.T @ phi + ridge, phi.T @ y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    one = steps.add_parser("render")
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("--points", type=Path, required=True)
    one.add_argument("--people", type=int, nargs=2, required=True)
    two = steps.add_parser("fit")
    two.add_argument("tables", type=Path, nargs="+")
    for step in (one, two):
        step.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    numerics.warm_up(1)
    if given.step == "render":
        render(Studio.of(given.data, given.points), *given.people, given.out)
    else:
        fit(given.tables, given.out)


if __name__ == "__main__":
    main()
