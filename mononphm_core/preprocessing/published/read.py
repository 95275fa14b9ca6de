"""A prepared folder becomes what the published solver reads; parts that it lacks are made by our own preprocessing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from mononphm_core.config import CameraChoice, PreprocessingConfig
from mononphm_core.errors import InputError, NoFaceFound
from mononphm_core.preprocessing.observe import observe
from mononphm_core.preprocessing.published.folder import PART_NAMES, SequenceFolder
from mononphm_core.preprocessing.published.observation import PublishedClip
from mononphm_core.preprocessing.published.ours import OurParts, our_parts
from mononphm_core.preprocessing.published.prepare import FrameParts, GivenIntrinsics, prepare
from mononphm_core.quirks import PUBLISHED, PublishedQuirks
from mononphm_core.types import Clip, Frame, MediaInfo, OnStep, ignore_steps

FPS = 25.0
"""Of a folder of pictures, which says nothing about time; only `timestamp_s` of the results comes from it."""
OWN_WORK = {
    "landmarks": "our own landmarks (68 of them, the other 30 interpolated)",
    "labels": "our own masks (skin, hair, neck, clothes, inner mouth)",
    "mattes": "our own masks",
    "jaw": "the jaw of the same landmarks",
    "poses": "head poses from our own landmarks and a mean head",
}


@dataclass(frozen=True)
class SequenceOptions:
    """How a folder is read."""

    given: GivenIntrinsics | None = None
    """`--intrinsics-provided`: a calibrated camera; None: the tracker's (or our) estimate."""
    factor: float = 1 / 6
    """`--downsample-factor`."""
    quirks: PublishedQuirks = PUBLISHED
    frames: Callable[[int], tuple[int, ...]] = lambda count: tuple(range(count))
    """Which pictures of how many."""


def read_sequence(
    root: Path,
    options: SequenceOptions,
    reference_points: Float[np.ndarray, "478 3"],
    on_step: OnStep = ignore_steps,
) -> PublishedClip:
    """The whole folder. `reference_points`: the mean head's face-mesh points, for parts of our own.

    Frames where the detector found no face are left out and named in `warnings`. InputError names file and frame.
    """
    folder = SequenceFolder(root)
    missing = folder.missing(options.given is not None)
    warnings = [f"{root.name} has no {PART_NAMES[part]}; taken instead: {OWN_WORK[part]}." for part in missing]
    wanted = options.frames(len(folder))
    first = folder.picture(wanted[0])
    size = first.shape[1], first.shape[0]
    ours = _Ours(folder, wanted, options, reference_points, on_step) if missing else None
    landmarks = folder.landmarks() if "landmarks" not in missing else _stacked(ours, len(folder))
    observations, k = [], options.given.matrix() if options.given is not None else None
    nobody = [t for t in wanted if np.isnan(landmarks[t]).any()]
    for t in wanted:
        if t in nobody:
            continue
        pose = t if not options.quirks.pose_is_of_the_frame_before else max(t - 1, 0)
        tracked = folder.pose(pose) if "poses" not in missing else _own(ours, t).pose
        parts = FrameParts(
            frame_index=t,
            rgb=folder.picture(t),
            labels=folder.labels(t, size) if "labels" not in missing else _own(ours, t).labels,
            matte=folder.matte(t, size) if "mattes" not in missing else _own(ours, t).matte,
            landmarks=landmarks[t],
            jaw_px=None if options.given is not None else _jaw(folder, missing, ours, t),
            rotation=tracked.rotation,
            translation=tracked.translation,
            k=tracked.k,
        )
        k = tracked.k if k is None else k
        if parts.rgb.shape != first.shape:
            raise InputError(f"frame {t}: {folder.pictures[t]} is {parts.rgb.shape[1::-1]}, the first picture {size}")
        observations.append(prepare(parts, options.given, options.factor, options.quirks))
    if nobody:
        warnings.append(f"No face in {len(nobody)} of {len(wanted)} frames (first: {nobody[0]}); they are left out.")
    if not observations:
        raise NoFaceFound(f"{root.name}: no face in any of {len(wanted)} frames")
    assert k is not None
    return PublishedClip(
        tuple(observations),
        torch.from_numpy(landmarks),
        size,
        torch.from_numpy(k.astype(np.float32)),
        options.given is not None,
        tuple(warnings),
    )


class _Ours:
    """Our own preprocessing of the folder's pictures, run once."""

    def __init__(
        self,
        folder: SequenceFolder,
        wanted: tuple[int, ...],
        options: SequenceOptions,
        reference_points: Float[np.ndarray, "478 3"],
        on_step: OnStep,
    ) -> None:
        frames = tuple(Frame(folder.picture(t), t, t / FPS) for t in wanted)
        height, width = frames[0].rgb.shape[:2]
        info = MediaInfo("video/x-pictures", len(frames) > 1, width, height, len(folder), None, None, 0)
        camera = CameraChoice()
        if options.given is not None:
            camera = CameraChoice(options.given.fx, options.given.fy, options.given.cx, options.given.cy)
        elif "poses" not in folder.missing(False):
            k = folder.pose(wanted[0]).k
            camera = CameraChoice(float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))
        seen = observe(Clip(frames, info), camera, PreprocessingConfig(), reference_points, on_step)
        if seen.turned_deg:
            raise InputError(
                f"{folder.root.name}: the pictures are turned by {seen.turned_deg} degrees; turn them upright"
            )
        self.parts = {o.frame_index: our_parts(o, seen.intrinsics, reference_points) for o in seen.observations}


def _own(ours: "_Ours | None", t: int) -> OurParts:
    if ours is None or t not in ours.parts:
        raise InputError(f"frame {t}: our own preprocessing finds no face there to stand in for a missing part")
    return ours.parts[t]


def _stacked(ours: "_Ours | None", count: int) -> Float[np.ndarray, "frames 98 2"]:
    found = np.full((count, 98, 2), np.nan)
    for t, parts in ours.parts.items() if ours is not None else ():
        found[t] = parts.landmarks
    return found


def _jaw(
    folder: SequenceFolder, missing: tuple[str, ...], ours: "_Ours | None", t: int
) -> Float[np.ndarray, "68 2"] | None:
    """The second detector's points; ours where landmarks are ours as well; else WFLW's own jaw stays."""
    if "jaw" not in missing:
        return folder.jaw(t)
    return _own(ours, t).jaw_px if "landmarks" in missing else None
