"""What the worker's tests share: jobs from scripts, files as a manifest describes them, a crew of processes."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from celery import Celery

from worker.ledger import RECONSTRUCT, InputFacts, Job, Ledger, ReconstructionOptions, State, new_job_id
from worker.ledger.broker import Broker

REPOSITORY = Path(__file__).parents[2]
LEASE_S = 1.5


def open_script(ledger: Ledger, script: dict[str, Any], *, options: dict[str, Any] | None = None, **more: Any) -> Job:
    job_id, content = new_job_id(), json.dumps(script).encode()
    staged = ledger.storage.new_staging(job_id)
    staged.write_bytes(content)
    ledger.storage.accept_input(staged, job_id)
    facts = InputFacts("clip.mp4", "video/mp4", len(content), hashlib.sha256(content).hexdigest())
    job, _ = ledger.open_job(job_id, facts, ReconstructionOptions.from_json(options or {}), **more)
    return job


def step(stage: str, number: int, total: int) -> SimpleNamespace:
    """A StepReport as the ledger sees it."""
    return SimpleNamespace(
        stage=stage, step=number, total=total, frames_done=number, frames_total=total, message="working"
    )


def written(workspace: Path, name: str, content: bytes) -> dict[str, Any]:
    """Write a file into a workspace and describe it as a manifest does."""
    path = workspace / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    described = {"name": name, "role": "test", "media_type": "application/octet-stream", "bytes": len(content)}
    return {**described, "sha256": hashlib.sha256(content).hexdigest()}


def path_of(ledger: Ledger, job: Job, name: str) -> Path:
    """Where a published file lies in a local folder."""
    found = ledger.artifact(job.id, name)
    assert found is not None
    return ledger.storage.artifact_path(found.job_id, found.fence, found.name)


class Crew:
    """Workers as real processes around one ledger and one broker."""

    def __init__(self, ledger: Ledger, broker: Broker, data_dir: Path) -> None:
        self.ledger = ledger
        self.broker = broker
        self.data_dir = data_dir
        self.journal = data_dir / "journal.txt"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.restart_broker: Callable[[], None] | None = None
        self._sender = Celery("sender", set_as_current=False)
        self._sender.conf.update(**broker.celery_config())

    def hire(self, **settings: object) -> subprocess.Popen[bytes]:
        """Start one more worker."""
        quick = {
            "data_dir": self.data_dir, "database_url": self.ledger.engine.url.render_as_string(hide_password=False),
            "pipeline": "tiny_pipeline:run", "device": "none", "lease_s": LEASE_S,
            "heartbeat_s": 0.4, "housekeeping_s": 0.2, "redispatch_s": 0.4, "cancel_poll_s": 0.1, "cancel_grace_s": 0.6,
            "term_grace_s": 0.4, "drain_s": 0.3, "no_progress_s": 20, "worker_name": f"worker-{len(self.workers)}",
            "memory_bytes": 1 << 40, "nice": 0,
        }  # fmt: skip
        if not self.broker.url.startswith("filesystem:"):
            quick["broker_url"] = self.broker.url
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MONONPHM_")}
        environment |= {f"MONONPHM_{name.upper()}": str(value) for name, value in (quick | settings).items()}
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(REPOSITORY), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        )
        environment["TINY_JOURNAL"] = str(self.journal)
        log = (self.data_dir / f"worker-{len(self.workers)}.log").open("wb")
        worker = subprocess.Popen([sys.executable, "-m", "worker.main"], env=environment, stderr=log, stdout=log)
        log.close()
        self.workers.append(worker)
        return worker

    def hint(self, job: Job) -> None:
        """What the service does after it has committed a job: a hint that cannot be sent is no reason to fail."""
        with suppress(Exception):
            self._sender.send_task(RECONSTRUCT, args=[job.id], ignore_result=True)
            self.ledger.mark_dispatched(job.id)

    def submit(self, **script: Any) -> Job:
        """A job with its hint."""
        job = open_script(self.ledger, script)
        self.hint(job)
        return job

    def wait(self, job: Job, *states: State, within_s: float = 20.0) -> Job:
        """Until the job is in one of these states; the log of the workers if it never is."""
        return self.until(
            lambda: next((now for now in [self.ledger.get(job.id)] if now.state in states), None), within_s
        )

    def wait_for_progress(self, job: Job) -> Job:
        return self.until(lambda: next((now for now in [self.ledger.get(job.id)] if now.percent > 0), None))

    def until(self, condition: Callable[[], Any], within_s: float = 20.0) -> Any:
        """The first true value of the condition."""
        deadline = time.monotonic() + within_s
        while not (value := condition()):
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text() for path in sorted(self.data_dir.glob("worker-*.log")))
                raise AssertionError(f"waited {within_s} s in vain; the workers' logs:\n{logs[-6000:]}")
            time.sleep(0.03)
        return value

    def children_of(self, worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """The model child (and what it started) of a worker."""
        return psutil.Process(worker.pid).children(recursive=True)

    def attempts(self, job: Job, what: str = "ends") -> list[int]:
        """From the journal outside the system: the attempts that began, or came to their end."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == job.id and line.split()[3] == what]

    def dismiss(self) -> None:
        """End every worker, whatever state it is in."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait()
        self._sender.close()
