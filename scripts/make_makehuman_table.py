"""Make mononphm_core/assets/training/makehuman_on_ict.npz and makehuman.json anew: how MakeHuman's shapes lie on ICT.

    python scripts/make_makehuman_table.py DATA MAKEHUMAN [--hold-out]

DATA holds ict_facekit.npz and the makehuman_shapes.npz behind the shipped prior: MakeHuman's shapes after a non-rigid
registration of its base mesh to ICT's neutral head, subdivided, looked up and smoothed. MAKEHUMAN is a checkout of
MakeHuman. The table says the same in few numbers: ICT's vertex is a weighted mean of up to eight of the base mesh,
least squares over all shapes. With --hold-out every second shape is kept from the fit and alone measured; nothing is
written. The result derives from ICT-FaceKit (MIT) and MakeHuman (CC0); THIRD_PARTY_NOTICES.md carries the notice.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import igl
import numpy as np
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from mononphm_core.training import makehuman
from mononphm_core.training.makehuman import OFFSET_CM, SHARE, Carrier, Cells, Table, placed
from mononphm_core.training.makehuman_files import MakeHumanFiles, body_quads, body_sha256, find
from mononphm_core.training.obj_files import read_polygons
from mononphm_core.training.sources import ETHNICITIES
from mononphm_core.training.sources import SKIN_VERTICES as SKIN

ASSETS = Path(__file__).resolve().parent.parent / "mononphm_core" / "assets" / "training"
BODY, EYES = 13380, ((14598, 14670), (14670, 14742))
"""Vertices of the body and of the eyeballs in hm08."""
SMOOTH_CM = 0.1
"""Of 0.03 to 0.15 the shortest under which no triangle of any macro shape turns over, with room to spare."""
HEAD_DM, BALL = 4.5, 770
WEIGHTS = 8
CANDIDATES = {0: 28, 1: 28, 2: 80, 3: 60, 4: 60}
"""Neighbours tried, by part: mouth and eye sockets follow what is farther away."""
WHOLE = ("head-trans-up", "head-trans-out", "head-scale-horiz-incr", "head-scale-vert-incr", "head-scale-depth-incr")
"""Sliders that move the whole head: what turns a slider's axes into ICT's is read from them."""
BEYOND_MM = 0.15
"""Mean error over all shapes from which on a vertex of the outer skin lies where MakeHuman has no surface."""
POOR_MM = 0.15
"""From this error on a vertex may also be extrapolated: nostrils and gums lie beyond what MakeHuman models."""


def similarity(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """scale, degrees, up, forward with y ~ placed(x, .): least squares over mirror-symmetric heads."""
    w = weight / weight.sum()
    a, b = x - w @ x, y - w @ y
    u, _, vt = np.linalg.svd((b * w[:, None]).T @ a)
    angle = float(np.rad2deg(np.arctan2((u @ vt)[1, 2], (u @ vt)[1, 1])))
    turned = a @ makehuman.turned(1.0, angle).T
    scale = float((w @ (turned * b).sum(1)) / (w @ np.square(a).sum(1)))
    move = w @ y - makehuman.turned(scale, angle) @ (w @ x)
    return np.array([scale, angle, move[1], move[2]])


def robust(x: np.ndarray, y: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """`similarity`, points that fit badly left out more and more."""
    place = similarity(x, y, trust.astype(float))
    for _ in range(4):
        away = np.linalg.norm(placed(x, place) - y, axis=1)
        place = similarity(x, y, trust * np.exp(-((away / 0.05) ** 2)) + 1e-9 * trust)
    return place


def nearest(points: np.ndarray, x: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared distance, corners and barycentric coordinates of the nearest points of a mesh."""
    squared, at, foot = igl.point_mesh_squared_distance(points, x, triangles)
    a, b, c = (np.ascontiguousarray(x[triangles[at][:, k]]) for k in range(3))
    return squared, triangles[at], igl.barycentric_coordinates(np.ascontiguousarray(foot), a, b, c)


