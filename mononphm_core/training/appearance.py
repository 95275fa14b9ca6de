"""Colours for the training heads: CC0 skins blended and tinted, with painted brows, lips, irises, hair and beards.

Colours are sRGB in [0, 1]; blending of skins happens in linear light. An appearance is a function of a point on the
template (its triangle and barycentric coordinates), so it is the same for every person and expression.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from mononphm_core.training.sources import OpenHeads

OVERSATURATED = "old_darkskinned_female"
"""The one skin of the set that the data's README advises to leave out."""
EVEN_TONES = np.array(
    [[0.62, 0.42, 0.33], [0.50, 0.32, 0.23], [0.36, 0.21, 0.14], [0.20, 0.11, 0.07], [0.09, 0.05, 0.035]], np.float32
)
"""Linear light; complexions where no skins are at hand."""
HAIRLINE = np.array(
    [[-10, -6.5], [-6, -5.5], [-3, -3.0], [-1, 2.0], [1.5, 4.0], [4, 7.2], [7, 9.0], [10, 9.6], [14, 10]]
)
"""Height (cm, ICT neutral) over depth z above which a scalp carries hair."""


@dataclass(frozen=True)
class SurfacePoints:
    """Points on the template surface and what painting needs to know of them."""

    uv: Float[np.ndarray, "points 2"]
    part: Int[np.ndarray, "points"]
    x_cm: Float[np.ndarray, "points 3"]
    """On the ICT neutral."""
    eye: Float[np.ndarray, "points 2"]
    """Angle from the optical axis, radians, and height in the eye's own frame; eyeballs only."""


@dataclass(frozen=True)
class Appearance:
    """One random complexion; all that `Painter.paint` needs."""

    skins: tuple[int, int]
    mix: float
    tint: Float[np.ndarray, "3"]
    brow: int
    brow_alpha: float
    hair: Float[np.ndarray, "3"]
    hair_alpha: float
    hairline_cm: float
    beard_alpha: float
    lips: Float[np.ndarray, "3"]
    lips_alpha: float
    lash_alpha: float
    iris: Float[np.ndarray, "3"]
    sclera: Float[np.ndarray, "3"]
    flip: bool


