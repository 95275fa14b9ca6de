"""A stand-in for MakeHuman's files and for ICT's arrays: a mask of 15 vertices, two eyeballs of six."""

from dataclasses import replace

import numpy as np
from PIL import Image

from mononphm_core.training import makehuman_skins
from mononphm_core.training.makehuman import AVERAGE_BUILD, BUILDS, ETHNICITIES, SEXES, Table, placed
from mononphm_core.training.makehuman_files import body_sha256
from mononphm_core.training.obj_files import read_polygons

GRID = np.array([[x, 6.0 + y, 1.0 - 0.2 * x * x] for y in range(3) for x in range(-2, 3)])
"""Decimetres."""
BALL = 0.2 * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
EYES = np.array([[1.0, 7.0, 0.5], [-1.0, 7.0, 0.5]])
BASE = np.concatenate([GRID, EYES[0] + BALL, EYES[1] + BALL[[1, 0, 2, 3, 4, 5]]])
QUADS = [[5 * y + x, 5 * y + x + 1, 5 * y + x + 6, 5 * y + x + 5] for y in range(2) for x in range(4)]
MIRROR = np.array([5 * y + 4 - x for y in range(3) for x in range(5)])
PLACE = [10.0, 0.0, -70.0, 0.0]
NAMES = ["mh_average", "macro-asian-male-young", "weight-incr-male-young", "chin-up", "l-ear-out", "r-ear-out",
         "asym-jaw-l", "asym-jaw-r"]  # fmt: skip
GROUPS = ["average", "macro", "body", "chin", "ears", "ears", "asym", "asym"]
PARTNER = [0, 1, 2, 3, 5, 4, 7, 6]


def write_makehuman(folder):
    """base.obj and targets as a checkout has them, two of them gzipped by nobody: text."""
    mesh = folder / "makehuman" / "data" / "3dobjs" / "base.obj"
    mesh.parent.mkdir(parents=True)
    lines = ["# basemesh hm08", *(f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in BASE)]
    lines += [f"vt {(x + 2) / 4:.6f} {(y - 6) / 2:.6f}" for x, y, _ in GRID] + ["g body"]
    lines += ["f " + " ".join(f"{v + 1}/{v + 1}" for v in quad) for quad in QUADS]
    mesh.write_text("\n".join([*lines, "g helper-l-eye", "f 16/1 17/1 18/1 19/1"]) + "\n")
    for number, (name, field) in enumerate(targets().items()):
        path = mesh.parent.parent / "targets" / f"folder{number % 3}" / f"{name}.target"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{v} {x:g} {y:g} {z:g}" for v, (x, y, z) in enumerate(field) if field[v].any()]
        path.write_text("\n".join(["# This is a target file for MakeHuman", *rows]) + "\n")
    return folder


def targets():
    """Displacements of the base mesh by name; everybody is taller than it, men broader, heavy men deeper."""
    zero = np.zeros_like(BASE)
    found = {f"{e}-{s}-young": zero + np.array([0, 0.5, 0]) for e in ETHNICITIES for s in SEXES}
    found["asian-male-young"] = found["asian-male-young"] + BASE * [0.1, 0, 0]
    found |= {f"universal-{s}-young-{AVERAGE_BUILD}": zero for s in SEXES}
    found[f"universal-male-young-{BUILDS['weight-incr']}"] = np.where(BASE[:, :1] == 0, [0, 0, 0.3], 0)
    chin, ear, jaw = zero.copy(), zero.copy(), zero.copy()
    chin[2] = [0, 0.25, 0]
    ear[4] = [0.5, 0, 0.1]
    jaw[[0, 1]] = [[0.1, 0, 0], [0.2, 0.1, 0]]
    ear[15:21] = [0.05, 0, 0] + 0.5 * BALL
    twin = np.concatenate([MIRROR, np.arange(21, 27), np.arange(15, 21)])
    found |= {"chin-up": chin, "l-ear-out": ear, "r-ear-out": ear[twin] * [-1, 1, 1]}
    return found | {"asym-jaw-l": jaw, "asym-jaw-r": zero}


