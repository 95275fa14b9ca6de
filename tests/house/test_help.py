"""The pages that people turn to when something fails, and the recipes: held against the code."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from balls import ball_head, two_frames
from players import played

from mononphm_core import errors
from mononphm_core.io.animated import Animated
from mononphm_core.io.exports import write_usdz
from mononphm_core.io.head_files import animated_glb
from service.problems import CATALOGUE
from worker.ledger.failure import stalled, worker_lost

DOCS = Path(__file__).resolve().parents[2] / "docs"


def family(kind: type[errors.MonoNPHMError] = errors.MonoNPHMError) -> list[type[errors.MonoNPHMError]]:
    return [kind, *(member for child in kind.__subclasses__() for member in family(child))]


def test_every_code_that_anybody_can_meet_is_explained_once():
    """The API's catalogue, the core's family and the two failures of the supervisor; and no code that is gone."""
    explained = re.findall(r"^\| `(\w+)` \|", (DOCS / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    known = {*CATALOGUE, *(kind.code for kind in family()), worker_lost(3).code, stalled(1.0).code}
    assert sorted(explained) == sorted(known)


def recipes() -> list[str]:
    """The Python blocks of recipes.md."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / "recipes.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("recipe", recipes(), ids=["trimesh", "arrays", "blender", "openusd"])
def test_the_recipes_run_as_they_stand(recipe, tmp_path, monkeypatch):
    """In a folder with an animation.glb, as a reader would paste them; skipped where the program is not installed."""
    for package in ("bpy", "pxr"):
        if f"import {package}\n" in recipe or f"from {package} " in recipe:
            pytest.importorskip(package, reason=f"the recipe needs {package}")
    data = animated_glb(ball_head(), two_frames(), np.broadcast_to(np.eye(4), (2, 4, 4)))
    (tmp_path / "animation.glb").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    if "animation.usdz" in recipe:
        write_usdz(Animated.read(data), tmp_path / "animation.usdz")
    names: dict[str, Any] = {}
    exec(compile(recipe, "recipes.md", "exec"), names)
    if "world" in names:
        np.testing.assert_allclose(names["world"], played(data, 1), atol=1e-6)
    elif "head" in names and "bpy" in names:
        assert len(names["head"].data.vertices) == len(ball_head().vertices)
    elif "points" in names:
        assert len(names["points"]) == len(ball_head().vertices)
    else:
        assert (tmp_path / "albedo.png").stat().st_size > 0 and (tmp_path / "neutral.ply").stat().st_size > 0
