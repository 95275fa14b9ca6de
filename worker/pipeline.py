"""The whole product on one screen: a file goes in, a directory of artifacts comes out."""

import functools
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mononphm_core import api
from mononphm_core.config import (
    CameraChoice,
    FrameSelection,
    MeshingConfig,
    PreprocessingConfig,
    ReconstructionConfig,
)
from mononphm_core.errors import NoSurface, OutOfDeviceMemory
from mononphm_core.io import registry
from mononphm_core.io.artifacts import ROLES, Reconstruction, write_artifacts
from mononphm_core.io.media import read_clip
from mononphm_core.meshing.place import to_world_mm
from mononphm_core.model.head import HeadModel
from mononphm_core.preprocessing.observe import observe
from mononphm_core.tracking.config import TrackingConfig
from mononphm_core.tracking.quality import tracking_config
from mononphm_core.types import (
    Frame,
    HeadMesh,
    ObservedClip,
    OnStep,
    Stage,
    StepReport,
    TrackedSequence,
    ignore_steps,
)
from worker import models, solvers
from worker.heads import absent, blendshapes, from_frames, head_maker
from worker.ledger import bundle
from worker.ledger.options import USUAL_FRAMES, FovCamera, ReconstructionOptions
from worker.ledger.order import Order

log = logging.getLogger(__name__)


def prepare() -> dict[str, Any]:
    """Load the default model before the first job, ask it once, and say which it is."""
    card = models.find()
    registry.warm_model(card, "cpu").ready()
    return facts(card)


def run(order: Order, workspace: Path, on_step: OnStep) -> dict[str, Any]:
    """Reconstruct `order.input_path` into `workspace`; returns the manifest. Errors: mononphm_core.errors.

    A long clip is divided (`long_clip`): then the answer is `{"parts": [...]}`, the next round of them.
    """
    if order.media_type == bundle.MEDIA_TYPE:
        from worker import animation  # it stands on this module

        return animation.run(order, workspace, on_step)
    from worker import long_clip  # so does this

    if long_clip.concerns(order):
        divided = long_clip.run(order, workspace, on_step)
        if divided is not None:
            return divided
    options = order.options
    card = models.find(options.model)
    model = registry.warm_model(card, order.device)
    solver = solvers.chosen(options, card, model)
    guided = solvers.guide(card, model, order.device)
    smaller = order.previous_failure == "out_of_memory"
    config, tracking = config_of(options, smaller)
    published = solvers.published_config(options, smaller)
    timed = Stopwatch()
    with out_of_memory_is_ours():
        with timed("decoding"):
            clip = read_clip(order.input_path, config.selection, config.limits, on_step)
        with timed("preprocessing"):
            observed = observe(clip, config.camera, config.preprocessing, mean_landmarks(guided[0]), on_step)
        stages = config.stages or ((1, 2) if clip.info.is_video else (1,))
        moving, how = clip.info.is_video, published if solver == "published" else tracking
        tracked = api.track_observed(model, guided, observed, moving, stages, how, config.seed, on_step, timed)
        used = options.resolved(moving).model_copy(update={"solver": solver})
        curves = blendshapes(tracked, card.expression_names)
        colours = functools.partial(from_frames, tracked, observed, clip.frames)
        heads = head_maker(model, tracked, card.expression_names, config.meshing, colours)
        reconstruction = Reconstruction(
            sequence=tracked,
            anchors=model.identity.anchors(tracked.identity.z_geo[None])[0].cpu().numpy(),
            meshes=meshes(model, tracked, config.meshing, on_step, options.mesh_extraction == "published"),
            media=clip.info,
            input_filename=order.filename,
            input_sha256=order.sha256,
            input_bytes=order.input_path.stat().st_size,
            options=used.to_json(),
            model=facts(card),
            seconds=timed.seconds,
            device=order.device,
            seed=config.seed,
            missed_frames=observed.missed_frames,
            warnings=(*clip.warnings, *observed.warnings, *absent(curves)),
            blendshapes=curves,
            heads=heads,
            extra={"solver": solvers.facts(solver, published), "observations": seen(observed)},
        )
        pictures = upright(clip.frames, observed.turned_deg)
        wanted = set(ROLES) & {ROLE_OF.get(name, name) for name in used.outputs}
        manifest = write_artifacts(workspace, reconstruction, pictures, on_step, wanted, options.mesh_format)
    return manifest.document()


