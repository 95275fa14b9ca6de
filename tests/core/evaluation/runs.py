"""A true clip made of balls with a dent (so that turns show), and deliveries of it with known errors."""

import json
from pathlib import Path

import numpy as np
import trimesh

from mononphm_core.io.mesh_files import write_mesh
from mononphm_core.types import HeadMesh

K = np.array([[600.0, 0, 128], [0, 600, 128], [0, 0, 1]])
SIZE = (256, 256)


def head(radius_mm: float = 80.0) -> HeadMesh:
    """An uneven ball: three semi-axes and a nose, 642 vertices, head space."""
    ball = trimesh.creation.icosphere(subdivisions=3)
    x = np.asarray(ball.vertices)
    nose = np.exp(-np.square(x - [0.2, 0.1, 0.97]).sum(-1) / 0.05)[:, None] * [0.0, 0.0, 0.25]
    vertices = (x + nose) * radius_mm * [0.8, 1.1, 1.0]
    return HeadMesh(vertices, np.asarray(ball.faces, np.int64))


def turn_y(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def poses(frames: int = 4) -> np.ndarray:
    """Head to camera: looking at the camera from 700 mm, turning 5 degrees a frame and moving 3 mm."""
    flip = np.diag([1.0, -1.0, -1.0])
    made = np.tile(np.eye(4), (frames, 1, 1))
    for index in range(frames):
        made[index, :3, :3] = flip @ turn_y(5.0 * index)
        made[index, :3, 3] = [3.0 * index, 0.0, 700.0]
    return made


def write_truth(folder: Path, frames: int = 3) -> None:
    """The rendered layout, with the front of the ball as face."""
    mesh = head()
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "video_gt.npz", verts_mm=np.tile(mesh.vertices, (frames, 1, 1)), head_to_cam=poses(frames), K=K)
    np.savez(folder / "topology.npz", faces=mesh.faces)
    centre = mesh.vertices[mesh.faces].mean(1)
    front = centre[:, 2] > 20
    label = front * 1 + (front & (centre[:, 1] < -30)) * 2 + (front & (centre[:, 1] > 30)) * 4 + 8
    np.savez(folder / "regions.npz", label=label.astype(np.uint8))
    (folder / "camera_video.json").write_text(json.dumps({"width": SIZE[0], "height": SIZE[1]}))


def write_run(folder: Path, meshes: dict[int, HeadMesh], rotation: np.ndarray | None = None) -> None:
    """A delivery as the contract lays it out; meshes are before the camera."""
    (folder / "meshes").mkdir(parents=True, exist_ok=True)
    for index, mesh in meshes.items():
        write_mesh(folder / "meshes" / f"frame_{index:05d}.ply", mesh)
    camera = {"convention": "opencv", "width": SIZE[0], "height": SIZE[1]}
    camera |= {"fx": 600.0, "fy": 600.0, "cx": 128.0, "cy": 128.0}
    camera["frames"] = [{"frame_index": index, "timestamp_s": 0.0, "w2c": np.eye(4).tolist()} for index in meshes]
    (folder / "cameras.json").write_text(json.dumps(camera))
    index = np.array(sorted(meshes))
    to_camera = poses(int(index.max()) + 1)[index]
    np.savez(
        folder / "expressions.npz",
        frame_index=index,
        rotation=np.swapaxes(to_camera[:, :3, :3], 1, 2),
        translation=-np.einsum("fji,fj->fi", to_camera[:, :3, :3], to_camera[:, :3, 3]),
        scale=np.ones(len(index)),
    )


def before_camera(mesh: HeadMesh, index: int, scale: float = 1.0) -> HeadMesh:
    """The head as it stands in frame `index`, the whole scene scaled."""
    e = poses(index + 1)[index]
    return HeadMesh(scale * (mesh.vertices @ e[:3, :3].T + e[:3, 3]), mesh.faces)
