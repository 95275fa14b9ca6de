"""A worker process: Celery's solo pool on the main thread, the child beside it. `python -m worker.main`."""

import logging
import os
import threading
import time
from typing import Any

from celery import signals
from celery.worker import state as celery_state

from worker import app as celery_app
from worker import logs, tasks
from worker.housekeeping import Housekeeper
from worker.ledger import tracing
from worker.ledger.broker import configured_broker
from worker.ledger.ledger import Ledger
from worker.ledger.store_settings import configured_storage
from worker.settings import WorkerSettings
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)

EX_TEMPFAIL = 75
"""Exit code that asks whoever started us to start us again."""

DEAF_GRACE_S = 30.0
RECONNECT_PAUSE_S = 1.0


def run_worker(settings: WorkerSettings) -> int:
    """Serve hints until SIGTERM or SIGINT; the exit code. On the main thread of its own process."""
    logs.configure(settings.log_level)
    tracing.begin("mononphm-worker")
    storage = configured_storage(settings.data_dir)
    ledger = Ledger(settings.database_url, settings.data_dir, storage=storage, lease_s=settings.lease_s)
    supervisor = Supervisor(settings, ledger)
    tasks.use(supervisor)
    keeper = Housekeeper(settings, ledger, supervisor, celery_app.send_hint, _reconnect)
    _stop_with_celery(supervisor)
    supervisor.start()
    keeper.start()
    try:
        while not supervisor.is_stopping:
            _consume(settings)
            if not supervisor.is_stopping:
                log.warning("the connection to the broker broke; making a new one")
                time.sleep(RECONNECT_PAUSE_S)
        return 0
    finally:
        keeper.stop()
        supervisor.end()
        ledger.close()


def _consume(settings: WorkerSettings) -> None:
    """Run one Celery worker until it stops: by a signal, or because its connection had to be made anew."""
    broker = configured_broker(settings.broker_url, settings.data_dir)
    celery_app.configure(broker, settings.queue_names)
    log.info("hints come by %s", broker.said)
    celery_state.should_stop = celery_state.should_terminate = None
    worker = celery_app.app.Worker(
        pool="solo",
        concurrency=1,
        queues=list(settings.queue_names),
        hostname=f"{settings.worker_name}@mononphm",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()  # returns after a signal, and after errors that it has logged


def _stop_with_celery(supervisor: Supervisor) -> None:
    """Celery owns SIGTERM and SIGINT; what it makes of them reaches the supervisor here."""

    def on_shutting_down(**_: Any) -> None:
        supervisor.ask_to_stop()

    signals.worker_shutting_down.connect(on_shutting_down, weak=False)


def _reconnect() -> None:
    """Have the consumer leave its loop, so that `_consume` runs again; if it is stuck, leave the process."""
    celery_state.should_stop = EX_TEMPFAIL
    stuck = threading.Timer(DEAF_GRACE_S, _leave_if_still_asked)
    stuck.daemon = True
    stuck.start()


def _leave_if_still_asked() -> None:
    if celery_state.should_stop == EX_TEMPFAIL:
        log.critical("the consumer does not leave its loop; leaving the process")
        os._exit(EX_TEMPFAIL)


if __name__ == "__main__":
    raise SystemExit(run_worker(WorkerSettings()))
