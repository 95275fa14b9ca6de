"""Make mononphm_core/assets/topology/ict-head.npz from the open data: `python scripts/make_topology.py DATA`.

DATA holds ict_facekit.npz, makehuman_shapes.npz and mediapipe478_on_ict.npz, as for training. Everything in the result
derives from ICT-FaceKit (MIT); THIRD_PARTY_NOTICES.md carries its notice.
"""

import sys
from pathlib import Path

import numpy as np

from mononphm_core.training.export import SURFACE_VERTICES
from mononphm_core.training.sources import OpenHeads
from mononphm_core.training.tables import coarse_surface

TARGET = Path(__file__).resolve().parent.parent / "mononphm_core" / "assets" / "topology" / "ict-head.npz"
NECK = -0.465
"""Height, canonical head units, where the neck ends: just under the cut of the meshes."""
STEP = 0.01 / 250
"""Of the expression tables: a hundredth of a millimetre, in head units."""
TILES = {"face": (0.0, 0.0, 0.75, 1.0), "back": (0.75, 0.5, 0.25, 0.5), "left": (0.75, 0.25, 0.125, 0.25),
         "right": (0.875, 0.25, 0.125, 0.25)}  # fmt: skip
"""Left, bottom, width and height of each of ICT's texture tiles in the one picture, v upwards."""
IRISES = slice(468, 478)
"""Of the detector's points: on the eyeballs."""
INSET = 0.004
"""Kept free at each border of a tile, of its size, so that neighbours do not bleed."""


def straight_neck(mean: np.ndarray, expression: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What hangs below the neck's edge slides up along its steepest edge to the plane."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    edges = edges[(mean[edges[:, 0], 1] < NECK) & (mean[edges[:, 1], 1] > NECK)]
    run = mean[edges[:, 1]] - mean[edges[:, 0]]
    steepest = {}
    for row in np.argsort(run[:, 1] / np.linalg.norm(run, axis=1)):
        steepest[int(edges[row, 0])] = int(edges[row, 1])
    low, high = np.array(list(steepest)), np.array(list(steepest.values()))
    share = ((NECK - mean[low, 1]) / (mean[high, 1] - mean[low, 1]))[:, None]
    mean[low] += share * (mean[high] - mean[low])
    expression[:, low] += share * (expression[:, high] - expression[:, low])
    return expression, mean


def main() -> None:
    data = Path(sys.argv[1])
    heads = OpenHeads(data)
    sk, ict = heads.skeleton, np.load(data / "ict_facekit.npz")
    surface, _ = coarse_surface(heads, SURFACE_VERTICES)
    mean = heads.mean_canonical()
    corner_uv, faces = [sk.sheet_uv], [sk.sheet]
    tile_of = [np.where(sk.sheet_uv[..., 0].mean(1) >= 1.0, "back", "face")]
    materials = [str(n) for n in ict["material_names"]]
    for side, ball in zip(("left", "right"), sk.sclera, strict=True):
        rows = ict["tri_material"] == materials.index(f"M_Sclera{side.title()}")
        faces.append(ball)
        corner_uv.append(ict["uv"][ict["tri_uv"][rows]].astype(np.float32))
        tile_of.append(np.full(len(ball), side))
    all_faces, uv, tile = np.concatenate(faces), np.concatenate(corner_uv) % 1.0, np.concatenate(tile_of)
    uv = np.where(tile[:, None, None] == "back", np.concatenate(corner_uv) - [1.0, 0.0], np.concatenate(corner_uv))
    uv = np.clip(uv, 0.0, 1.0)
    boxes = np.array([TILES[str(name)] for name in tile])
    uv = boxes[:, None, :2] + boxes[:, None, 2:] * (INSET + (1 - 2 * INSET) * uv)
    at_edge = mean[:, 1] < NECK
    keep = mean[all_faces][..., 1].max(1) > NECK
    heads.expression[:], mean[:] = straight_neck(mean, heads.expression, all_faces[keep])
    used, compact = np.unique(all_faces[keep], return_inverse=True)
    compact = compact.reshape(-1, 3)
    uv16 = np.rint(uv[keep] * 65535).astype(np.uint16)
    pairs = np.concatenate([compact.reshape(-1, 1), uv16.reshape(-1, 2)], 1)
    split, corner = np.unique(pairs, axis=0, return_inverse=True)
    place = np.full(len(mean), -1)
    place[used] = np.arange(len(used))
    place[at_edge] = -1
    controls = np.concatenate([surface, heads.ibug68, heads.anchors])
    irises = np.load(data / "mediapipe478_on_ict.npz")
    moved = np.rint(heads.expression[:, used] / STEP).astype(np.int16)
    shape, vertex = np.nonzero(moved.any(-1))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        TARGET,
        mean=mean[used].astype(np.float32),
        part=sk.part[used].astype(np.uint8),
        faces=compact.astype(np.uint16),
        corner_vertex=split[:, 0].astype(np.uint16),
        corner_uv=split[:, 1:].astype(np.uint16),
        corner_faces=corner.reshape(-1, 3).astype(np.uint16),
        control_vertex=place[controls].astype(np.int32),
        iris_vertex=place[heads.ict_to_ours[irises["vertex_index"][IRISES]]].astype(np.int32),
        iris_share=irises["bary"][IRISES].astype(np.float32),
        expression_names=np.array(heads.expression_names),
        expression_shape=shape.astype(np.uint8),
        expression_vertex=vertex.astype(np.uint16),
        expression_delta=moved[shape, vertex],
        expression_step=np.float32(STEP),
    )
    counts = f"{len(used)} vertices, {keep.sum()} triangles, {len(split)} corners"
    print(f"{TARGET}: {counts}, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