def placements(files: MakeHumanFiles, shapes: Any, neutral: np.ndarray, outer: np.ndarray) -> dict[str, Any]:
    """Where the average head, every cell and every slider lie on ICT's axes, from the registered shapes."""
    names, groups = [str(n) for n in shapes["names"]], [str(g) for g in shapes["groups"]]
    moved = shapes["displacement"].astype(np.float32)
    cells = Cells(files, np.arange(len(files.base.x)))
    average, head = cells.average(), neutral + moved[0]
    quads = body_quads(files.base, BODY)[0]
    quads = quads[average[quads][..., 1].min(1) > 5.5]
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    centre = (shapes["eye_center"] + shapes["eye"][0, :, :3]).mean(0)
    eyes = average[EYES[0][0] : EYES[1][1]].mean(0)
    place = np.array([10.5, 0.0, centre[1] - 10.5 * eyes[1], centre[2] - 10.5 * eyes[2]])
    some = np.flatnonzero(outer & (head[:, 1] > -12))[::3]
    for step in range(85):
        squared, corner, share = nearest(head[some], placed(average, place), triangles)
        fits = squared < np.quantile(squared, 0.9 if step < 25 else 0.8)
        place = similarity(np.einsum("vk,vkc->vc", share, average[corner])[fits], head[some][fits], np.ones(fits.sum()))
    squared, corner, share = nearest(head, placed(average, place), triangles)
    trust = outer & (squared < 0.05**2)
    print(f"average head: {place.round(4)}, median distance {10 * np.sqrt(np.median(squared[outer])):.2f} mm")

    def seen(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.einsum("vk,vkc->vc", share, x[corner])
        return found

    places: dict[str, list[float]] = {}
    for name, group, shape in zip(names, groups, moved, strict=True):
        if group == "macro":
            places[name] = [*map(float, robust(seen(cells.cell(*name.split("-")[1:])), head + shape, trust))]
    for name, group, shape in zip(names, groups, moved, strict=True):
        if group == "body":
            kind, way, sex, age = name.split("-")
            plain = cells.plain(sex, age)
            before = placed(seen(plain), np.mean([places[f"macro-{e}-{sex}-{age}"] for e in ETHNICITIES], 0))
            places[name] = [
                *map(float, robust(seen(plain + cells.build(f"{kind}-{way}", sex, age)), before + shape, trust))
            ]
    field = np.concatenate([seen(files.target(name))[trust] for name in WHOLE])
    goal = np.concatenate([moved[names.index(name)][trust] for name in WHOLE])
    linear = np.linalg.lstsq(field, goal, rcond=None)[0].T
    u, stretch, vt = np.linalg.svd(linear)
    slider = [float(stretch.mean()), float(np.rad2deg(np.arctan2((u @ vt)[1, 2], (u @ vt)[1, 1])))]
    print(f"sliders: {slider}")
    return {"average": [*map(float, place)], "placements": places, "slider": slider}


def weights(gram: np.ndarray, goal: np.ndarray, error: Any) -> tuple[np.ndarray, np.ndarray]:
    """Up to eight neighbours and their shares (sum 1): positive ones if they do, else signed ones."""
    root = np.linalg.cholesky(gram)
    share, _ = nnls(root.T, np.linalg.solve(root, goal))
    top = np.argsort(-share)[:WEIGHTS]
    root = np.linalg.cholesky(gram[np.ix_(top, top)])
    share, _ = nnls(root.T, np.linalg.solve(root, goal[top]))
    if error(top, share) < POOR_MM:
        return top, share
    chosen: list[int] = [int(top[0])]
    signed = np.ones(1)
    while len(chosen) < WEIGHTS:
        left = np.abs(goal - gram[:, chosen] @ signed) / np.sqrt(np.diag(gram))
        left[chosen] = -1.0
        chosen.append(int(left.argmax()))
        signed = np.linalg.solve(gram[np.ix_(chosen, chosen)], goal[chosen])
    greedy = np.array(chosen)
    if error(greedy, signed) < 0.7 * error(top, share) and np.abs(signed).max() < 3.5:
        return greedy, signed
    return top, share


def fit(
    carrier: Carrier, fitted: np.ndarray, moved: np.ndarray, head: np.ndarray, part: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`near` (rows of carrier.used) and `share` of ICT's vertices `rows`."""
    fields = np.ascontiguousarray(carrier.fields[fitted].transpose(1, 0, 2)).reshape(len(carrier.used), -1)
    goals = np.ascontiguousarray(moved[fitted].transpose(1, 0, 2)).reshape(moved.shape[1], -1)
    tree = cKDTree(carrier.average)
    near, share = np.zeros((len(rows), WEIGHTS), np.int64), np.zeros((len(rows), WEIGHTS))
    for at, vertex in enumerate(rows):
        close = tree.query(head[vertex], CANDIDATES[int(part[vertex])])[1]
        a, b = fields[close], goals[vertex]
        away = carrier.average[close] - head[vertex]
        gram = a @ a.T + 0.05 * (away @ away.T) + 1e3
        gram[np.diag_indices(len(close))] += 1e-3 * np.square(away).sum(1) + 1e-5

        def error(some: np.ndarray, given: np.ndarray, a: np.ndarray = a, b: np.ndarray = b) -> float:
            return float(10 * np.sqrt(3 * np.square(given @ a[some] - b).mean()))

        top, found = weights(gram, a @ b + 1e3, error)
        near[at], share[at] = close[top], found / found.sum()
    return near, share


def measured(away: np.ndarray, part: np.ndarray, fitted: np.ndarray) -> None:
    """Prints the distances to the registered shapes, mm, by part of the head."""
    parts = {"face": part == 0, "head": part == 1, "mouth": part == 2, "eye sockets": part > 2}
    for name, these in {"fitted": fitted, "held out": ~fitted & (np.arange(len(away)) > 0)}.items():
        for where, at in parts.items() if these.any() else ():
            some = away[these][:, at]
            figures = f"mean {some.mean():.4f} mm, 99 % {np.quantile(some, 0.99):.3f}, largest {some.max():.2f}"
            print(f"{name}, {where}: {figures}")


def names_and_places(files: MakeHumanFiles, shapes: Any, ict: Any) -> dict[str, Any]:
    """All of makehuman.json."""
    neutral, part = ict["neutral"][:SKIN].astype(np.float64), ict["vert_part"][:SKIN]
    return {
        "skin_vertices": SKIN, "body_vertices": BODY, "polygons_sha256": body_sha256(files.base, BODY),
        "smooth_cm": SMOOTH_CM, "base_eyes": [list(e) for e in EYES], **placements(files, shapes, neutral, part < 2),
        "average_eye": shapes["eye"][0].astype(float).round(6).tolist(),
        "eye_center": shapes["eye_center"].astype(float).round(6).tolist(), "eye_ranges": shapes["eye_ranges"].tolist(),
        "follow_start": int(shapes["follow_range"][0]), "names": [str(n) for n in shapes["names"]],
        "groups": [str(g) for g in shapes["groups"]], "partner": shapes["partner"].tolist(),
        "antagonist": shapes["antagonist"].tolist(),
        **{n: shapes[n].astype(float).round(5).tolist() for n in ("range_max", "sigma", "natural_scale")},
    }  # fmt: skip


def main() -> None:
    data, folder, hold_out = Path(sys.argv[1]), Path(sys.argv[2]), "--hold-out" in sys.argv
    ict, shapes = np.load(data / "ict_facekit.npz"), np.load(data / "makehuman_shapes.npz")
    mesh = read_polygons(next(folder.rglob("3dobjs/base.obj")))
    files = find(folder, body_sha256(mesh, BODY), BODY)
    part, mirror = ict["vert_part"][:SKIN], ict["sym"][:SKIN].astype(np.int64)
    moved, known = shapes["displacement"].astype(np.float32), names_and_places(files, shapes, ict)
    head = ict["neutral"][:SKIN].astype(np.float64) + moved[0]
    rows = np.flatnonzero(np.arange(SKIN) <= mirror)
    base = np.concatenate([np.unique(body_quads(files.base, BODY)[0]), np.arange(EYES[0][0], EYES[1][1])])
    base = base[files.base.x[base, 1] > HEAD_DM]
    every = np.resize(base, (-(-len(base) // WEIGHTS), WEIGHTS))
    none = np.zeros(0, np.int64)
    table = Table(
        rows[: len(every)], every, np.ones(every.shape) / WEIGHTS, np.zeros((len(every), 3)), none,
        np.zeros((len(moved), 0, 3)), none, none, np.zeros((len(moved), 0, 3)), np.zeros((0, 3)), known,
    )  # fmt: skip
    carrier = Carrier(files, table, mirror)
    fitted = np.arange(len(moved)) > 0
    fitted[2::2] &= not hold_out
    near, share = fit(carrier, fitted, moved, head, part, rows)
    share = np.round(share * SHARE) / SHARE
    share /= share.sum(1, keepdims=True)
    carried = (np.einsum("vk,vkc->vc", share, field[near]) for field in carrier.fields)
    away = [10 * np.linalg.norm(found - x[rows], axis=1) for found, x in zip(carried, moved, strict=True)]
    measured(np.stack(away), part[rows], fitted)
    beyond = rows[(np.mean(away[1:], 0) > BEYOND_MM) & (part[rows] < 2)]
    print(f"stored as they are: {len(beyond)} vertices of one half")
    if hold_out:
        return
    offset = head[rows] - np.einsum("vk,vkc->vc", share, carrier.average[near])
    probes = np.unique(ict["ibug68_jaw_alt"])
    ball = slice(int(shapes["eye_ranges"][0][0]), int(shapes["eye_ranges"][0][0]) + BALL)
    np.savez_compressed(
        ASSETS / "makehuman_on_ict.npz", rows=rows.astype(np.uint16), near=carrier.used[near].astype(np.uint16),
        share=np.round(share * SHARE).astype(np.int16), offset=np.round(offset / OFFSET_CM).astype(np.int16),
        follow=shapes["follow_vertex"].astype(np.uint16), probes=probes.astype(np.uint16),
        beyond=beyond.astype(np.uint16), stored=np.round(moved[:, beyond] / OFFSET_CM).astype(np.int16),
        expected=np.round(moved[:, probes] / OFFSET_CM).astype(np.int16),
        eye_local=np.load(data / "skins" / "vertex_extras.npz")["eye_local"][ball],
    )  # fmt: skip
    known["table_sha256"] = hashlib.sha256((ASSETS / "makehuman_on_ict.npz").read_bytes()).hexdigest()
    (ASSETS / "makehuman.json").write_text(json.dumps(known) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
