"""`mononphm capacity`: from measured cost to a fleet and its price."""

import json
from dataclasses import asdict

import click

from mononphm_cli.options import json_option

POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command("capacity")
@click.option("--jobs-a-day", type=POSITIVE, required=True, help="How many jobs come on an ordinary day.")
@click.option("--frames", type=POSITIVE, default=24.0, show_default=True, help="Frames of a job, mean.")
@click.option("--job-s", type=click.FloatRange(min=0), default=20.0, show_default=True,
              help="Seconds of one worker for each job, however short.")  # fmt: skip
@click.option("--frame-s", type=POSITIVE, default=7.1, show_default=True, help="Seconds of one worker for each frame.")
@click.option("--peak", type=click.FloatRange(min=1), default=3.0, show_default=True,
              help="Arrivals in the busiest hour over the day's mean.")  # fmt: skip
@click.option("--variation", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="Standard deviation of a job's seconds over their mean.")  # fmt: skip
@click.option("--wait-s", type=click.FloatRange(min=0), default=60.0, show_default=True,
              help="95 % of the jobs of the busiest hour shall wait at most so long.")  # fmt: skip
@click.option("--spare", type=click.IntRange(min=0), default=1, show_default=True,
              help="Workers that may be away at any time.")  # fmt: skip
@click.option("--worker-hour", type=click.FloatRange(min=0), default=0.0, help="Price of one worker for an hour.")
@json_option
def command(
    jobs_a_day: float, frames: float, job_s: float, frame_s: float, peak: float, variation: float, wait_s: float,
    spare: int, worker_hour: float, as_json: bool,
) -> None:  # fmt: skip
    """Say how many workers a load needs, how long jobs then wait, and what it costs.

    The defaults of --job-s and --frame-s are one worker of two shared cores without a GPU (docs/operations.md).
    Measure yours: a still and a clip with `mononphm reconstruct`; the difference over the frames is --frame-s.
    """
    from mononphm_cli.capacity import Cost, Load, plan

    found = plan(Load(jobs_a_day, frames, peak, variation), Cost(job_s, frame_s, worker_hour), wait_s, spare)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    click.echo(f"{found.workers} workers, {found.spare} of them spare; a job takes one {found.service_s:.0f} s")
    click.echo(
        f"busiest hour: {found.erlangs:.1f} of them busy ({found.utilisation:.0%}), {found.waits:.0%} of the jobs"
    )
    click.echo(f"              wait, {found.mean_wait_s:.0f} s in the mean, 95 % at most {found.wait_95_s:.0f} s")
    if worker_hour:
        click.echo(f"price:        {found.month:,.0f} a month, {found.job:.3f} a job")
