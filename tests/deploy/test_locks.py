"""requirements/*.lock against constraints.txt and pyproject.toml: what is installed in an image is what was tested."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.containers import ROOT

LOCKS = {
    "service": ("service", "postgres", "telemetry", "s3"),
    "worker": ("core", "worker", "postgres", "telemetry", "s3"),
}
GPU_ONLY = re.compile("cuda-|nvidia-|triton$")
"""What torch brings along on a GPU machine and not here; constraints.txt, made here, cannot know it."""


def locked(name: str) -> dict[str, str]:
    """Package -> version; every line of the file is a pin or one of its hashes, nothing else."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
    entry = re.compile(r"([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")
    assert entry.sub("", text) == ""
    return {match[1]: match[2] for match in entry.finditer(text)}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_the_tested_versions(name):
    """Two lists of versions that drift apart are one list too many."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    tested = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    for package, version in locked(name).items():
        assert tested.get(package) == version or GPU_ONLY.match(package), f"{package}=={version}: scripts/lock.sh"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_everything_that_its_image_declares(name):
    """Somebody who adds a dependency and forgets scripts/lock.sh learns it here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(t for extra in LOCKS[name] for t in project["optional-dependencies"][extra])]
    versions = locked(name)
    for requirement in map(Requirement, [*asked, "setuptools"]):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is missing: scripts/lock.sh"
        assert requirement.specifier.contains(version, prereleases=True), requirement
