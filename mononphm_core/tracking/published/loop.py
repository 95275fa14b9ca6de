"""The loop that both stages share: draw rays, look, step, report."""

import logging
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mononphm_core.errors import Diverged
from mononphm_core.model.head import HeadModel
from mononphm_core.preprocessing.published.observation import PublishedObservation
from mononphm_core.tracking.published.configuration import PublishedConfig, PublishedWeights
from mononphm_core.tracking.published.landmarks import View
from mononphm_core.tracking.published.objective import Moment, evaluate
from mononphm_core.tracking.published.sampling import Draws, draw_batch
from mononphm_core.tracking.published.schedules import Timetable
from mononphm_core.tracking.published.variables import Leaves, Optimiser

log = logging.getLogger(__name__)
History = dict[str, list[float]]


@dataclass(frozen=True)
class Problem:
    """What one optimisation is about; `rows` are the frames that it may look at."""

    model: HeadModel
    frames: tuple[PublishedObservation, ...]
    rows: tuple[int, ...]
    weights: PublishedWeights
    table: Timetable
    config: PublishedConfig


def view_of(frame: PublishedObservation) -> View:
    """The camera of a frame."""
    height, width = frame.labels.shape
    k = frame.k.float()
    return View(torch.stack([k[0, 0], k[1, 1], k[0, 2], k[1, 2]]), frame.w2c.float(), (width, height))


def optimise(
    problem: Problem,
    leaves: Leaves,
    moving: tuple[str, ...],
    draws: Draws,
    history: History,
    after_step: Callable[[int], None],
) -> None:
    """Take the timetable's steps over the moving leaves, in place; every step looks at one of the frames, drawn evenly.

    Errors: Diverged, naming the step and the term that is no number.
    """
    table, config = problem.table, problem.config
    optimiser = Optimiser(leaves, moving, table.rates(0))
    anchors = problem.model.config.identity.anchors
    for step in range(table.steps):
        row = problem.rows[draws.frame(len(problem.rows))]
        frame = problem.frames[row]
        batch = draw_batch(frame, anchors, draws, config)
        neighbours = tuple(i for i in (row - 1, row + 1) if len(problem.rows) > 1 and i in problem.rows)
        w = problem.weights
        moment = Moment(
            row, neighbours, w, w.expression_first if row == 0 else w.expression, table.landmark_weight(step),
            table.smooth_weights(step), table.sharpness(step),
        )  # fmt: skip
        looked = evaluate(
            problem.model,
            leaves,
            batch,
            view_of(frame),
            frame.landmarks_px.float(),
            moment,
            config.quirks,
            config.block_rays,
        )
        for name, value in looked.terms.items():
            if not math.isfinite(float(value)):
                raise Diverged(step, name)
            history[name].append(float(value))
        optimiser.step((row, *neighbours), table.rates(step))
        after_step(step + 1)
    if not optimiser.finite():
        raise Diverged(table.steps, "total")
    optimiser.freeze()


def new_history() -> History:
    """An empty record of the terms."""
    return defaultdict(list)
