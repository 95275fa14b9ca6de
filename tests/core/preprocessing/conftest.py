"""A real face for the tests: the astronaut of scikit-image (NASA, public domain), and her own points as reference."""

import warnings

import numpy as np
import pytest
from skimage import data

from mononphm_core.types import Clip, Frame, MediaInfo


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """512 x 512, one face of about 105 pixels."""
    return np.asarray(data.astronaut())


@pytest.fixture(scope="session")
def reference(astronaut: np.ndarray) -> np.ndarray:
    """A head for pose and visibility: the detector's own relief of this face, in posed head units (x to the subject's
    left, y up, z out of the face; the face 0.72 units high, about 180 mm)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mediapipe.python.solutions.face_mesh import FaceMesh

        with FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
            found = mesh.process(np.ascontiguousarray(astronaut[0:300, 90:390])).multi_face_landmarks[0].landmark
    relief = np.array([(p.x, -p.y, -p.z) for p in found])
    relief -= relief[:468].mean(axis=0)
    return relief * 0.72 / np.ptp(relief[:468, 1])


def clip_of(pictures: list[np.ndarray], fps: float = 25.0, **info: object) -> Clip:
    """Pictures as a decoded clip."""
    height, width = pictures[0].shape[:2]
    frames = tuple(Frame(np.ascontiguousarray(p), i, i / fps) for i, p in enumerate(pictures))
    facts = {"media_type": "video/mp4", "is_video": True, "width": width, "height": height, "frames": len(frames)}
    return Clip(frames, MediaInfo(**{**facts, "fps": None, "duration_s": None, "rotation": 0, **info}))  # type: ignore[arg-type]
