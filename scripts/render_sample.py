"""Render the sample clip: two seconds of a person who does not exist, talking, blinking, smiling and turning the head.

    .venv/bin/python scripts/render_sample.py --data DIR --out examples/sample.mp4

DIR holds the open head data that `mononphm train` learns from (ICT-FaceKit, MIT; MakeHuman skins, CC0). The person's
shape is a random draw that no training head shares; what the face does is written below as curves. Same data and same
library versions: same bytes.

Lengths are centimetres in the frame of ICT-FaceKit (x = subject's left, y up, z out of the face); light is computed in
linear RGB.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.meshing.raster import rasterise
from mononphm_core.training.appearance import HAIRLINE, Appearance, Painter, SurfacePoints
from mononphm_core.training.sources import OpenHeads
from mononphm_core.types import HeadMesh, Intrinsics

WIDTH, HEIGHT, FPS, FRAMES = 480, 640, 24, 48
SUPERSAMPLING = 2
FOV_DEG = 40.0
"""Over the height: a phone held upright."""
CAMERA = np.array([0.0, -1.2, 55.0])
"""Looks along -z."""
SEED = (777, 5)
"""Training heads are drawn from [seed, shard] with seed 0: this start of the random numbers is not among them."""
TEETH_AND_GUMS = (14062, 21451)
"""ICT vertices of gums, tongue (to 17038) and teeth."""
NECK = (-16.0, -8.0)
"""Heights between which the neck takes over the head's turn."""
NECK_PIVOT = np.array([0.0, -4.0, -1.0])
HAIR_CM = 1.1
GAZE = -0.85
"""Share of the head's turn that the eyes take back."""
KEY_LIGHT = np.array([-0.55, 0.50, 0.80]) / np.linalg.norm([-0.55, 0.50, 0.80])
"""Direction to the key light: above, from the picture's left."""
KEY_COLOUR = np.array([1.05, 0.98, 0.90])
AMBIENT_SH = np.array(
    [
        [0.46, 0.48, 0.53],
        [0.10, 0.11, 0.14],
        [0.16, 0.16, 0.17],
        [0.06, 0.05, 0.03],
        [0.02, 0.02, 0.02],
        [0.03, 0.03, 0.03],
        [0.01, 0.01, 0.01],
        [-0.03, -0.02, -0.01],
        [0.02, 0.02, 0.01],
    ]
)
"""Irradiance over the normal in the order 1, y, z, x, xy, yz, 3z^2-1, xz, x^2-y^2."""
SHIRT = np.array([0.055, 0.105, 0.15])
TEETH, GUMS = np.array([0.47, 0.40, 0.33]), np.array([0.26, 0.075, 0.065])


@dataclass(frozen=True)
class Actor:
    """The person: shape, blendshapes and colours of everything that is drawn, in one vertex list."""

    neutral: Float[np.ndarray, "vertices 3"]
    expression: Float[np.ndarray, "d_exp vertices 3"]
    names: list[str]
    triangles: Int[np.ndarray, "triangles 3"]
    """Those of the painter first, then teeth and gums, then the shirt."""
    skin_end: int
    """Where those of the painter end."""
    shape_offset: Float[np.ndarray, "vertices 3"]
    """Hair lifts the scalp; shoulders sink under the shirt."""
    eyeballs: tuple[Int[np.ndarray, "left"], Int[np.ndarray, "right"]]
    """Their vertices."""
    follow: Float[np.ndarray, "vertices"]
    """Share of the head's turn that a vertex takes part in."""
    ambient: Float[np.ndarray, "vertices"]
    """Share of the sky that it sees."""
    extra_colour: Float[np.ndarray, "vertices 3"]
    """Linear RGB of what the painter does not know."""
    painter: Painter
    appearance: Appearance


