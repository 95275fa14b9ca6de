"""A stand-in for the open heads: a ball with eye holes and a cut neck, eyeballs, five ways to differ."""

import numpy as np
import trimesh

from mononphm_core.io import registry
from mononphm_core.training.appearance import Painter
from mononphm_core.training.sources import HeadSample, OpenHeads, Skeleton, _boundary_loops

RADIUS = 0.4
NAMES = list(registry.find_model().expression_names)


def tiny_skeleton() -> tuple[np.ndarray, Skeleton]:
    """Vertices and topology; mirror-symmetric in x, as the real one."""
    ball = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
    x, faces = np.array(ball.vertices), np.array(ball.faces)
    eyes = [int(np.argmin(np.linalg.norm(x - c, axis=1))) for c in ((0.16, 0.1, 0.35), (-0.16, 0.1, 0.35))]
    hole = np.isin(faces, eyes).any(1) | (x[faces][..., 1] < -0.3).all(1)
    sheet = faces[~hole]
    small = trimesh.creation.icosphere(subdivisions=1, radius=0.09)
    starts = (len(x), len(x) + len(small.vertices))
    balls = [np.array(small.vertices) + 0.9 * x[eye] for eye in eyes]
    x = np.concatenate([x, *balls])
    part = np.repeat([0, 7, 8], [starts[0], len(small.vertices), len(small.vertices)])
    flipped = x * [-1, 1, 1]
    mirror = np.array([int(np.argmin(np.linalg.norm(x - v, axis=1))) for v in flipped])
    loops = _boundary_loops(sheet)
    lids = sorted((loop for loop in loops if x[loop, 1].mean() > 0), key=lambda loop: -x[loop, 0].mean())
    bust = [loop for loop in loops if x[loop, 1].mean() <= 0]
    uv = np.clip(x[sheet][..., :2] + 0.5, 0, 1).astype(np.float32)
    sclera = (np.array(small.faces) + starts[0], np.array(small.faces) + starts[1])
    caps = (lids[0], lids[1], bust[0])
    return x.astype(np.float32), Skeleton(np.arange(len(x)), sheet, sclera, caps, uv, part, mirror)


class TinyHeads(OpenHeads):
    """All that training reads of `OpenHeads`, made up; sampling, mirroring and composing are the real ones."""

    def __init__(self) -> None:
        x, self.skeleton = tiny_skeleton()
        rng = np.random.default_rng(0)
        self.scale, self.translation, self.y_cut = 0.04, np.zeros(3, np.float32), -0.32
        self.neutral = x
        scales = np.array([0.02, 0.015, 0.01, 0.006, 0.004])[:, None, None]
        waves = rng.normal(size=(5, 3, 3))
        shifts = rng.uniform(0, 6, (5, 3))
        self.identity = (scales * np.sin(np.einsum("kij,vj->kvi", 4 * waves, x) + shifts[:, None])).astype(np.float32)
        self.expression_names = NAMES
        self.expression = (0.05 * rng.normal(size=(len(NAMES), 1, 3)) * x).astype(np.float32)
        self.z_canonical = np.zeros(len(NAMES), np.float32)
        self.z_canonical[NAMES.index("jawOpen")] = 0.3
        self.makehuman, self.mh_names = np.zeros((0, *x.shape), np.float32), []
        sk = self.skeleton
        connected = np.unique(sk.sheet)
        right = [int(v) for v in connected[:: len(connected) // 12] if x[v, 0] < -0.05][:4]
        midline = [int(v) for v in connected if abs(x[v, 0]) < 1e-6][::6][:3]
        self.anchors = np.array([v for r in right for v in (r, int(sk.mirror[r]))] + midline)
        self.pairs = len(right)
        face = connected[x[connected, 2] > 0.1]
        self.ibug68 = np.resize(face, 68)
        self.ict_to_ours = np.arange(len(x))

    def sample(self, rng: np.random.Generator, wide: float = 0.0) -> HeadSample:
        return super().sample(rng, wide=0.0)


class TinyPainter(Painter):
    """The real brush with two noisy skins and no masks but brows."""

    def __init__(self, heads: OpenHeads) -> None:
        rng = np.random.default_rng(1)
        sk = heads.skeleton
        self.names = ["dotted", "striped"]
        self.face = rng.uniform(0.1, 0.6, (2, 16, 16, 3)).astype(np.float32)
        self.back = rng.uniform(0.1, 0.6, (2, 8, 8, 3)).astype(np.float32)
        self.brows = (rng.random((4, 16, 16, 1)) > 0.8).astype(np.float32)
        self.lips = np.zeros((16, 16, 1), np.float32)
        self.lashes = np.zeros((16, 16, 1), np.float32)
        self.x_cm = (heads.neutral - heads.translation) / heads.scale
        self.part = sk.part
        self.eye = np.zeros((len(sk.part), 2), np.float32)
        for ball in sk.sclera:
            rows = np.unique(ball)
            out = heads.neutral[rows] - heads.neutral[rows].mean(0)
            self.eye[rows, 0] = np.arccos(np.clip(out[:, 2] / np.linalg.norm(out, axis=1), -1, 1))
            self.eye[rows, 1] = out[:, 1]
        self.triangles = np.concatenate([sk.sheet, *sk.sclera])
        self.corner_uv = np.concatenate([sk.sheet_uv, np.zeros((len(sk.sclera[0]) * 2, 3, 2), np.float32)])
        self.vertex_uv = np.zeros((len(sk.used), 2), np.float32)
        self.vertex_uv[self.triangles.reshape(-1)] = self.corner_uv.reshape(-1, 2)
