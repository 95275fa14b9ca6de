"""The news that a job waits, for whichever worker listens. Only a hint: if it gets lost, the reconciler repeats it."""

import logging

from celery import Celery

from worker import ledger
from worker.ledger.broker import Broker

log = logging.getLogger(__name__)


class Hints:
    """A Celery producer by task name: this process has never heard of the task's code."""

    def __init__(self, broker: Broker) -> None:
        self.said = broker.said
        self._app = Celery("mononphm-api", set_as_current=False)
        self._app.conf.update(**broker.celery_config())

    def send(self, job_id: str, queue: str) -> bool:
        """Whether the broker took the hint. Never raises: the job is safe without it."""
        try:
            self._app.send_task(ledger.RECONSTRUCT, args=[job_id], queue=queue, ignore_result=True)
        except Exception as error:
            log.warning("no hint for %s: %s. The worker's reconciler will find it", job_id, type(error).__name__)
            return False
        return True

    def close(self) -> None:
        """Give the connections back."""
        self._app.close()
