"""An animated head for programs that read no glTF: one USDZ file, or an OBJ a frame. Metres, y up, same triangles."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from mononphm_core.errors import ConfigError
from mononphm_core.io.animated import Animated
from mononphm_core.io.atomic import atomic_path, write_bytes
from mononphm_core.io.mesh_files import srgb_bytes

TICKS_PER_S = 1000
"""USD's time codes here: milliseconds of the clip, so that uneven frames keep their times."""
MATERIAL = "albedo.mtl"
PICTURE = "albedo.jpg"


def write_obj_sequence(head: Animated, folder: Path) -> list[Path]:
    """`frame_00000.obj` … in the world of the camera, with one material and one picture for all."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    if head.picture is not None:
        write_bytes(folder / PICTURE, head.picture)
        write_bytes(folder / MATERIAL, f"newmtl skin\nKd 1 1 1\nmap_Kd {PICTURE}\n".encode())
        lines = [f"mtllib {MATERIAL}", "usemtl skin"]
    uv = [] if head.uv is None else [f"vt {u:.6f} {v:.6f}" for u, v in head.uv]
    corner = "{0}/{0}" if uv else "{0}"
    paints = [""] * len(head.vertices)
    if head.colours is not None:
        paints = [f" {r:.4f} {g:.4f} {b:.4f}" for r, g, b in srgb_bytes(head.colours) / 255]
    faces = ["f " + " ".join(corner.format(index + 1) for index in face) for face in head.faces.tolist()]
    written = []
    for row, index in enumerate(head.frame_index):
        vertices = [
            f"v {x:.7f} {y:.7f} {z:.7f}{paint}" for (x, y, z), paint in zip(head.world(row), paints, strict=True)
        ]
        written.append(folder / f"frame_{index:05d}.obj")
        write_bytes(written[-1], "\n".join([*lines, *vertices, *uv, *faces, ""]).encode())
    return written


def write_usdz(head: Animated, path: Path) -> None:
    """One package: the mesh with its shapes as blend shapes, their weights, the head's motion, and the texture.

    Needs the extra `usd` (usd-core). Raises ConfigError without it.
    """
    try:
        from pxr import Sdf, Usd, UsdGeom, UsdUtils
    except ImportError:
        raise ConfigError("USD needs usd-core: pip install 'mononphm[usd]', or usd-core itself") from None
    with tempfile.TemporaryDirectory() as scratch:
        layer = Path(scratch) / "head.usdc"
        stage = Usd.Stage.CreateNew(str(layer))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        stage.SetTimeCodesPerSecond(TICKS_PER_S)
        stage.SetStartTimeCode(_tick(head.timestamp_s[0]))
        stage.SetEndTimeCode(_tick(head.timestamp_s[-1]))
        root = _skeleton(stage, head)
        stage.SetDefaultPrim(root)
        mesh = _mesh(stage, head)
        if head.picture is not None:
            (Path(scratch) / PICTURE).write_bytes(head.picture)
            _material(stage, mesh)
        stage.GetRootLayer().Save()
        with atomic_path(path) as temporary:
            package = Path(scratch) / "package.usdz"
            if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(package)):
                raise ConfigError(f"{path.name} could not be packed")
            temporary.write_bytes(package.read_bytes())


def _tick(seconds: float) -> float:
    return round(seconds * TICKS_PER_S, 3)


def _skeleton(stage: Any, head: Animated) -> Any:
    """The root that moves with the head, and what plays the shapes: a skeleton without joints."""
    from pxr import Gf, UsdSkel, Vt

    root = UsdSkel.Root.Define(stage, "/head")
    place = root.AddTransformOp()
    for row, seconds in enumerate(head.timestamp_s):
        matrix = np.eye(4)
        matrix[:3, :3] = head.scale * Rotation.from_quat(head.rotation[row]).as_matrix().T  # USD multiplies rows
        matrix[3, :3] = head.translation[row]
        place.Set(Gf.Matrix4d(matrix.tolist()), _tick(seconds))
    skeleton = UsdSkel.Skeleton.Define(stage, "/head/skeleton")
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets(["/head/animation"])
    animation = UsdSkel.Animation.Define(stage, "/head/animation")
    animation.CreateBlendShapesAttr(Vt.TokenArray(_names(head)))
    weights = animation.CreateBlendShapeWeightsAttr()
    for row, seconds in enumerate(head.timestamp_s):
        weights.Set(Vt.FloatArray.FromNumpy(head.weights[row].astype(np.float32)), _tick(seconds))
    return root.GetPrim()


def _mesh(stage: Any, head: Animated) -> Any:
    from pxr import Sdf, UsdGeom, UsdSkel, Vt

    mesh = UsdGeom.Mesh.Define(stage, "/head/skin")
    mesh.CreatePointsAttr(_vectors(head.vertices))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(head.faces), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(head.faces.astype(np.int32).ravel()))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreateExtentAttr(_vectors(np.stack([head.vertices.min(0), head.vertices.max(0)])))
    if head.uv is not None:
        st = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
        st.Set(Vt.Vec2fArray.FromNumpy(head.uv.astype(np.float32)))
    if head.colours is not None:
        mesh.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex).Set(_vectors(head.colours))
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets(["/head/skeleton"])
    binding.CreateBlendShapesAttr(Vt.TokenArray(_names(head)))
    paths = []
    for name, shape in zip(_names(head), head.shapes, strict=True):
        target = UsdSkel.BlendShape.Define(stage, f"/head/skin/{name}")
        target.CreateOffsetsAttr(_vectors(shape))
        paths.append(target.GetPath())
    binding.CreateBlendShapeTargetsRel().SetTargets(paths)
    return mesh


def _material(stage: Any, mesh: Any) -> None:
    """The usual preview surface with our picture as its colour."""
    from pxr import Sdf, UsdShade

    types = Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, "/head/material")
    surface = UsdShade.Shader.Define(stage, "/head/material/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("roughness", types.Float).Set(0.75)
    reader = UsdShade.Shader.Define(stage, "/head/material/st")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")
    picture = UsdShade.Shader.Define(stage, "/head/material/albedo")
    picture.CreateIdAttr("UsdUVTexture")
    picture.CreateInput("file", types.Asset).Set(PICTURE)
    picture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    picture.CreateInput("st", types.Float2).ConnectToSource(reader.CreateOutput("result", types.Float2))
    colour = picture.CreateOutput("rgb", types.Float3)
    surface.CreateInput("diffuseColor", types.Color3f).ConnectToSource(colour)
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", types.Token))
    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)


def _names(head: Animated) -> list[str]:
    return list(head.names) or [f"shape_{k:02d}" for k in range(len(head.shapes))]


def _vectors(rows: Any) -> Any:
    from pxr import Vt

    return Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(rows, np.float32))
