"""Ground truth of a clip: the true surface of each frame before its camera, with regions of the face.

Two layouts are read.

*Rendered* (`video_gt.npz` or `single_gt.npz`): `verts_mm` [frames, vertices, 3] in head space (x to the subject's left,
y up, z out of the face), `head_to_cam` [frames, 4, 4] to OpenCV camera axes, `K` [3, 3] in pixels with centres at .5;
`topology.npz` beside it or one folder up holds `faces` [faces, 3].

*Meshes*: a folder that looks like a delivery: `meshes/frame_00000.ply` (or obj, glb), `cameras.json` and, for head
rotations, `expressions.npz`. The camera's `w2c` takes the meshes to the camera.

`regions.npz` beside either holds `label` [faces], one byte a triangle: 1 face, 2 mouth, 4 eyes and brows, 8 head (sums
of them). Without it the whole mesh is face and head; the topology of the ICT head comes with its regions.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from mononphm_core.errors import InputError
from mononphm_core.evaluation.delivery import read_delivery
from mononphm_core.evaluation.surfaces import Surface, sample_faces
from mononphm_core.meshing.clean import face_areas, vertex_normals
from mononphm_core.types import HeadMesh

FACE, MOUTH, EYES, HEAD = 1, 2, 4, 8
"""Bits of a region label."""
SAMPLES = 4000
"""Points on the true face, and again on the true head; the same ones in every frame that shares a topology."""
NECK_MM = -100.0
"""Height, in head space, of the line below which silhouettes are not compared."""


@dataclass(frozen=True)
class TruePoints:
    """Sampled truth of one frame, camera frame, millimetres."""

    points: Float[np.ndarray, "points 3"]
    normals: Float[np.ndarray, "points 3"]
    mouth: Shaped[np.ndarray, "points"]
    eyes: Shaped[np.ndarray, "points"]


@dataclass(frozen=True)
class TrueFrame:
    """One frame: the surface in the camera's frame (millimetres) and how the head stands in it."""

    mesh: HeadMesh
    label: UInt8[np.ndarray, "faces"]
    head_to_camera: Float[np.ndarray, "4 4"] | None
    """None where the truth does not say: then there is no rotation error and no neck line."""
    picks: Callable[[int], tuple[Int[np.ndarray, "points"], Float[np.ndarray, "points 3"]]]
    """Region bit -> the sampled triangles and barycentrics."""

    @cached_property
    def surface(self) -> Surface:
        """Nearest-point queries; its triangles are those of the mesh only where none is degenerate."""
        return Surface(self.mesh)

    @cached_property
    def face(self) -> TruePoints:
        """The sampled points of the face."""
        return self._region(FACE)

    @cached_property
    def head(self) -> TruePoints:
        """The sampled points of the head, face included."""
        return self._region(HEAD)

    def _region(self, bit: int) -> TruePoints:
        faces, barycentric = self.picks(bit)
        corners = self.mesh.faces[faces]
        points = np.einsum("pk,pkc->pc", barycentric, self.mesh.vertices[corners])
        normals = np.einsum("pk,pkc->pc", barycentric, vertex_normals(self.mesh)[corners])
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-20)
        label = self.label[faces]
        return TruePoints(points, normals, (label & MOUTH) > 0, (label & EYES) > 0)


@dataclass(frozen=True)
class GroundTruth:
    """The clip. Frames are made when asked for: key is `frame_index`."""

    frame_index: tuple[int, ...]
    frame: Callable[[int], TrueFrame]
    intrinsics: Float[np.ndarray, "3 3"] | None
    size: tuple[int, int] | None
    """Width and height of the picture, where the truth says."""


def read_truth(folder: Path, kind: str) -> GroundTruth:
    """Either layout. InputError names what is missing or wrong."""
    rendered = folder / f"{kind}_gt.npz"
    if rendered.is_file():
        return _rendered(rendered)
    if (folder / "meshes").is_dir():
        return _meshes(folder)
    raise InputError(f"{folder} holds neither {kind}_gt.npz nor a folder meshes/; `mononphm evaluate --help` says more")