def make_actor(data: Path) -> Actor:
    """Draw the person and put the parts together."""
    heads = OpenHeads(data)
    painter = Painter(data, heads)
    rng = np.random.default_rng(SEED)
    weights = np.clip(0.8 * rng.standard_normal(len(heads.identity)), -2.0, 2.0).astype(np.float32)
    skin = (heads.compose(weights, np.zeros(len(heads.mh_names), np.float32)).neutral - heads.translation) / heads.scale
    ict, extras = np.load(data / "ict_facekit.npz"), np.load(data / "skins" / "vertex_extras.npz")
    start, stop = TEETH_AND_GUMS
    mouth = ict["neutral"][start:stop] + np.tensordot(weights, ict["identity"][:, start:stop].astype(np.float32), 1)
    shirt, shirt_triangles = make_shirt()
    neutral = np.concatenate([skin, mouth, shirt])
    n_skin, n_head = len(skin), len(skin) + len(mouth)
    expression = np.zeros((len(heads.expression), *neutral.shape), np.float32)
    expression[:, :n_skin] = heads.expression / heads.scale
    expression[:, n_skin:n_head] = ict["expression"][:, start:stop]
    mouth_triangles = ict["tri"][np.isin(ict["tri_part"], (5, 6))] - start + n_skin
    triangles = np.concatenate([painter.triangles, mouth_triangles, shirt_triangles + n_head])
    offset = np.zeros_like(neutral)
    up = vertex_normals(HeadMesh(skin.astype(np.float64), heads.skeleton.sheet))
    offset[:n_skin] = (hair_lift(painter.x_cm) * (painter.part < 2))[:, None] * up
    offset[:n_skin, 1] -= 1.5 * smooth((np.abs(skin[:, 0]) - 7.2) / 1.5) * smooth((-8.5 - skin[:, 1]) / 1.5)
    ambient = np.ones(len(neutral))
    ambient[:n_skin] = extras["ambient"][heads.skeleton.used] ** 0.5
    front = np.clip((mouth[:, 2] - 4.0) / 6.5, 0.0, 1.0)
    ambient[n_skin:n_head] = 0.08 + 0.40 * front**2
    colour = np.tile(SHIRT, (len(neutral), 1))
    colour[n_skin : n_skin + 17039 - start] = GUMS
    colour[n_skin + 17039 - start : n_head] = TEETH
    follow = neck_share(neutral)
    follow[n_skin:n_head], follow[n_head:] = 1.0, 0.0
    return Actor(
        neutral=neutral,
        expression=expression,
        names=heads.expression_names,
        triangles=triangles,
        skin_end=len(painter.triangles),
        shape_offset=offset,
        eyeballs=(np.flatnonzero(painter.part == 7), np.flatnonzero(painter.part == 8)),
        follow=follow,
        ambient=ambient,
        extra_colour=colour,
        painter=painter,
        appearance=complexion(painter, rng),
    )


def complexion(painter: Painter, rng: np.random.Generator) -> Appearance:
    """A random complexion, then two chosen skins and brown hair."""
    young, older = (painter.names.index(n) for n in ("young_lightskinned_male3", "middleage_lightskinned_male"))
    return replace(
        painter.sample(rng),
        skins=(young, older),
        mix=0.45,
        tint=np.array([0.93, 0.90, 0.88]),
        brow=1,
        brow_alpha=1.0,
        hair=np.array([0.050, 0.031, 0.020]),
        hair_alpha=0.0,
        beard_alpha=0.10,
        lips=np.array([0.42, 0.17, 0.15]),
        lips_alpha=0.35,
        lash_alpha=0.8,
        iris=np.array([0.11, 0.065, 0.03]),
        sclera=np.array([0.60, 0.56, 0.53]),
        flip=False,
    )


