"""The open parametric heads that the default prior learns from: ICT-FaceKit (MIT) with CC0 MakeHuman shapes.

Everything leaves this file in *canonical units*: x_head = 0.04 * x_cm + (0, -0.075, -0.23), so that 1 unit = 250 mm. A
head is `neutral + identity`, its expressions are linear, and its canonical shape is the neutral one with jawOpen = 0.3
(mouth open).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mononphm_core.errors import AssetError
from mononphm_core.training import people

SKIN_VERTICES = 14062
"""Face, head and neck, mouth socket, eye sockets: vertices 0 .. 14061 of ICT-FaceKit."""
SHEET_VERTICES = 13294
"""Without the eye sockets: the sheet whose rims are closed to make a solid."""
AGES = np.array([1.0, 11.0, 25.0, 90.0])
SEXES = ("female", "male")
OTHERS = 0.5
"""Share of the people that come from further heads (`people.py`), where the data folder holds some."""
ETHNICITIES = ("african", "asian", "caucasian")
AGE_NAMES = ("baby", "child", "young", "old")


@dataclass(frozen=True)
class Skeleton:
    """Fixed topology of the training heads: which vertices are used and how they are connected."""

    used: Int[np.ndarray, "vertices"]
    """ICT vertex of every vertex of ours: the sheet, then both sclera spheres."""
    sheet: Int[np.ndarray, "triangles 3"]
    """Skin with mouth cavity, open at the two lid rims and the bust."""
    sclera: tuple[Int[np.ndarray, "sclera 3"], Int[np.ndarray, "sclera 3"]]
    """Closed spheres with cornea, left and right."""
    caps: tuple[Int[np.ndarray, "_"], ...]
    """Boundary loops of the sheet: left lid rim, right lid rim, bust."""
    sheet_uv: Float[np.ndarray, "triangles 3 2"]
    """Texture coordinates per corner of `sheet`."""
    part: Int[np.ndarray, "vertices"]
    """0 face, 1 head and neck, 2 mouth cavity, 7 left eyeball, 8 right eyeball."""
    mirror: Int[np.ndarray, "vertices"]
    """The vertex on the other side."""


@dataclass(frozen=True)
class HeadSample:
    """One random person."""

    neutral: Float[np.ndarray, "vertices 3"]
    """Neutral, mouth closed."""
    canonical: Float[np.ndarray, "vertices 3"]


@dataclass(frozen=True)
class OtherHeads:
    """One further source, in head units."""

    mean: Float[np.ndarray, "vertices 3"]
    """Its average head minus ICT's neutral one."""
    components: Float[np.ndarray, "components vertices 3"]


