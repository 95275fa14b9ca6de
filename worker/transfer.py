"""One person's head doing what another one did: identity of one finished run, expressions and motion of a second."""

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mononphm_core.config import MeshingConfig
from mononphm_core.errors import ConfigError
from mononphm_core.io import registry
from mononphm_core.io.artifacts import ROLES, Reconstruction, write_artifacts
from mononphm_core.io.delivered import Delivered
from mononphm_core.io.mesh_files import read_mesh
from mononphm_core.io.preview import paint, view_of
from mononphm_core.types import Frame, HeadMesh, IdentityCode, OnStep, TrackedSequence, ignore_steps
from worker import models
from worker.heads import absent, blendshapes, from_run, head_maker
from worker.ledger.options import ReconstructionOptions
from worker.pipeline import (
    ROLE_OF,
    facts,
    meshes,
    out_of_memory_is_ours,
)

PICTURE_PX = 640
"""Longest side of the drawn pictures of the acting head."""


def run(
    identity: Path,
    expressions: Path,
    workspace: Path,
    options: ReconstructionOptions | None = None,
    on_step: OnStep = ignore_steps,
    device: str = "cpu",
) -> dict[str, Any]:
    """Deliver the head of the run in `identity` doing what the run in `expressions` did; returns the manifest.

    Both are folders of finished runs by the same model: identity.npz and manifest.json are read of the one,
    expressions.npz, cameras.json, manifest.json and, for the preview, meshes/ of the other. `outputs`, `mesh_format`,
    `quality` and `mesh_resolution` of `options` count. Raises ConfigError for runs that do not go together.
    """
    options = options or ReconstructionOptions()
    who, act = Delivered.open(identity), Delivered.open(expressions)
    card = models.find(who.model[0])
    if who.model != act.model or who.model[1] != card.sha256:
        raise ConfigError(
            f"the runs were made by {describe(who)} and {describe(act)}, installed is {card.name} "
            f"{card.sha256[:12]}…; codes mean something to their own model only: reconstruct both with the same"
        )
    model = registry.warm_model(card, device)
    person = who.identity()
    performance, media = act.sequence(IdentityCode(person.z_geo.to(device), person.z_app.to(device))), act.media()
    performance = replace(performance, z_exp=performance.z_exp.to(device))
    used = options.resolved(media.is_video)
    config = MeshingConfig(resolution=used.mesh_resolution or MeshingConfig().resolution)
    curves = blendshapes(performance, card.expression_names)
    heads = head_maker(model, performance, card.expression_names, config, functools.partial(from_run, identity))
    told = act.manifest
    reconstruction = Reconstruction(
        sequence=performance,
        anchors=model.identity.anchors(performance.identity.z_geo[None])[0].cpu().numpy(),
        meshes=meshes(model, performance, config),
        media=media,
        input_filename=told["input"]["filename"],
        input_sha256=told["input"]["sha256"],
        input_bytes=told["input"]["bytes"],
        options=used.to_json(),
        model=facts(card),
        seconds={},
        device=device,
        seed=told["seed"],
        missed_frames=tuple(told["frames"]["missed"]),
        interpolated_frames=tuple(told["frames"]["interpolated"]),
        warnings=tuple(absent(curves)),
        blendshapes=curves,
        heads=heads,
        w2c=act.w2c(),
        extra={"transfer": {"identity": source(who), "expressions": source(act)}},
    )
    wanted = set(ROLES) & {ROLE_OF.get(name, name) for name in used.outputs}
    with out_of_memory_is_ours():
        manifest = write_artifacts(
            workspace, reconstruction, drawn(act, performance), on_step, wanted, options.mesh_format
        )
    return manifest.document()


def describe(run_: Delivered) -> str:
    """The model of a run, for people."""
    name, sha256 = run_.model
    return f"{name} {sha256[:12]}…"


def source(run_: Delivered) -> dict[str, Any]:
    """Which run something came from: its input, never a path."""
    told = run_.manifest["input"]
    return {"filename": told["filename"], "sha256": told["sha256"]}


def drawn(act: Delivered, performance: TrackedSequence) -> Iterator[Frame]:
    """The acting head, drawn where its picture would be: the picture itself is no business of the new head's."""
    k, w2c = performance.intrinsics, act.w2c()
    shrink = min(PICTURE_PX / max(k.width, k.height), 1.0)
    camera = k.cropped(0.0, 0.0, shrink, max(round(k.width * shrink), 2), max(round(k.height * shrink), 2))
    whole = replace(
        view_of(performance, w2c), left=0.0, top=0.0, width=float(camera.width), height=float(camera.height)
    )
    view = replace(whole, pane_width=camera.width, pane_height=camera.height)
    blank = np.full((camera.height, camera.width, 3), 42, np.uint8)
    for row, (index, seconds) in enumerate(zip(performance.frame_index, performance.timestamp_s, strict=True)):
        mesh = acted_mesh(act, index)
        frame = Frame(blank, index, seconds)
        yield frame if mesh is None else replace(frame, rgb=paint(frame, mesh, camera, w2c[row], view).shaded)


def acted_mesh(act: Delivered, index: int) -> HeadMesh | None:
    """The acting run's own mesh of a frame, if it has one."""
    names = [entry["name"] for entry in act.manifest["artifacts"] if entry.get("frame_index") == index]
    found = [act.folder / name for name in names if (act.folder / name).is_file()]
    return read_mesh(found[0]) if found else None
