"""Fleet sizes: closed forms, invariances, and a queue that is simulated job by job."""

import heapq
import json
import math
import random

import pytest
from click.testing import CliRunner

from mononphm_cli.capacity import Cost, Load, erlang_c, plan, wait_quantile_s, wait_scale_s
from mononphm_cli.commands.capacity import command


def test_one_worker_is_the_textbooks_m_m_1():
    """All of it in closed form: a share rho waits, and wait is S / (1 - rho)."""
    for rho in (0.1, 0.5, 0.9):
        assert erlang_c(1, rho) == pytest.approx(rho)
        assert wait_scale_s(1, rho, 30.0, 1.0) == pytest.approx(30.0 / (1 - rho))


def test_erlang_c_is_the_sum_of_its_definition():
    """C = a^c / c! * c / (c - a) over the sum of a^k / k! and itself; the recursion only avoids overflow."""
    for workers, erlangs in ((2, 1.0), (5, 4.2), (20, 17.0)):
        last = erlangs**workers / math.factorial(workers) * workers / (workers - erlangs)
        below = sum(erlangs**k / math.factorial(k) for k in range(workers))
        assert erlang_c(workers, erlangs) == pytest.approx(last / (below + last))
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(3, 3.0) == 1.0


def simulated(workers: int, arrivals_s: float, service_s: float, jobs: int, seed: int) -> list[float]:
    """Waits of jobs that come at random and take exponential times: one queue, first come first served."""
    dice = random.Random(seed)
    free, now, waits = [0.0] * workers, 0.0, []
    for _ in range(jobs):
        now += dice.expovariate(1 / arrivals_s)
        begins = max(now, heapq.heappop(free))
        waits.append(begins - now)
        heapq.heappush(free, begins + dice.expovariate(1 / service_s))
    return sorted(waits)


def test_the_formulas_are_what_a_simulated_queue_does():
    """4 workers, 3.2 erlangs, 200,000 jobs: share that waits, mean and 95 % within 4 % (its own spread over seeds)."""
    waits = simulated(4, 30 / 3.2, 30.0, 200_000, seed=1)
    expected = erlang_c(4, 3.2)
    assert sum(wait > 0 for wait in waits) / len(waits) == pytest.approx(expected, rel=0.04)
    assert sum(waits) / len(waits) == pytest.approx(expected * wait_scale_s(4, 3.2, 30.0, 1.0), rel=0.04)
    assert waits[int(0.95 * len(waits))] == pytest.approx(wait_quantile_s(4, 3.2, 30.0, 1.0), rel=0.04)


def test_the_plan_is_the_smallest_that_keeps_the_promise():
    """One worker less breaks it, whatever the load."""
    for jobs_a_day in (1, 100, 5_000, 100_000):
        load, cost = Load(jobs_a_day, frames=24), Cost(20.0, 7.1, worker_hour=0.1)
        found = plan(load, cost, wait_95_s=60.0, spare=0)
        assert found.wait_95_s <= 60.0 and found.utilisation < 1
        fewer = found.workers - 1
        assert fewer == 0 or fewer <= found.erlangs or wait_quantile_s(fewer, found.erlangs, found.service_s, 1.0) > 60


def test_price_follows_from_workers_and_hours():
    """730 hours a month, and the month's jobs share it; a spare worker is paid for as well."""
    found = plan(Load(1_000, 24), Cost(20.0, 7.1, worker_hour=2.0), wait_95_s=60.0, spare=2)
    assert found.month == pytest.approx(found.workers * 730 * 2.0)
    assert found.job * 1_000 * 730 / 24 == pytest.approx(found.month)
    assert found.workers == plan(Load(1_000, 24), Cost(20.0, 7.1), wait_95_s=60.0, spare=0).workers + 2


def test_large_fleets_run_fuller():
    """Why one pool for all beats one for each customer: the promise costs less room as the load grows."""
    used = [plan(Load(n, 24), Cost(20.0, 7.1), 60.0, spare=0).utilisation for n in (100, 1_000, 10_000, 100_000)]
    assert used == sorted(used) and used[-1] > 0.95


def test_the_command_says_the_same_in_words_and_as_json():
    """Numbers that differ between the two would make one of them wrong."""
    words = ["--jobs-a-day", "1000", "--worker-hour", "0.5"]
    found = json.loads(CliRunner().invoke(command, [*words, "--json"]).output)
    said = CliRunner().invoke(command, words).output
    assert f"{found['workers']} workers, 1 of them spare" in said
    assert f"95 % at most {found['wait_95_s']:.0f} s" in said
    assert f"{found['job']:.3f} a job" in said
    assert found["service_s"] == pytest.approx(20 + 7.1 * 24)
