"""animation.glb and head_arkit.glb read back: triangles, shapes, weights, motion and colours as arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from mononphm_core.errors import ConfigError
from mononphm_core.io.gltf import parts, rows_of


@dataclass(frozen=True)
class Animated:
    """A head with fixed triangles through a clip. Metres, glTF axes: x right, y up, z to the viewer."""

    vertices: Float[np.ndarray, "corners 3"]
    """All shapes at 0, in the head's own frame."""
    faces: Int[np.ndarray, "faces 3"]
    uv: Float[np.ndarray, "corners 2"] | None
    """First row of the picture at v = 1."""
    picture: bytes | None
    """The texture, a JPEG."""
    colours: Float[np.ndarray, "corners 3"] | None
    """Linear light, where there is no texture."""
    names: tuple[str, ...]
    shapes: Float[np.ndarray, "shapes corners 3"]
    weights: Float[np.ndarray, "frames shapes"]
    rotation: Float[np.ndarray, "frames 4"]
    """Quaternions (x, y, z, w): head to world."""
    translation: Float[np.ndarray, "frames 3"]
    scale: float
    timestamp_s: tuple[float, ...]
    frame_index: tuple[int, ...]

    @classmethod
    def read(cls, data: bytes) -> "Animated":
        """Raises ConfigError for bytes that are no animated head of ours."""
        try:
            return cls._read(data)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ConfigError(f"this is no animated head of this program: {error}") from error

    @classmethod
    def _read(cls, data: bytes) -> "Animated":
        document, binary = parts(data)
        mesh, node, clip = document["meshes"][0], document["nodes"][0], document["animations"][0]
        primitive = mesh["primitives"][0]
        targets = primitive.get("targets", [])
        samplers = clip["samplers"]
        tracks = {
            channel["target"]["path"]: samplers[channel["sampler"]]
            for channel in clip["channels"]
            if channel["target"]["node"] == 0
        }
        times = rows_of(data, tracks["rotation"]["input"])[:, 0]
        corners = rows_of(data, primitive["attributes"]["POSITION"])
        shapes = [rows_of(data, target["POSITION"]) for target in targets]
        weights = rows_of(data, tracks["weights"]["output"]) if targets else np.zeros((0, 1), np.float32)
        uv = primitive["attributes"].get("TEXCOORD_0")
        images, colours = document.get("images"), primitive["attributes"].get("COLOR_0")
        return cls(
            vertices=corners,
            faces=_triangles(document, binary, primitive["indices"]),
            uv=None if uv is None else rows_of(data, uv) * [1.0, -1.0] + [0.0, 1.0],
            picture=_view(document, binary, images[0]["bufferView"]) if images else None,
            colours=None if colours is None else rows_of(data, colours),
            names=tuple(mesh.get("extras", {}).get("targetNames", ())),
            shapes=np.stack(shapes) if shapes else np.zeros((0, *corners.shape), np.float32),
            weights=weights.reshape(len(times), len(targets)),
            rotation=rows_of(data, tracks["rotation"]["output"]).astype(np.float64),
            translation=rows_of(data, tracks["translation"]["output"]).astype(np.float64),
            scale=float(node["scale"][0]),
            timestamp_s=tuple(times.tolist()),
            frame_index=tuple(clip["extras"]["frame_index"]),
        )

    def posed(self, frame: int) -> Float[np.ndarray, "corners 3"]:
        """One frame's vertices in the head's own frame."""
        return self.vertices + np.tensordot(self.weights[frame], self.shapes, 1)

    def world(self, frame: int) -> Float[np.ndarray, "corners 3"]:
        """One frame's vertices where the camera sees them."""
        return np.asarray(self.turn(frame).apply(self.scale * self.posed(frame)) + self.translation[frame])

    def turn(self, frame: int) -> Rotation:
        """Head to world."""
        return Rotation.from_quat(self.rotation[frame])


def _view(document: dict[str, Any], binary: bytes, index: int) -> bytes:
    view = document["bufferViews"][index]
    start = view.get("byteOffset", 0)
    return binary[start : start + view["byteLength"]]


def _triangles(document: dict[str, Any], binary: bytes, accessor: int) -> Int[np.ndarray, "faces 3"]:
    found = document["accessors"][accessor]
    dtype = {5123: "<u2", 5125: "<u4"}[found["componentType"]]
    indices = np.frombuffer(_view(document, binary, found["bufferView"]), dtype, found["count"])
    return indices.astype(np.int64).reshape(-1, 3)
