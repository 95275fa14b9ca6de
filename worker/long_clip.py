"""A long clip on many workers: who it is from key frames, then stretches, then everything put together.

An attempt at the whole looks at which parts are done and either says what the next ones are (`{"parts": [...]}`), or
makes the artifacts. `run_part` does one of them. Both see earlier results as files below `order.materials`.
"""

import functools
import json
import os
import shutil
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mononphm_core import api
from mononphm_core.animation.heads import Rig
from mononphm_core.animation.topology import load_topology
from mononphm_core.errors import NoFaceFound
from mononphm_core.io import registry
from mononphm_core.io.artifacts import (
    HEAD_FILES,
    ROLES,
    FrameFiles,
    Reconstruction,
    Whole,
    write_artifacts,
    write_frames,
)
from mononphm_core.io.manifest import ArtifactEntry, entry_of
from mononphm_core.io.media import count_selected, read_clip, warn_thinned
from mononphm_core.io.preview import View, join_films, plays_in_real_time
from mononphm_core.io.sequence_files import read_sequence, write_sequence
from mononphm_core.io.tables import write_json, write_npz
from mononphm_core.model.head import HeadModel
from mononphm_core.preprocessing.observe import observe
from mononphm_core.tracking.joining import Stretch, joined, own_rows, picked
from mononphm_core.tracking.known_person import follow
from mononphm_core.types import (
    Clip,
    MediaInfo,
    MorphHead,
    ObservedClip,
    OnStep,
    Stage,
    StepReport,
    TrackedSequence,
)
from worker import heads, models, pipeline, solvers
from worker.division import MESH, TRACK, WHO, Division, division, may_divide
from worker.ledger.options import USUAL_FRAMES
from worker.ledger.order import Order
from worker.ledger.progress import overall_percent
from worker.ledger.records import PartSpec

FACTS, RIG, TEXTURE, OFFSETS = "facts.json", "rig.npz", "texture.npz", "offsets.npz"


def concerns(order: Order) -> bool:
    """Whether this order is, or may turn out to be, a matter of this module."""
    return order.part is not None or may_divide(order.options, USUAL_FRAMES[order.options.quality])


def run(order: Order, workspace: Path, on_step: OnStep) -> dict[str, Any] | None:
    """The next parts, or the manifest; None: the clip is not long after all."""
    job = Job(order, workspace, on_step)
    if order.part is not None:
        return job.part(order.part)
    who = job.material(WHO, 0)
    if who is None:
        on_step(StepReport(Stage.DECODING, 0, 1))
        if solvers.chosen(order.options, job.card, job.model) != "fast":
            return None
        info, pictures = count_selected(order.input_path, job.config.selection, job.config.limits)
        divided = division(order.options, pictures, USUAL_FRAMES[order.options.quality]) if info.is_video else None
        return None if divided is None else {"parts": [spec.to_json() for spec in divided.who()]}
    divided = Division(**json.loads((who / FACTS).read_text())["division"])
    if not job.is_done(TRACK, divided):
        return {"parts": [spec.to_json() for spec in divided.tracks()]}
    if job.frames_wanted and not job.is_done(MESH, divided):
        return {"parts": [spec.to_json() for spec in divided.meshes(job.whole(divided))]}
    return job.assemble(divided)


def run_here(order: Order, workspace: Path, on_step: OnStep) -> dict[str, Any]:
    """The same in one process, part after part: no more memory than a worker's, and the same bytes."""
    materials = workspace / "materials"
    try:
        while True:
            at_hand = replace(order, materials=materials if materials.exists() else None)
            made = pipeline.run(at_hand, workspace, on_step)
            if "parts" not in made:
                return made
            for part in map(PartSpec.from_json, made["parts"]):
                place = materials / f"{part.round}.{part.number}"
                place.mkdir(parents=True)
                heard = as_a_whole(on_step, part, len(made["parts"]))
                pipeline.run(replace(order, part=part, materials=materials), place, heard)
    finally:
        shutil.rmtree(materials, ignore_errors=True)


def as_a_whole(on_step: OnStep, part: PartSpec, parts: int) -> OnStep:
    """What a part reports, as progress of its round: never back."""

    def heard(report: StepReport) -> None:
        done = part.number + overall_percent(report.stage.value, report.step, report.total) / 100.0
        message = f"part {part.number + 1} of {parts}: {report.message}"
        on_step(StepReport(Stage(part.stage), round(1000 * done), 1000 * parts, message=message))

    return heard


