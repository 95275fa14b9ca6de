"""What an operator can set of a worker: environment variables `MONONPHM_<NAME>`, or arguments of `mononphm worker`."""

import os
import secrets
import socket
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.ledger.broker import GPU_QUEUE, QUEUE


def _fresh_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class WorkerSettings(BaseSettings):
    """Every leaf has a default that works on one machine without any server."""

    model_config = SettingsConfigDict(env_prefix="MONONPHM_", extra="ignore")

    data_dir: Path = Path("mononphm-data")
    """Inputs, artifacts, and the database and broker of the embedded default."""
    database_url: str | None = None
    """None: SQLite in the data directory. `postgresql+psycopg://…` for several machines."""
    broker_url: str | None = None
    """None: the filesystem transport in the data directory."""
    queues: str = f"{GPU_QUEUE},{QUEUE}"
    """Comma-separated: a queue for each thing that this worker can do, what it is there for first."""
    worker_name: str = Field(default_factory=_fresh_name)
    """Unique among the running workers."""

    pipeline: str = "worker.pipeline:run"
    """`module:function` that the child runs."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda[:i]`; `none` for a pipeline without tensors."""
    threads: int | None = Field(None, ge=1)
    """Of the child's tensor operations; None: torch's own choice."""

    memory_bytes: int | None = Field(None, gt=0)
    """Jobs that are expected to need more are left to others. None: what is free at that moment."""
    nice: int = Field(5, ge=0, le=19)
    """How much the child lets others go first, as of nice(1): the API beside it answers while all cores compute."""

    lease_s: float = Field(15.0, gt=0)
    """A worker that is silent for so long has lost its job."""
    heartbeat_s: float = Field(5.0, gt=0)
    housekeeping_s: float = Field(1.0, gt=0)
    """How often expired leases and lost hints are looked for."""
    sweep_s: float = Field(60.0, gt=0)
    """How often expired jobs and orphan bytes are removed."""
    redispatch_s: float = Field(3.0, gt=0)
    """A waiting job without a hint for so long gets another one."""
    deaf_after: int = Field(5, ge=2)
    """Hints to ourselves that may stay unanswered before the connection to the broker is made anew."""

    cancel_poll_s: float = Field(0.25, gt=0)
    cancel_grace_s: float = Field(1.25, ge=0)
    """How long the child may take to stop when asked, before SIGTERM ends it: the longest cancel of a step that does
    not look. The next job then waits for a fresh child."""
    term_grace_s: float = Field(1.0, ge=0)
    """How long after SIGTERM, before SIGKILL."""
    drain_s: float = Field(5.0, ge=0)
    """How long a stopping worker lets its job finish before it gives it back."""
    no_progress_s: float = Field(300.0, gt=0)
    """A child that reports no step for so long hangs."""
    child_start_s: float = Field(180.0, gt=0)
    """How long the child may take to import torch and load the model."""
    child_rss_growth_bytes: int = Field(4 << 30, gt=0)
    """Growth of the child's resident memory since its first job, after which a fresh one takes over."""

    log_level: str = "INFO"

    @property
    def queue_names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.queues.split(",") if name.strip())
