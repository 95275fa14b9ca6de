"""The smallest job there is: half a second of steps, then one file that says which bytes it was made from."""

import hashlib
import json
import time
from pathlib import Path
from types import SimpleNamespace

STEPS = 6
PAUSE_S = 0.05


def run(order, workspace: Path, on_step):
    """`result.txt` holds the sha256 of the input as it was read, and the attempt that read it."""
    digest = hashlib.sha256(order.input_path.read_bytes()).hexdigest()
    for step in range(1, STEPS + 1):
        time.sleep(PAUSE_S)
        on_step(
            SimpleNamespace(stage="stage1", step=step, total=STEPS, frames_done=step, frames_total=STEPS, message="")
        )
    content = f"{digest} {order.attempt}".encode()
    (workspace / "scratch.tmp").write_bytes(b"not an artifact")
    (workspace / "result.txt").write_bytes(content)
    result = {
        "name": "result.txt", "role": "result", "media_type": "text/plain", "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    manifest = {"model": None, "warnings": [], "artifacts": [result]}
    (workspace / "manifest.json").write_text(json.dumps(manifest))
    return manifest