def seen(observed: ObservedClip) -> dict[str, Any]:
    """What the manifest says of the pictures themselves: how far each can be trusted, before anything was fitted."""
    frames = [
        {"frame_index": o.frame_index}
        | {name: round(float(value), 4) for name, value in vars(o.quality).items()}
        | {"weight": round(o.quality.weight, 4)}
        for o in observed.observations
    ]
    return {"turned_deg": observed.turned_deg, "frames": frames}


ROLE_OF = {"meshes": "mesh"}
"""Where the public name of an output differs from the artifact's role."""


def facts(card: registry.ModelCard) -> dict[str, Any]:
    """What the job and the manifest say of the model."""
    return {"name": card.name, "version": card.version, "sha256": card.sha256, "licence": card.licence}


def config_of(options: ReconstructionOptions, smaller: bool = False) -> tuple[ReconstructionConfig, TrackingConfig]:
    """The core's configuration for what the user asked. `smaller` halves what a step holds, after memory ran out."""
    camera = CameraChoice()
    if isinstance(options.camera, FovCamera):
        camera = CameraChoice(fov_deg=options.camera.fov_deg)
    elif options.camera is not None:
        c = options.camera
        camera = CameraChoice(c.fx, c.fy, c.cx, c.cy, (c.k1, c.k2, c.p1, c.p2, c.k3))
    resolution = options.resolved(is_video=True).mesh_resolution or MeshingConfig().resolution
    config = ReconstructionConfig(
        quality=options.quality,
        selection=FrameSelection(
            options.start_s,
            options.end_s,
            options.fps,
            options.stride,
            options.max_frames or USUAL_FRAMES[options.quality],
        ),
        camera=camera,
        preprocessing=PreprocessingConfig(
            crop_px=max(96, 2 * round(128 * options.downsample_factor)), face=str(options.face)
        ),
        meshing=MeshingConfig(resolution=resolution),
        stages=tuple(options.stages) if options.stages else None,
        seed=options.seed,
    )
    return config, tracking_config(options.quality, smaller)


def mean_landmarks(model: HeadModel) -> Any:
    """The mean head's dense landmarks, posed head units: what first poses are measured against."""
    template = model.template
    assert template is not None
    z_geo = template.mean.new_zeros(1, model.config.identity.d_geo)
    return template.posed(z_geo, 0 * template.z_canonical[None], "mediapipe478")[0].cpu().numpy()


def meshes(
    model: HeadModel,
    tracked: TrackedSequence,
    config: MeshingConfig,
    on_step: OnStep = ignore_steps,
    as_published: bool = False,
) -> Iterator[HeadMesh | None]:
    """One coloured mesh a frame, world millimetres; None where the field has no surface."""
    head, person, correction = api.Model(model, ""), tracked.identity, tracked.colour_correction
    for row, z_exp in enumerate(tracked.z_exp):
        heard = functools.partial(_hear, tracked, row, on_step)
        try:
            if as_published:
                mesh = api.extract_published_mesh(head, person, z_exp, config.resolution, correction, heard)
            else:
                mesh = api.extract_mesh(head, person, z_exp, config.resolution, None, correction, heard)
        except NoSurface:
            yield None
            continue
        yield to_world_mm(mesh, tracked.poses, row)


def _hear(tracked: TrackedSequence, row: int, on_step: OnStep) -> None:
    """A sign of life from inside the mesh of one frame: a large grid takes minutes, and must be cancellable."""
    frames = len(tracked.z_exp)
    on_step(StepReport(Stage.MESHING, row, frames, row, frames))


def upright(frames: tuple[Frame, ...], turned_deg: int) -> Iterator[Frame]:
    """The pictures as they were tracked: turned where the pixels did not stand upright."""
    for frame in frames:
        yield replace(frame, rgb=np.ascontiguousarray(np.rot90(frame.rgb, turned_deg // 90)))


@contextmanager
def out_of_memory_is_ours() -> Iterator[None]:
    """Device and host allocation failures as one error of ours, which the worker may retry smaller."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfDeviceMemory("memory ran out; try fewer frames or a lower mesh resolution") from error


class Stopwatch:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> "Stopwatch":
        self._name = name
        return self

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._name] = time.monotonic() - self._began