class OpenHeads:
    """ICT-FaceKit and MakeHuman shapes, combined by the recipe in the data's README; further heads apart."""

    others: Sequence[OtherHeads] = ()
    licences: Sequence[str] = ()
    """Of the further heads: they rule what is trained from them."""

    def __init__(self, data: Path) -> None:
        try:
            ict = np.load(data / "ict_facekit.npz")
        except FileNotFoundError as missing:
            raise AssetError(
                f"{missing.filename}: training needs ict_facekit.npz in --data; `mononphm train data` makes it"
            ) from missing
        self.scale = float(ict["canon_scale"])
        self.translation = ict["canon_translation"].astype(np.float32)
        self.y_cut = float(ict["canon_y_cut"])
        self.expression_names = [str(n) for n in ict["expression_names"]]
        self.skeleton = _skeleton(ict)
        used = self.skeleton.used
        self.ict_to_ours = np.full(len(ict["neutral"]), -1, np.int64)
        self.ict_to_ours[used] = np.arange(len(used))
        self.neutral = ict["neutral"][used].astype(np.float32) * self.scale + self.translation
        self.identity = ict["identity"][:, used].astype(np.float32) * self.scale
        self.expression = ict["expression"][:, used].astype(np.float32) * self.scale
        self.z_canonical = np.zeros(len(self.expression_names), np.float32)
        self.z_canonical[self.expression_names.index("jawOpen")] = float(ict["canon_jaw_open"])
        self.mh_names: list[str] = []
        if (data / "makehuman_shapes.npz").exists():
            self._add_makehuman(ict, np.load(data / "makehuman_shapes.npz"))
        self._add_others(ict, sorted(data.glob(people.PATTERN)))
        self.anchors = self.ict_to_ours[ict["anchors65"]]
        self.ibug68 = self.ict_to_ours[ict["ibug68_jaw_alt"]]

    def _add_makehuman(self, ict: "np.lib.npyio.NpzFile", mh: "np.lib.npyio.NpzFile") -> None:
        """The second source of people."""
        self.makehuman = _makehuman_on(ict, mh, self.skeleton.used) * self.scale
        self.mh_names = [str(n) for n in mh["names"]]
        self.mh_row = {n: i for i, n in enumerate(self.mh_names)}
        self.mh_groups = [str(g) for g in mh["groups"]]
        self.mh_antagonist = mh["antagonist"]
        self.mh_partner = mh["partner"]
        self.mh_range = mh["range_max"]
        self.mh_sigma = mh["sigma"]
        self._free_pairs = self._slider_pairs()

    def _add_others(self, ict: "np.lib.npyio.NpzFile", paths: list[Path]) -> None:
        """Whatever `people_*.npz` the data folder holds."""
        found = [people.read_people(path, SKIN_VERTICES) for path in paths]
        self.licences = [source.licence for source in found]
        self.others = [
            OtherHeads(
                *(
                    a * self.scale
                    for a in people.on_vertices(source, ict["neutral"], ict["vert_part"], self.skeleton.used)
                )
            )
            for source in found
        ]

    def mean_canonical(self) -> Float[np.ndarray, "vertices 3"]:
        """The ICT neutral with the mouth a little open."""
        return self.neutral + np.einsum("e,evc->vc", self.z_canonical, self.expression)

    def sample(self, rng: np.random.Generator, wide: float = 0.5) -> HeadSample:
        """A random person: with probability `wide` ICT and MakeHuman combined, else plain ICT; half are mirrored.

        Without MakeHuman's shapes everybody is plain ICT. Of the further heads, where there are some, are `OTHERS`.
        """
        if self.others and rng.random() < OTHERS:
            return self.other(rng)
        if rng.random() < wide and self.mh_names:
            beta, gamma = rng.uniform(0.3, 1.0), rng.uniform(0.5, 1.0)
            a = rng.uniform(0.7, 1.0) * np.sqrt(1 - 0.6 * beta**2)
            w_mh = self.makehuman_weights(rng, beta, gamma)
        else:
            a, w_mh = 1.0, np.zeros(len(self.mh_names), np.float32)
        w_ict = np.clip(a * rng.standard_normal(len(self.identity)), -2.5, 2.5).astype(np.float32)
        return self.compose(w_ict, w_mh, mirrored=rng.random() < 0.5)

    def compose(
        self, w_ict: Float[np.ndarray, "modes"], w_mh: Float[np.ndarray, "shapes"], mirrored: bool = False
    ) -> HeadSample:
        """The person with these weights."""
        active = np.nonzero(w_mh)[0]
        x = self.neutral + np.tensordot(w_ict, self.identity, 1)
        if len(active):
            x = x + np.tensordot(w_mh[active], self.makehuman[active], 1)
        return self._person(x, mirrored)

    def other(self, rng: np.random.Generator) -> HeadSample:
        """A random person of one of the further heads."""
        source = self.others[rng.integers(len(self.others))]
        w = np.clip(rng.standard_normal(len(source.components)), -people.WIDEST, people.WIDEST).astype(np.float32)
        x = self.neutral + source.mean + np.tensordot(w, source.components, 1)
        return self._person(x, mirrored=rng.random() < 0.5)

    def _person(self, x: Float[np.ndarray, "vertices 3"], mirrored: bool) -> HeadSample:
        if mirrored:
            x = x[self.skeleton.mirror] * np.array([-1, 1, 1], np.float32)
        jaw = np.tensordot(self.z_canonical, self.expression, 1)
        return HeadSample(x.astype(np.float32), (x + jaw).astype(np.float32))

    def _slider_pairs(self) -> list[tuple[int, int]]:
        """(shape, its antagonist) of the free sliders, each pair once, the ones that the recipe leaves out excluded."""
        pairs = []
        for i, name in enumerate(self.mh_names):
            group, j = self.mh_groups[i], int(self.mh_antagonist[i])
            if group in ("average", "macro", "body") or name.startswith(
                ("head-trans-", "neck-trans-in", "neck-trans-out")
            ):
                continue
            if name.startswith(("head-fat", "head-age")) or j == i or j < i:
                continue
            pairs.append((i, j))
        return pairs

    def _slide(self, w: Float[np.ndarray, "shapes"], up: int, down: int, x: float) -> None:
        row = up if x > 0 else down
        if row >= 0:
            w[row] += min(abs(x) * self.mh_sigma[row], self.mh_range[row])

    def makehuman_weights(self, rng: np.random.Generator, beta: float, gamma: float) -> Float[np.ndarray, "shapes"]:
        """Random weights of the MakeHuman shapes: `beta` scales age, sex and origin, `gamma` the free sliders."""
        w = np.zeros(len(self.mh_names), np.float32)
        ethnicity = rng.dirichlet([0.5, 0.5, 0.5])
        female = rng.choice([1.0, 0.0, rng.uniform()], p=[0.4, 0.4, 0.2])
        low, high = [(5, 12), (12, 18), (18, 50), (50, 88)][rng.choice(4, p=[0.10, 0.12, 0.50, 0.28])]
        years = rng.uniform(low, high)
        age = np.array([np.interp(years, AGES, row) for row in np.eye(4)])
        sex = np.array([female, 1 - female])
        w[self.mh_row["mh_average"]] = beta
        for e, ethnic in enumerate(ETHNICITIES):
            for s, sex_name in enumerate(SEXES):
                for a, age_name in enumerate(AGE_NAMES):
                    w[self.mh_row[f"macro-{ethnic}-{sex_name}-{age_name}"]] = beta * ethnicity[e] * sex[s] * age[a]
        fat, muscle = np.clip(0.5 * rng.standard_normal(2), -1, 1)
        for kind, value in (("weight", fat), ("muscle", muscle)):
            direction = "incr" if value > 0 else "decr"
            for s, sex_name in enumerate(SEXES):
                for a, age_name in enumerate(AGE_NAMES):
                    found = self.mh_row.get(f"{kind}-{direction}-{sex_name}-{age_name}")
                    if found is not None:
                        w[found] += beta * abs(value) * sex[s] * age[a]
        row = self.mh_row
        self._slide(w, row["head-fat-incr"], row["head-fat-decr"], 1.2 * fat + 0.5 * rng.standard_normal())
        x_age = np.clip((years - 45) / 25, -0.5, 1.2) + 0.5 * rng.standard_normal()
        self._slide(w, row["head-age-incr"], row["head-age-decr"], x_age)
        for name in rng.choice([n for n in self.mh_names if n in OUTLINES], 2, replace=False):
            self._slide(w, row[name], -1, gamma * abs(rng.standard_normal()))
        shared: dict[str, float] = {}
        for up, down in self._free_pairs:
            name = self.mh_names[up]
            key = name[2:] if name.startswith(("l-", "r-")) else name
            if key not in shared:
                shared[key] = gamma * float(np.clip(rng.standard_normal(), -2, 2)) if rng.random() < 0.5 else 0.0
            x = shared[key]
            if x == 0.0:
                continue
            if key != name:
                x += 0.25 * gamma * rng.standard_normal()
            if self.mh_groups[up] == "asym" or self.mh_partner[up] == down:
                x *= 0.6
            self._slide(w, up, down, x)
        return w


