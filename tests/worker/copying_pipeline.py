"""A pipeline that delivers the files of one folder, whatever it is sent: what programs meet, without mathematics."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from mononphm_core.io.manifest import ArtifactManifest, entry_of, write_manifest
from mononphm_core.types import Stage, StepReport

MODEL = {"name": "tiny", "version": "1", "sha256": "0" * 64, "licence": "MIT"}
STEPS, STEP_S = 5, 0.1


def prepare() -> dict[str, str]:
    return MODEL


def run(order: Any, workspace: Path, on_step: Any) -> dict[str, Any]:
    """Some steps, then the files of $COPIED_RESULT; their roles stand in its roles.json."""
    for step in range(STEPS):
        on_step(StepReport(Stage.STAGE1, step, STEPS, step, STEPS))
        time.sleep(STEP_S)
    folder = Path(os.environ["COPIED_RESULT"])
    roles = json.loads((folder / "roles.json").read_text())
    for name in roles:
        shutil.copy(folder / name, workspace / name)
    made = ArtifactManifest(tuple(entry_of(workspace, *item) for item in roles.items()), {"model": MODEL})
    write_manifest(workspace, made)
    return made.document()