class Painter:
    """The skins and masks, loaded once."""

    def __init__(self, data: Path, heads: OpenHeads) -> None:
        if (data / "skins").is_dir():
            self._read_skins(data / "skins", heads)
        else:
            self._even_tones(heads)
        sk = heads.skeleton
        self.x_cm = (heads.neutral - heads.translation) / heads.scale
        self.part = sk.part
        self.triangles = np.concatenate([sk.sheet, *sk.sclera])
        corner_uv = np.concatenate([sk.sheet_uv, np.zeros((len(sk.sclera[0]) * 2, 3, 2), np.float32)])
        self.corner_uv = corner_uv
        self.vertex_uv = np.zeros((len(sk.used), 2), np.float32)
        self.vertex_uv[self.triangles.reshape(-1)] = corner_uv.reshape(-1, 2)

    def _read_skins(self, skins: Path, heads: OpenHeads) -> None:
        self.names = sorted(
            p.name[: -len("_face.jpg")] for p in skins.glob("*_face.jpg") if not p.name.startswith(OVERSATURATED)
        )
        self.face = np.stack([_linear(Image.open(skins / f"{n}_face.jpg").resize((512, 512))) for n in self.names])
        self.back = np.stack([_linear(Image.open(skins / f"{n}_backhead.jpg").resize((256, 256))) for n in self.names])
        self.brows = np.stack([_mask(skins / f"mask_brow{i}.png") for i in range(4)])
        self.lips = _mask(skins / "mask_lips.png")
        self.lashes = _mask(skins / "mask_lashline.png")
        local = np.load(skins / "vertex_extras.npz")["eye_local"].astype(np.float32)[heads.skeleton.used]
        self.eye = np.stack([np.linalg.norm(local[:, :2], axis=1), local[:, 1]], 1)
        self.eye[local[:, 2] < 0, 0] = np.pi

    def _even_tones(self, heads: OpenHeads) -> None:
        """Without skins: plain tones, eyes and hair; no brows, no lips. The optical axis is z."""
        self.names = [f"tone {i}" for i in range(len(EVEN_TONES))]
        self.face = self.back = np.ones((1, 2, 2, 1), np.float32) * EVEN_TONES[:, None, None]
        self.brows = np.zeros((4, 2, 2, 1), np.float32)
        self.lips = self.lashes = np.zeros((2, 2, 1), np.float32)
        self.eye = np.zeros((len(heads.neutral), 2), np.float32)
        for ball in heads.skeleton.sclera:
            rows = np.unique(ball)
            out = heads.neutral[rows] - heads.neutral[rows].mean(0)
            self.eye[rows, 0] = np.arccos(np.clip(out[:, 2] / np.linalg.norm(out, axis=1), -1, 1))
            self.eye[rows, 1] = self.eye[rows, 0] * out[:, 1] / np.maximum(np.linalg.norm(out[:, :2], axis=1), 1e-9)

    def at(self, triangle: Int[np.ndarray, "points"], bary: Float[np.ndarray, "points 3"]) -> SurfacePoints:
        """Surface points by triangle (of `triangles`) and barycentric coordinates."""
        corners = self.triangles[triangle]
        return SurfacePoints(
            np.einsum("pk,pkc->pc", bary, self.corner_uv[triangle]),
            self.part[corners[:, 0]],
            np.einsum("pk,pkc->pc", bary, self.x_cm[corners]),
            np.einsum("pk,pkc->pc", bary, self.eye[corners]),
        )

    def skin(self) -> Bool[np.ndarray, "triangles"]:
        """Which triangles are skin and not eyeball."""
        found: np.ndarray = self.part[self.triangles[:, 0]] < 7
        return found

    def vertices(self) -> SurfacePoints:
        """All vertices, as points."""
        return SurfacePoints(self.vertex_uv, self.part, self.x_cm, self.eye)

    def sample(self, rng: np.random.Generator) -> Appearance:
        """A random complexion."""
        n = len(self.names)
        dark = rng.random()
        hair = (
            np.array([0.06, 0.045, 0.035]) * rng.uniform(0.4, 2.0)
            if dark < 0.6
            else np.array([0.30, 0.20, 0.11]) * rng.uniform(0.5, 1.8)
            if dark < 0.85
            else np.full(3, rng.uniform(0.25, 0.8))
        )
        iris = np.array([[0.16, 0.09, 0.05], [0.30, 0.20, 0.10], [0.28, 0.36, 0.40], [0.22, 0.28, 0.16]])
        return Appearance(
            skins=(int(rng.integers(n)), int(rng.integers(n))),
            mix=float(rng.uniform()),
            tint=np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.04, 3)),
            brow=int(rng.integers(4)),
            brow_alpha=float(rng.uniform(0.3, 1.0)),
            hair=np.clip(hair, 0.01, 0.9),
            hair_alpha=float(rng.uniform(0.6, 1.0) if rng.random() < 0.8 else rng.uniform(0, 0.3)),
            hairline_cm=float(rng.normal(0, 0.9)),
            beard_alpha=float(rng.uniform(0.1, 0.8) if rng.random() < 0.3 else 0.0),
            lips=np.clip(np.array([0.45, 0.16, 0.15]) * np.exp(rng.normal(0, 0.25, 3)), 0, 1),
            lips_alpha=float(rng.beta(1.5, 3)),
            lash_alpha=float(rng.uniform(0.2, 1.0)),
            iris=np.clip(iris[rng.integers(4)] * np.exp(rng.normal(0, 0.2, 3)), 0, 1),
            sclera=np.clip(np.array([0.72, 0.66, 0.62]) * rng.uniform(0.7, 1.15), 0, 1),
            flip=bool(rng.random() < 0.5),
        )

    def paint(self, a: Appearance, points: SurfacePoints) -> Float[np.ndarray, "points 3"]:
        """sRGB of each point, [0, 1]."""
        uv, x = points.uv.copy(), points.x_cm
        on_face = (points.part == 0) & (uv[:, 0] <= 1.0)
        if a.flip:
            uv[on_face, 0] = 1.0 - uv[on_face, 0]
        colour = np.empty((len(uv), 3), np.float32)
        for rows, stack, shift in ((on_face, self.face, 0.0), (~on_face, self.back, 1.0)):
            at = uv[rows] - np.array([shift, 0.0])
            one, two = (_lookup(stack[s], at) for s in a.skins)
            colour[rows] = (1 - a.mix) * one + a.mix * two
        colour *= a.tint
        beard = _smooth((-1.2 - x[:, 1]) / 1.0) * _smooth((x[:, 1] + 11) / 2) * _smooth((x[:, 2] - 1.0) / 2.0)
        beard *= 1 - _lookup(self.lips, uv)[:, 0] * on_face
        scalp = _smooth((x[:, 1] - np.interp(x[:, 2], *HAIRLINE.T) - a.hairline_cm) / 0.8)
        ear = (np.abs(x[:, 0]) > 7.0) & (x[:, 1] < 4.0) & (x[:, 1] > -4.5) & (x[:, 2] > -3.5) & (x[:, 2] < 2.5)
        scalp *= ~ear
        layers = [
            (a.beard_alpha * beard * (points.part < 2), a.hair),
            (a.hair_alpha * scalp * (points.part < 2), a.hair),
            (a.brow_alpha * _lookup(self.brows[a.brow], uv)[:, 0] * on_face, a.hair),
            (a.lips_alpha * _lookup(self.lips, uv)[:, 0] * on_face, a.lips),
            (a.lash_alpha * _lookup(self.lashes, uv)[:, 0] * on_face, np.full(3, 0.03)),
            ((points.part == 2) * _smooth((11.3 - x[:, 2]) / 1.0), np.array([0.10, 0.025, 0.02])),
        ]
        for alpha, layer in layers:
            colour += alpha[:, None].astype(np.float32) * (layer - colour).astype(np.float32)
        ball = points.part >= 7
        angle = points.eye[ball, 0]
        white = a.sclera * np.ones((ball.sum(), 3))
        ring = a.iris * (0.55 + 0.45 * _smooth((0.47 - angle) / 0.08))[:, None]
        eye = white + _smooth((0.49 - angle) / 0.05)[:, None] * (ring - white)
        colour[ball] = eye * (1 - 0.97 * _smooth((0.19 - angle) / 0.05))[:, None]
        result: np.ndarray = np.clip(colour, 0, 1) ** (1 / 2.2)
        return result.astype(np.float32)


