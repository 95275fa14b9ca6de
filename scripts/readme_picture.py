"""Make the pictures of the README and of the model card from a reconstruction and from the model, nothing retouched.

    .venv/bin/mononphm reconstruct examples/sample.mp4 -o out/sample
    .venv/bin/python scripts/readme_picture.py out/sample --clip examples/sample.mp4 --pictures docs/pictures

`first_screen.png`: a frame of the clip, the mesh over it, the mesh coloured and in clay, and the same person with
an expression written as blendshape weights. `prior_samples.png`: random people of the prior, in colour and in clay.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial.transform import Rotation

from mononphm_core import numerics
from mononphm_core.api import Model, extract_mesh, load_model
from mononphm_core.config import FrameSelection, MediaLimits
from mononphm_core.io.media import read_clip
from mononphm_core.io.mesh_files import read_mesh
from mononphm_core.io.preview import BACKGROUND, View, paint
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.meshing.raster import rasterise
from mononphm_core.meshing.shade import crease_shade
from mononphm_core.types import MM_PER_UNIT, Frame, HeadMesh, IdentityCode, Intrinsics

TILE = (288, 368)
"""Width and height of a tile of the first picture, pixels."""
PERSON = (216, 264)
"""The same of the second."""
PEOPLE, SPREAD, SEED = 6, 0.8, 7
"""Random people, the standard deviation of their codes (1 in training), start of the random numbers."""
NEW_EXPRESSION = {
    "mouthSmile": 0.85, "cheekSquint": 0.45, "mouthUpperUp": 0.2, "mouthDimple": 0.2,
    "browInnerUp": 0.9, "browOuterUp": 0.9, "eyeWide": 0.25, "jawOpen": 0.12,
}  # fmt: skip
"""Blendshape weights, both sides alike."""
SHOWN_TURN_DEG = (4.0, -24.0, 0.0)
"""How the head with the new expression is turned against the clip's frame, about the camera's x, y, z."""

KEY_LIGHT = np.array([-0.45, -0.50, -0.74])
"""Direction to the key light, camera axes: above, from the picture's left. The rest comes from the sky."""
CENTRE, AWAY = np.array([0.0, 0.03, -0.1]), np.array([0.0, 0.0, 2.7])
"""The middle of a head, and where the camera sees it, head units."""
FACING = np.array([1.0, -1.0, -1.0])
"""Posed head axes to those of a camera that the face looks into."""

Tile = UInt8[np.ndarray, "height width 3"]


def expression(names: Sequence[str], weights: dict[str, float]) -> Float[torch.Tensor, "d_exp"]:
    """The code of named blendshapes; a name without a side means both."""
    return torch.tensor([weights.get(name.removesuffix("_L").removesuffix("_R"), 0.0) for name in names])


def picture_of(x_camera: Float[np.ndarray, "vertices 3"], mesh: HeadMesh, camera: Intrinsics, coloured: bool) -> Tile:
    """A lit view of a mesh whose vertices are given in the camera frame, drawn at twice the size and averaged."""
    large = Intrinsics(2 * camera.fx, 2 * camera.fy, 2 * camera.cx, 2 * camera.cy, 2 * camera.width, 2 * camera.height)
    raster = rasterise(x_camera, mesh.faces, large)
    normal = raster.interpolate(vertex_normals(replace(mesh, vertices=x_camera)), mesh.faces)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    normal = np.where(normal[..., 2:] > 0, -normal, normal)  # an open neck shows its inside
    key = np.clip((normal @ KEY_LIGHT + 0.2) / 1.2, 0.0, 1.0)
    light = 0.20 - 0.12 * normal[..., 1] + 0.80 * key
    colours = np.full((len(x_camera), 3), 0.72) if mesh.colours is None or not coloured else mesh.colours / 255
    surface = raster.interpolate(colours, mesh.faces) ** 2.2 * (light * crease_shade(raster) ** 0.5)[..., None]
    image = np.where(raster.covered[..., None], np.clip(surface, 0.0, 1.0) ** (1 / 2.2), BACKGROUND)
    image = image.reshape(camera.height, 2, camera.width, 2, 3).mean((1, 3))
    return np.rint(255 * image).astype(np.uint8)


def labelled(tile: Tile, words: str) -> Tile:
    """A tile with a line of words below it."""
    strip = Image.new("RGB", (tile.shape[1], 26), "white")
    ImageDraw.Draw(strip).text((tile.shape[1] / 2, 13), words, "#333333", ImageFont.load_default(14), anchor="mm")
    return np.concatenate([tile, np.asarray(strip)])


def beside(tiles: Sequence[Tile], gap: int = 4) -> Tile:
    """Tiles in a row."""
    white = np.full((tiles[0].shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, white)][:-1], axis=1)


def chosen_row(
    accepted: Sequence[bool], z_exp: Float[np.ndarray, "frames d_exp"], frame: int | None, index: Sequence[int]
) -> int:
    """The asked frame, else the accepted one with the strongest expression."""
    if frame is not None:
        return list(index).index(frame)
    strength = np.linalg.norm(z_exp, axis=1) * np.where(np.any(accepted), accepted, True)
    return int(strength.argmax())