def _rendered(path: Path) -> GroundTruth:
    values = _arrays(path, {"verts_mm": 3, "head_to_cam": 3, "K": 2})
    topology = next(
        (p for p in (path.parent / "topology.npz", path.parent.parent / "topology.npz") if p.is_file()), None
    )
    if topology is None:
        raise InputError(f"topology.npz (faces) is neither beside {path.name} nor one folder up")
    faces = _arrays(topology, {"faces": 2})["faces"].astype(np.int64)
    vertices, to_camera = values["verts_mm"].astype(np.float64), values["head_to_cam"].astype(np.float64)
    if len(vertices) != len(to_camera) or faces.max() >= vertices.shape[1]:
        raise InputError(f"{path.name} and topology.npz do not belong together: {vertices.shape}, {to_camera.shape}")
    label = _label(path.parent, len(faces))
    if label is None:
        label = _label(topology.parent, len(faces))
    label = _known_label(len(faces)) if label is None else label
    picks = _Picks(face_areas(HeadMesh(vertices[0], faces)), label)

    def frame(index: int) -> TrueFrame:
        e = to_camera[index]
        return TrueFrame(HeadMesh(vertices[index] @ e[:3, :3].T + e[:3, 3], faces), label, e, picks)

    return GroundTruth(tuple(range(len(vertices))), frame, values["K"].astype(np.float64), _picture_size(path))


def _meshes(folder: Path) -> GroundTruth:
    found = read_delivery(folder)
    first = found.mesh(found.frames[0])
    label = _label(folder, len(first.faces))
    picks: dict[int, _Picks] = {}

    def frame(index: int) -> TrueFrame:
        mesh = found.mesh(index)
        if label is not None and len(mesh.faces) != len(label):
            raise InputError(f"frame {index}: {len(mesh.faces)} triangles, but regions.npz labels {len(label)}")
        own = np.full(len(mesh.faces), FACE | HEAD, np.uint8) if label is None else label
        if label is None or not picks:
            picks[0] = _Picks(face_areas(mesh), own)
        return TrueFrame(mesh, own, found.head_to_camera(index), picks[0])

    return GroundTruth(found.frames, frame, found.intrinsics, found.size)


class _Picks:
    """The sampled triangles and barycentrics of a region; InputError when it has none."""

    def __init__(self, areas: Float[np.ndarray, "faces"], label: UInt8[np.ndarray, "faces"]) -> None:
        self._areas, self._label = areas, label
        self._known: dict[int, Any] = {}

    def __call__(self, bit: int) -> tuple[Int[np.ndarray, "points"], Float[np.ndarray, "points 3"]]:
        if bit not in self._known:
            weights = self._areas * ((self._label & bit) > 0)
            if weights.sum() <= 0:
                raise InputError(f"no triangle of the ground truth has the region bit {bit}")
            self._known[bit] = sample_faces(weights, SAMPLES, bit)
        found: tuple[Int[np.ndarray, "points"], Float[np.ndarray, "points 3"]] = self._known[bit]
        return found


def _arrays(path: Path, wanted: dict[str, int]) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Arrays of an npz by name and number of axes. InputError names the file and the array."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in wanted if name in file.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise InputError(f"{path.name} is no readable npz: {error}") from error
    for name, axes in wanted.items():
        if name not in found or found[name].ndim != axes:
            raise InputError(f"{path.name}: {name} is missing or does not have {axes} axes")
    return found


def _label(folder: Path, faces: int) -> UInt8[np.ndarray, "faces"] | None:
    """`regions.npz` of a folder, if it is there."""
    path = folder / "regions.npz"
    if not path.is_file():
        return None
    label = _arrays(path, {"label": 1})["label"]
    if len(label) != faces:
        raise InputError(f"{path.name} labels {len(label)} triangles, the topology has {faces}")
    return label.astype(np.uint8)


def _known_label(faces: int) -> UInt8[np.ndarray, "faces"]:
    """The regions of the ICT head's face, head and eyes, which come with the package; else all is face and head."""
    with resources.files("mononphm_core.evaluation").joinpath("ict_regions.npz").open("rb") as file:
        label = np.load(file, allow_pickle=False)["label"]
    return label if len(label) == faces else np.full(faces, FACE | HEAD, np.uint8)


def _picture_size(path: Path) -> tuple[int, int] | None:
    """Of the still beside the truth, or of the camera file."""
    for name in (path.name.replace("_gt.npz", ".png"), "single.png"):
        if (path.parent / name).is_file():
            from PIL import Image

            with Image.open(path.parent / name) as picture:
                return picture.size
    camera = path.parent / f"camera_{path.name.removesuffix('_gt.npz')}.json"
    if camera.is_file():
        known = json.loads(camera.read_text(encoding="utf-8"))
        if {"width", "height"} <= known.keys():
            return int(known["width"]), int(known["height"])
    return None
