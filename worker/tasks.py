"""The one Celery task. It carries no work, only the news that there is some."""

from worker.app import app
from worker.ledger.failpoints import reach
from worker.ledger.ledger import RECONSTRUCT
from worker.supervisor import Supervisor

_supervisor: Supervisor | None = None


def use(supervisor: Supervisor) -> None:
    """Say who serves the hints of this process."""
    global _supervisor
    _supervisor = supervisor


@app.task(name=RECONSTRUCT, ignore_result=True)  # type: ignore[untyped-decorator]
def reconstruct(job_id: str) -> None:
    """A hint that a job waits, nothing more. The lease decides: a second hint finds it taken and leaves."""
    assert _supervisor is not None
    reach("ack.before")
    _supervisor.serve(job_id)
    reach("ack.after")
