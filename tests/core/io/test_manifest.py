"""The manifest and the atomic files below it."""

import errno
import json
import math
import os
import subprocess
import sys
from enum import Enum
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mononphm_core.errors import OutOfDiskSpace
from mononphm_core.io import atomic
from mononphm_core.io.atomic import atomic_path, write_bytes
from mononphm_core.io.manifest import (
    ArtifactManifest,
    entry_of,
    json_bytes,
    package_versions,
    plain,
    verify_files,
    write_manifest,
)


class Colour(str, Enum):
    RED = "red"


def test_json_is_strict_whatever_goes_in():
    """A browser refuses NaN: what is not a number is null, and arrays, enums, fractions and paths become plain."""
    document = {"a": float("nan"), "b": [math.inf, 1.5], "c": np.float32(2), "d": np.arange(3), 1: Colour.RED}
    document |= {"e": Fraction(1, 4), "f": Path("/a/b.txt"), "g": {3, 1}, "h": (True, None), "i": "a / b"}
    text = json_bytes(document).decode()
    back = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert back == {
        "a": None, "b": [None, 1.5], "c": 2.0, "d": [0, 1, 2], "1": "red",
        "e": 0.25, "f": "b.txt", "g": [1, 3], "h": [True, None], "i": "a / b",
    }  # fmt: skip
    with pytest.raises(TypeError):
        plain(object())


@pytest.mark.parametrize(
    "text, public",
    [
        ("/home/me/my clips/a.mp4", "a.mp4"),
        ("~/models/tiny/", "tiny"),
        ("C:\\Users\\me\\a.mp4", "a.mp4"),
        ("\\\\server\\share\\a.mp4", "a.mp4"),
        ("file:///home/me/a.mp4", "a.mp4"),
        ("video/mp4", "video/mp4"),
        ("CC BY 4.0 / MIT", "CC BY 4.0 / MIT"),
        ("cuda:0", "cuda:0"),
    ],
)
def test_paths_of_the_machine_become_names(text, public):
    """Artifacts are passed on: they must not tell where on whose machine they were made. Other words stay."""
    assert plain(text) == public


@pytest.fixture
def delivery(tmp_path: Path) -> Path:
    (tmp_path / "meshes").mkdir()
    (tmp_path / "cameras.json").write_bytes(b"{}\n")
    (tmp_path / "meshes" / "frame_00000.ply").write_bytes(b"ply\n")
    entries = (entry_of(tmp_path, "cameras.json", "cameras"), entry_of(tmp_path, "meshes/frame_00000.ply", "mesh", 0))
    write_manifest(tmp_path, ArtifactManifest(entries))
    return tmp_path


def test_a_whole_delivery_has_no_problems(delivery):
    assert verify_files(delivery) == []
    listed = json.loads((delivery / "manifest.json").read_text())["artifacts"]
    assert listed[0] == {
        "name": "cameras.json", "role": "cameras", "media_type": "application/json", "bytes": 3,
        "sha256": "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356",
    }  # fmt: skip
    assert listed[1]["frame_index"] == 0


def test_every_kind_of_damage_is_found_and_named(delivery):
    """One bit, one byte, one file: each is said with the name of the file."""
    mesh = delivery / "meshes" / "frame_00000.ply"
    mesh.write_bytes(b"plz\n")
    assert verify_files(delivery) == ["meshes/frame_00000.ply has other bytes than the manifest's checksum"]
    mesh.write_bytes(b"ply")
    assert verify_files(delivery) == ["meshes/frame_00000.ply has 3 bytes, the manifest says 4"]
    mesh.unlink()
    assert verify_files(delivery) == ["meshes/frame_00000.ply is missing"]
    (delivery / "manifest.json").write_text('{"artifacts": [{"name": "cameras.json", "bytes": NaN}]}')
    assert "cannot be read" in verify_files(delivery)[0]
    (delivery / "manifest.json").unlink()
    assert "did not finish" in verify_files(delivery)[0]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "..\\b", ""])
def test_a_manifest_cannot_point_outside_its_directory(delivery, name):
    """Clients verify manifests that came over a network."""
    entry = {"name": name, "bytes": 1, "sha256": "0" * 64}
    (delivery / "manifest.json").write_text(json.dumps({"artifacts": [entry]}))
    assert verify_files(delivery) == [f"{name!r} is no name inside the directory"]


def test_versions_of_what_can_change_a_result_are_named():
    versions = package_versions()
    assert {"python", "numpy", "torch", "scikit-image"} <= set(versions)
    assert versions["numpy"] == np.__version__


def test_verifying_needs_the_standard_library_alone():
    """The HTTP client is installed without torch or numpy, and verifies what it downloads."""
    code = (
        "import sys; sys.modules.update({'torch': None, 'numpy': None, 'trimesh': None})\n"
        "from mononphm_core.io.manifest import verify_files"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    """Atomic: a reader sees the old bytes or the new ones, never half of them."""
    path = tmp_path / "sub" / "file.json"
    write_bytes(path, b"old")

    def break_off() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"ha")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]
    assert path.read_bytes() == b"old"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    """After a power loss the name may be missing; where it is, the content is: sync file, rename, sync directory."""
    done: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace
    monkeypatch.setattr(atomic.os, "fsync", lambda fd: done.append("sync") or real_sync(fd))
    monkeypatch.setattr(Path, "replace", lambda self, to: done.append("rename") or real_replace(self, to))
    write_bytes(tmp_path / "file", b"x")
    assert done == ["sync", "rename", "sync"]


def test_a_full_disk_is_said_in_words(tmp_path):
    with pytest.raises(OutOfDiskSpace, match="Free some space"), atomic_path(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
