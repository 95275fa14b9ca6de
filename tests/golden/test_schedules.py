"""Schedules against every row that the published object wrote, and what the rows do not show."""

import csv

import numpy as np
import pytest

from mononphm_core.tracking.published.schedules import Timetable, joint, multipliers
from tests.golden.tables import HERE

MODES = {
    "stage1_ffhq_single": Timetable.of("image", "first", 1.0),
    "stage1_first": Timetable.of("video", "first", 1.0),
    "stage1_next_fast": Timetable.of("video", "later", 0.5),
    "stage1_next_mid": Timetable.of("video", "later", 0.25),
    "stage1_next_slow": Timetable.of("video", "later", 0.1),
    "stage2": joint(frames=10),
}


def row(table: Timetable, step: int) -> list[float]:
    """What the published object would have written of a step."""
    rates = table.rates(step)
    return [
        rates.codes, rates.expression, rates.light, rates.rotation, rates.translation, table.exponent(step),
        table.landmark_weight(step), *table.smooth_weights(step),
    ]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_every_step_has_the_published_values(mode):
    """The file has a row wherever something changes: each of our steps equals the last row at or before it."""
    with (HERE / "schedules.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["mode"] == mode]
    table = MODES[mode]
    assert table.steps == int(rows[0]["n_epochs"])
    expected = None
    changes = {int(r["epoch"]): [float(v) for v in list(r.values())[5:]] for r in rows}
    for step in range(table.steps):
        expected = changes.get(step, expected)
        np.testing.assert_allclose(row(table, step), expected, rtol=1e-9, err_msg=f"{mode}, step {step}")


def test_a_frame_is_optimised_longer_the_more_it_moves():
    """Against the clip's mean change: far above, about, far below; the first frame always has the whole time."""
    shifts = np.cumsum([0, 1, 1, 1, 4, 0.2]) / 100
    points = np.zeros((6, 98, 2)) + shifts[:, None, None]
    assert multipliers(points) == [1.0, 0.1, 0.1, 0.1, 0.5, 0.1]
    points[2, 5] = np.nan  # a point that was not found takes no part
    assert multipliers(points) == [1.0, 0.1, 0.1, 0.1, 0.5, 0.1]
    assert multipliers(np.zeros((3, 98, 2)) + np.array([0, 1, 2.0])[:, None, None]) == [1.0, 0.25, 0.25]
    assert multipliers(points[:1]) == [1.0]


def test_a_scaled_run_passes_the_same_phases():
    """A tenth of the steps: every threshold moves with them, so rates and sharpness end where the whole run's do."""
    whole, short = Timetable.of("video", "first", 1.0), Timetable.of("video", "first", 0.1)
    assert short.steps == 25
    for step in (0, 1, 4, 6, 9, 12, 17, 21, 24):
        assert row(short, step) == row(whole, 10 * step)
