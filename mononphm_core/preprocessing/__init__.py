"""From pictures to observations: the right face, its landmarks, masks, camera and crop in every frame."""

from mononphm_core.preprocessing.observe import observe

__all__ = ["observe"]
