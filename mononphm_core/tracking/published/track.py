"""Both stages of the published tracker on one clip (MonoNPHM, section 4.3; our notes, section 9)."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from mononphm_core.geometry.rotations import so3_exp_clamped, so3_log
from mononphm_core.model.head import HeadModel
from mononphm_core.preprocessing.published.observation import PublishedClip, PublishedObservation
from mononphm_core.tracking.published.configuration import (
    IMAGE_EXPRESSION_UNCALIBRATED,
    WEIGHTS,
    Kind,
    PublishedConfig,
    PublishedWeights,
)
from mononphm_core.tracking.published.loop import History, Problem, new_history, optimise
from mononphm_core.tracking.published.sampling import Draws
from mononphm_core.tracking.published.schedules import Timetable, joint, multipliers
from mononphm_core.tracking.published.variables import Leaves
from mononphm_core.types import OnStep, Stage, StepReport, ignore_steps

FIRST = ("z_geo", "z_app", "colour_matrix", "colour_offset", "sh", "z_exp", "turn", "shift")
LATER = ("z_exp", "turn", "shift")
JOINT = ("z_geo", "z_app", "sh", "z_exp", "turn", "shift")
"""Which leaves move on the first frame, on later ones, and in stage 2."""


@dataclass(frozen=True)
class Sequence:
    """What is tracked."""

    frames: tuple[PublishedObservation, ...]
    motion: Float[np.ndarray, "frames points 2"]
    """Landmarks as shares of the picture: their change decides how long a frame is optimised. NaN: not found."""
    is_video: bool
    calibrated: bool
    """The camera was given."""

    @staticmethod
    def of(clip: PublishedClip, is_video: bool) -> "Sequence":
        """A folder prepared for the published program. Landmarks that were not found (-1) say nothing of motion."""
        points = clip.landmarks.double().numpy()
        missing = (points < 0).all(-1, keepdims=True)
        return Sequence(clip.observations, np.where(missing, np.nan, points), is_video, clip.intrinsics_given)


@dataclass(frozen=True)
class PublishedTrack:
    """Where the leaves ended, and how they got there."""

    leaves: Leaves
    history: History
    kind: Kind
    """Whose mesh resolution applies."""
    sharpness: float
    """Of the last step; what a rendering of the result uses."""


def stage1(
    model: HeadModel,
    clip: Sequence,
    config: PublishedConfig,
    draws: Draws,
    on_step: OnStep = ignore_steps,
) -> PublishedTrack:
    """Frame by frame: the person on the first, then expression and pose of each, starting where the last one ended."""
    kind = kind_of(clip.is_video)
    frames, weights = clip.frames, weights_of(kind, clip.calibrated)
    tables = timetables(clip.motion, kind, config)
    total = sum(table.steps for table in tables)
    leaves, history = Leaves.start(model, len(frames)), new_history()
    on_step(StepReport(Stage.STAGE1, 0, total, 0, len(frames), "the first frame"))
    done = 0
    for row, table in enumerate(tables):
        if row:
            _start_from(leaves, row)

        def report(step: int, row: int = row, done: int = done) -> None:
            message = "the first frame" if row == 0 else "frame by frame"
            on_step(StepReport(Stage.STAGE1, done + step, total, row, len(frames), message))

        problem = Problem(model, frames, (row,), weights, table, config)
        optimise(problem, leaves, LATER if row else FIRST, draws, history, report)
        done += table.steps
    on_step(StepReport(Stage.STAGE1, total, total, len(frames), len(frames), "done"))
    return PublishedTrack(leaves, history, kind, tables[-1].sharpness(tables[-1].steps - 1))


def stage2(
    model: HeadModel,
    clip: Sequence,
    first: PublishedTrack,
    config: PublishedConfig,
    draws: Draws,
    on_step: OnStep = ignore_steps,
) -> PublishedTrack:
    """All frames together, one a step, with smooth expressions and poses; the colour correction stays as it was."""
    frames = clip.frames
    table = joint(len(frames), config.iterations_scale)
    leaves, history = dataclasses.replace(first.leaves), new_history()
    on_step(StepReport(Stage.STAGE2, 0, table.steps, 0, len(frames), "all frames together"))

    def report(step: int) -> None:
        seen = len(frames) * step // table.steps
        on_step(StepReport(Stage.STAGE2, step, table.steps, seen, len(frames), "all frames together"))

    problem = Problem(model, frames, tuple(range(len(frames))), WEIGHTS["stage2"], table, config)
    optimise(problem, leaves, JOINT, draws, history, report)
    return PublishedTrack(leaves, history, "stage2", table.sharpness(table.steps - 1))


def kind_of(is_video: bool) -> Kind:
    """The configuration of stage 1."""
    return "video" if is_video else "image"


def weights_of(kind: Kind, calibrated: bool) -> PublishedWeights:
    """The published weights; a still with an unknown camera has a weaker expression prior."""
    weights = WEIGHTS[kind]
    if kind == "image" and not calibrated:
        weaker = IMAGE_EXPRESSION_UNCALIBRATED
        weights = dataclasses.replace(weights, expression=weaker, expression_first=weaker)
    return weights


def timetables(motion: Float[np.ndarray, "frames points 2"], kind: Kind, config: PublishedConfig) -> list[Timetable]:
    """How long each frame of stage 1 is optimised."""
    return [
        Timetable.of(kind, "later" if row else "first", m * config.iterations_scale)
        for row, m in enumerate(multipliers(motion))
    ]


def _start_from(leaves: Leaves, row: int) -> None:
    """Expression and pose of a frame start at the last one's; the rotation through its matrix, as files carry it."""
    with torch.no_grad():
        for table in (leaves.z_exp, leaves.shift):
            table[row] = table[row - 1]
        leaves.turn[row] = so3_log(so3_exp_clamped(leaves.turn[row - 1]))
