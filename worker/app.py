"""The Celery app of a worker: a solo pool that never imports torch. Its messages are hints; the ledger is the truth."""

from typing import Any

from celery import Celery
from celery.signals import setup_logging

from worker.ledger.broker import Broker
from worker.ledger.ledger import RECONSTRUCT

app = Celery("mononphm", include=["worker.tasks"])


def configure(broker: Broker, queues: tuple[str, ...]) -> None:
    """Connect the app to its broker."""
    app.conf.update(**broker.celery_config(queues))


def send_hint(job_id: str, queue: str) -> None:
    """Tell whoever listens on `queue` that a job waits. Raises what the broker raises."""
    app.send_task(RECONSTRUCT, args=[job_id], queue=queue, ignore_result=True)


@setup_logging.connect  # type: ignore[untyped-decorator]
def _keep_our_logging(**_: Any) -> None:
    """A connected receiver is all that Celery needs to leave the loggers alone."""
