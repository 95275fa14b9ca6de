"""`makehuman_shapes.npz`, as training reads it, from MakeHuman's own files: 398 head shapes on ICT-FaceKit's vertices.

A table says how to carry them: every vertex of ICT's skin moves as a weighted mean of up to eight vertices of the base
mesh. It was made once (scripts/make_makehuman_table.py) and derives from ICT-FaceKit (MIT) and MakeHuman (CC0). Carried
shapes are centimetres on ICT's axes; single precision errs by far less than the rounding to 0.005 mm.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from mononphm_core.errors import AssetError
from mononphm_core.geometry.sheet import Sheet
from mononphm_core.training.makehuman_files import MakeHumanFiles, find
from mononphm_core.training.sources import ETHNICITIES, SEXES

FLIP = np.array([-1.0, 1.0, 1.0])
STEP_CM, LEAST_CM = 0.0005, 0.0008
"""Displacements are rounded to the first, and left out under the second."""
OFFSET_CM, SHARE = 0.001, 8192.0
"""Units of the table's integers."""
BUILDS = {
    "muscle-incr": "maxmuscle-averageweight", "muscle-decr": "minmuscle-averageweight",
    "weight-incr": "averagemuscle-maxweight", "weight-decr": "averagemuscle-minweight",
}  # fmt: skip
AVERAGE_BUILD = "averagemuscle-averageweight"
NEAR_ENOUGH_MM = 0.3
"""Mean difference to the data behind the shipped prior at the table's landmarks that is taken to be the same data."""


@dataclass(frozen=True, eq=False)
class Table:
    """How ICT's skin hangs on MakeHuman's base mesh, and what the shapes are called."""

    rows: Int[np.ndarray, "half"]
    """ICT vertices of the left half and the midline."""
    near: Int[np.ndarray, "half 8"]
    """Vertices of the base mesh."""
    share: Float[np.ndarray, "half 8"]
    offset: Float[np.ndarray, "half 3"]
    """From the weighted mean of MakeHuman's average head to ICT's place on that head, cm."""
    beyond: Int[np.ndarray, "few"]
    """Those of `rows` inside the nostrils, where MakeHuman has no surface ..."""
    stored: Float[np.ndarray, "shapes few 3"]
    """... and their displacements as the registration extrapolated them, cm."""
    follow: Int[np.ndarray, "followers"]
    """Skin vertex of each vertex of the lashes and tear ducts."""
    probes: Int[np.ndarray, "probes"]
    expected: Float[np.ndarray, "shapes probes 3"]
    """Displacements behind the shipped prior at some vertices, cm."""
    eye_local: Float[np.ndarray, "ball 3"]
    """Angle times direction of the left eyeball's outer vertices in the eye's own frame; cosine in z."""
    known: dict[str, Any]
    """Names, groups, partners, ranges, placements and checksums."""


@dataclass(frozen=True)
class Report:
    """What came out, in numbers."""

    path: Path
    shapes: int
    mirrored: int
    """Shapes whose mirror image is another one."""
    folds: int
    """Triangles that the worst shape turns over at the end of its range."""
    worst: str
    difference_mm: tuple[float, float]
    """To the data behind the shipped prior at the table's landmarks: mean and largest."""


def load_table() -> Table:
    """The table that ships with the package."""
    folder = resources.files("mononphm_core") / "assets" / "training"
    known = json.loads((folder / "makehuman.json").read_text(encoding="utf-8"))
    content = (folder / "makehuman_on_ict.npz").read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != known["table_sha256"]:
        raise AssetError(f"makehuman_on_ict.npz is damaged (sha256 {found[:12]}): install this program again")
    a = dict(np.load(io.BytesIO(content)))
    share = a["share"] / SHARE
    return Table(
        a["rows"].astype(np.int64), a["near"].astype(np.int64), share / share.sum(1, keepdims=True),
        a["offset"] * OFFSET_CM, a["beyond"].astype(np.int64), a["stored"] * OFFSET_CM,
        a["follow"].astype(np.int64), a["probes"].astype(np.int64),
        a["expected"] * OFFSET_CM, a["eye_local"], known,
    )  # fmt: skip


def rebuild(folder: Path, data: Path, table: Table | None = None) -> Report:
    """Write `data`/makehuman_shapes.npz from MakeHuman's files in `folder` and `data`/ict_facekit.npz, and check it.

    Raises AssetError when a file is missing or of another topology, or the shapes are not those of the table.
    """
    table = table or load_table()
    known = table.known
    ict = np.load(data / "ict_facekit.npz")
    skin = known["skin_vertices"]
    mirror = ict["sym"][:skin].astype(np.int64)
    files = find(folder, known["polygons_sha256"], known["body_vertices"])
    carrier = Carrier(files, table, mirror)
    triangles = ict["tri"][(ict["tri"] < skin).all(1)].astype(np.int64)
    shapes = carrier.carry(ict["neutral"][:skin].astype(np.float64), triangles)
    arrays: dict[str, np.ndarray] = {
        "names": np.array(known["names"]),
        "groups": np.array(known["groups"]),
        "displacement": shapes.astype(np.float16),
        "eye": carrier.eyes().astype(np.float32),
        "eye_center": np.array(known["eye_center"], np.float32),
        "eye_ranges": np.array(known["eye_ranges"], np.int32),
        "partner": np.array(known["partner"], np.int32),
        "antagonist": np.array(known["antagonist"], np.int32),
        **{name: np.array(known[name], np.float32) for name in ("range_max", "sigma", "natural_scale")},
        "follow_range": np.array([known["follow_start"], known["follow_start"] + len(table.follow)], np.int32),
        "follow_vertex": table.follow.astype(np.int32),
    }
    report = check(arrays, ict, table, data / "makehuman_shapes.npz")
    temporary = data / ".makehuman_shapes.npz"
    np.savez_compressed(temporary, **arrays)
    temporary.replace(report.path)
    return report