class Job:
    """One order, with the model and the configuration that all its parts share."""

    def __init__(self, order: Order, workspace: Path, on_step: OnStep) -> None:
        self.order, self.workspace, self.on_step = order, workspace, on_step
        self.card = models.find(order.options.model)
        self.model: HeadModel = registry.warm_model(self.card, order.device)
        self.names = self.card.expression_names
        self.config, self.tracking = pipeline.config_of(order.options, order.previous_failure == "out_of_memory")
        self.used = order.options.resolved(is_video=True).model_copy(update={"solver": "fast"})
        self.outputs = set(ROLES) & {pipeline.ROLE_OF.get(name, name) for name in self.used.outputs}

    @property
    def stages(self) -> tuple[int, ...]:
        return self.config.stages or (1, 2)

    @property
    def heads_wanted(self) -> bool:
        return bool(set(HEAD_FILES) & self.outputs)

    @property
    def frames_wanted(self) -> bool:
        """Whether anything is made frame by frame."""
        return self.heads_wanted or bool({"mesh", "preview", "thumbnail"} & self.outputs)

    def material(self, round_: int, number: int) -> Path | None:
        """Where the results of a part lie, if they are there."""
        place = self.order.materials / f"{round_}.{number}" if self.order.materials else None
        return place if place is not None and place.exists() else None

    def is_done(self, round_: int, divided: Division) -> bool:
        """Whether every stretch has its results of a round; after a retry some may lack theirs."""
        return all(self.material(round_, number) is not None for number in range(divided.stretches))

    def given(self, round_: int, number: int) -> Path:
        """The same for one that must be there."""
        place = self.material(round_, number)
        assert place is not None, f"part {round_}.{number} is not at hand"
        return place

    def facts(self, round_: int, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.given(round_, number) / FACTS).read_text())
        return found

    def clip(self, **selected: Any) -> Clip:
        """Some of the selected pictures."""
        selection = replace(self.config.selection, **selected)
        return read_clip(self.order.input_path, selection, self.config.limits, self.on_step)

    def delivered(self, entries: list[ArtifactEntry]) -> dict[str, Any]:
        """What a part answers: its files."""
        return {"artifacts": [asdict(entry) for entry in entries]}

    def part(self, spec: PartSpec) -> dict[str, Any]:
        """One part's work."""
        divided = Division.of(spec)
        if spec.round == WHO:
            return self.who(divided)
        return self.track(divided, spec.number) if spec.round == TRACK else self.mesh(divided, spec.number)

    # ---------------------------------------------------------------- round 1

    def who(self, divided: Division) -> dict[str, Any]:
        """The person, the camera and the light from key frames; the rig and the person's own colours."""
        guided = solvers.guide(self.card, self.model, self.order.device)
        timed = pipeline.Stopwatch()
        with timed("decoding"):
            clip = self.clip(keys=divided.keys)
        with timed("preprocessing"):
            mean = pipeline.mean_landmarks(guided[0])
            observed = observe(clip, self.config.camera, self.config.preprocessing, mean, self.on_step)
        tracked = api.track_observed(
            self.model, guided, observed, True, self.stages, self.tracking, self.config.seed, self.on_step, timed
        )
        names = list(write_sequence(self.workspace, tracked))
        told: dict[str, Any] = {}
        if self.heads_wanted:
            with timed("exporting"):
                names += self._write_rig(tracked, observed, clip, told)
        facts = {
            "division": asdict(divided), "seconds": timed.seconds, "texture": told, "turned_deg": observed.turned_deg,
            "known": known_places(observed), "media": media_facts(clip.info),
            "warnings": [*self._reading_warnings(clip, divided.total), *observed.warnings],
        }  # fmt: skip
        write_json(self.workspace / FACTS, facts)
        return self.delivered([entry_of(self.workspace, name, "part") for name in [*names, FACTS]])

    def _reading_warnings(self, clip: Clip, total: int) -> list[str]:
        """What reading the whole selection would have said, as far as key frames tell."""
        told: list[str] = []
        warn_thinned(clip.info, self.config.selection, total, told)
        return told + [text for text in clip.warnings if not text.startswith(f"{len(clip.frames)} of the clip")]

    def _write_rig(
        self, tracked: TrackedSequence, observed: ObservedClip, clip: Clip, told: dict[str, Any]
    ) -> list[str]:
        """Names of the files of the rig and of the texture, where they can be made."""
        frames = len(tracked.frame_index)

        def alive(done: int) -> None:
            self.on_step(StepReport(Stage.EXPORTING, done, frames + 1, done, frames, "the head with fixed triangles"))

        person = heads.rigged(self.model, tracked, self.names, alive)
        if person is None:
            return []
        arrays = {name: getattr(person, name) for name in ("canonical", "canonical_weights", "neutral", "texture")}
        write_npz(self.workspace / RIG, arrays)
        made = list(heads.offsets(self.model, tracked, person, alive))
        dressed: list[heads.Colours] = []

        def dress(head: MorphHead) -> None:
            own = heads.from_frames(tracked, observed, clip.frames, head)
            dressed.extend([own] if own is not None else [])

        heads.heads_from(self.model, tracked, self.names, person, made.__getitem__, dress, alive)
        if not dressed:
            return [RIG]
        told |= dressed[0].told
        write_npz(self.workspace / TEXTURE, {"texture": dressed[0].texture, **dressed[0].measures})
        return [RIG, TEXTURE]

    # ---------------------------------------------------------------- round 2

    def track(self, divided: Division, number: int) -> dict[str, Any]:
        """Poses and expressions of one stretch, with its margins."""
        person, key = self.facts(WHO, 0), read_sequence(self.given(WHO, 0), self.order.device)
        first, last = divided.tracked(number)
        timed, files = pipeline.Stopwatch(), []
        with timed("decoding"):
            clip = self.clip(part=(first, last))
        places = {frame.frame_index: first + at for at, frame in enumerate(clip.frames)}
        own = [index for index, place in places.items() if divided.own(number)[0] <= place < divided.own(number)[1]]
        facts: dict[str, Any] = {"seen": [], "missed": own, "warnings": [], "place": []}
        known = tuple((seconds, x, y) for seconds, x, y in person["known"])
        looking = replace(self.config.preprocessing, known=known, turned_deg=person["turned_deg"])
        mean = pipeline.mean_landmarks(solvers.guide(self.card, self.model, self.order.device)[0])
        try:
            with timed("preprocessing"):
                observed = observe(clip, self.config.camera, looking, mean, self.on_step)
        except NoFaceFound:
            observed = None
        if observed is not None:
            seed = self.config.seed + 1 + number
            with timed("stage2"):
                tracked = follow(self.model, observed, self.names, key, self.stages, self.tracking, seed, self.on_step)
            files = [entry_of(self.workspace, name, "part") for name in write_sequence(self.workspace, tracked)]
            facts["place"] = [places[index] for index in tracked.frame_index]
            facts["seen"] = [seen for seen in pipeline.seen(observed)["frames"] if seen["frame_index"] in own]
            facts["missed"] = [index for index in own if index in observed.missed_frames]
        facts |= {"seconds": timed.seconds, "figures": tracked.stages if observed is not None else {}}
        write_json(self.workspace / FACTS, facts)
        return self.delivered([*files, entry_of(self.workspace, FACTS, "part")])

    def stretch(self, divided: Division, number: int) -> Stretch | None:
        """A stretch as it was tracked; None beyond the clip's ends, and where nobody was seen."""
        if not 0 <= number < divided.stretches or not self.facts(TRACK, number)["place"]:
            return None
        sequence = read_sequence(self.given(TRACK, number), self.order.device)
        return Stretch(sequence, tuple(self.facts(TRACK, number)["place"]), divided.own(number))

    def own(self, divided: Division, number: int) -> TrackedSequence:
        """The stretch's own frames, joined to its neighbours'; maybe none."""
        before, here, after = (self.stretch(divided, n) for n in (number - 1, number, number + 1))
        if here is None:
            return picked(read_sequence(self.given(WHO, 0), self.order.device), [])
        return own_rows(here, before, after)[0]

    def whole(self, divided: Division) -> dict[str, Any]:
        """What the frames must know of the whole clip, as JSON."""
        sequence = self.joined(divided)
        frames = len(sequence.frame_index)
        return asdict(Whole.of(sequence, np.broadcast_to(np.eye(4), (frames, 4, 4))))

    def joined(self, divided: Division) -> TrackedSequence:
        """All frames of the clip."""
        sequence = joined([self.stretch(divided, number) for number in range(divided.stretches)])
        figures = [self.facts(TRACK, number)["figures"] for number in range(divided.stretches)]
        return replace(sequence, stages=mean_figures(figures))

    # ---------------------------------------------------------------- round 3

    def mesh(self, divided: Division, number: int) -> dict[str, Any]:
        """Meshes, film and offsets of fixed triangles for the stretch's own frames."""
        assert self.order.part is not None
        told = self.order.part.task["whole"]
        whole = Whole(**{**told, "view": View(**told["view"])})
        sequence, media = self.own(divided, number), media_of(self.facts(WHO, 0)["media"])
        clip = self.clip(part=divided.own(number)).frames if {"preview", "thumbnail"} & self.outputs else ()
        as_published = self.order.options.mesh_extraction == "published"
        meshes = pipeline.meshes(self.model, sequence, self.config.meshing, self.on_step, as_published)
        reconstruction = self._reconstruction(sequence, media, {}, meshes)
        pictures = pipeline.upright(clip, self.facts(WHO, 0)["turned_deg"])
        made = FrameFiles([], [], 0.0, {})
        if {"mesh", "preview", "thumbnail"} & self.outputs:
            made = write_frames(
                self.workspace,
                reconstruction,
                pictures,
                whole,
                self.on_step,
                self.outputs,
                self.order.options.mesh_format,
            )
        files = list(made.entries)
        person, total = self._rig(), len(sequence.frame_index)

        def alive(done: int) -> None:
            self.on_step(StepReport(Stage.EXPORTING, done, total + 1, done, total, "the head with fixed triangles"))

        if person is not None:
            found = list(heads.offsets(self.model, sequence, person, alive))
            write_npz(self.workspace / OFFSETS, {"offsets": np.stack(found) if found else np.zeros((0, 1, 3), "f4")})
            files.append(entry_of(self.workspace, OFFSETS, "part"))
        facts = {
            "frame_files": [asdict(entry) for entry in made.entries], "seconds": made.seconds,
            "warnings": made.warnings, "psnr_db": list(made.psnr_db.items()),
            "begins_s": clip[0].timestamp_s if clip else 0.0,
        }  # fmt: skip
        write_json(self.workspace / FACTS, facts)
        return self.delivered([*files, entry_of(self.workspace, FACTS, "part")])

    def _rig(self) -> Rig | None:
        path = self.given(WHO, 0) / RIG
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as found:
            return Rig(load_topology(), **{name: found[name] for name in found.files})

    # ---------------------------------------------------------------- the end

    def assemble(self, divided: Division) -> dict[str, Any]:
        """All artifacts of the clip, and its manifest."""
        person, numbers = self.facts(WHO, 0), range(divided.stretches)
        sequence = self.joined(divided)
        tracks = [self.facts(TRACK, number) for number in numbers]
        missed = tuple(index for track in tracks for index in track["missed"])
        seconds = summed([person["seconds"], *(track["seconds"] for track in tracks)])
        curves = heads.blendshapes(sequence, self.names)
        left_out = [f"In {len(missed)} of {divided.total} frames no usable face was found; they are left out."]
        reconstruction = self._reconstruction(sequence, media_of(person["media"]), seconds, iter(()))
        reconstruction = replace(
            reconstruction,
            missed_frames=missed,
            warnings=(*person["warnings"], *(left_out if missed else []), *heads.absent(curves)),
            blendshapes=curves,
            heads=self._heads(divided, sequence),
            extra={
                "solver": {"name": "fast"},
                "division": {"frames": divided.size, "stretches": divided.stretches, "key_frames": divided.keys},
                "observations": {
                    "turned_deg": person["turned_deg"], "frames": [seen for track in tracks for seen in track["seen"]]
                },
            },
        )  # fmt: skip
        real_time = plays_in_real_time(sequence.timestamp_s)
        bring = functools.partial(self._bring_frames, divided, real_time) if self.frames_wanted else nothing
        return write_artifacts(
            self.workspace, reconstruction, (), self.on_step, self.outputs, self.order.options.mesh_format, bring
        ).document()

    def _reconstruction(
        self, sequence: TrackedSequence, media: MediaInfo, seconds: dict[str, float], meshes: Any
    ) -> Reconstruction:
        order = self.order
        return Reconstruction(
            sequence=sequence,
            anchors=self.model.identity.anchors(sequence.identity.z_geo[None])[0].cpu().numpy(),
            meshes=meshes,
            media=media,
            input_filename=order.filename,
            input_sha256=order.sha256,
            input_bytes=order.input_path.stat().st_size,
            options=self.used.to_json(),
            model=pipeline.facts(self.card),
            seconds=seconds,
            device=order.device,
            seed=self.config.seed,
        )

    def _bring_frames(self, divided: Division, real_time: bool) -> FrameFiles:
        """Put the files of the frames where they belong; the films become one."""
        made, films = FrameFiles([], [], sum(self.facts(MESH, n)["seconds"] for n in range(divided.stretches)), {}), []
        for number in range(divided.stretches):
            place, told = self.given(MESH, number), self.facts(MESH, number)
            made.warnings.extend(told["warnings"])
            made.psnr_db.update({int(index): value for index, value in told["psnr_db"]})
            for entry in (ArtifactEntry(**found) for found in told["frame_files"]):
                if entry.name == "preview.mp4":
                    films.append((place / entry.name, float(told["begins_s"])))
                    continue
                target = self.workspace / entry.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                os.link(place / entry.name, target)
                made.entries.append(entry)
            self.on_step(StepReport(Stage.MESHING, number + 1, divided.stretches, 0, 0, "putting the parts together"))
        if films:
            join_films(self.workspace / "preview.mp4", films, real_time)
            made.entries.append(entry_of(self.workspace, "preview.mp4", "preview"))
        return made

    def _heads(self, divided: Division, sequence: TrackedSequence) -> Any:
        """What makes the heads with fixed triangles: from the parts' offsets, where our triangles fit the model."""
        if not self.heads_wanted:
            return None
        person = self._rig()
        if person is None:
            return heads.head_maker(self.model, sequence, self.names, self.config.meshing)
        offset_of = Offsets([self.given(MESH, number) / OFFSETS for number in range(divided.stretches)])
        return lambda on_frame: heads.heads_from(
            self.model, sequence, self.names, person, offset_of, self._dress, on_frame
        )

    def _dress(self, head: MorphHead) -> heads.Colours | None:
        path = self.given(WHO, 0) / TEXTURE
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        return heads.Colours(arrays.pop("texture"), self.facts(WHO, 0)["texture"], arrays)