def view_around(x_camera: Float[np.ndarray, "vertices 3"], camera: Intrinsics) -> View:
    """The part of the picture round the head, in the proportions of a tile and inside the picture."""
    pixels = x_camera[:, :2] / x_camera[:, 2:] * [camera.fx, camera.fy] + [camera.cx, camera.cy]
    low, high = pixels.min(0), pixels.max(0)
    height = 1.22 * max(high[1] - low[1], (high[0] - low[0]) * TILE[1] / TILE[0])
    height = min(height, camera.height, camera.width * TILE[1] / TILE[0])
    width = height * TILE[0] / TILE[1]
    left = np.clip((low[0] + high[0] - width) / 2, 0, camera.width - width)
    top = np.clip((low[1] + high[1] - height) / 2, 0, camera.height - height)
    return View(float(left), float(top), float(width), float(height), *TILE)


def first_screen(model: Model, folder: Path, clip: Path, frame: int | None, resolution: int) -> Tile:
    """Input, overlay, colour, clay, new expression."""
    codes, person = np.load(folder / "expressions.npz"), np.load(folder / "identity.npz")
    camera_file = json.loads((folder / "cameras.json").read_text())
    row = chosen_row(codes["accepted"], codes["z_exp"], frame, codes["frame_index"].tolist())
    index = int(codes["frame_index"][row])
    camera = Intrinsics(*(camera_file[key] for key in ("fx", "fy", "cx", "cy", "width", "height")))
    w2c = np.array(next(f["w2c"] for f in camera_file["frames"] if f["frame_index"] == index))
    mesh = read_mesh(folder / "meshes" / f"frame_{index:05d}.ply")
    x_camera = mesh.vertices.astype(np.float64) @ w2c[:3, :3].T + w2c[:3, 3]
    view = view_around(x_camera, camera)
    small = view.camera(camera)
    panes = paint(picture_from(clip, index), mesh, camera, w2c, view)

    assert model.card is not None
    z_exp = expression(model.card.expression_names, NEW_EXPRESSION)
    codes_of_person = IdentityCode(torch.from_numpy(person["z_geo"]), torch.from_numpy(person["z_app"]))
    new = extract_mesh(model, codes_of_person, z_exp, resolution)
    posed_mm = new.vertices * MM_PER_UNIT - codes["translation"][row]
    x_new = posed_mm @ codes["rotation"][row] / codes["scale"][row] @ w2c[:3, :3].T + w2c[:3, 3]
    middle = (x_camera.min(0) + x_camera.max(0)) / 2
    x_new = Rotation.from_euler("xyz", SHOWN_TURN_DEG, degrees=True).apply(x_new - middle) + middle
    tiles = {
        f"frame {index} of the clip": panes.picture,
        "mesh over it": panes.overlay,
        "mesh with its colours": picture_of(x_camera, mesh, small, coloured=True),
        "mesh in clay": picture_of(x_camera, mesh, small, coloured=False),
        "another expression": picture_of(x_new, new, small, coloured=True),
    }
    return beside([labelled(tile, words) for words, tile in tiles.items()])


def picture_from(clip: Path, index: int) -> Frame:
    """The decoded frame with this number."""
    frames = read_clip(clip, FrameSelection(), MediaLimits()).frames
    return next(frame for frame in frames if frame.frame_index == index)


def prior_samples(model: Model, resolution: int) -> Tile:
    """Random people of the prior: above in colour, below in clay."""
    draw = torch.Generator().manual_seed(SEED)
    focal = PERSON[1] / 2 / np.tan(np.radians(11.5))
    camera = Intrinsics(focal, focal, PERSON[0] / 2, PERSON[1] / 2, *PERSON)
    turn = Rotation.from_euler("xyz", (4.0, -14.0, 0.0), degrees=True)
    pairs: list[list[Tile]] = []
    for number in range(PEOPLE):
        z_geo, z_app = (SPREAD * torch.randn(size, generator=draw) for size in model.latent_sizes[:2])
        mesh = extract_mesh(model, IdentityCode(z_geo, z_app), model.neutral_expression(), resolution)
        x_camera = turn.apply((mesh.vertices - CENTRE) * FACING) + AWAY
        pairs.append([picture_of(x_camera, mesh, camera, coloured) for coloured in (True, False)])
        print(f"person {number + 1} of {PEOPLE}", flush=True)
    coloured, clay = (beside(row) for row in zip(*pairs, strict=True))
    return np.concatenate([coloured, np.full((4, coloured.shape[1], 3), 255, np.uint8), clay])


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures of the README.")
    parser.add_argument("folder", type=Path, help="what `mononphm reconstruct -o FOLDER` left")
    parser.add_argument("--clip", type=Path, default=Path("examples/sample.mp4"), help="its input")
    parser.add_argument("--pictures", type=Path, default=Path("docs/pictures"), help="where the pictures go")
    parser.add_argument(
        "--frame", type=int, help="which tracked frame; by default the one with the strongest expression"
    )
    parser.add_argument("--resolution", type=int, default=160, help="cells along the longest side of the box")
    given = parser.parse_args()
    numerics.warm_up()
    model = load_model(json.loads((given.folder / "manifest.json").read_text())["model"]["name"])
    given.pictures.mkdir(parents=True, exist_ok=True)
    made = {
        "first_screen.png": first_screen(model, given.folder, given.clip, given.frame, given.resolution),
        "prior_samples.png": prior_samples(model, given.resolution),
    }
    for name, picture in made.items():
        Image.fromarray(picture).save(given.pictures / name, optimize=True)
        print(f"{given.pictures / name}: {(given.pictures / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
