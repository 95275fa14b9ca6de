"""Import directions: what `make check` holds, held by `make test` as well, and the two rules that need more words."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEDGER_MAY = {"mononphm_core.errors", "mononphm_core.io.sniff"}


def imports_of(path: Path) -> set[str]:
    """Absolute module names that a file imports; `from a import b` counts as a.b too, since b may be a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_import_goes_in_the_direction_of_the_house():
    """One arrow back and a room can no longer be understood, tested or deployed alone."""
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([script, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("path", sorted((ROOT / "worker" / "ledger").rglob("*.py")), ids=lambda path: path.stem)
def test_the_ledger_takes_two_light_modules_from_the_core_and_nothing_else(path):
    """It is the service's door: whatever it imports, the slim image must have."""
    for name in imports_of(path):
        if name.startswith("worker."):
            assert name.startswith("worker.ledger"), f"{path.name} imports {name}"
        if name.startswith("mononphm_core"):
            assert any(name == allowed or name.startswith(f"{allowed}.") for allowed in LEDGER_MAY), name


@pytest.mark.parametrize("module", ["mononphm_core.errors", "mononphm_core.io.sniff"])
def test_what_the_ledger_takes_from_the_core_needs_the_standard_library_alone(module):
    """Imported in a fresh process, nothing from site-packages may come along."""
    script = (
        f"import sys, {module}\n"
        "ours = {'mononphm_core'}\n"
        "packages = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - ours\n"
        "print(' '.join(sorted(name for name in packages if getattr(sys.modules.get(name), '__file__', None)\n"
        "      and 'site-packages' in sys.modules[name].__file__)))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("module", ["service.app", "worker.tasks", "worker.supervisor", "mononphm_cli.main"])
def test_these_processes_never_meet_torch(module):
    """Static analysis cannot see a lazy import that runs at import time; a process can."""
    heavy = ("torch", "numpy", "cv2", "mediapipe")
    script = f"import sys, {module}; sys.exit(sum(name in sys.modules for name in {heavy}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr or f"one of {heavy} was imported"
