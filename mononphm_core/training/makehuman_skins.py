"""`skins/`, as training reads it, from MakeHuman's skin pictures (CC0): resampled into ICT-FaceKit's texture layout.

Each texel of ICT's face and back-of-head tiles is a point of the average head; the nearest point of MakeHuman's own
average head says where on its picture to look. Brows, lips and lash lines are masks of ours (CC0), which ship.
"""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, UnidentifiedImageError

from mononphm_core.errors import AssetError
from mononphm_core.meshing.texels import outwards, texture_raster
from mononphm_core.training.makehuman import Cells, Table, load_table, placed
from mononphm_core.training.makehuman_files import body_quads, find, unfetched

TILES = {"face": (0, 1024), "backhead": (1, 512)}
"""Name -> first u of the tile in ICT's layout, and pixels of the picture we write."""
SKINS = (
    "middleage_darkskinned_female", "middleage_darkskinned_male", "middleage_lightskinned_female2",
    "middleage_lightskinned_male", "middleage_lightskinned_male2", "old_darkskinned_female", "old_darkskinned_male",
    "old_lightskinned_male2", "young_darkskinned_male", "young_lightskinned_female2", "young_lightskinned_female3",
    "young_lightskinned_male", "young_lightskinned_male2", "young_lightskinned_male3",
)  # fmt: skip
"""The skins of the shipped prior: MakeHuman's without eyebrows or clothes painted on."""
ADVICE = "give a checkout of github.com/makehumancommunity/makehuman-assets with --skins"
LARGEST = 2048
"""Pixels a side: originals may have more than the tiles can show."""
QUALITY = 92
SOCKETS = {2: (108, 40, 39), 3: (167, 107, 96), 4: (167, 107, 96)}
"""Even tones of what MakeHuman paints elsewhere: the mouth's cavity and the eye sockets, by ICT's part."""
INNER_LIPS = slice(60, 68)
"""iBUG-68."""
MOUTH_CM, BEHIND_CM = np.array([2.2, 1.6, 6.0]), 0.6
"""Half the cavity's width, height and depth, and how far behind the lips it begins."""
LOWEST_DM = 5.0
"""Of MakeHuman's body: what hangs lower is no neck."""


@dataclass(frozen=True)
class Lookup:
    """Where on MakeHuman's picture each texel of a tile looks."""

    uv: Float[np.ndarray, "size size 2"]
    """v upwards; texels beside the charts look where the nearest one in a chart does."""
    part: Int[np.ndarray, "size size"]
    """ICT's part under the texel."""


def rebuild(skins: Path, folder: Path, data: Path, table: Table | None = None) -> list[Path]:
    """Write `data`/skins from the pictures under `skins`, the meshes in `folder` and `data`'s shapes.

    Raises AssetError when a picture is missing or only a pointer that git has not fetched.
    """
    table = table or load_table()
    pictures = {name: _picture(skins, name) for name in SKINS}
    lookups = tiles(folder, data, table)
    target = data / "skins"
    target.mkdir(parents=True, exist_ok=True)
    made = []
    for name, picture in pictures.items():
        pixels = _pixels(picture)
        for tile, lookup in lookups.items():
            made.append(target / f"{name}_{tile}.jpg")
            colours = sampled(pixels, lookup.uv)
            for part, colour in SOCKETS.items():
                colours[lookup.part == part] = colour
            Image.fromarray(colours).save(made[-1], quality=QUALITY)
    made += masks(target)
    made.append(_eyes(np.load(data / "ict_facekit.npz"), table, target / "vertex_extras.npz"))
    return made


