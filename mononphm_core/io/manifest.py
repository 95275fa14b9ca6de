"""What a job delivered, with the checksum of every file. Standard library only: clients verify with it too."""

import hashlib
import json
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import Enum
from fractions import Fraction
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from mononphm_core.io.atomic import write_bytes

SCHEMA_VERSION = "1.0"
MANIFEST = "manifest.json"
PACKAGES = ("mononphm", "torch", "numpy", "scipy", "scikit-image", "mediapipe", "opencv-contrib-python", "av", "pillow")
MEDIA_TYPES = {
    ".json": "application/json",
    ".npz": "application/x-npz",
    ".csv": "text/csv",
    ".ply": "model/ply",
    ".obj": "model/obj",
    ".glb": "model/gltf-binary",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}


@dataclass(frozen=True)
class ArtifactEntry:
    """One delivered file."""

    name: str
    """Relative to the directory, with forward slashes."""
    role: str
    """`identity`, `expressions`, `cameras`, `mesh`, `blendshapes`, `preview`, `thumbnail`, `neutral`, `animation` or
    `head_arkit`."""
    media_type: str
    bytes: int
    sha256: str
    frame_index: int | None = None
    """Of a mesh: the frame it belongs to."""


@dataclass(frozen=True)
class ArtifactManifest:
    """All that one job delivered. The manifest is not in its own list: it cannot know its own checksum."""

    artifacts: tuple[ArtifactEntry, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Everything else of manifest.json, already plain JSON values."""

    def document(self) -> dict[str, Any]:
        """What manifest.json holds."""
        entries = [{k: v for k, v in asdict(entry).items() if v is not None} for entry in self.artifacts]
        return {"schema_version": SCHEMA_VERSION, **self.facts, "artifacts": entries}


def entry_of(directory: Path, name: str, role: str, frame_index: int | None = None) -> ArtifactEntry:
    """Size and checksum from the bytes that lie on the disk, not from those meant to be written."""
    path = directory / name
    return ArtifactEntry(name, role, MEDIA_TYPES[path.suffix], path.stat().st_size, sha256_of_file(path), frame_index)


def sha256_of_file(path: Path) -> str:
    """Hexadecimal, read in portions."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_versions() -> dict[str, str]:
    """Of the packages that can change a result, those installed, and of Python."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def plain(value: Any) -> Any:
    """The same as JSON can hold it: not-a-number and infinity become null, enums their value, paths their last part."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return without_folder(value)
    if isinstance(value, float | Fraction):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in items]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def without_folder(text: str) -> str:
    """An absolute path loses its folders: no artifact tells where on a machine something lay."""
    if re.match(r"[/~]|[A-Za-z]:[\\/]|\\\\|file:", text):
        return re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    return text


def json_bytes(document: Any, indent: int | None = 2) -> bytes:
    """Strict UTF-8 JSON of plain values, ended by a newline."""
    return (json.dumps(plain(document), indent=indent, allow_nan=False, ensure_ascii=False) + "\n").encode()


def write_manifest(directory: Path, manifest: ArtifactManifest) -> None:
    """Written last: where it lies, everything it names lies too."""
    write_bytes(directory / MANIFEST, json_bytes(manifest.document()))


def read_manifest(directory: Path) -> dict[str, Any]:
    """The document. Raises ValueError, in words, when it is missing or is no strict JSON object with artifacts."""
    try:
        document = json.loads((directory / MANIFEST).read_text("utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise ValueError(f"{MANIFEST} is missing: the job did not finish") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{MANIFEST} cannot be read: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("artifacts"), list):
        raise ValueError(f"{MANIFEST} has no list of artifacts")
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def verify_files(directory: Path) -> list[str]:
    """A sentence for each listed file that is missing, of another size or with other bytes; [] if all is well."""
    try:
        document = read_manifest(directory)
    except ValueError as error:
        return [str(error)]
    problems = []
    for entry in document["artifacts"]:
        try:
            name, size, sha256 = str(entry["name"]), int(entry["bytes"]), str(entry["sha256"])
        except (TypeError, KeyError, ValueError):
            problems.append(f"{MANIFEST} lists an artifact without name, bytes and sha256")
            continue
        problems += _problems_of(directory, name, size, sha256)
    return problems


def _problems_of(directory: Path, name: str, size: int, sha256: str) -> list[str]:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name:
        return [f"{name!r} is no name inside the directory"]
    path = directory / name
    if not path.is_file():
        return [f"{name} is missing"]
    if path.stat().st_size != size:
        return [f"{name} has {path.stat().st_size} bytes, the manifest says {size}"]
    if sha256_of_file(path) != sha256:
        return [f"{name} has other bytes than the manifest's checksum"]
    return []
