"""A sequence that was prepared for the published program, in its own folder layout.

    SEQ/source/00000.png ...                                    pictures (jpg too)
    SEQ/pipnet/test.npy                                         [frames, 98, 2], shares of the first picture's size
    SEQ/seg/0.png ...                                           face-parser labels, numbers not padded
    SEQ/matting/00000.png ...                                   mattes, 0 to 255
    SEQ/kpt/00000.npy ...                                       iBUG-68, pixels; only where the camera is estimated
    SEQ/metrical_tracker/SEQ/checkpoint/00000_cam_params_opencv.npz   R, t, K

A part that is wholly missing is named by `missing`; one that is there for some frames only, or that does not fit, is an
InputError that names file and frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from mononphm_core.errors import InputError
from mononphm_core.preprocessing.published.prepare import GivenIntrinsics

PICTURES = (".png", ".jpg", ".jpeg")
PART_NAMES = {
    "landmarks": "pipnet/test.npy",
    "labels": "seg",
    "mattes": "matting",
    "jaw": "kpt",
    "poses": "metrical_tracker",
}
NOT_A_ROTATION = 1e-3
"""Largest |R^T R - I| that rounding of float32 files explains."""


@dataclass(frozen=True)
class TrackedPose:
    """One `*_cam_params_opencv.npz`."""

    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    k: Float[np.ndarray, "3 3"]


class SequenceFolder:
    """Reads one such folder. InputError when `source/` holds no pictures numbered from 0 without a gap."""

    def __init__(self, root: Path) -> None:
        self.root = root
        pictures = [path for path in sorted((root / "source").glob("*")) if path.suffix.lower() in PICTURES]
        numbers = [path.stem for path in pictures]
        if not pictures or [int(n) if n.isdecimal() else -1 for n in numbers] != list(range(len(pictures))):
            raise InputError(f"{root / 'source'} must hold 00000.png, 00001.png, ... without a gap")
        self.pictures = tuple(pictures)
        tracker = root / "metrical_tracker"
        own = tracker / root.name / "checkpoint"
        self._checkpoints = own if own.is_dir() else next(iter(sorted(tracker.glob("*/checkpoint"))), own)

    def __len__(self) -> int:
        return len(self.pictures)

    def missing(self, intrinsics_given: bool) -> tuple[str, ...]:
        """Which of `PART_NAMES` the folder lacks altogether. The second detector's jaw is not asked for when the camera
        is given."""
        found = {
            "landmarks": (self.root / "pipnet" / "test.npy").is_file(),
            "labels": any((self.root / "seg").glob("*.png")),
            "mattes": any((self.root / "matting").glob("*.png")),
            "jaw": intrinsics_given or any((self.root / "kpt").glob("*.npy")),
            "poses": any(self._checkpoints.glob("*_cam_params_opencv.npz")),
        }
        return tuple(name for name, there in found.items() if not there)

    def picture(self, t: int) -> UInt8[np.ndarray, "height width 3"]:
        """sRGB."""
        return _picture(self.pictures[t], "RGB", t)

    def labels(self, t: int, size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
        """Face-parser labels of a picture of `size` (width, height)."""
        return self._grey(t, self.root / "seg", (f"{t}.png", f"{t:05d}.png"), size)

    def matte(self, t: int, size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
        """0 background, 255 person."""
        return self._grey(t, self.root / "matting", (f"{t:05d}.png", f"{t}.png"), size)

    def landmarks(self) -> Float[np.ndarray, "frames 98 2"]:
        """WFLW-98 as shares of width and height; NaN in frames where the detector found no face (it wrote -1)."""
        path = self.root / "pipnet" / "test.npy"
        found = _array(path, None)
        if found.shape != (len(self), 98, 2):
            raise InputError(
                f"{path} is {found.shape}, but source/ has {len(self)} pictures: expected ({len(self)}, 98, 2)"
            )
        found = found.astype(np.float64)
        if not np.isfinite(found).all():
            raise InputError(f"{path}: frame {int(np.argwhere(~np.isfinite(found))[0, 0])} holds numbers that are none")
        nobody = (found < 0).all((1, 2))
        found[nobody] = np.nan
        return found

    def jaw(self, t: int) -> Float[np.ndarray, "68 2"]:
        """iBUG-68 in pixels."""
        path = self.root / "kpt" / f"{t:05d}.npy"
        found = _array(path, t)
        if found.shape != (68, 2) or not np.isfinite(found).all():
            raise InputError(f"frame {t}: {path} is {found.shape}; expected 68 finite points")
        return found.astype(np.float64)

    def pose(self, t: int) -> TrackedPose:
        """The metrical tracker's head pose and camera of frame t."""
        path = self._checkpoints / f"{t:05d}_cam_params_opencv.npz"
        if not path.is_file():
            raise InputError(f"frame {t}: {path} is missing, though other frames have theirs")
        try:
            if not is_zipfile(path):
                raise ValueError("not an npz")
            with np.load(path, allow_pickle=False) as file:
                r, shift, k = file["R"].reshape(3, 3), file["t"].reshape(3), file["K"].reshape(3, 3)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise InputError(f"frame {t}: {path} is no camera file of the tracker: {error}") from error
        if not all(np.isfinite(x).all() for x in (r, shift, k)) or np.abs(r.T @ r - np.eye(3)).max() > NOT_A_ROTATION:
            raise InputError(f"frame {t}: {path} holds no rotation, or numbers that are not finite")
        if np.linalg.det(r) < 0 or k[0, 0] <= 0 or k[1, 1] <= 0:
            raise InputError(f"frame {t}: {path} mirrors the head or has a focal length that is not positive")
        return TrackedPose(r, shift, k)

    def _grey(
        self, t: int, folder: Path, names: Sequence[str], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "height width"]:
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            raise InputError(f"frame {t}: {folder / names[0]} is missing, though other frames have theirs")
        found = _picture(path, "L", t)
        if found.shape != (size[1], size[0]):
            raise InputError(
                f"frame {t}: {path} is {found.shape[1]} x {found.shape[0]}, its picture {size[0]} x {size[1]}"
            )
        return found


def read_intrinsics(path: Path) -> GivenIntrinsics:
    """A line of numbers: cx cy fx fy, then distortion, which is not used. InputError when there are fewer than four."""
    try:
        numbers = [float(word) for word in path.read_text(encoding="ascii").replace(",", " ").split()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no line of numbers (cx cy fx fy): {error}") from error
    if len(numbers) < 4 or not np.isfinite(numbers[:4]).all() or min(numbers[2:4]) <= 0:
        raise InputError(f"{path} must hold cx cy fx fy, focal lengths positive; it holds {numbers[:4]}")
    return GivenIntrinsics(*numbers[:4])


def _picture(path: Path, mode: str, t: int) -> UInt8[np.ndarray, "..."]:
    try:
        with Image.open(path) as picture:
            if mode == "RGB":
                return np.array(picture.convert("RGB"), np.uint8)
            if picture.mode == "P":
                return np.array(picture, np.uint8)  # a palette's index is the label
            return np.array(picture.convert("RGB").getchannel(0), np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"frame {t}: {path} is no readable picture: {error}") from error


def _array(path: Path, t: int | None) -> Shaped[np.ndarray, "..."]:
    where = "" if t is None else f"frame {t}: "
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{where}{path} is missing") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{where}{path} is no array file: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise InputError(f"{where}{path} holds no numbers")
    return found
