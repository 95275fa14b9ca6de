"""neutral.glb, animation.glb and head_arkit.glb: one triangulation with its colours, shapes, and the clip as animation.

Files are in glTF's own frame: metres, y up. The head's node carries vertices from the posed head (x to the subject's
left, y up, z out of the face) to the world; the world of cameras.json (x right, y down, z forward) is turned by
diag(1, -1, -1), so a camera at rest there is glTF's camera at rest here.

    x_file = T x_mm / 1000 with T = diag(1, -1, -1);    head node: T R^T (x_posed - t) / scale
"""

import functools
import io
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.spatial.transform import Rotation

from mononphm_core.io.gltf import ARRAY_BUFFER, Builder, parts
from mononphm_core.io.mesh_files import linear_from_bytes
from mononphm_core.io.tables import UNIT_NOTE
from mononphm_core.types import MM_PER_UNIT, Intrinsics, MorphHead, TrackedSequence

METRES = MM_PER_UNIT / 1000.0
TO_GLTF = np.diag([1.0, -1.0, -1.0])
"""OpenCV axes to glTF's: a rotation by half a turn about x."""
TEXTURE_QUALITY = 92
SKIN = {"metallicFactor": 0.0, "roughnessFactor": 0.75}
MOSTLY_STILL = 0.8
"""Shapes that move a smaller share of the vertices are stored sparse."""
NEAR_M, FAR_M = 0.01, 100.0


def neutral_glb(head: MorphHead) -> bytes:
    """The neutral head alone, in its own frame."""
    build = Builder()
    document = _document(build, head, {}, "neutral")
    return build.glb(document)


def texture_of(data: bytes) -> UInt8[np.ndarray, "height width 3"] | None:
    """The texture of one of our files; None where it has none. Raises ValueError for other bytes."""
    document, binary = parts(data)
    if not document.get("images"):
        return None
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    start = view.get("byteOffset", 0)
    with Image.open(io.BytesIO(binary[start : start + view["byteLength"]]), formats=("JPEG",)) as picture:
        return np.asarray(picture.convert("RGB"))


def animated_glb(head: MorphHead, sequence: TrackedSequence, w2c: Float[np.ndarray, "frames 4 4"]) -> bytes:
    """Head, shapes, weights, head motion and camera over the clip; `w2c` in millimetres as in cameras.json."""
    build = Builder()
    document = _document(build, head, _targets(build, head), "head")
    rotation, translation, scale = head_in_gltf(sequence)
    times = build.floats(np.array(sequence.timestamp_s), bounds=True)
    tracks: list[tuple[int, str, int]] = [
        (0, "rotation", build.floats(rotation)),
        (0, "translation", build.floats(translation)),
    ]
    if len(head.names):
        tracks.append((0, "weights", build.floats(head.weights.reshape(-1, 1))))
    eye_rotation, eye_translation = camera_in_gltf(w2c)
    if len(w2c) > 1 and np.ptp(w2c, axis=0).max() > 0.0:
        tracks += [(1, "rotation", build.floats(eye_rotation)), (1, "translation", build.floats(eye_translation))]
    document["nodes"][0] |= {
        "rotation": rotation[0].tolist(),
        "translation": translation[0].tolist(),
        "scale": [scale] * 3,
    }
    eye = {"rotation": eye_rotation[0].tolist(), "translation": eye_translation[0].tolist()}
    document["nodes"].append({"name": "camera", "camera": 0, **eye})
    document["scenes"][0]["nodes"] = [0, 1]
    document["cameras"] = [_camera(sequence.intrinsics)]
    document["animations"] = [
        {
            "name": "clip",
            "samplers": [{"input": times, "output": output, "interpolation": "LINEAR"} for _, _, output in tracks],
            "channels": [
                {"sampler": k, "target": {"node": node, "path": path}} for k, (node, path, _) in enumerate(tracks)
            ],
            "extras": {"frame_index": list(sequence.frame_index)},
        }
    ]
    return build.glb(document)


def head_in_gltf(
    sequence: TrackedSequence,
) -> tuple[Float[np.ndarray, "frames 4"], Float[np.ndarray, "frames 3"], float]:
    """Quaternions (x, y, z, w; neighbours on one side), translations in metres and the scale of the head's node."""
    poses = sequence.poses
    back = poses.rotation.detach().cpu().numpy().astype(np.float64).transpose(0, 2, 1)
    scale = 1.0 / float(poses.scale)
    shift = poses.translation.detach().cpu().numpy().astype(np.float64)
    centre = -scale * np.einsum("fij,fj->fi", back, shift) * METRES
    return _quaternions(TO_GLTF @ back), centre @ TO_GLTF.T, scale


