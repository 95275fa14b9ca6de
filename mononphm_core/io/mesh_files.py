"""Meshes as PLY, OBJ and GLB files, vertex colours included, and back. Coordinates are written as they are given.

PLY and OBJ carry sRGB bytes (OBJ as 0..1 behind each vertex). A GLB carries linear colours, as glTF 2.0 (3.7.2.1)
demands, and says in `extras` that its unit and axes are ours and not the glTF metre with y up.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from mononphm_core.errors import ConfigError
from mononphm_core.io.atomic import write_bytes
from mononphm_core.io.gltf import container, parts
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.types import HeadMesh

MeshFormat = Literal["ply", "obj", "glb"]
AXES_NOTE = "millimetres; x right, y down, z forward (OpenCV camera axes)"


def write_mesh(path: Path, mesh: HeadMesh) -> None:
    """`mesh` in the format of the name's ending, atomically. Raises ConfigError for others than ply, obj, glb."""
    write_bytes(path, mesh_bytes(mesh, path.suffix.removeprefix(".")))


def mesh_bytes(mesh: HeadMesh, mesh_format: str) -> bytes:
    """The file of one mesh. Raises ConfigError for an unknown format."""
    if mesh_format == "ply":
        return ply_bytes(mesh)
    if mesh_format == "obj":
        return obj_bytes(mesh)
    if mesh_format == "glb":
        return glb_bytes(mesh)
    raise ConfigError(f"mesh format {mesh_format!r} is unknown; choose ply, obj or glb")


def read_mesh(path: Path) -> HeadMesh:
    """What `write_mesh` wrote, in the same order of vertices and faces. Raises ConfigError for another ending."""
    if path.suffix == ".glb":
        return _read_glb(path.read_bytes())
    if path.suffix not in (".ply", ".obj"):
        raise ConfigError(f"{path.name} is no ply, obj or glb file")
    import trimesh  # half a second, and only for files that are read

    loaded: Any = trimesh.load_mesh(path, process=False, maintain_order=True)
    colours = None
    if loaded.visual.kind == "vertex":
        colours = np.asarray(loaded.visual.vertex_colors, np.uint8)[:, :3]
    return HeadMesh(np.asarray(loaded.vertices, np.float32), np.asarray(loaded.faces, np.int64), colours)


def _read_glb(data: bytes) -> HeadMesh:
    """The arrays of a file that `glb_bytes` made (general readers drop vertex colours beside a material)."""
    document, binary = parts(data)

    def array(accessor: int, dtype: str) -> Shaped[np.ndarray, "..."]:
        view = document["bufferViews"][document["accessors"][accessor]["bufferView"]]
        return np.frombuffer(binary, dtype, view["byteLength"] // 4, view["byteOffset"]).reshape(-1, 3)

    primitive = document["meshes"][0]["primitives"][0]
    colour = primitive["attributes"].get("COLOR_0")
    colours = None if colour is None else srgb_bytes(array(colour, "<f4").astype(np.float64))
    faces = array(primitive["indices"], "<u4").astype(np.int64)
    return HeadMesh(array(primitive["attributes"]["POSITION"], "<f4"), faces, colours)


def ply_bytes(mesh: HeadMesh) -> bytes:
    """Binary little-endian PLY, float32 positions, 8-bit sRGB."""
    fields: list[tuple[Any, ...]] = [("position", "<f4", (3,))]
    properties = ["property float x", "property float y", "property float z"]
    if mesh.colours is not None:
        fields.append(("colour", "u1", (3,)))
        properties += ["property uchar red", "property uchar green", "property uchar blue"]
    vertices = np.empty(len(mesh.vertices), fields)
    vertices["position"] = mesh.vertices
    if mesh.colours is not None:
        vertices["colour"] = mesh.colours
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", (3,))])
    faces["count"], faces["corners"] = 3, mesh.faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {AXES_NOTE}",
        f"element vertex {len(vertices)}",
        *properties,
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    return "\n".join(header).encode("ascii") + vertices.tobytes() + faces.tobytes()


def obj_bytes(mesh: HeadMesh) -> bytes:
    """Wavefront OBJ, colours as 0..1 behind the coordinates (read by MeshLab, Blender and trimesh)."""
    rows = mesh.vertices.astype(np.float64)
    line = "v %.5f %.5f %.5f"
    if mesh.colours is not None:
        rows = np.concatenate([rows, mesh.colours / 255.0], axis=-1)
        line += " %.4f %.4f %.4f"
    vertices = "\n".join([line] * len(rows)) % tuple(rows.ravel())
    faces = "\n".join(["f %d %d %d"] * len(mesh.faces)) % tuple((mesh.faces + 1).ravel())
    return f"# {AXES_NOTE}\n{vertices}\n{faces}\n".encode("ascii")


def glb_bytes(mesh: HeadMesh) -> bytes:
    """Binary glTF 2.0 with one primitive: float32 positions, normals and linear colours, 32-bit indices."""
    positions = mesh.vertices.astype("<f4")
    normals = vertex_normals(mesh)
    normals = np.where(np.linalg.norm(normals, axis=-1, keepdims=True) > 0.5, normals, [0.0, 0.0, 1.0]).astype("<f4")
    attributes: dict[str, int] = {"POSITION": 1, "NORMAL": 2}
    accessors: list[dict[str, Any]] = [
        {"bufferView": 0, "componentType": 5125, "count": mesh.faces.size, "type": "SCALAR"},
        {"bufferView": 1, "componentType": 5126, "count": len(positions), "type": "VEC3"}
        | {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()},
        {"bufferView": 2, "componentType": 5126, "count": len(positions), "type": "VEC3"},
    ]
    blobs = [mesh.faces.astype("<u4").tobytes(), positions.tobytes(), normals.tobytes()]
    if mesh.colours is not None:
        attributes["COLOR_0"] = 3
        accessors.append({"bufferView": 3, "componentType": 5126, "count": len(positions), "type": "VEC3"})
        blobs.append(linear_from_bytes(mesh.colours).astype("<f4").tobytes())
    starts = np.concatenate([[0], np.cumsum([len(blob) for blob in blobs])]).tolist()
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(blob), "target": 34963 if k == 0 else 34962}
        for k, (start, blob) in enumerate(zip(starts, blobs, strict=False))
    ]
    material = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.8}, "doubleSided": True}
    document = {
        "asset": {"version": "2.0", "generator": "MonoNPHM", "extras": {"unit": "mm", "axes": AXES_NOTE}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "head"}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 0, "material": 0}]}],
        "materials": [material],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": starts[-1]}],
    }
    return container(document, b"".join(blobs))


def linear_from_bytes(srgb: UInt8[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """Linear light of sRGB bytes (IEC 61966-2-1)."""
    value = srgb / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def srgb_bytes(linear: Float[np.ndarray, "*shape 3"]) -> UInt8[np.ndarray, "*shape 3"]:
    """The inverse of `linear_from_bytes`, rounded."""
    value = np.clip(linear, 0.0, 1.0)
    encoded = np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255.0).astype(np.uint8)
