"""What `mononphm doctor` tries in processes of their own: a library that crashes is a finding, not the end.

`python -m mononphm_cli.probes NAME` prints one JSON object of facts, or fails with the library's own words.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FRAMES, SIDE = 8, 128

WANTED_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "gif")


def torch_facts() -> dict[str, Any]:
    """Version, device that `auto` would take, and that a product of matrices is right on it."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.arange(9.0, device=device).reshape(3, 3)
    assert (matrix @ torch.eye(3, device=device)).equal(matrix), "a matrix times one is not itself"
    facts: dict[str, Any] = {"version": torch.__version__, "device": device, "threads": torch.get_num_threads()}
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        facts |= {"name": torch.cuda.get_device_name(), "free_gb": round(free / 1e9, 1), "gb": round(total / 1e9, 1)}
    return facts


def faces_facts() -> dict[str, Any]:
    """That OpenCV and MediaPipe load, and that the face library runs on a picture without a face and finds none."""
    import cv2
    import mediapipe
    import numpy as np

    grey = np.full((SIDE, SIDE, 3), 127, np.uint8)
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        assert mesh.process(grey).multi_face_landmarks is None, "a face was found in a grey picture"
    return {"mediapipe": mediapipe.__version__, "opencv": cv2.__version__}


def codecs_facts() -> dict[str, Any]:
    """A small clip written and read back: every frame there, in order, and the right brightness."""
    import av
    import numpy as np

    levels = np.linspace(40, 200, FRAMES).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        codec = write_clip(path, [np.full((SIDE, SIDE, 3), level, np.uint8) for level in levels])
        with av.open(str(path), format="mov,mp4,m4a,3gp,3g2,mj2") as clip:
            seen = [int(frame.to_ndarray(format="rgb24").mean()) for frame in clip.decode(video=0)]
    assert len(seen) == FRAMES, f"{len(seen)} of {FRAMES} frames came back"
    assert np.abs(np.array(seen) - levels).max() <= 6, f"brightness {seen} instead of {levels.tolist()}"
    known = av.codecs_available
    return {
        "av": av.__version__,
        "tried": codec,
        "decoders": [name for name in WANTED_DECODERS if name in known or f"lib{name}" in known],
        "missing": [name for name in WANTED_DECODERS if name not in known and f"lib{name}" not in known],
    }


def write_clip(path: Path, frames: list[Any], fps: int = 10) -> str:
    """Encode RGB pictures as an mp4, H.264 where this PyAV can; returns the codec's name."""
    import av

    name = next(name for name in ("libx264", "h264", "libopenh264", "mpeg4") if name in av.codecs_available)
    with av.open(str(path), "w") as clip:
        stream = clip.add_stream(name, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        clip.mux(stream.encode(None))
    return name


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": torch_facts,
    "faces": faces_facts,
    "codecs": codecs_facts,
}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(PROBES[sys.argv[1]]()) + "\n")
