"""The published layout of supervision files, written and read.

surface_pointclouds/<subject %03d>/{face,non_face,def_region,off}_<expression>_<i>.npy   [n, 9] xyz, normal, RGB 0..255
deformations/<subject %03d>/<expression %03d>/corresp_<i>.npy                            [n, 6] neutral xyz, posed xyz
anchors/<subject %03d>.npy                                                               [65, 3], of the neutral scan
neutrals.json                                                                            subject -> expression or -1
hairstyles.json (optional)             subject -> [[expressions of a further hairstyle, its own scan first], ...]
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from mononphm_core.errors import InputError

KINDS = ("face", "non_face", "def_region", "off")
SURFACE, DEFORMATIONS, ANCHORS = "surface_pointclouds", "deformations", "anchors"
NEXT_HAIRSTYLE = 10_000
"""A subject's k-th further hairstyle is the person subject + k * this."""


@dataclass(frozen=True)
class Scan:
    """One scan of the training data."""

    subject: int
    expression: int
    person: int
    """The subject, or the subject with a further hairstyle."""
    is_neutral: bool
    hair: bool
    """Its hair is taught: the neutral scan, or the first one of a further hairstyle."""


def surface_path(root: Path, kind: str, subject: int, expression: int, i: int) -> Path:
    """Where our writer puts one file."""
    return root / SURFACE / f"{subject:03d}" / f"{kind}_{expression}_{i}.npy"


def corresp_path(root: Path, subject: int, expression: int, i: int) -> Path:
    """Where correspondences lie."""
    return root / DEFORMATIONS / f"{subject:03d}" / f"{expression:03d}" / f"corresp_{i}.npy"


def find_scans(root: Path) -> list[Scan]:
    """Every scan with supervision, by subject and expression. InputError when there is none."""
    neutrals = _json(root / "neutrals.json", required=True)
    styles = _json(root / "hairstyles.json", required=False)
    found = []
    for folder in sorted((root / SURFACE).glob("[0-9]*")):
        subject = int(folder.name)
        expressions = {int(m[1] or m[2]) for p in folder.glob("*.npy") if (m := _FACE.fullmatch(p.name))}
        neutral = int(neutrals.get(str(subject), -1))
        for expression in sorted(expressions):
            person, key = subject, expression == neutral
            for k, style in enumerate(styles.get(str(subject), []), start=1):
                if expression in style:
                    person, key = subject + k * NEXT_HAIRSTYLE, key or expression == style[0]
            found.append(Scan(subject, expression, person, expression == neutral, key))
    if not found:
        raise InputError(
            f"{root / SURFACE} holds no face_<expression>_<i>.npy; `mononphm train supervision` makes them"
        )
    return found


_FACE = re.compile(r"face_(\d+)_\d+\.npy|(\d+)_\d+_face\.npy")


class Files:
    """Reads one random file of a kind. Which files there are is looked up once a scan."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[tuple[str, int, int], list[Path]] = {}

    def points(self, kind: str, scan: Scan, count: int, random: np.random.Generator) -> Float[np.ndarray, "points 9"]:
        """`count` random rows of one random file."""
        return self._rows(self._paths(kind, scan.subject, scan.expression), count, 9, random)

    def correspondences(
        self, scan: Scan, count: int, random: np.random.Generator
    ) -> Float[np.ndarray, "points 6"] | None:
        """(neutral, posed) pairs; None for a scan that has none."""
        paths = self._paths("corresp", scan.subject, scan.expression)
        return self._rows(paths, count, 6, random) if paths else None

    def anchors(self, scan: Scan) -> Float[np.ndarray, "anchors 3"] | None:
        """Of the subject's neutral scan; None where unknown."""
        path = self.root / ANCHORS / f"{scan.subject:03d}.npy"
        return _array(path, (-1, 3)) if path.is_file() else None

    def _paths(self, kind: str, subject: int, expression: int) -> list[Path]:
        key = (kind, subject, expression)
        if key not in self._known:
            if kind == "corresp":
                folder, patterns = corresp_path(self.root, subject, expression, 0).parent, ["corresp_*.npy"]
            else:
                folder = self.root / SURFACE / f"{subject:03d}"
                patterns = [f"{expression}_[0-9]*_{kind}.npy", f"{kind}_{expression}_[0-9]*.npy"]
            paths = next((found for p in patterns if (found := sorted(folder.glob(p)))), [])
            if not paths and kind != "corresp":
                raise InputError(f"{folder} has no {kind}_{expression}_<i>.npy")
            self._known[key] = paths
        return self._known[key]

    def _rows(
        self, paths: list[Path], count: int, width: int, random: np.random.Generator
    ) -> Float[np.ndarray, "points columns"]:
        path = paths[random.integers(len(paths))]
        values = _array(path, (-1, width))
        if len(values) == 0:
            raise InputError(f"{path} is empty")
        return values[random.integers(len(values), size=count)]


def _array(path: Path, shape: tuple[int, int]) -> Float[np.ndarray, "rows columns"]:
    try:
        found: Shaped[np.ndarray, "..."] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no array file: {error}") from error
    if found.ndim != 2 or found.shape[1] != shape[1] or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise InputError(f"{path} is {found.shape} {found.dtype}; expected finite numbers in {shape[1]} columns")
    return found.astype(np.float32)


def _json(path: Path, required: bool) -> dict[str, Any]:
    if not path.is_file():
        if required:
            raise InputError(f"{path} is missing: it says which expression of each subject is neutral")
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no object")
    return document