def write_ict(data):
    """What carrying reads of ict_facekit.npz: the same mask in cm, two followers, the upper quads at the back."""
    x = placed(BASE, PLACE)
    tri = np.array([[q[a], q[b], q[c]] for q in QUADS for a, b, c in ((0, 1, 2), (0, 2, 3))])
    uv = np.stack([(GRID[:, 0] + 2) / 4, (GRID[:, 1] - 6) / 2], 1)
    sym = np.concatenate([MIRROR, np.arange(21, 27), np.arange(15, 21), [28, 27]])
    data.mkdir(exist_ok=True)
    np.savez(
        data / "ict_facekit.npz", ibug68=np.full(68, 2),
        neutral=np.concatenate([x, x[[4, 0]]]).astype(np.float32), sym=sym, tri=tri,
        tri_part=np.repeat([0, 1], 8), uv=np.concatenate([uv, uv + np.array([1, 0])]),
        tri_uv=tri + np.repeat([0, 15], 8)[:, None],
    )  # fmt: skip
    return data


def table(folder):
    """Every vertex hangs on its own one."""
    rows = np.flatnonzero(np.arange(15) >= MIRROR)
    near, share = np.repeat(rows[:, None], 8, 1), np.tile(np.eye(8)[0], (len(rows), 1))
    offset = np.zeros((len(rows), 3))
    offset[rows == 14] = [0.25, 0.0, 0.5]
    known = {
        "smooth_cm": 0.001, "skin_vertices": 15, "body_vertices": 15,
        "base_eyes": [[15, 21], [21, 27]], "slider": [10.0, 0.0],
        "polygons_sha256": body_sha256(read_polygons(next(folder.rglob("base.obj"))), 15), "average": PLACE,
        "placements": {
            **{f"macro-{e}-{s}-young": PLACE for e in ETHNICITIES for s in SEXES}, "weight-incr-male-young": PLACE,
        },
        "average_eye": [[0.0] * 4] * 2, "eye_center": (10 * EYES - [0, 70, 0]).tolist(),
        "eye_ranges": [[15, 21], [21, 27]], "follow_start": 27, "names": NAMES, "groups": GROUPS, "partner": PARTNER,
        "antagonist": [0, 1, 2, 3, 4, 5, 7, 6], "range_max": [1.0] * 8, "sigma": [0.5] * 8, "natural_scale": [1.0] * 8,
    }  # fmt: skip
    probes = np.array([2, 4, 0])
    made = Table(
        rows, near, share, offset, np.array([13]), np.zeros((8, 1, 3)), np.array([4, 0]), probes,
        np.zeros((8, 3, 3)), np.full((6, 3), 0.25, np.float16), known,
    )  # fmt: skip
    return replace(made, expected=displacements()[:, probes], stored=displacements()[:, [13]])


def displacements():
    """What carrying must give, cm: written down from the targets, not computed by the code under test."""
    change = {name: 10 * field[:15] for name, field in targets().items()}
    broad = 0.1 * 10 * GRID * [1, 0, 0]
    out = np.zeros((8, 15, 3))
    out[0] = [0, 5, 0] + broad / 6
    out[0, 14] += [0.25, 0, 0.5]
    out[0, 10] += [-0.25, 0, 0.5]
    out[1] = broad * 5 / 6
    out[2] = 10 * targets()[f"universal-male-young-{BUILDS['weight-incr']}"][:15]
    out[3:7] = [change[name] for name in NAMES[3:7]]
    out[4, 13] = [0.25, 0.5, 0.75]
    out[5, 11] = [-0.25, 0.5, 0.75]
    out[7] = out[6][MIRROR] * [-1, 1, 1]
    return out


def write_skins(folder):
    """All pictures that are asked for: red grows with u, green with v."""
    j, i = np.meshgrid((np.arange(64) + 0.5) / 64, 1 - (np.arange(64) + 0.5) / 64)
    picture = np.stack([200 * j, 200 * i, np.full_like(i, 40)], -1).astype(np.uint8)
    (folder / "textures").mkdir(parents=True)
    for name in makehuman_skins.SKINS:
        number = name[-1] if name[-1].isdigit() else ""
        Image.fromarray(picture).save(folder / "textures" / f"{name.removesuffix(number)}_diffuse{number}.png")
    return folder