class Offsets:
    """The offsets of all frames, of which those of one stretch are in memory at a time."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        sizes = []
        for path in files:
            with np.load(path, allow_pickle=False) as found:
                sizes.append(len(found["offsets"]))
        self._begins = np.concatenate([[0], np.cumsum(sizes)])
        self._at, self._here = -1, np.zeros((0, 1, 3), np.float32)

    def __call__(self, row: int) -> Any:
        at = int(np.searchsorted(self._begins, row, side="right")) - 1
        if at != self._at:
            with np.load(self._files[at], allow_pickle=False) as found:
                self._at, self._here = at, found["offsets"]
        return self._here[row - self._begins[at]]


def nothing() -> FrameFiles:
    """No file is made frame by frame."""
    return FrameFiles([], [], 0.0, {})


def known_places(observed: ObservedClip) -> list[tuple[float, float, float]]:
    """(seconds, x, y): where the middle of the person's face was, pixels of the upright original."""
    places = []
    for seen in observed.observations:
        points = seen.dense_landmarks_px.double().numpy() / seen.crop.scale + [seen.crop.left, seen.crop.top]
        x, y = (points.min(0) + points.max(0)) / 2
        places.append((seen.timestamp_s, float(x), float(y)))
    return places


def media_facts(info: MediaInfo) -> dict[str, Any]:
    """`MediaInfo` as JSON."""
    return {**asdict(info), "fps": None if info.fps is None else str(info.fps)}


def media_of(facts: dict[str, Any]) -> MediaInfo:
    """The inverse of `media_facts`."""
    return MediaInfo(**{**facts, "fps": None if facts["fps"] is None else Fraction(facts["fps"])})


def mean_figures(figures: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Of the stretches that have some: the mean of each figure."""
    known = [one for one in figures if one]
    if not known:
        return {}
    return {
        stage: {name: float(np.mean([one[stage][name] for one in known])) for name in values}
        for stage, values in known[0].items()
    }


def summed(seconds: list[dict[str, float]]) -> dict[str, float]:
    """Seconds by stage of all parts together: work, not waiting."""
    names = dict.fromkeys(name for one in seconds for name in one)
    return {name: sum(one.get(name, 0.0) for one in seconds) for name in names}
