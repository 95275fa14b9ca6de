"""`mononphm worker`: one worker process, for scaling out or beside an API that runs elsewhere."""

from pathlib import Path
from typing import Any

import click


@click.command("worker")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Shared with the API.")
@click.option("--database-url", help="State of record; default: SQLite in the data directory.")
@click.option("--broker-url", help="Where hints come from; default: files in the data directory.")
@click.option("--queues", help="Comma-separated queues to serve.")
@click.option("--device", help="auto, cpu, cuda or cuda:<i>.")
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads of the computation.")
@click.option("--pipeline", hidden=True, help="module:function that does the work.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
def command(**given: Any) -> None:
    """Start a worker alone. It serves reconstructions until it gets SIGTERM or Ctrl-C.

    What is not given here comes from the environment (MONONPHM_DATA_DIR, MONONPHM_BROKER_URL, ...), then from defaults
    that need no server.
    """
    from worker.main import run_worker
    from worker.settings import WorkerSettings

    settings = WorkerSettings(**{name: value for name, value in given.items() if value is not None})
    raise SystemExit(run_worker(settings))
