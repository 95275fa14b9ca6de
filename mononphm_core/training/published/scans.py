"""NPHM-style scans -> supervision files.

SCANS/<subject>/<expression>/scan.ply, or .obj  with a texture beside it, else with vertex colours; NPHM space
SCANS/<subject>/<expression>/registration.ply   template topology, NPHM space
SCANS/<subject>/<expression>/flame.ply          optional: where the throat ends
SCANS/neutrals.json                            subject -> expression (or neutrals_closed.json)
ASSETS/face.npy            bool a registration vertex: inside the face
ASSETS/lm_inds_65.npy      registration vertex of each anchor
ASSETS/template_face_up.ply  optional: vertices with red 255 may correspond; without it those of face.npy do
ASSETS/anchors_65.npy      optional: mean anchors; else the mean over the neutral registrations is written
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mononphm_core.errors import AssetError, InputError
from mononphm_core.io.atomic import atomic_path, write_bytes
from mononphm_core.training.published.correspondences import PAIRS, sample_correspondences
from mononphm_core.training.published.fields import FieldCounts, sample_fields
from mononphm_core.training.published.files import ANCHORS, corresp_path, surface_path
from mononphm_core.training.published.textured import TexturedScan, read_scan, read_textured

log = logging.getLogger(__name__)
CORRESP_FILES = 100
NEUTRALS = ("neutrals.json", "neutrals_closed.json", "dataset/neutrals_closed.json")


@dataclass(frozen=True)
class Assets:
    """What is known of the registrations' topology."""

    face: Bool[np.ndarray, "vertices"]
    may_correspond: Bool[np.ndarray, "vertices"]
    anchor_vertices: Int[np.ndarray, "anchors"]

    @staticmethod
    def read(folder: Path) -> "Assets":
        """AssetError names the file that is missing or does not fit."""
        face, anchors = _asset(folder / "face.npy").astype(bool), _asset(folder / "lm_inds_65.npy").astype(np.int64)
        template = folder / "template_face_up.ply"
        may = face
        if template.is_file():
            colours = read_scan(template).colours
            if colours is None or len(colours) != len(face):
                raise AssetError(f"{template.name} and face.npy do not belong to one topology")
            may = colours[:, 0] == 255
        if anchors.ndim != 1 or anchors.max() >= len(face):
            raise AssetError(f"lm_inds_65.npy names vertex {int(anchors.max())}, but face.npy has {len(face)}")
        return Assets(face, may, anchors)


def write_supervision(
    scans: Path,
    assets: Assets,
    target: Path,
    subjects: Callable[[int], bool],
    counts: FieldCounts,
    pairs: int = PAIRS,
    corresp_files: int = CORRESP_FILES,
    seed: int = 0,
) -> int:
    """Every scan of the chosen subjects; returns how many were written. Finished scans are left as they are: a run that
    was interrupted goes on where it stood."""
    neutrals = read_neutrals(scans)
    target.mkdir(parents=True, exist_ok=True)
    write_bytes(target / "neutrals.json", json.dumps(neutrals, sort_keys=True).encode())
    written = 0
    for subject, folder in _numbered(scans):
        if not subjects(subject):
            continue
        neutral = neutrals.get(str(subject), -1)
        neutral_mesh = None
        for expression, place in _numbered(folder):
            done = target / ".done" / f"{subject:03d}_{expression:03d}"
            if done.is_file():
                continue
            random = np.random.default_rng([seed, subject, expression])
            registration = read_scan(place / "registration.ply")
            if len(registration.vertices) != len(assets.face):
                raise InputError(
                    f"{place}: {len(registration.vertices)} vertices, but face.npy marks {len(assets.face)}"
                )
            flame = read_scan(place / "flame.ply").vertices if (place / "flame.ply").is_file() else None
            try:
                fields = sample_fields(_textured(place), registration.vertices[assets.face], flame, counts, random)
            except InputError as error:
                raise InputError(f"{place}: {error}") from error
            for kind, rows in fields.items():
                for i, part in enumerate(np.array_split(rows[random.permutation(len(rows))], counts.files)):
                    if len(part):
                        _save(surface_path(target, kind, subject, expression, i), part)
            if expression == neutral:
                _save(target / ANCHORS / f"{subject:03d}.npy", registration.vertices[assets.anchor_vertices])
            elif neutral >= 0:
                if neutral_mesh is None:
                    neutral_mesh = read_scan(folder / f"{neutral:03d}" / "registration.ply")
                found = sample_correspondences(neutral_mesh, registration, assets.may_correspond, random, pairs)
                for i, part in enumerate(np.array_split(found, corresp_files)):
                    _save(corresp_path(target, subject, expression, i), part)
            write_bytes(done, b"done\n")
            written += 1
            log.info("subject %d, expression %d: %d face samples", subject, expression, len(fields["face"]))
    return written


def mean_anchors(target: Path) -> Float[np.ndarray, "anchors 3"]:
    """Mean over the subjects' neutral anchors. InputError when no subject has any."""
    found = [np.load(path, allow_pickle=False) for path in sorted((target / ANCHORS).glob("*.npy"))]
    if not found:
        raise InputError(f"{target / ANCHORS} is empty: no subject has a neutral scan; give --anchors anchors_65.npy")
    return np.asarray(np.mean(found, 0), np.float64)


def read_neutrals(scans: Path) -> dict[str, int]:
    """Subject -> neutral expression; -1: unknown."""
    for name in NEUTRALS:
        if (scans / name).is_file():
            return {str(k): int(v) for k, v in json.loads((scans / name).read_text(encoding="utf-8")).items()}
    raise InputError(f"{scans} has none of {', '.join(NEUTRALS)}: which expression of each subject is neutral?")


def _textured(place: Path) -> TexturedScan:
    path = next((place / name for name in ("scan.ply", "scan.obj") if (place / name).is_file()), place / "scan.ply")
    return read_textured(path)


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.isdecimal():
            yield int(path.name), path


def _asset(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise AssetError(f"{path} is missing or no array file: {error}") from error


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.asarray(array, np.float32))