def camera_in_gltf(
    w2c: Float[np.ndarray, "frames 4 4"],
) -> tuple[Float[np.ndarray, "frames 4"], Float[np.ndarray, "frames 3"]]:
    """The camera's node: OpenCV looks along +z, glTF's camera along -z, so T stands on both sides."""
    c2w = np.linalg.inv(w2c)
    return _quaternions(TO_GLTF @ c2w[:, :3, :3] @ TO_GLTF), c2w[:, :3, 3] @ TO_GLTF.T / 1000.0


def _quaternions(matrices: Float[np.ndarray, "frames 3 3"]) -> Float[np.ndarray, "frames 4"]:
    q = Rotation.from_matrix(matrices).as_quat()
    turns = np.sign(np.einsum("fi,fi->f", q[1:], q[:-1]))
    q[1:] *= np.cumprod(np.where(turns < 0, -1.0, 1.0))[:, None]
    return q


def _camera(k: Intrinsics) -> dict[str, Any]:
    """glTF knows no principal point off the middle and no distortion: `extras` has the whole truth."""
    extras = {"fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy, "width": k.width, "height": k.height}
    return {
        "name": "camera",
        "type": "perspective",
        "perspective": {
            "yfov": 2 * float(np.arctan2(k.height, 2 * k.fy)),
            "aspectRatio": (k.width / k.fx) / (k.height / k.fy),
            "znear": NEAR_M,
            "zfar": FAR_M,
        },
        "extras": extras,
    }


def _targets(build: Builder, head: MorphHead) -> dict[str, Any]:
    """The morph targets: sparse where most of the head stays, whole where it does not."""
    targets = []
    for shape, normal in zip(head.shapes, head.shape_normals, strict=True):
        whole = np.count_nonzero(shape.any(1)) >= MOSTLY_STILL * len(shape)
        add = functools.partial(build.floats, target=ARRAY_BUFFER) if whole else build.sparse
        targets.append({"POSITION": add(shape * METRES, bounds=True), "NORMAL": add(normal)})
    return {"targets": targets} if targets else {}


def _document(build: Builder, head: MorphHead, targets: dict[str, Any], name: str) -> dict[str, Any]:
    attributes = {
        "POSITION": build.floats(head.vertices * METRES, ARRAY_BUFFER, bounds=True),
        "NORMAL": build.floats(unit_rows(head.normals), ARRAY_BUFFER),
    }
    attribute, looks = _textured(build, head) if head.texture is not None else _coloured(build, head)
    attributes |= attribute
    for measure, values in head.measures.items():
        attributes[f"_{measure.upper()}"] = build.floats(values[:, None], ARRAY_BUFFER)
    primitive = {"attributes": attributes, "indices": build.indices(head.faces), "material": 0, **targets}
    mesh: dict[str, Any] = {"name": name, "primitives": [primitive]}
    if targets:
        mesh |= {"weights": [0.0] * len(head.names), "extras": {"targetNames": list(head.names)}}
    return {
        "asset": {
            "version": "2.0",
            "generator": "MonoNPHM",
            "extras": {"unit_note": UNIT_NOTE, "largest_error_mm": round(head.largest_error_mm, 4)},
        },
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [mesh],
        **looks,
    }


def _textured(build: Builder, head: MorphHead) -> tuple[dict[str, int], dict[str, Any]]:
    """The attribute of a texture, and the document's parts that paint with it."""
    assert head.texture is not None and head.uv is not None
    picture = io.BytesIO()
    Image.fromarray(head.texture).save(picture, format="JPEG", quality=TEXTURE_QUALITY, subsampling=0)
    image = {"bufferView": build.view(picture.getvalue()), "mimeType": "image/jpeg", "name": "albedo"}
    uv = build.floats(head.uv * [1.0, -1.0] + [0.0, 1.0], ARRAY_BUFFER)
    return {"TEXCOORD_0": uv}, {
        "materials": [_material({"baseColorTexture": {"index": 0}})],
        "textures": [{"source": 0, "sampler": 0}],
        "images": [image],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
    }


def _coloured(build: Builder, head: MorphHead) -> tuple[dict[str, int], dict[str, Any]]:
    """The same of colours at the vertices: linear light, as glTF has it."""
    assert head.colours is not None
    return {"COLOR_0": build.floats(linear_from_bytes(head.colours), ARRAY_BUFFER)}, {"materials": [_material({})]}


def _material(more: dict[str, Any]) -> dict[str, Any]:
    return {"name": "skin", "doubleSided": True, "pbrMetallicRoughness": {**SKIN, **more}}


def unit_rows(normals: Float[np.ndarray, "corners 3"]) -> Float[np.ndarray, "corners 3"]:
    """Unit vectors; +z where there is no direction."""
    size = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(size > 1e-6, normals / np.maximum(size, 1e-6), [0.0, 0.0, 1.0])
