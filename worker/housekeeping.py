"""What any worker does for all: end expired leases, re-send lost hints, remove what nobody needs any more."""

import logging
import threading
import time
from collections.abc import Callable

from worker.ledger.ledger import Ledger
from worker.settings import WorkerSettings
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)


class Housekeeper:
    """A thread of the worker process, independent of its job and of the broker."""

    def __init__(
        self,
        settings: WorkerSettings,
        ledger: Ledger,
        supervisor: Supervisor,
        send_hint: Callable[[str, str], None],
        on_deaf: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._supervisor = supervisor
        self._send_hint = send_hint
        self._on_deaf = on_deaf
        self._unanswered = 0
        self._served_before = 0
        self._swept_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End within a moment; joins the thread."""
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stop.wait(self._settings.housekeeping_s):
            for chore in (self.reap, self.tend, self.reconcile, self.sweep_if_due):
                try:
                    chore()
                except Exception:  # a broker or database that is away: the next round tries again
                    log.warning("%s did not succeed", chore.__name__, exc_info=True)

    def reap(self) -> None:
        """End leases that ran out, after prolonging our own: a laptop that slept must not take its own job away."""
        self._supervisor.prolong()
        for job_id in self._ledger.reap():
            log.warning("the lease had expired", extra={"job_id": job_id})

    def tend(self) -> None:
        """Stop or remove the parts of divided jobs that nobody waits for."""
        self._ledger.tend()

    def reconcile(self) -> None:
        """While idle: one hint to whoever listens on our queues, for the first job that had none lately.

        Only an idle worker needs one, and it works until nothing waits, so hints cannot pile up behind busy ones. Hints
        that we send and never get mean that the connection to the broker is dead although nobody says so.
        """
        if self._supervisor.hints_served != self._served_before or self._supervisor.is_busy:
            self._served_before, self._unanswered = self._supervisor.hints_served, 0
        if self._supervisor.is_busy or self._supervisor.is_stopping:
            return
        waiting = self._ledger.undispatched(self._settings.redispatch_s, queues=self._settings.queue_names, limit=1)
        if not waiting:
            return
        if self._unanswered >= self._settings.deaf_after:
            log.error("%d hints were not answered: connecting to the broker anew", self._unanswered)
            self._unanswered = 0
            self._on_deaf()
        self._send_hint(waiting[0], self._settings.queue_names[0])
        self._unanswered += 1
        self._ledger.mark_dispatched(waiting[0])
        log.info("hint sent again", extra={"job_id": waiting[0]})

    def sweep_if_due(self) -> None:
        """Remove expired jobs and orphan bytes, now and then."""
        if time.monotonic() - self._swept_at < self._settings.sweep_s:
            return
        self._swept_at = time.monotonic()
        removed = self._ledger.sweep()
        if removed.files:
            log.info("swept %d files, %d bytes", removed.files, removed.bytes)