class Carrier:
    """The base mesh's shapes, seen from ICT's skin."""

    def __init__(self, files: MakeHumanFiles, table: Table, mirror: Int[np.ndarray, "skin"]) -> None:
        known = table.known
        distance, other = cKDTree(files.base.x).query(files.base.x * FLIP)
        self.table, self.mirror = table, mirror
        self.near = np.zeros((len(mirror), table.near.shape[1]), np.int64)
        self.share = np.zeros(self.near.shape)
        self.offset = np.zeros((len(mirror), 3))
        rows, twins = table.rows, mirror[table.rows]
        self.near[twins], self.share[twins], self.offset[twins] = other[table.near], table.share, table.offset * FLIP
        self.near[rows], self.share[rows], self.offset[rows] = table.near, table.share, table.offset
        if distance[np.unique(table.near)].max() > 1e-3:
            raise AssetError("the base mesh has no mirror image; it is not MakeHuman's as published")
        self.balls = [np.arange(*span) for span in known["base_eyes"]]
        self.used, place = np.unique(np.concatenate([self.near.ravel(), *self.balls]), return_inverse=True)
        self.other = np.searchsorted(self.used, other[self.used])
        self.near = place[: self.near.size].reshape(self.near.shape)
        self.balls = [np.searchsorted(self.used, ball) for ball in self.balls]
        self.base = files.base.x[self.used]
        self.average, self.fields = self._fields(files, known)

    def carry(
        self, neutral: Float[np.ndarray, "skin 3"], triangles: Int[np.ndarray, "triangles 3"]
    ) -> Float[np.ndarray, "shapes skin 3"]:
        """All shapes as displacements of ICT's skin; the first is the average head minus ICT's neutral one.

        A thin plate evens out what is smaller than a millimetre: in the corners of the mouth ICT's vertices lie so
        dense that neighbours with unlike weights would pass each other.
        """
        out = np.zeros((len(self.fields), *neutral.shape), np.float32)
        beyond, stored, partner = self.table.beyond, self.table.stored, self.table.known["partner"]
        for row, field in enumerate(self.fields):
            out[row] = self._on_skin(field)
            out[row, self.mirror[beyond]] = stored[partner[row]] * FLIP
            out[row, beyond] = stored[row]
        head = self._on_skin(self.average) + self.offset
        plate = Sheet(head, triangles, np.ones(len(head)), self.table.known["smooth_cm"])
        out = plate.smooth(out.transpose(1, 0, 2).reshape(len(head), -1)).reshape(len(head), -1, 3).transpose(1, 0, 2)
        out[0] = head - neutral
        out = np.round(out / STEP_CM) * STEP_CM
        out[np.abs(out) < LEAST_CM] = 0.0
        for row, twin in enumerate(partner):
            image = out[row][self.mirror] * FLIP
            if twin == row:
                out[row] = (out[row] + image) / 2
            elif twin > row:
                out[twin] = image
        return out

    def eyes(self) -> Float[np.ndarray, "shapes 2 4"]:
        """How the eyeballs move and grow: translation, cm, and relative scale."""
        found = np.zeros((len(self.fields), 2, 4))
        scale, angle = self.table.known["slider"]
        for side, ball in enumerate(self.balls):
            arm = self.base[ball] @ turned(scale, angle).T
            arm = arm - arm.mean(0)
            found[:, side, :3] = self.fields[:, ball].mean(1)
            found[:, side, 3] = np.einsum("svc,vc->s", self.fields[:, ball], arm) / np.square(arm).sum()
        found[0] = self.table.known["average_eye"]
        return found

    def _on_skin(self, field: Float[np.ndarray, "used 3"]) -> Float[np.ndarray, "skin 3"]:
        found: np.ndarray = np.einsum("vk,vkc->vc", self.share, field[self.near])
        return found

    def _fields(self, files: MakeHumanFiles, known: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The average head and all shapes on the base mesh, cm on ICT's axes, mirror images averaged."""
        cells = Cells(files, self.used)
        places = known["placements"]
        average = placed(cells.average(), known["average"])
        slider = turned(*known["slider"])
        out = np.zeros((len(known["names"]), len(self.used), 3))
        for row, (name, group) in enumerate(zip(known["names"], known["groups"], strict=True)):
            if group == "macro":
                out[row] = placed(cells.cell(*name.split("-")[1:]), places[name]) - average
            elif group == "body":
                kind, way, sex, age = name.split("-")
                plain = cells.plain(sex, age)
                heads = [places[f"macro-{e}-{sex}-{age}"] for e in ETHNICITIES]
                before = placed(plain, np.mean(heads, 0))
                out[row] = placed(plain + cells.build(f"{kind}-{way}", sex, age), places[name]) - before
            elif group != "average":
                out[row] = files.target(name)[self.used] @ slider.T
        for row, (twin, group) in enumerate(zip(known["partner"], known["groups"], strict=True)):
            if twin >= row:
                mine = out[row] if group == "asym" else (out[row] + out[twin][self.other] * FLIP) / 2
                out[row], out[twin] = mine, mine[self.other] * FLIP if twin != row else mine
        return average, out


class Cells:
    """Whole people of the base mesh by ethnicity, sex and age, decimetres."""

    def __init__(self, files: MakeHumanFiles, used: Int[np.ndarray, "used"]) -> None:
        self.files, self.used, self.base = files, used, files.base.x[used]

    def cell(self, ethnicity: str, sex: str, age: str) -> Float[np.ndarray, "used 3"]:
        return (
            self.base
            + self._target(f"{ethnicity}-{sex}-{age}")
            + self._target(f"universal-{sex}-{age}-{AVERAGE_BUILD}")
        )

    def plain(self, sex: str, age: str) -> Float[np.ndarray, "used 3"]:
        """All ethnicities alike."""
        found: np.ndarray = np.mean([self.cell(ethnicity, sex, age) for ethnicity in ETHNICITIES], 0)
        return found

    def average(self) -> Float[np.ndarray, "used 3"]:
        """The young adult of both sexes and all ethnicities."""
        found: np.ndarray = np.mean([self.plain(sex, "young") for sex in SEXES], 0)
        return found

    def build(self, change: str, sex: str, age: str) -> Float[np.ndarray, "used 3"]:
        """What more or less muscle or weight does."""
        return self._build(sex, age, BUILDS[change]) - self._build(sex, age, AVERAGE_BUILD)

    def _build(self, sex: str, age: str, build: str) -> Float[np.ndarray, "used 3"]:
        return self._target(f"universal-{sex}-{age}-{build}")

    def _target(self, name: str) -> Float[np.ndarray, "used 3"]:
        return self.files.target(name)[self.used]


def turned(scale: float, degrees: float) -> Float[np.ndarray, "3 3"]:
    """Scale times a rotation about the axis from ear to ear."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return scale * np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def placed(x: Float[np.ndarray, "points 3"], place: Any) -> Float[np.ndarray, "points 3"]:
    """Scaled, turned and moved up and forward: `place` = scale, degrees, cm, cm."""
    scale, degrees, up, forward = (float(value) for value in place)
    return x @ turned(scale, degrees).T + np.array([0.0, up, forward])


def check(arrays: dict[str, np.ndarray], ict: Any, table: Table, path: Path) -> Report:
    """Mirror images, triangles that turn over, and the difference to the data behind the shipped prior."""
    x = arrays["displacement"].astype(np.float32)
    mirror = ict["sym"][: x.shape[1]]
    for row, twin in enumerate(arrays["partner"]):
        if not np.allclose(x[twin][mirror] * FLIP, x[row], atol=1e-4):
            raise AssetError(f"{arrays['names'][row]} is not the mirror image of {arrays['names'][twin]}")
    away = np.linalg.norm(x[:, table.probes] - table.expected, axis=-1) * 10
    if away.mean() > NEAR_ENOUGH_MM:
        worst = str(arrays["names"][away.mean(1).argmax()])
        raise AssetError(
            f"the shapes lie {away.mean():.2f} mm from those the table was made for, {worst} most: "
            "another edition of MakeHuman's targets?"
        )
    folds = [turned_over(ict, x[0], shape * reach) for shape, reach in zip(x, arrays["range_max"], strict=True)]
    return Report(
        path,
        len(x),
        int((arrays["partner"] != np.arange(len(x))).sum()),
        max(folds),
        str(arrays["names"][int(np.argmax(folds))]),
        (float(away.mean()), float(away.max())),
    )


def turned_over(ict: Any, average: Float[np.ndarray, "skin 3"], shape: Float[np.ndarray, "skin 3"]) -> int:
    """How many triangles of the outer skin a shape turns by more than a right angle, on the average head."""
    moving = np.abs(shape).max(1) > 0
    triangles = ict["tri"][np.isin(ict["tri_part"], (0, 1))]
    triangles = triangles[moving[triangles].any(1)]
    x = ict["neutral"][: len(shape)] + average
    before, after = (np.cross(y[:, 1] - y[:, 0], y[:, 2] - y[:, 0]) for y in (x[triangles], (x + shape)[triangles]))
    return int(((before * after).sum(1) < 0).sum())
