"""What is in the files, and how mesh, camera and picture fit together.

    .venv/bin/python examples/03_read_the_artifacts.py FOLDER

FOLDER is what `mononphm reconstruct -o FOLDER` or `mononphm jobs download` left.
"""

import json
import sys
from pathlib import Path

import numpy as np
import trimesh

folder = Path(sys.argv[1])
manifest = json.loads((folder / "manifest.json").read_text())
print(f"model {manifest['model']['name']} {manifest['model']['version']}, {len(manifest['artifacts'])} files")

# Who: one code for geometry, one for appearance.
with np.load(folder / "identity.npz") as identity:
    print("identity    ", {name: identity[name].shape for name in ("z_geo", "z_app", "anchors")})

# What the face does: one code and one head pose for each frame.
with np.load(folder / "expressions.npz") as expressions:
    print("expressions ", {name: expressions[name].shape for name in ("z_exp", "rotation", "translation")})

# A mesh lies in the world that w2c maps from, in millimetres. So: pixel ~ K (w2c x).
camera = json.loads((folder / "cameras.json").read_text())
K = np.array([[camera["fx"], 0, camera["cx"]], [0, camera["fy"], camera["cy"]], [0, 0, 1]])
for frame in camera["frames"]:
    path = folder / "meshes" / f"frame_{frame['frame_index']:05d}.ply"
    if not path.exists():
        continue  # no surface was found in this frame; the manifest says so
    mesh = trimesh.load_mesh(path)
    w2c = np.array(frame["w2c"])
    in_camera = mesh.vertices @ w2c[:3, :3].T + w2c[:3, 3]
    pixels = in_camera @ K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    print(
        f"frame {frame['frame_index']:5d}   {len(mesh.vertices)} vertices, {in_camera[:, 2].mean():.0f} mm away, "
        f"in the picture from ({low[0]:.0f}, {low[1]:.0f}) to ({high[0]:.0f}, {high[1]:.0f})"
    )