OUTLINES = frozenset(
    f"head-{s}" for s in ("diamond", "invertedtriangular", "oval", "rectangular", "round", "square", "triangular")
)


def sample_expression(rng: np.random.Generator, names: list[str]) -> Float[np.ndarray, "d_exp"]:
    """A random mixture of blendshapes that a face can make: weights in [0, 1], contradicting shapes kept apart."""
    index = {n: i for i, n in enumerate(names)}
    w = np.zeros(len(names), np.float32)
    kind = rng.random()
    if kind < 0.08:
        return w
    if kind < 0.14:
        w[index["jawOpen"]] = 0.3
        return w
    if kind < 0.30:  # one shape (both sides of it) far out
        name = names[rng.integers(len(names))]
        w[index[name]] = rng.uniform(0.3, 1.0)
        twin = name[:-2] + ("_R" if name.endswith("_L") else "_L")
        if twin in index and rng.random() < 0.7:
            w[index[twin]] = w[index[name]]
    else:
        active = rng.random(len(names)) < rng.uniform(0.1, 0.45)
        w[active] = rng.beta(1.0, 2.2, active.sum())
        for name in names:
            if name.endswith("_L") and rng.random() < 0.75:
                other = index[name[:-2] + "_R"]
                w[other] = np.clip(w[index[name]] * rng.uniform(0.8, 1.2), 0, 1)
    if rng.random() < 0.15:
        blink = rng.uniform(0.5, 1.0)
        w[index["eyeBlink_L"]] = w[index["eyeBlink_R"]] = blink
    if rng.random() < 0.4:
        w[index["jawOpen"]] = rng.uniform(0.0, 0.9)
    return _compatible(w, index)


