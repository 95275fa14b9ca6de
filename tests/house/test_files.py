"""What is tracked: pins, docs, containers, and nothing that belongs to one machine."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
MACHINE_PATHS = re.compile(rb"/(?:home|Users|work)/[A-Za-z0-9_.]|/tmp/[a-z_]+jobs")
BINARY = {".mp4", ".png", ".jpg", ".npz", ".safetensors", ".glb", ".ply"}
URL = re.compile(r"https?://")
LARGEST_FILE = 25_000_000


def tracked() -> list[Path]:
    """Every file that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def markdown() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def blocks(path: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return dict(line.split("==") for line in lines)


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (name for group in project["optional-dependencies"].values() for name in group)
    return [Requirement(text) for text in [*project["dependencies"], *extras]]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_every_declared_package_is_pinned_inside_its_declared_range(requirement):
    """A fresh clone next year must get the versions that were tested."""
    by_name = {canonicalize_name(name): version for name, version in pins().items()}
    version = by_name.get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is not in constraints.txt"
    assert requirement.specifier.contains(version, prereleases=True)


def test_constraints_are_exact_sorted_and_name_no_place():
    """An address in this file would decide for the user where packages come from."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert lines == sorted(lines, key=str.lower)
    assert len({canonicalize_name(line.split("==")[0]) for line in lines}) == len(lines)


def test_no_tracked_file_names_a_path_of_one_machine():
    """Somebody's home directory is noise for everybody else, and at times a secret."""
    here = re.compile(MACHINE_PATHS.pattern + b"|" + re.escape(f"{ROOT}/".encode()))
    found = {
        path.relative_to(ROOT).as_posix(): match.group(0)
        for path in tracked()
        if path.suffix not in BINARY
        and not path.is_relative_to(ROOT / "tests")  # tests make up names on purpose
        and (match := here.search(path.read_bytes()))
    }
    assert found == {}


def test_no_tracked_file_is_larger_than_the_shipped_weights():
    """A clone is the installation: git keeps every byte for ever."""
    assert [path.name for path in tracked() if path.stat().st_size > LARGEST_FILE] == []


def test_no_tracked_file_is_empty_but_package_markers():
    """An empty file is a promise nobody kept."""
    markers = {"__init__.py", "py.typed"}
    assert [path.name for path in tracked() if path.stat().st_size == 0 and path.name not in markers] == []


@pytest.mark.parametrize("path", markdown(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_blocks_in_documents_parse(path):
    """A reader will paste them."""
    for language, text in blocks(path):
        if language in ("bash", "sh"):
            script = text.replace("<this repository>", "x")
            checked = subprocess.run(["bash", "-n"], input=script, text=True, timeout=20)
            assert checked.returncode == 0, text
        elif language == "python":
            ast.parse(text)
        elif language == "json":
            json.loads(text)
        elif language == "yaml":
            yaml.safe_load(text)


@pytest.mark.parametrize("path", markdown(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_files_lead_somewhere(path):
    """A document that points at nothing is worse than none."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not URL.match(target) and not target.startswith("mailto:"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_make_target_is_documented():
    """`make help` is where a stranger starts."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    phony = next(line for line in lines if line.startswith(".PHONY:")).split()[1:]
    said = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in phony:
        assert re.search(rf"^\s+make {target}\s+\S", said, re.MULTILINE), target


def test_continuous_integration_runs_exactly_make_test():
    """What passes there must pass on a contributor's machine by the same command."""
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.strip() and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]
    assert "set -euo pipefail" in text
