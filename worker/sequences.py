"""A folder that was prepared for the published program: through the published solver to the artifacts of any clip."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mononphm_core.errors import ConfigError, InputError
from mononphm_core.io import registry
from mononphm_core.io.artifacts import ROLES, Reconstruction, write_artifacts
from mononphm_core.io.manifest import sha256_of_file
from mononphm_core.preprocessing.published.folder import SequenceFolder, read_intrinsics
from mononphm_core.preprocessing.published.prepare import GivenIntrinsics
from mononphm_core.preprocessing.published.read import FPS, SequenceOptions, read_sequence
from mononphm_core.tracking.published.solve import solve_prepared
from mononphm_core.types import Frame, MediaInfo, OnStep
from worker import models, pipeline, solvers
from worker.heads import absent, blendshapes, head_maker
from worker.ledger.options import FovCamera, ReconstructionOptions
from worker.ledger.order import Order
from worker.ledger.places import Places

PUBLISHED_FACTOR = 1 / 6
"""How much the published program shrinks pictures where nothing is said."""
INTRINSICS = ("camera_intrinsics.txt", "kinect_intrinsics.txt")


def run(
    order: Order, workspace: Path, on_step: OnStep, provided: bool | None = None, shrunk: bool = False
) -> dict[str, Any]:
    """Reconstruct the folder `order.input_path` into `workspace`; returns the manifest.

    `provided`: whether the camera is calibrated; None: it is where one is given or lies in the folder. `shrunk`: the
    options' downsample factor was the user's. Errors: mononphm_core.errors.
    """
    root, options = order.input_path, order.options
    card = models.find(options.model)
    model = registry.warm_model(card, order.device)
    if options.solver == "fast":
        raise ConfigError("a prepared folder is tracked by the published solver; leave `solver` out")
    guided = solvers.guide(card, model, order.device)
    config, _ = pipeline.config_of(options)
    published = solvers.published_config(options, order.previous_failure == "out_of_memory")
    folder = SequenceFolder(root)
    reading = SequenceOptions(
        given_camera(root, options, provided),
        options.downsample_factor if shrunk else PUBLISHED_FACTOR,
        published.quirks,
        frames_of(options),
    )
    timed = pipeline.Stopwatch()
    with pipeline.out_of_memory_is_ours():
        with timed("preprocessing"):
            clip = read_sequence(root, reading, pipeline.mean_landmarks(guided[0]), on_step)
        moving = len(clip.observations) > 1
        used = options.resolved(moving).model_copy(update={"solver": "published", "downsample_factor": reading.factor})
        tracked = solve_prepared(model, clip, tuple(used.stages or ()), published, FPS, on_step, timed)
        curves = blendshapes(tracked, card.expression_names)
        heads = head_maker(model, tracked, card.expression_names, config.meshing)
        as_published = options.mesh_extraction == "published"
        wanted_frames = reading.frames(len(folder))
        reconstruction = Reconstruction(
            sequence=tracked,
            anchors=model.identity.anchors(tracked.identity.z_geo[None])[0].cpu().numpy(),
            meshes=pipeline.meshes(model, tracked, config.meshing, on_step, as_published),
            media=MediaInfo("video/x-pictures", moving, *clip.size, len(folder), None, len(folder) / FPS, 0),
            input_filename=order.filename,
            input_sha256=order.sha256,
            input_bytes=sum(path.stat().st_size for path in folder.pictures),
            options=used.to_json(),
            model=pipeline.facts(card),
            seconds=timed.seconds,
            device=order.device,
            seed=config.seed,
            missed_frames=tuple(t for t in wanted_frames if t not in tracked.frame_index),
            warnings=(*clip.warnings, *absent(curves)),
            blendshapes=curves,
            heads=heads,
            extra={"solver": solvers.facts("published", published)},
        )
        pictures = (Frame(np.ascontiguousarray(folder.picture(t)), t, t / FPS) for t in tracked.frame_index)
        wanted = set(ROLES) & {pipeline.ROLE_OF.get(name, name) for name in used.outputs}
        manifest = write_artifacts(workspace, reconstruction, pictures, on_step, wanted, options.mesh_format)
    return manifest.document()


def given_camera(root: Path, options: ReconstructionOptions, provided: bool | None) -> GivenIntrinsics | None:
    """The calibrated camera: the user's, else a file in the folder, else the published assets' (only when asked for).

    InputError when the camera is said to be calibrated and no calibration is found.
    """
    if provided is False:
        return None
    if isinstance(options.camera, FovCamera):
        raise ConfigError("a prepared folder needs fx, fy, cx, cy of its camera, not a field of view")
    if options.camera is not None:
        c = options.camera
        return GivenIntrinsics(c.cx, c.cy, c.fx, c.fy)
    code_base = Places().code_base
    assets = [] if code_base is None or provided is None else [code_base / "assets", code_base / "src/mononphm/assets"]
    for place in [root, *assets]:
        for name in INTRINSICS:
            if (place / name).is_file():
                return read_intrinsics(place / name)
    if provided:
        raise InputError(
            f"{root.name} has no {INTRINSICS[0]} (cx cy fx fy), nor do the assets of $MONONPHM_CODE_BASE; "
            "give --camera K.json, or --no-intrinsics-provided"
        )
    return None


def frames_of(options: ReconstructionOptions) -> Callable[[int], tuple[int, ...]]:
    """Every picture, each `stride`-th, or `max_frames` of them evenly."""

    def chosen(count: int) -> tuple[int, ...]:
        found = list(range(0, count, options.stride or 1))
        if options.max_frames and len(found) > options.max_frames:
            pick = np.linspace(0, len(found) - 1, options.max_frames).round().astype(int)
            found = [found[i] for i in pick]
        return tuple(found)

    return chosen


def digest(root: Path) -> str:
    """One sha256 for a folder: of its pictures' own, in order."""
    together = hashlib.sha256()
    for path in SequenceFolder(root).pictures:
        together.update(sha256_of_file(path).encode())
    return together.hexdigest()
