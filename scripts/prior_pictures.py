"""Make the model card's pictures from the shipped weights: nothing selected, nothing retouched.

    .venv/bin/python scripts/prior_pictures.py --pictures docs/pictures [--data DATA]

`prior_samples.png`: random people. `prior_interpolation.png`: codes between two of them. `prior_expressions.png`: a few
blendshapes at 0, 0.5 and 1. `prior_directions.png`: one of them from eight directions. With the open head data also
`prior_fits.png`: codes fitted to unseen true heads, the true ones above.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from readme_picture import (
    AWAY,
    CENTRE,
    FACING,
    PERSON,
    SEED,
    SPREAD,
    Tile,
    beside,
    expression,
    picture_of,
    prior_samples,
)
from scipy.spatial.transform import Rotation

from mononphm_cli.evaluating.prior_exam import Exam
from mononphm_core import numerics
from mononphm_core.api import Model, extract_mesh, load_model
from mononphm_core.evaluation import prior_fit
from mononphm_core.training.appearance import Painter
from mononphm_core.training.sources import OpenHeads
from mononphm_core.training.unseen import Examiner
from mononphm_core.types import HeadMesh, IdentityCode, Intrinsics

FOCAL = PERSON[1] / 2 / np.tan(np.radians(11.5))
CAMERA = Intrinsics(FOCAL, FOCAL, PERSON[0] / 2, PERSON[1] / 2, *PERSON)
SWEEP = ({"eyeBlink": 1.0}, {"jawOpen": 1.0}, {"mouthSmile": 1.0}, {"mouthPress": 1.0})
"""Ends of the sweeps, both sides alike."""
FITTED, STEPS = 3, 120


def seen(mesh: HeadMesh, turn_deg: Sequence[float], coloured: bool) -> Tile:
    """A head turned about the camera's axes (x, y, z)."""
    x = Rotation.from_euler("xyz", turn_deg, degrees=True).apply((mesh.vertices - CENTRE) * FACING) + AWAY
    return picture_of(x, mesh, CAMERA, coloured)


def below(rows: Sequence[Tile], gap: int = 4) -> Tile:
    """Rows of tiles under each other."""
    white = np.full((gap, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (row, white)][:-1])


def people(model: Model, count: int) -> list[IdentityCode]:
    """The first random people of `prior_samples.png`."""
    draw = torch.Generator().manual_seed(SEED)
    d_geo, d_app, _ = model.latent_sizes
    return [
        IdentityCode(SPREAD * torch.randn(d_geo, generator=draw), SPREAD * torch.randn(d_app, generator=draw))
        for _ in range(count)
    ]


def interpolation(model: Model, resolution: int, steps: int = 6) -> Tile:
    """Straight lines between the codes of two people, in colour and in clay."""
    a, b = people(model, 2)
    between = [
        IdentityCode((1 - t) * a.z_geo + t * b.z_geo, (1 - t) * a.z_app + t * b.z_app)
        for t in np.linspace(0, 1, steps).tolist()
    ]
    meshes = [extract_mesh(model, who, model.neutral_expression(), resolution) for who in between]
    return below([beside([seen(mesh, (4, -14, 0), coloured) for mesh in meshes]) for coloured in (True, False)])


def expressions(model: Model, resolution: int) -> Tile:
    """A blendshape after the other at three weights; the mean person in clay."""
    assert model.card is not None
    rows = []
    for end in SWEEP:
        weights = [{name: t * w for name, w in end.items()} for t in (0.0, 0.5, 1.0)]
        codes = [expression(model.card.expression_names, w) for w in weights]
        meshes = [extract_mesh(model, model.mean_identity(), z, resolution) for z in codes]
        rows.append(beside([seen(mesh, (0, 0, 0), False) for mesh in meshes]))
    return below([beside(rows[:2]), beside(rows[2:])])


def directions(model: Model, resolution: int) -> Tile:
    """Every 45 degrees about the vertical axis."""
    mesh = extract_mesh(model, people(model, 1)[0], model.neutral_expression(), resolution)
    tiles = [seen(mesh, (4, angle, 0), False) for angle in range(0, 360, 45)]
    return below([beside(tiles[:4]), beside(tiles[4:])])


def fits(model: Model, data: Path, resolution: int) -> Tile:
    """True unseen heads (canonical, mouth a little open) above the heads of the codes fitted to their surfaces."""
    heads = OpenHeads(data)
    true = Examiner(heads, Painter(data, heads), 0)
    canonical = [true.person(i) for i in range(FITTED)]
    z_geo = prior_fit.fit_identity(model.network, Exam(model.network, true, STEPS).scan(canonical), STEPS)
    still, colours = torch.from_numpy(heads.z_canonical), model.mean_identity().z_app
    fitted = [extract_mesh(model, IdentityCode(z, colours), still, resolution) for z in z_geo]
    above = [HeadMesh(x, true.triangles.astype(np.int64)) for x in canonical]
    return below([beside([seen(mesh, (4, -14, 0), False) for mesh in row]) for row in (above, fitted)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures of the model card.")
    parser.add_argument("--pictures", type=Path, default=Path("docs/pictures"), help="where they go")
    parser.add_argument("--data", type=Path, help="open head data, for the fits to unseen heads")
    parser.add_argument("--resolution", type=int, default=144, help="cells along the longest side of the box")
    given = parser.parse_args()
    numerics.warm_up()
    model = load_model()
    made: dict[str, Callable[[], Tile]] = {
        "prior_expressions.png": lambda: expressions(model, given.resolution),
        "prior_directions.png": lambda: directions(model, given.resolution),
        "prior_interpolation.png": lambda: interpolation(model, given.resolution),
        "prior_samples.png": lambda: prior_samples(model, given.resolution),
    }
    if given.data is not None:
        made["prior_fits.png"] = lambda: fits(model, given.data, given.resolution)
    for name, picture in made.items():
        Image.fromarray(picture()).save(given.pictures / name, optimize=True)
        print(f"{given.pictures / name}: {(given.pictures / name).stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