def tiles(folder: Path, data: Path, table: Table) -> dict[str, Lookup]:
    """Both tiles of ICT's layout."""
    import igl

    known = table.known
    ict, shapes = np.load(data / "ict_facekit.npz"), np.load(data / "makehuman_shapes.npz")
    skin = known["skin_vertices"]
    head = ict["neutral"][:skin].astype(np.float64) + shapes["displacement"][0]
    files = find(folder, known["polygons_sha256"], known["body_vertices"])
    quads, texture = body_quads(files.base, known["body_vertices"])
    x = np.ascontiguousarray(placed(Cells(files, np.arange(len(files.base.x))).average(), known["average"]))
    seen = (files.base.x[quads][..., 1] > LOWEST_DM).all(1) & ~_in_mouth(
        x[quads].mean(1), head[ict["ibug68"][INNER_LIPS]]
    )
    cut = np.array([[0, 1, 2], [0, 2, 3]])
    corners, texture = (part[seen][:, cut].reshape(-1, 3) for part in (quads, texture))
    found = {}
    for tile, (shift, size) in TILES.items():
        rows = np.isin(ict["tri_part"], (0, 1, *SOCKETS))
        uv = ict["uv"][ict["tri_uv"][rows]].astype(np.float64) - [shift, 0]
        here = (uv.min((1, 2)) >= 0) & (uv.max((1, 2)) <= 1)
        triangle, share = rasterise(uv[here], size)
        inside = triangle >= 0
        points = np.einsum("pk,pkc->pc", share[inside], head[ict["tri"][rows][here][triangle[inside]]])
        _, at, foot = igl.point_mesh_squared_distance(np.ascontiguousarray(points), x, corners)
        a, b, c = (np.ascontiguousarray(x[corners[at][:, k]]) for k in range(3))
        bary = igl.barycentric_coordinates(np.ascontiguousarray(foot), a, b, c)
        looked = np.zeros((size, size, 2))
        looked[inside] = np.einsum("pk,pkc->pc", np.nan_to_num(bary, nan=1 / 3), files.base.uv[texture[at]])
        sockets = np.zeros((size, size), np.int64)
        sockets[inside] = ict["tri_part"][rows][here][triangle[inside]]
        found[tile] = Lookup(outwards(looked, inside), outwards(sockets, inside))
    return found


def _in_mouth(centre: Float[np.ndarray, "quads 3"], lips: Float[np.ndarray, "8 3"]) -> Bool[np.ndarray, "quads"]:
    """Behind the lips: gums and teeth are painted there, which a lip's inside would find nearest."""
    away = centre - lips.mean(0)
    return (np.abs(away) < MOUTH_CM).all(1) & (away[:, 2] < -BEHIND_CM)


def rasterise(
    uv: Float[np.ndarray, "triangles 3 2"], size: int
) -> tuple[Int[np.ndarray, "size size"], Float[np.ndarray, "size size 3"]]:
    """Triangle under each texel's centre (-1: none) and its barycentric coordinates there; row 0 is v = 1."""
    found = texture_raster(uv.reshape(-1, 2), np.arange(3 * len(uv)).reshape(-1, 3), size, size)
    return found.face_index, found.barycentric


def sampled(
    pixels: UInt8[np.ndarray, "height width 3"], uv: Float[np.ndarray, "size size 2"]
) -> UInt8[np.ndarray, "size size 3"]:
    """Bilinear; v points up."""
    height, width = pixels.shape[:2]
    x = np.clip(uv[..., 0] * width - 0.5, 0, width - 1.001).astype(np.float32)
    y = np.clip((1 - uv[..., 1]) * height - 0.5, 0, height - 1.001).astype(np.float32)
    i, j = y.astype(np.int64), x.astype(np.int64)
    fy, fx = (y - i)[..., None], (x - j)[..., None]
    over = (1 - fx) * pixels[i, j] + fx * pixels[i, j + 1]
    under = (1 - fx) * pixels[i + 1, j] + fx * pixels[i + 1, j + 1]
    return np.round((1 - fy) * over + fy * under).astype(np.uint8)


def masks(target: Path) -> list[Path]:
    """Brows, lips and lash lines as pictures, alpha."""
    file = resources.files("mononphm_core") / "assets" / "training" / "skin_masks.npz"
    with file.open("rb") as stream:
        found = dict(np.load(stream))
    paths = []
    for name, alpha in found.items():
        paths.append(target / f"mask_{name}.png")
        Image.fromarray(alpha).save(paths[-1], optimize=True)
    return paths


def _picture(skins: Path, name: str) -> Path:
    """middleage_lightskinned_male2 is published as middleage_lightskinned_male_diffuse2.png."""
    number = name[-1] if name[-1].isdigit() else ""
    file = f"{name.removesuffix(number)}_diffuse{number}.png"
    found = sorted(skins.rglob(file))
    if not found:
        raise AssetError(f"{skins} holds no {file}; {ADVICE}")
    if advice := unfetched(found[0]):
        raise AssetError(f"{found[0]}: {advice}")
    return found[0]


def _pixels(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    try:
        with Image.open(path) as image:
            whole = image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise AssetError(f"{path} is no picture that can be read: {error}") from error
    whole.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return np.asarray(whole)


def _eyes(ict: Any, table: Table, path: Path) -> Path:
    """What painting irises needs: the right eye mirrors the left one."""
    local = np.zeros((len(ict["neutral"]), 3), np.float16)
    start = table.known["eye_ranges"][0][0]
    left = np.arange(start, start + len(table.eye_local))
    local[left] = table.eye_local
    local[ict["sym"][left]] = table.eye_local * np.array([-1, 1, 1], np.float16)
    np.savez_compressed(path, eye_local=local)
    return path
