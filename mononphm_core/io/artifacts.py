"""The delivery: what a finished reconstruction leaves in a directory, each file whole or absent."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float

from mononphm_core.errors import ConfigError, NoSurface
from mononphm_core.io import tables
from mononphm_core.io.atomic import write_bytes
from mononphm_core.io.head_files import animated_glb, neutral_glb
from mononphm_core.io.manifest import (
    MANIFEST,
    ArtifactEntry,
    ArtifactManifest,
    entry_of,
    package_versions,
    plain,
    read_manifest,
    verify_files,
    write_manifest,
)
from mononphm_core.io.mesh_files import MeshFormat, read_mesh, write_mesh
from mononphm_core.io.preview import (
    ONCE_AROUND_S,
    STILL_TURN_DEG,
    Panes,
    PreviewVideo,
    View,
    film,
    paint,
    plays_in_real_time,
    view_of,
    write_png,
    write_thumbnail,
)
from mononphm_core.types import (
    MM_PER_UNIT,
    Frame,
    HeadMesh,
    MediaInfo,
    MorphHead,
    OnStep,
    Stage,
    StepReport,
    TrackedSequence,
    ignore_steps,
)

ROLES = (
    "identity", "expressions", "cameras", "mesh", "blendshapes", "preview", "thumbnail",
    "neutral", "animation", "head_arkit",
)  # fmt: skip
HEAD_FILES = ("neutral", "animation", "head_arkit")
"""Roles of the files with fixed triangles; each is a file `<role>.glb`."""
OURS = (
    MANIFEST, "identity.npz", "expressions.npz", "expressions.json", "cameras.json", "blendshapes.csv",
    "preview.mp4", "preview.png", "thumbnail.jpg", "neutral.glb", "animation.glb", "head_arkit.glb",
)  # fmt: skip
PRIVATE_OPTIONS = ("webhook_url",)
"""Options that concern the sender alone and stay out of what may be shared."""


@dataclass(frozen=True)
class ClipHeads:
    """One person with fixed triangles through one clip, in two ways."""

    clip: MorphHead
    """By the fewest shapes that keep the stated error."""
    arkit: MorphHead | None
    """By the 52 blendshapes of ARKit; None: the model's expressions have no such names."""
    texture: Mapping[str, Any] = field(default_factory=dict)
    """Where the texture comes from and how good it is, for the manifest."""