def _smooth(t: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
    """Cubic step from 0 at t <= 0 to 1 at t >= 1."""
    t = np.clip(t, 0, 1)
    result: np.ndarray = t * t * (3 - 2 * t)
    return result


def _linear(image: Image.Image) -> Float[np.ndarray, "height width 3"]:
    return (np.asarray(image.convert("RGB"), np.float32) / 255) ** 2.2


def _mask(path: Path) -> Float[np.ndarray, "height width 1"]:
    image = Image.open(path)
    channel = image.getchannel("A") if "A" in image.getbands() else image.convert("L")
    return np.asarray(channel.resize((512, 512)), np.float32)[..., None] / 255


def _lookup(
    texture: Float[np.ndarray, "height width channels"], uv: Float[np.ndarray, "points 2"]
) -> Float[np.ndarray, "points channels"]:
    """Bilinear texture value; v points up."""
    height, width = texture.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1.001)
    y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1.001)
    i, j = y.astype(int), x.astype(int)
    fy, fx = (y - i)[:, None], (x - j)[:, None]
    result: np.ndarray = (1 - fy) * ((1 - fx) * texture[i, j] + fx * texture[i, j + 1]) + fy * (
        (1 - fx) * texture[i + 1, j] + fx * texture[i + 1, j + 1]
    )
    return result
