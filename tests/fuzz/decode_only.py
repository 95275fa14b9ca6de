"""A pipeline that only reads its input, as the real one does first: pictures, or one of our errors."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

from mononphm_core.config import FrameSelection, MediaLimits
from mononphm_core.io.media import read_clip

LIMITS = MediaLimits(decode_seconds=5.0, decode_memory_bytes=1 << 30, max_pixels=4_000_000, max_frames=500)


def run(order, workspace: Path, on_step):
    """`frames.txt` says how many pictures there were."""
    on_step(SimpleNamespace(stage="decoding", step=1, total=1, frames_done=0, frames_total=0, message=""))
    clip = read_clip(order.input_path, FrameSelection(max_frames=20), LIMITS)
    content = f"{len(clip.frames)}".encode()
    (workspace / "frames.txt").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    result = {
        "name": "frames.txt", "role": "result", "media_type": "text/plain", "bytes": len(content), "sha256": digest,
    }  # fmt: skip
    manifest = {"model": None, "warnings": list(clip.warnings), "artifacts": [result]}
    (workspace / "manifest.json").write_text(json.dumps(manifest))
    return manifest