@dataclass(frozen=True)
class Reconstruction:
    """Everything that the delivery is made of."""

    sequence: TrackedSequence
    anchors: Float[np.ndarray, "anchors 3"]
    """Of the neutral head, canonical head units."""
    meshes: Iterable[HeadMesh | None]
    """One a tracked frame, in that order, world millimetres; asked for one at a time. None: no surface there."""
    media: MediaInfo
    input_filename: str
    input_sha256: str
    input_bytes: int
    options: Mapping[str, Any]
    """As resolved."""
    model: Mapping[str, Any]
    """name, version, sha256, licence."""
    seconds: Mapping[str, float]
    """Of the stages before meshing, by their public names; meshing and exporting are measured here."""
    device: str
    seed: int
    missed_frames: tuple[int, ...] = ()
    """frame_index of selected frames without a face."""
    interpolated_frames: tuple[int, ...] = ()
    """Tracked frames whose codes come from their neighbours."""
    warnings: tuple[str, ...] = ()
    blendshapes: tables.Blendshapes | None = None
    w2c: Float[np.ndarray, "frames 4 4"] | None = None
    """World to camera in millimetres; None: a fixed camera, whose frame is the world."""
    heads: Callable[[Callable[[int], None]], ClipHeads] | None = None
    """Makes the heads with fixed triangles when they are wanted and says how many frames are done; may raise NoSurface.
    """
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More facts for the manifest, JSON values."""

    def cameras(self) -> Float[np.ndarray, "frames 4 4"]:
        """`w2c`, the identity when there is none."""
        frames = len(self.sequence.frame_index)
        return np.broadcast_to(np.eye(4), (frames, 4, 4)) if self.w2c is None else self.w2c


@dataclass(frozen=True)
class Whole:
    """What the frames of one stretch must know of the whole clip, to look as if all had been made together."""

    view: View
    first_s: float
    last_s: float
    """Times of the first and last tracked frame."""
    real_time: bool
    """Of the film (`preview.plays_in_real_time`)."""
    middle: int
    """frame_index of the thumbnail."""

    @staticmethod
    def of(sequence: TrackedSequence, w2c: Float[np.ndarray, "frames 4 4"]) -> "Whole":
        """Of a sequence with at least one frame."""
        times, rows = sequence.timestamp_s, len(sequence.frame_index)
        return Whole(
            view_of(sequence, w2c),
            times[0],
            times[-1],
            plays_in_real_time(times),
            sequence.frame_index[rows // 2],
        )


@dataclass(frozen=True)
class FrameFiles:
    """What was made frame by frame: meshes, film, thumbnail."""

    entries: list[ArtifactEntry]
    warnings: list[str]
    seconds: float
    """Spent on meshes."""
    psnr_db: dict[int, float | None]
    """By frame_index, where a preview or thumbnail was drawn."""


def write_frames(
    directory: Path,
    reconstruction: Reconstruction,
    overlay_source: Iterable[Frame],
    whole: Whole,
    on_step: OnStep = ignore_steps,
    outputs: Collection[str] = ROLES,
    mesh_format: str = "ply",
) -> FrameFiles:
    """The files of one stretch of `whole` (its rows are the reconstruction's); the stretch with its middle makes the
    thumbnail. For `write_artifacts`, which puts them together."""
    loop = _FrameLoop(directory, reconstruction, outputs, mesh_format, on_step, whole)
    return FrameFiles(loop.run(overlay_source), loop.warnings, loop.meshing_s, loop.psnr_db)


def write_artifacts(
    directory: Path,
    reconstruction: Reconstruction,
    overlay_source: Iterable[Frame],
    on_step: OnStep = ignore_steps,
    outputs: Collection[str] = ROLES,
    mesh_format: str = "ply",
    bring_frames: Callable[[], FrameFiles] | None = None,
) -> ArtifactManifest:
    """All artifacts of `outputs` (roles) and the manifest, which is written last: where it lies, the rest is complete.

    `overlay_source` gives the selected frames in time order; those without a tracked head appear in the preview as they
    are. Memory does not grow with the clip. An earlier delivery in `directory` is replaced. `on_step` hears
    `Stage.MESHING` once a frame, then `Stage.EXPORTING`; what it raises leaves no manifest behind. With `bring_frames`
    the files of the frames are not made: it puts them into `directory`.
    Raises ConfigError for unknown outputs or formats, OutOfDiskSpace, and what the mesh iterator raises.
    """
    if odd := set(outputs) - set(ROLES):
        raise ConfigError(f"unknown outputs: {', '.join(sorted(odd))}; choose from {', '.join(ROLES)}")
    if mesh_format not in get_args(MeshFormat):
        raise ConfigError(f"mesh format {mesh_format!r} is unknown; choose {', '.join(get_args(MeshFormat))}")
    began = time.monotonic()
    remove_delivery(directory)
    entries = _write_tables(directory, reconstruction, outputs)
    frames = len(reconstruction.sequence.frame_index)
    if bring_frames is None:
        whole = Whole.of(reconstruction.sequence, reconstruction.cameras())
        made = write_frames(directory, reconstruction, overlay_source, whole, on_step, outputs, mesh_format)
    else:
        made = bring_frames()
    entries += made.entries
    head_entries, head_facts, head_warnings = _write_heads(directory, reconstruction, outputs, on_step)
    entries += head_entries
    on_step(StepReport(Stage.EXPORTING, frames + 1, frames + 2, frames, frames, "writing the manifest"))
    seconds = dict(reconstruction.seconds)
    seconds[Stage.MESHING.value] = made.seconds
    meshed_here_s = made.seconds if bring_frames is None else 0.0
    seconds[Stage.EXPORTING.value] = time.monotonic() - began - meshed_here_s
    facts = {**_facts(reconstruction, seconds, [*made.warnings, *head_warnings], made.psnr_db), **head_facts}
    manifest = ArtifactManifest(tuple(sorted(entries, key=lambda entry: entry.name)), facts)
    write_manifest(directory, manifest)
    on_step(StepReport(Stage.EXPORTING, frames + 2, frames + 2, frames, frames, "done"))
    return manifest


def remove_delivery(directory: Path) -> None:
    """Take away the files of an earlier delivery, the manifest first; what is not ours stays."""
    names = [*OURS, *(f"meshes/{path.name}" for path in (directory / "meshes").glob("frame_*") if _is_mesh_name(path))]
    for name in names:
        (directory / name).unlink(missing_ok=True)


def _is_mesh_name(path: Path) -> bool:
    return path.suffix.removeprefix(".") in get_args(MeshFormat) and path.stem.removeprefix("frame_").isdigit()


def _write_tables(directory: Path, reconstruction: Reconstruction, outputs: Collection[str]) -> list[ArtifactEntry]:
    """The files that need no mesh and no picture."""
    sequence, entries = reconstruction.sequence, []
    if "identity" in outputs:
        arrays = tables.identity_arrays(sequence, reconstruction.anchors)
        tables.write_npz(directory / "identity.npz", arrays)
        entries.append(entry_of(directory, "identity.npz", "identity"))
    if "expressions" in outputs:
        arrays = tables.expression_arrays(sequence, reconstruction.interpolated_frames)
        tables.write_npz(directory / "expressions.npz", arrays)
        tables.write_json(directory / "expressions.json", tables.expressions_document(arrays))
        entries += [entry_of(directory, f"expressions.{kind}", "expressions") for kind in ("npz", "json")]
    if "cameras" in outputs:
        document = tables.cameras_document(sequence, reconstruction.cameras())
        tables.write_json(directory / "cameras.json", document)
        entries.append(entry_of(directory, "cameras.json", "cameras"))
    if "blendshapes" in outputs and reconstruction.blendshapes is not None:
        tables.write_blendshapes(directory / "blendshapes.csv", reconstruction.blendshapes, sequence)
        entries.append(entry_of(directory, "blendshapes.csv", "blendshapes"))
    return entries


class _FrameLoop:
    """One pass over the clip: each mesh is made, written, painted and forgotten before the next."""

    def __init__(
        self,
        directory: Path,
        reconstruction: Reconstruction,
        outputs: Collection[str],
        mesh_format: str,
        on_step: OnStep,
        whole: Whole,
    ) -> None:
        self.directory, self.reconstruction, self.outputs = directory, reconstruction, outputs
        self.mesh_format, self.on_step = mesh_format, on_step
        self.sequence, self.w2c = reconstruction.sequence, reconstruction.cameras()
        self.total = len(self.sequence.frame_index)
        self.light = self.sequence.light.detach().cpu().numpy().astype(np.float64)
        self.meshing_s = 0.0
        self.warnings: list[str] = []
        self.entries: list[ArtifactEntry] = []
        self.psnr_db: dict[int, float | None] = {}
        """By frame_index, where a preview or thumbnail was drawn."""
        self.whole = whole
        self.film: PreviewVideo | None = None
        self.still: Panes | None = None
        self.middle: Panes | None = None
        self.middle_distance = float("inf")
        tracked = self.sequence.frame_index
        self.middle_row = tracked.index(whole.middle) if whole.middle in tracked else None

    def run(self, pictures: Iterable[Frame]) -> list[ArtifactEntry]:
        wanted = {"preview", "thumbnail"} & set(self.outputs)
        waiting = iter(pictures) if wanted else iter(())
        self.on_step(StepReport(Stage.MESHING, 0, self.total, 0, self.total))
        with ExitStack() as stack:
            picture = next(waiting, None)
            if picture is not None and "preview" in wanted and self.reconstruction.media.is_video:
                path = self.directory / "preview.mp4"
                self.film = stack.enter_context(film(path, self.whole.real_time))
            for row, mesh in enumerate(self._meshes()):
                index = self.sequence.frame_index[row]
                self._write_mesh(index, mesh)
                while picture is not None and picture.frame_index <= index:
                    self._paint(picture, row, mesh if picture.frame_index == index else None)
                    picture = next(waiting, None)
                self.on_step(StepReport(Stage.MESHING, row + 1, self.total, row + 1, self.total))
            while picture is not None:
                self._paint(picture, self.total - 1, None)
                picture = next(waiting, None)
        self._write_pictures()
        return self.entries

    def _meshes(self) -> Iterator[HeadMesh | None]:
        """The meshes, with the time that making them took; as many as there are tracked frames."""
        source = iter(self.reconstruction.meshes)
        for index in self.sequence.frame_index:
            began = time.monotonic()
            try:
                mesh = next(source)
            except StopIteration:
                raise ValueError(f"no mesh was made for frame {index} and those after it") from None
            self.meshing_s += time.monotonic() - began
            yield mesh

    def _write_mesh(self, index: int, mesh: HeadMesh | None) -> None:
        if mesh is None:
            self.warnings.append(f"frame {index}: the field has no surface, so there is no mesh")
        elif "mesh" in self.outputs:
            name = f"meshes/frame_{index:05d}.{self.mesh_format}"
            write_mesh(self.directory / name, mesh)
            self.entries.append(entry_of(self.directory, name, "mesh", index))

    def _paint(self, picture: Frame, row: int, mesh: HeadMesh | None) -> None:
        turn_deg = self.turned_deg(picture.timestamp_s) if self.film is not None else STILL_TURN_DEG
        w2c = self.w2c[row] if self.total else np.eye(4)
        panes = paint(picture, mesh, self.sequence.intrinsics, w2c, self.whole.view, self.light, turn_deg)
        self.psnr_db[picture.frame_index] = panes.psnr_db
        if self.film is not None:
            self.film.add(panes.grid(), picture.timestamp_s)
        elif self.still is None or mesh is not None:
            self.still = panes
        if self.middle_row is None:
            return
        distance = abs(row - self.middle_row) + (0 if mesh is not None else self.total)
        if distance < self.middle_distance:
            self.middle, self.middle_distance = panes, distance

    def turned_deg(self, timestamp_s: float) -> float:
        """How far the turning head has come: once around in `ONCE_AROUND_S`, or in the clip if that is shorter."""
        first, last = self.whole.first_s, self.whole.last_s
        return 360.0 * (timestamp_s - first) / max(min(last - first, ONCE_AROUND_S), 1e-6)

    def _write_pictures(self) -> None:
        """What is only complete after the last frame."""
        if self.film is not None:
            self.entries.append(entry_of(self.directory, "preview.mp4", "preview"))
        elif self.still is not None and "preview" in self.outputs:
            write_png(self.directory / "preview.png", self.still.grid())
            self.entries.append(entry_of(self.directory, "preview.png", "preview"))
        if self.middle is not None and "thumbnail" in self.outputs:
            write_thumbnail(self.directory / "thumbnail.jpg", self.middle.overlay)
            self.entries.append(entry_of(self.directory, "thumbnail.jpg", "thumbnail"))


def _write_heads(
    directory: Path, reconstruction: Reconstruction, outputs: Collection[str], on_step: OnStep
) -> tuple[list[ArtifactEntry], dict[str, Any], list[str]]:
    """The files with fixed triangles, what the manifest says of them, and what is to be warned of."""
    wanted = [role for role in HEAD_FILES if role in outputs]
    if not wanted or reconstruction.heads is None:
        return [], {}, []
    total, cameras = len(reconstruction.sequence.frame_index), reconstruction.cameras()

    def on_frame(done: int) -> None:
        on_step(StepReport(Stage.EXPORTING, done, total + 2, done, total, "the head with fixed triangles"))

    on_frame(0)
    try:
        heads = reconstruction.heads(on_frame)
    except NoSurface:
        return [], {}, ["the neutral head has no surface: neutral.glb and animation.glb are not made"]
    made: dict[str, MorphHead | None] = {"neutral": heads.clip, "animation": heads.clip, "head_arkit": heads.arkit}
    entries: list[ArtifactEntry] = []
    described: dict[str, Any] = {}
    for role in wanted:
        head = made[role]
        if head is None:
            continue
        whole = neutral_glb(head) if role == "neutral" else animated_glb(head, reconstruction.sequence, cameras)
        write_bytes(directory / f"{role}.glb", whole)
        entries.append(entry_of(directory, f"{role}.glb", role))
        if role != "neutral":
            described[role] = {"shapes": len(head.names), "largest_error_mm": round(head.largest_error_mm, 4)}
    return entries, {**described, **({"texture": dict(heads.texture)} if heads.texture else {})}, []


def _facts(
    reconstruction: Reconstruction,
    seconds: Mapping[str, float],
    warnings: list[str],
    psnr_db: Mapping[int, float | None],
) -> dict[str, Any]:
    """Everything of manifest.json but the list of files."""
    sequence, media = reconstruction.sequence, reconstruction.media
    options = {key: value for key, value in reconstruction.options.items() if key not in PRIVATE_OPTIONS}
    facts = {
        "unit": "mm",
        "unit_note": tables.UNIT_NOTE,
        "head_unit_mm": MM_PER_UNIT,
        "pose_convention": tables.POSE_CONVENTION,
        "input": {
            "filename": reconstruction.input_filename.replace("\\", "/").split("/")[-1],
            "sha256": reconstruction.input_sha256,
            "bytes": reconstruction.input_bytes,
            "media_type": media.media_type,
            "width": media.width,
            "height": media.height,
            "frames": media.frames,
            "fps": media.fps,
            "duration_s": media.duration_s,
            "rotation": media.rotation,
        },
        "options": options,
        "model": dict(reconstruction.model),
        "packages": package_versions(),
        "device": reconstruction.device,
        "seed": reconstruction.seed,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "last_stage": sequence.stage,
        "stop": sequence.stop,
        "final_losses": {term: values[-1] for term, values in sequence.history.items() if values},
        "camera": {"source": sequence.camera_source, "uncertainty": sequence.focal_uncertainty},
        "frames": {
            "tracked": sequence.frame_index,
            "missed": reconstruction.missed_frames,
            "interpolated": reconstruction.interpolated_frames,
        },
        "quality": quality(sequence, psnr_db),
        "warnings": [*reconstruction.warnings, *warnings],
    }
    document: dict[str, Any] = plain({**reconstruction.extra, **facts})
    return document


def quality(sequence: TrackedSequence, psnr_db: Mapping[int, float | None]) -> dict[str, Any]:
    """The figures of each frame and their mean, median and worst; a figure that was not measured is null.

    `psnr_db`, by frame_index: the mesh in its colours and the clip's light against the picture.
    """
    figures = {"landmark_error_px": max, "silhouette_iou": min, "photometric_error": max, "psnr_db": min}
    summary: dict[str, Any] = {
        "frames_accepted": sum(fit.accepted for fit in sequence.fits),
        "frames_tracked": len(sequence.fits),
        "stages": sequence.stages,
    }
    rows = [
        {**asdict(fit), "psnr_db": psnr_db.get(index)}
        for index, fit in zip(sequence.frame_index, sequence.fits, strict=True)
    ]
    for name, worst in figures.items():
        values = np.array([row[name] for row in rows], np.float64)
        known = values[np.isfinite(values)].tolist()
        summary[name] = (
            {"mean": float(np.mean(known)), "median": float(np.median(known)), "worst": worst(known)} if known else None
        )
    summary["frames"] = [
        {"frame_index": index, "timestamp_s": seconds, **{name: row[name] for name in figures}}
        | {"accepted": row["accepted"]}
        for index, seconds, row in zip(sequence.frame_index, sequence.timestamp_s, rows, strict=True)
    ]
    return summary


def verify_artifacts(directory: Path) -> list[str]:
    """Sentences about everything that is wrong with a delivery; [] if it is whole.

    Beyond sizes and checksums (`manifest.verify_files`): the tables agree with the manifest on the frames, rotations
    are rotations, every mesh can be read, has triangles and finite vertices, and no file of ours lies there unlisted.
    """
    problems = verify_files(directory)
    if problems:
        return problems
    manifest = read_manifest(directory)
    names = {entry["name"]: entry for entry in manifest["artifacts"]}
    tracked = manifest.get("frames", {}).get("tracked", [])
    present = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    stray = sorted(n for n in present - set(names) - {MANIFEST} if n in OURS or n.startswith("meshes/"))
    problems += [f"{name} is not in the manifest" for name in stray]
    if "expressions.npz" in names:
        problems += _problems_of_expressions(directory, tracked)
    for name, entry in names.items():
        if entry.get("role") == "mesh":
            problems += _problems_of_mesh(directory / name, name, entry.get("frame_index"), tracked)
    return problems


def _problems_of_expressions(directory: Path, tracked: list[int]) -> list[str]:
    with np.load(directory / "expressions.npz", allow_pickle=False) as table:
        frames, rotation, z_exp = table["frame_index"].tolist(), table["rotation"], table["z_exp"]
    problems = []
    if frames != tracked:
        problems.append(f"expressions.npz has frames {frames}, the manifest {tracked}")
    if not np.isfinite(z_exp).all():
        problems.append("expressions.npz has codes that are not finite")
    if not np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-4):
        problems.append("expressions.npz has rotations that are none")
    return problems


def _problems_of_mesh(path: Path, name: str, frame_index: int | None, tracked: list[int]) -> list[str]:
    if frame_index not in tracked:
        return [f"{name} belongs to frame {frame_index}, which was not tracked"]
    try:
        mesh = read_mesh(path)
    except Exception as error:  # whatever a reader makes of bytes that are no mesh
        return [f"{name} cannot be read: {type(error).__name__}"]
    if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all():
        return [f"{name} has no triangles, or vertices that are not finite"]
    return []
