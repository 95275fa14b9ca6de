"""Small scans that a test makes: uneven coloured balls with a mouth that opens, in one topology."""

import json
from pathlib import Path

import numpy as np
import trimesh

from mononphm_core.training.published.config import document

ANCHORS = 65
SUBJECTS, EXPRESSIONS, NEUTRAL = (3, 7), (0, 1), 0
VALIDATION = 199
"""One of the subjects that the published split keeps for validation."""


def ball(subject: int, expression: int) -> trimesh.Trimesh:
    """About the size of a head (0.4 units); subjects differ in proportions, expressions in a dent below."""
    mesh = trimesh.creation.icosphere(subdivisions=3)
    x = np.asarray(mesh.vertices)
    proportions = 0.4 * np.array([0.8 + 0.02 * (subject % 5), 1.1, 0.9 + 0.01 * (subject % 7)])
    dent = np.exp(-np.square(x - [0, -0.5, 0.85]).sum(-1) / 0.1)[:, None] * [0, -0.15, -0.1] * expression
    colours = np.clip(128 + 100 * x * [1, 0.5, -1], 0, 255).astype(np.uint8)
    made = trimesh.Trimesh((x + dent) * proportions, mesh.faces, process=False)
    made.visual.vertex_colors = np.concatenate([colours, np.full((len(x), 1), 255, np.uint8)], -1)
    return made


def write_scans(root: Path, subjects: tuple[int, ...] = SUBJECTS) -> Path:
    """SCANS with its assets; the front half of the ball is the face."""
    for subject in subjects:
        for expression in EXPRESSIONS:
            place = root / f"{subject:03d}" / f"{expression:03d}"
            place.mkdir(parents=True)
            ball(subject, expression).export(place / "scan.ply")
            ball(subject, expression).export(place / "registration.ply")
    (root / "neutrals.json").write_text(json.dumps({str(subject): NEUTRAL for subject in subjects}))
    assets = root / "assets"
    assets.mkdir()
    front = np.asarray(trimesh.creation.icosphere(subdivisions=3).vertices)
    np.save(assets / "face.npy", front[:, 2] > 0.2)
    np.save(assets / "lm_inds_65.npy", np.linspace(0, len(front) - 1, ANCHORS).astype(np.int64))
    return root


def small_document(batch_size: int = 2) -> dict:
    """The small configuration, smaller."""
    made = document(small=True)
    made["decoder"]["ex"] |= {"hidden_dim": 16, "lat_dim_ex": 4, "lat_dim_id": 3}
    made["decoder"]["id"] |= {"lat_dim_glob": 6, "lat_dim_glob_app": 6, "lat_dim_loc_geo": 3, "lat_dim_loc_app": 3}
    made["decoder"]["id"]["gnn"] |= {"hidden_dim_geo": 12, "hidden_dim_app": 12}
    made["training"] |= {"batch_size": batch_size, "npoints_face": 40, "npoints_non_face": 12, "ckpt_interval": 3}
    made["training"] |= {"npoints_off_surface": 12, "npoints_corresp": 12}
    return made
