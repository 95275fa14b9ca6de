"""How many workers a load needs, how long jobs then wait, and what it costs. Arithmetic alone: no server is asked.

Workers are servers of one queue (M/G/c). With a = arrivals a second times mean service time S (erlangs), the share of
jobs that find every worker busy is Erlang's C; waits are exponential, corrected for service times whose coefficient of
variation v is not 1 (Allen and Cunneen 1978):

    P(wait > t) = C(c, a) * exp(-t / w),   w = S / (c - a) * (1 + v^2) / 2

The hour that counts is the busiest one: `peak` times the day's mean.
"""

import math
from dataclasses import dataclass

DAY_S = 86_400.0
MONTH_H = 730.0
QUANTILE = 0.95


@dataclass(frozen=True)
class Load:
    """What users send."""

    jobs_a_day: float
    frames: float
    """Of a job, mean."""
    peak: float = 3.0
    """Arrivals in the busiest hour over the day's mean."""
    variation: float = 1.0
    """Standard deviation of a job's service time over its mean."""


@dataclass(frozen=True)
class Cost:
    """What one worker needs for a job, measured (docs/performance.md): wall seconds with its cores or its device."""

    job_s: float
    """For each job, however short."""
    frame_s: float
    worker_hour: float = 0.0
    """Price of one worker for an hour, in any currency."""

    def service_s(self, frames: float) -> float:
        return self.job_s + self.frame_s * frames


@dataclass(frozen=True)
class Plan:
    """The smallest fleet that keeps the promise, in the busiest hour."""

    workers: int
    """`spare` ones included."""
    spare: int
    service_s: float
    erlangs: float
    utilisation: float
    """Of the workers without the spare ones, in the busiest hour."""
    waits: float
    """Share of jobs that wait at all."""
    mean_wait_s: float
    wait_95_s: float
    month: float
    """Price of the fleet, running always."""
    job: float
    """Price of one job at the mean load."""


def erlang_c(workers: int, erlangs: float) -> float:
    """Share of arrivals that find every worker busy (Erlang 1917), by the stable recursion of Erlang's B."""
    if erlangs >= workers:
        return 1.0
    blocked = 1.0
    for count in range(1, workers + 1):
        blocked = erlangs * blocked / (count + erlangs * blocked)
    return blocked / (1.0 - erlangs / workers * (1.0 - blocked))


def wait_scale_s(workers: int, erlangs: float, service_s: float, variation: float) -> float:
    """Mean wait of those that wait; infinite where the queue only grows."""
    if erlangs >= workers:
        return math.inf
    return service_s / (workers - erlangs) * (1.0 + variation**2) / 2.0


def wait_quantile_s(workers: int, erlangs: float, service_s: float, variation: float, share: float = QUANTILE) -> float:
    """Below which this share of all waits lies."""
    waits = erlang_c(workers, erlangs)
    if waits <= 1.0 - share:
        return 0.0
    return wait_scale_s(workers, erlangs, service_s, variation) * math.log(waits / (1.0 - share))


def plan(load: Load, cost: Cost, wait_95_s: float, spare: int = 1) -> Plan:
    """The fewest workers with which 95 % of the jobs of the busiest hour wait at most so long, and `spare` more."""
    service_s = cost.service_s(load.frames)
    erlangs = load.jobs_a_day / DAY_S * load.peak * service_s
    workers = math.floor(erlangs) + 1
    while wait_quantile_s(workers, erlangs, service_s, load.variation) > wait_95_s:
        workers += 1
    waits = erlang_c(workers, erlangs)
    month = (workers + spare) * MONTH_H * cost.worker_hour
    return Plan(
        workers + spare,
        spare,
        service_s,
        erlangs,
        erlangs / workers,
        waits,
        waits * wait_scale_s(workers, erlangs, service_s, load.variation),
        wait_quantile_s(workers, erlangs, service_s, load.variation),
        month,
        month / (load.jobs_a_day * MONTH_H / 24.0),
    )
