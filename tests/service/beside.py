"""A worker process beside an API process, on the same data directory."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

from tests.service.test_process import ROOT, Api, environment, until

READY_S = 180.0
STOP_S = 30.0


@contextmanager
def worker_beside(api: Api, pipeline: str | None = None, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker whose child has its model loaded; it is asked to stop at the end, then made to.

    `pipeline` None: the product's own. Else `module:function`. `more`: environment variables.
    """
    settings = {"MONONPHM_DATA_DIR": str(api.data), "MONONPHM_LOG_LEVEL": "WARNING", **more}
    if pipeline is not None:  # a pipeline of a test, which should not wait for whatever else this machine does
        settings = {"MONONPHM_PIPELINE": pipeline, "MONONPHM_DEVICE": "none", "MONONPHM_NICE": "0"} | settings
    with api.log.with_name("worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker.main"], stdout=log, stderr=log, env=environment(**settings), cwd=ROOT
        )
    try:
        until(lambda: httpx.get(f"{api.url}/health/ready").status_code == 200, READY_S)
        yield worker
    finally:
        worker.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            worker.wait(STOP_S)
        worker.kill()
        worker.wait()