def strands(x: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points"]:
    """Noise in [0, 1] that is long along lines from the crown and short across them: hair."""
    crown = x - np.array([0.6, 5.0, -1.5])
    radius = np.linalg.norm(crown, axis=1) + 1e-6
    polar = np.arccos(np.clip(crown[:, 1] / radius, -1, 1))
    around = np.arctan2(crown[:, 0], crown[:, 2]) + 0.5 * polar
    total = np.zeros(len(x))
    for number, (lines, waves, gain) in enumerate(((360, 8, 0.5), (140, 5, 0.3), (48, 3, 0.2))):
        table = np.random.default_rng([*SEED, number]).random((lines, 64))
        where = [(around / (2 * np.pi) % 1.0) * lines, polar / np.pi * waves * 6]
        total += gain * map_coordinates(table, where, order=1, mode="grid-wrap")
    return total


def hairline(x: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points"]:
    """Height above which hair grows: the painter's, a little lower, and higher at the temples."""
    temple = 0.25 * np.clip(np.abs(x[:, 0]) - 3.5, 0.0, 4.0) * smooth((x[:, 2] - 3.0) / 4.0)
    return np.interp(x[:, 2], *HAIRLINE.T) - 0.5 + temple


def hair_share(points: SurfacePoints) -> Float[np.ndarray, "points"]:
    """1 under hair, 0 on bare skin; frayed along the hairline, ears left out."""
    x = points.x_cm
    height = x[:, 1] - hairline(x)
    ear = (np.abs(x[:, 0]) > 6.9) & (x[:, 1] < 4.2) & (x[:, 1] > -5.0) & (x[:, 2] > -3.5) & (x[:, 2] < 3.0)
    return smooth((height + 2.0 * (strands(x) - 0.5)) / 1.6) * ~ear


def hair_lift(x: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices"]:
    """How far hair stands off the scalp: thick on the crown, thin at temples, round the ears and in the nape."""
    above = x[:, 1] - hairline(x) + 0.3
    crown = 0.15 + 0.85 * smooth((x[:, 1] - 4.0) / 9.0)
    ear = smooth((np.hypot((x[:, 1] - 0.0) / 5.5, (x[:, 2] + 0.2) / 4.0) - 1.0) / 0.5)
    return HAIR_CM * smooth((above + 0.4) / 2.8) * crown * np.where(np.abs(x[:, 0]) > 5.5, ear, 1.0)


def neck_share(x: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices"]:
    """1 on the head, 0 on the chest; the chin hangs lower than the nape and still belongs to the head."""
    reach = 0.30 * np.clip(x[:, 2] - 3.0, 0.0, 8.0)
    return smooth((x[:, 1] + reach - NECK[0]) / (NECK[1] - NECK[0]))


def make_shirt() -> tuple[Float[np.ndarray, "vertices 3"], Int[np.ndarray, "triangles 3"]]:
    """A round-necked shirt around the bust: ellipses from the inside of the collar over the shoulders and down.

    Columns: half width, z of the front, z of the back, then height at the side, the front and the back.
    """
    rows = np.array(
        [
            [7.4, 4.3, -6.9, -11.8, -14.6, -10.6],
            [7.6, 5.0, -7.6, -10.4, -13.6, -9.6],
            [8.1, 5.4, -8.1, -10.0, -13.4, -9.3],
            [8.9, 5.5, -8.5, -10.3, -13.9, -9.7],
            [11.0, 5.9, -9.3, -11.3, -15.2, -10.8],
            [14.0, 6.6, -10.4, -12.5, -16.9, -12.6],
            [17.5, 7.8, -11.2, -14.6, -19.2, -15.0],
            [20.5, 9.0, -11.6, -17.5, -22.5, -19.0],
            [21.5, 9.6, -11.6, -24.0, -27.0, -25.0],
            [21.5, 9.8, -11.6, -36.0, -36.0, -36.0],
        ]
    )
    steps = np.linspace(0, len(rows) - 1, 60)
    rounded = gaussian_filter(rows, (0.6, 0.0), mode="nearest")
    rows = np.stack([np.interp(steps, np.arange(len(rows)), column) for column in rounded.T], 1)
    angle = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    half, front, back, y_side, y_front, y_back = rows.T[:, :, None]
    x = half * np.sign(c) * np.abs(c) ** 0.9
    z = (front + back) / 2 + (front - back) / 2 * s
    y = y_side * c**2 + np.where(s > 0, y_front, y_back) * s**2
    grid = np.arange(60 * 128).reshape(60, 128)
    a, b = grid[:-1], grid[1:]
    quads = np.stack([a, b, np.roll(b, -1, 1), np.roll(a, -1, 1)], -1).reshape(-1, 4)
    return np.stack([x, y, z], -1).reshape(-1, 3), np.concatenate([quads[:, [0, 2, 1]], quads[:, [0, 3, 2]]])


def performance(names: list[str]) -> tuple[Float[np.ndarray, "frames d_exp"], Float[np.ndarray, "frames 3"]]:
    """What the person does: blendshape weights and the head's turn (rotation vector, radians) in every frame."""
    t = np.arange(FRAMES) / FRAMES
    yaw = 20.0 * np.sin(2 * np.pi * t) * (1 - 0.15 * t)
    pitch = 6.0 * np.sin(2 * np.pi * (1.5 * t + 0.02)) * np.sin(np.pi * np.minimum(1.3 * t, 1.0)) + 1.5
    roll = 3.0 * np.sin(2 * np.pi * t - 0.8) + 2.2
    speech = smooth(t / 0.08) * smooth((0.80 - t) / 0.12)
    syllable = speech * np.abs(np.sin(2 * np.pi * 4.1 * t)) ** 1.3
    rounded = speech * np.exp(-(((t[:, None] - [0.22, 0.47, 0.68]) / 0.05) ** 2)).sum(1)
    smile = smooth((t - 0.60) / 0.25)
    brows = smooth((t - 0.10) / 0.12) * smooth((0.46 - t) / 0.14)
    blink = np.exp(-(((t - 0.535) / 0.032) ** 4))
    gaze = np.radians(yaw) / 0.85
    both = {
        "browInnerUp": 0.75 * brows, "browOuterUp": 0.65 * brows, "eyeWide": 0.20 * brows * (1 - blink),
        "eyeBlink": np.maximum(0.06, blink), "eyeSquint": 0.30 * smile * (1 - blink), "cheekSquint": 0.45 * smile,
        "mouthSmile": 0.70 * smile + 0.12 * speech, "mouthDimple": 0.15 * smile,
        "mouthUpperUp": 0.16 * syllable + 0.18 * smile, "mouthLowerDown": 0.26 * syllable,
        "mouthStretch": 0.15 * syllable * (1 - rounded), "eyeLookUp": np.clip(0.012 * pitch, 0, 1) * (1 - blink),
        "eyeLookDown": np.clip(-0.012 * pitch, 0, 1),
    }  # fmt: skip
    curves = {f"{name}_{side}": curve for name, curve in both.items() for side in "LR"}
    curves |= {
        "jawOpen": 0.30 * syllable + 0.06 * smile, "mouthFunnel": 0.35 * rounded, "mouthPucker": 0.30 * rounded,
        "mouthShrugUpper": 0.10 * syllable, "jawLeft": 0.05 * syllable,
        "eyeLookIn_L": np.clip(gaze, 0, 1), "eyeLookOut_R": np.clip(gaze, 0, 1),
        "eyeLookOut_L": np.clip(-gaze, 0, 1), "eyeLookIn_R": np.clip(-gaze, 0, 1),
    }  # fmt: skip
    z_exp = np.zeros((FRAMES, len(names)), np.float32)
    for name, curve in curves.items():
        z_exp[:, names.index(name)] = curve
    return z_exp, np.radians(np.stack([pitch, yaw, roll], 1))


def posed(
    actor: Actor, z_exp: Float[np.ndarray, "d_exp"], turn: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "vertices 3"]:
    """The vertices of one frame: the eyes stay on the camera, the neck takes less and less of the turn downwards."""
    x = actor.neutral + np.tensordot(z_exp, actor.expression, 1) + actor.shape_offset
    gaze = Rotation.from_rotvec(GAZE * np.array([turn[0], turn[1], 0.0]))
    for ball in actor.eyeballs:
        centre = x[ball].mean(0)
        x[ball] = gaze.apply(x[ball] - centre) + centre
    return Rotation.from_rotvec(actor.follow[:, None] * turn).apply(x - NECK_PIVOT) + NECK_PIVOT


def linear_colour(
    actor: Actor, triangle: Int[np.ndarray, "points"], bary: Float[np.ndarray, "points 3"]
) -> tuple[Float[np.ndarray, "points 3"], Float[np.ndarray, "points"], Float[np.ndarray, "points"]]:
    """Albedo, how much it is wet eye, and how much it is hair, of points on the actor."""
    albedo = np.einsum("pk,pkc->pc", bary, actor.extra_colour[actor.triangles[triangle]])
    eye, hair = np.zeros(len(albedo)), np.zeros(len(albedo))
    skin = triangle < actor.skin_end
    points = actor.painter.at(triangle[skin], bary[skin].astype(np.float32))
    colour = actor.painter.paint(actor.appearance, points).astype(np.float64) ** 2.2
    share = hair_share(points) * (points.part < 2)
    lock = actor.appearance.hair * (0.35 + 1.5 * strands(points.x_cm)[:, None] ** 2)
    albedo[skin] = colour + share[:, None] * (lock - colour)
    eye[skin], hair[skin] = points.part >= 7, share
    return albedo, eye, hair


def lit(
    albedo: Float[np.ndarray, "points 3"],
    eye: Float[np.ndarray, "points"],
    hair: Float[np.ndarray, "points"],
    normal: Float[np.ndarray, "points 3"],
    to_eye: Float[np.ndarray, "points 3"],
    ambient: Float[np.ndarray, "points"],
    key_seen: Float[np.ndarray, "points"],
) -> Float[np.ndarray, "points 3"]:
    """Linear RGB: order-2 irradiance times sky visibility, a key light with a reddish edge, a little gloss."""
    x, y, z = normal.T
    basis = np.stack([np.ones_like(x), y, z, x, x * y, y * z, 3 * z**2 - 1, x * z, x**2 - y**2], 1)
    sky = np.maximum(basis @ AMBIENT_SH, 0.0) * (0.25 + 0.75 * ambient[:, None])
    wrap = np.array([0.28, 0.16, 0.12])
    facing = (normal @ KEY_LIGHT)[:, None]
    key = np.clip((facing + wrap) / (1 + wrap), 0.0, None) * key_seen[:, None] * KEY_COLOUR * 0.72
    half = KEY_LIGHT + to_eye
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    cosine = np.clip((normal * half).sum(1), 0.0, 1.0)
    gloss = np.where(eye > 0, 0.9 * cosine**180, (1 - hair) * 0.045 * cosine**18 + hair * 0.02 * cosine**8)
    return albedo * (sky + key) + (gloss * key_seen * ambient)[:, None]


def key_visibility(
    x: Float[np.ndarray, "vertices 3"],
    triangles: Int[np.ndarray, "triangles 3"],
    points: Float[np.ndarray, "points 3"],
    size: int = 512,
) -> Float[np.ndarray, "points"]:
    """Share of the key light that reaches points: a shadow map seen from far away, its edge softened over 16 looks."""
    away, reach = 400.0, 30.0
    right = np.cross([0.0, 1.0, 0.0], KEY_LIGHT)
    right /= np.linalg.norm(right)
    axes = np.stack([right, -np.cross(KEY_LIGHT, right), -KEY_LIGHT])
    centre = np.array([0.0, -4.0, 0.0])
    focal = size / 2 / reach * away
    light = Intrinsics(focal, focal, size / 2, size / 2, size, size)
    depth = rasterise((x - centre) @ axes.T + [0, 0, away], triangles, light).depth
    seen_from = (points - centre) @ axes.T + [0, 0, away]
    pixel = seen_from[:, :2] / seen_from[:, 2:] * focal + size / 2 - 0.5
    visible = np.zeros(len(points))
    for dx, dy in np.random.default_rng(3).normal(0.0, 4.0, (16, 2)):
        i = np.clip(np.rint(pixel + np.array([dx, dy])).astype(int), 0, size - 1)
        slope = 0.35 + 0.05 * float(np.hypot(dx, dy))
        visible += seen_from[:, 2] < depth[i[:, 1], i[:, 0]] + slope
    return visible / 16


def background(width: int, height: int) -> Float[np.ndarray, "height width 3"]:
    """A room out of focus: a wall that darkens downwards and a few soft spots of light, linear RGB."""
    y, x = np.mgrid[0:height, 0:width] / height
    wall = np.array([0.30, 0.33, 0.35]) * (1.05 - 0.55 * y[..., None]) + 0.10 * (x[..., None] - 0.4)
    spots = np.random.default_rng(21)
    for _ in range(9):
        cx, cy, radius = spots.uniform(0, width / height), spots.uniform(0, 0.8), spots.uniform(0.05, 0.13)
        glow = smooth((radius * 1.25 - np.hypot(x - cx, y - cy)) / (radius * 0.7))
        wall += glow[..., None] * spots.uniform(0.02, 0.09) * np.array([1.0, 0.85, 0.62])
    return np.clip(gaussian_filter(wall, (height / 40, height / 40, 0)), 0.0, 1.0)


def draw(
    actor: Actor, z_exp: Float[np.ndarray, "d_exp"], turn: Float[np.ndarray, "3"], behind: Float[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "height width 3"]:
    """One frame, sRGB. `behind` has the supersampled size."""
    height, width = behind.shape[:2]
    focal = height / 2 / np.tan(np.radians(FOV_DEG / 2))
    x = posed(actor, z_exp, turn)
    x_camera = (x - CAMERA) * [1.0, -1.0, -1.0]
    raster = rasterise(x_camera, actor.triangles, Intrinsics(focal, focal, width / 2, height / 2, width, height))
    seen = raster.covered
    triangle, bary = raster.face_index[seen], raster.barycentric[seen]
    corners = actor.triangles[triangle]

    def carried(values: Float[np.ndarray, "vertices channels"]) -> Float[np.ndarray, "points channels"]:
        return np.einsum("pk,pkc->pc", bary, values[corners])

    normal, place = carried(vertex_normals(HeadMesh(x, actor.triangles))), carried(x)
    to_eye = (CAMERA - place) / np.linalg.norm(CAMERA - place, axis=1, keepdims=True)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    albedo, eye, hair = linear_colour(actor, triangle, bary)
    shadow = key_visibility(x, actor.triangles, place)
    image = behind.copy()
    image[seen] = lit(albedo, eye, hair, normal, to_eye, carried(actor.ambient[:, None])[:, 0], shadow)
    image = image.reshape(height // SUPERSAMPLING, SUPERSAMPLING, width // SUPERSAMPLING, SUPERSAMPLING, 3).mean((1, 3))
    image = image * (1 + image / 2.2) / (1 + image)  # highlights bend instead of clipping
    return np.rint(255 * np.clip(1.12 * image, 0, 1) ** (1 / 2.2)).astype(np.uint8)


def smooth(t: Any) -> Any:
    """Cubic step from 0 at t <= 0 to 1 at t >= 1."""
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def pictures(data: Path, numbers: list[int]) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """The named frames, one after another."""
    actor = make_actor(data)
    z_exp, turns = performance(actor.names)
    behind = background(WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING)
    for number in numbers:
        yield draw(actor, z_exp[number], turns[number], behind)


def encode(path: Path, frames: Iterator[UInt8[np.ndarray, "height width 3"]]) -> None:
    """H.264, one thread and no version strings, so that the same pictures make the same bytes."""
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with cast(Any, av.open(str(path), "w", format="mp4", options=options)) as box:
        stream = box.add_stream("libx264", rate=FPS, options={"preset": "slow", "crf": "14", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, FPS)
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1  # BT.709, TV
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            box.mux(stream.encode(frame))
            print(f"frame {number + 1} of {FRAMES}", flush=True)
        box.mux(stream.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(description="Render examples/sample.mp4 from the open head data.")
    parser.add_argument("--data", type=Path, required=True, help="folder with ict_facekit.npz and skins/")
    parser.add_argument("--out", type=Path, default=Path("examples/sample.mp4"))
    given = parser.parse_args()
    encode(given.out, pictures(given.data, list(range(FRAMES))))
    print(f"{given.out}: {given.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