def _compatible(w: Float[np.ndarray, "d_exp"], index: dict[str, int]) -> Float[np.ndarray, "d_exp"]:
    for side in "LR":
        blink = w[index[f"eyeBlink_{side}"]]
        for other in ("eyeWide", "eyeSquint", "eyeLookUp"):
            w[index[f"{other}_{side}"]] *= max(0.0, 1.0 - 2.0 * blink)
        for a, b in (("eyeLookUp", "eyeLookDown"), ("eyeLookIn", "eyeLookOut")):
            weaker = a if w[index[f"{a}_{side}"]] < w[index[f"{b}_{side}"]] else b
            w[index[f"{weaker}_{side}"]] = 0.0
    if w[index["eyeLookIn_L"]] > 0 or w[index["eyeLookOut_L"]] > 0:  # gaze is conjugate
        w[index["eyeLookOut_R"]] = w[index["eyeLookIn_L"]]
        w[index["eyeLookIn_R"]] = w[index["eyeLookOut_L"]]
    for a, b in (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")):
        w[index[min((a, b), key=lambda n: w[index[n]])]] = 0.0
    w[index["mouthClose"]] = min(w[index["mouthClose"]], 0.8 * w[index["jawOpen"]])
    roll = max(w[index["mouthRollLower"]], w[index["mouthRollUpper"]])
    if roll > 0.6:
        w[index["mouthPucker"]] *= 0.5
        w[index["mouthFunnel"]] *= 0.5
    return w


def _skeleton(ict: "np.lib.npyio.NpzFile") -> Skeleton:
    part, material = ict["tri_part"], ict["tri_material"]
    names = [str(n) for n in ict["material_names"]]
    tri = ict["tri"]
    sheet_rows = np.isin(part, (0, 1, 2))
    sclera = [tri[material == names.index(m)] for m in ("M_ScleraLeft", "M_ScleraRight")]
    used = np.concatenate([np.arange(SHEET_VERTICES), *(np.unique(s) for s in sclera)])
    ours = np.full(len(ict["neutral"]), -1, np.int64)
    ours[used] = np.arange(len(used))
    sheet = ours[tri[sheet_rows]]
    loops = _boundary_loops(sheet)
    x = ict["neutral"][used]
    lids = sorted((loop for loop in loops if x[loop, 1].mean() > 0), key=lambda loop: -x[loop, 0].mean())
    bust = [loop for loop in loops if x[loop, 1].mean() <= 0]
    return Skeleton(
        used=used,
        sheet=sheet,
        sclera=(ours[sclera[0]], ours[sclera[1]]),
        caps=(lids[0], lids[1], bust[0]),
        sheet_uv=ict["uv"][ict["tri_uv"][sheet_rows]].astype(np.float32),
        part=ict["vert_part"][used].astype(np.int64),
        mirror=ours[ict["sym"][used]],
    )


def _boundary_loops(tri: Int[np.ndarray, "triangles 3"]) -> list[Int[np.ndarray, "loop"]]:
    """Closed chains of edges that only one triangle has, in that triangle's direction."""
    edges = np.concatenate([tri[:, [0, 1]], tri[:, [1, 2]], tri[:, [2, 0]]])
    directed = {(int(a), int(b)) for a, b in edges}
    follow = {a: b for a, b in directed if (b, a) not in directed}
    loops = []
    while follow:
        start = next(iter(follow))
        loop = [start]
        while (step := follow.pop(loop[-1])) != start:
            loop.append(step)
        loops.append(np.array(loop))
    return loops


def _makehuman_on(
    ict: "np.lib.npyio.NpzFile", mh: "np.lib.npyio.NpzFile", used: Int[np.ndarray, "vertices"]
) -> Float[np.ndarray, "shapes vertices 3"]:
    """MakeHuman displacements on our vertices, cm; eyeballs by their translation and relative scale."""
    out = np.zeros((len(mh["names"]), len(used), 3), np.float32)
    skin = used < SKIN_VERTICES
    out[:, skin] = mh["displacement"][:, used[skin]].astype(np.float32)
    for side, (start, stop) in enumerate(mh["eye_ranges"]):
        ball = (used >= start) & (used < stop)
        arm = ict["neutral"][used[ball]] - mh["eye_center"][side]
        out[:, ball] = mh["eye"][:, side, None, :3] + mh["eye"][:, side, None, 3:] * arm
    return out
