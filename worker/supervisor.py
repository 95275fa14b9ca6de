"""What a worker does with a job: claim, hand to the child, watch, settle. Never imports torch.

Three threads. The main one serves hints (Celery's solo pool runs tasks there). The *pulse* prolongs the lease whatever
the job does. The *housekeeper* ends other workers' expired leases, re-sends lost hints and sweeps. A live pulse must
not hide a hung kernel: the main thread watches for progress.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from worker import logs, memory
from worker.child import Child, ChildGone, Message
from worker.ledger import presence, tracing
from worker.ledger.errors import Cancelled, LeaseLost, StorageUnavailable, UnsealedArtifact
from worker.ledger.failure import Failure, failure_of, internal_failure, stalled, storage_unavailable, worker_lost
from worker.ledger.lease import Lease
from worker.ledger.ledger import Ledger
from worker.ledger.records import PartSpec
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

Result = TypeVar("Result")

TICK_S = 0.1
READY_POLL_S = 0.25
"""How soon the database hears that the child has its model loaded."""

DATABASE_PATIENCE_S = 60.0
"""How long a finished job waits for a database that does not answer."""


class Halt(str, Enum):
    """Why the supervisor stops a child that did not stop by itself."""

    CANCEL = "the user cancelled"
    LOST = "the lease was lost"
    SHUTDOWN = "the worker stops"
    STALLED = "no progress"
    NO_STORE = "the object store does not answer"


class _CalledOff(Exception):
    """Raised out of a transfer that is no longer wanted."""

    def __init__(self, halt: Halt) -> None:
        super().__init__(halt.value)
        self.halt = halt


@dataclass(frozen=True)
class Ending:
    """How an attempt ended: the child's last message, or None where it is gone; and why it was stopped, if it was."""

    last: Message | None
    halt: Halt | None
    description: str = ""
    stage: str | None = None

    @property
    def outcome(self) -> str:
        """In a word, for traces."""
        if self.halt is not None:
            return self.halt.value
        return str(self.last["kind"]) if self.last is not None else "the child is gone"


class Supervisor:
    """One worker's only job at a time, and the child that does it."""

    def __init__(self, settings: WorkerSettings, ledger: Ledger) -> None:
        self.settings = settings
        self.ledger = ledger
        self.name = settings.worker_name
        self.hints_served = 0
        self._child: Child | None = None
        self._rss_after_first_job: int | None = None
        self._stopping = threading.Event()
        self._stop_asked_at = 0.0
        self._ended = threading.Event()
        self._lease: Lease | None = None
        self._lease_lost = threading.Event()

    # ---------------------------------------------------------------- life of the worker

    def start(self) -> None:
        """Warm the child up and begin to give signs of life. On the main thread."""
        self._spawn()
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()

    def ask_to_stop(self) -> None:
        """Safe in a signal handler: no new job; the present one may end within the drain time or is given back."""
        self._stop_asked_at = time.monotonic()
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def is_busy(self) -> bool:
        return self._lease is not None

    def end(self) -> None:
        """Take leave: the child ends, and the worker's row goes."""
        self._stopping.set()
        self._ended.set()
        if self._child is not None:
            self._child.end(self.settings.term_grace_s)
            self._child = None
        self._patiently(lambda: self.ledger.worker_gone(self.name), 2.0)

    # ---------------------------------------------------------------- jobs

    def serve(self, hinted: str) -> None:
        """After a hint: work until no job waits. The ledger says whose turn it is, not the hint."""
        self.hints_served += 1
        while not self._stopping.is_set():
            lease = self._patiently(self._claim)
            if lease is None:
                return
            self.work(lease)

    def _claim(self) -> Lease | None:
        child = self._child
        spare = self.settings.memory_bytes or memory.spare_bytes(child.pid if child else None)
        warm = child.warm_models if child else frozenset()
        return self.ledger.claim(self.name, queues=self.settings.queue_names, warm=warm, memory_bytes=spare)

    def work(self, lease: Lease) -> None:
        """One attempt at one job, from the claimed lease to the state that follows."""
        context: dict[str, Any] = {"job_id": lease.job_id, "fence": lease.fence, "stage": None}
        token = logs.job_context.set(context)
        self._lease_lost.clear()
        self._lease = lease
        log.info("attempt %d begins", lease.order.attempt)
        try:
            with self._traced(lease) as told:
                ending = self._attend(lease, told)
                told.ended(ending.outcome, well=ending.outcome == "done")
            self._patiently(lambda: self._settle(lease, ending))
        except LeaseLost:
            log.warning("the lease was lost; what this attempt wrote is removed")
            self._patiently(lease.abandon)
        except SQLAlchemyError:
            log.exception("the database does not answer; the lease will expire and the job run again")
        except Exception as error:  # a full disk, a folder that cannot be made: this job's end, not the worker's
            failure = failure_of(error, "exporting")
            log.exception("the attempt could not be settled")
            self._patiently(lambda: lease.fail(failure))
        finally:
            self._lease = None
            self._retire_child_if_due()
            logs.job_context.reset(token)

    def _traced(self, lease: Lease) -> AbstractContextManager[tracing.AttemptTrace]:
        attempt, job = lease.order.attempt, lease.job
        facts: dict[str, str | int] = {"job_id": lease.job_id, "fence": lease.fence, "attempt": attempt}
        waited_since = job.created_at if attempt == 1 else None
        return tracing.attempt(job.traceparent, waited_since, worker=self.name, **facts)

    def _attend(self, lease: Lease, told: tracing.AttemptTrace) -> Ending:
        """Run the job in the child and stay with it until it is free again or gone."""
        child = self._child if self._child is not None and self._child.is_alive() else self._respawn()
        ending = self._until_ready(child, lease)
        if ending is not None:
            return ending
        workspace = str(lease.new_workspace())
        ending = self._bring_input(child, lease)
        if ending is not None:
            return ending
        child.uses(lease.order.options.model)
        child.send({"kind": "run", "fence": lease.fence, "workspace": workspace, "order": lease.order.to_json()})
        watch = Watch(self.settings, child, lease.fence)
        while True:
            try:
                message = child.receive(TICK_S)
            except ChildGone as gone:
                self._discard_child()
                log.warning("%s", gone)
                return Ending(None, watch.halt, str(gone), watch.stage)
            if message is not None and message["kind"] == "step":
                watch.moved(message)
                told.stage(message["stage"])
                self._report(lease, message)
            elif message is not None and message["kind"] in ("done", "failed", "cancelled"):
                return Ending(message, watch.halt, stage=watch.stage)
            watch.enforce(self._why_to_halt(lease, watch))

    def _bring_input(self, child: Child, lease: Lease) -> Ending | None:
        """Fetch the input; how the attempt ended, if it cannot be had or the job is no longer wanted."""
        watch = Watch(self.settings, child, lease.fence)

        def check() -> None:
            halt = self._wish_to_halt(lease, watch)
            if halt is not None:
                raise _CalledOff(halt)

        try:
            lease.bring_input(check)
        except _CalledOff as off:
            return Ending(None, off.halt, "its input was still on the way")
        except StorageUnavailable as error:
            log.warning("the input cannot be fetched: %s", error)
            return Ending(None, Halt.NO_STORE, str(error))
        return None

    def _why_to_halt(self, lease: Lease, watch: "Watch") -> Halt | None:
        return self._wish_to_halt(lease, watch) or (Halt.STALLED if watch.is_stalled() else None)

    def _wish_to_halt(self, lease: Lease, watch: "Watch") -> Halt | None:
        if self._lease_lost.is_set():
            return Halt.LOST
        if self._stopping.is_set() and time.monotonic() - self._stop_asked_at >= self.settings.drain_s:
            return Halt.SHUTDOWN
        if watch.halt is None and watch.poll_is_due():
            try:
                if lease.cancel_requested():
                    return Halt.CANCEL
            except LeaseLost:
                return Halt.LOST
            except SQLAlchemyError:
                log.warning("the database does not answer", exc_info=True)
        return None

    def _settle(self, lease: Lease, ending: Ending) -> None:
        """Write down what the ending means. Raises LeaseLost."""
        if ending.halt is Halt.LOST:
            raise LeaseLost(lease.job_id, lease.fence)
        if ending.halt is Halt.CANCEL:
            lease.cancelled()
        elif ending.last is not None and ending.last["kind"] == "done":
            self._publish(lease, ending.last["manifest"])
        elif ending.halt in (Halt.SHUTDOWN, Halt.NO_STORE):
            lease.release()
        elif ending.halt is Halt.STALLED:
            lease.try_again(stalled(self.settings.no_progress_s, ending.stage))
        elif ending.last is None:
            lease.try_again(worker_lost(lease.order.attempt, ending.stage, ending.description))
        elif ending.last["kind"] == "failed":
            self._fail(lease, Failure.from_json(ending.last["failure"]))
        else:  # "cancelled" that nobody asked for
            lease.try_again(worker_lost(lease.order.attempt, ending.stage, "the pipeline stopped without a reason"))
        log.info("attempt %d ended", lease.order.attempt)

    def _publish(self, lease: Lease, manifest: dict[str, Any]) -> None:
        try:
            if "parts" in manifest:
                lease.divide([PartSpec.from_json(part) for part in manifest["parts"]])
            else:
                lease.publish(manifest)
        except Cancelled:
            lease.cancelled()
        except UnsealedArtifact as error:
            lease.fail(internal_failure(error, "exporting"))
        except StorageUnavailable as error:
            log.error("the artifacts cannot be stored: %s", error)
            lease.try_again(storage_unavailable("exporting"))

    def _fail(self, lease: Lease, failure: Failure) -> None:
        """No memory is worth one more try, with a fresh child and a smaller budget; other failures stand."""
        if failure.code == "out_of_memory" and lease.order.previous_failure != failure.code:
            lease.try_again(failure)
        else:
            lease.fail(failure)

    def _report(self, lease: Lease, message: Message) -> None:
        context = logs.job_context.get()
        if context is not None:
            context["stage"] = message["stage"]
        try:
            lease.report(SimpleNamespace(**{name: message[name] for name in STEP_FIELDS}))
        except LeaseLost:
            self._lease_lost.set()
        except SQLAlchemyError:
            log.warning("progress could not be written down", exc_info=True)

    # ---------------------------------------------------------------- the child

    def _spawn(self) -> Child:
        self._child = Child(self.settings)
        self._rss_after_first_job = None
        log.info("child %d started", self._child.pid)
        return self._child

    def _until_ready(self, child: Child, lease: Lease) -> Ending | None:
        """Wait until the child has its model loaded; how the attempt ended, if that will not be or is no longer wanted.

        A child that was stopped is a while in coming back; a job that is cancelled meanwhile must not wait for it.
        """
        deadline = time.monotonic() + self.settings.child_start_s
        watch = Watch(self.settings, child, lease.fence)
        while not child.is_ready:
            halt = Halt.SHUTDOWN if self._stopping.is_set() else self._wish_to_halt(lease, watch)
            if halt is not None:
                return Ending(None, halt, "the compute process was still starting")
            try:
                child.receive(TICK_S)
            except ChildGone as gone:
                log.error("the child did not start: %s", gone)
                self._discard_child()
                return Ending(None, None, "the compute process could not start")
            if time.monotonic() > deadline:
                log.error("the child was not ready in time")
                self._discard_child()
                return Ending(None, None, "the compute process could not start")
        return None

    def _respawn(self) -> Child:
        self._discard_child()
        return self._spawn()

    def _discard_child(self) -> None:
        if self._child is not None:
            self._child.signal_group(signal.SIGKILL)
            self._child.end(self.settings.term_grace_s)
            self._child = None

    def _retire_child_if_due(self) -> None:
        """Between jobs: a child that was killed, is tainted or has grown too much gives way to a fresh one."""
        child = self._child
        if child is not None and child.is_alive() and not self._is_worn(child):
            return
        self._discard_child()
        if not self._stopping.is_set():
            self._spawn()

    def _is_worn(self, child: Child) -> bool:
        last = child.last_answer
        if last is None:
            return False
        if last.get("tainted"):
            return True
        if self._rss_after_first_job is None:
            self._rss_after_first_job = int(last["rss"])
        return int(last["rss"]) - self._rss_after_first_job > self.settings.child_rss_growth_bytes

    # ---------------------------------------------------------------- the other threads

    def _pulse(self) -> None:
        interval = min(self.settings.heartbeat_s, self.settings.lease_s / 3)
        due_at, was_ready = 0.0, False
        while not self._ended.wait(min(interval, READY_POLL_S)):
            child = self._child
            is_ready = child is not None and child.is_ready
            if time.monotonic() >= due_at or is_ready != was_ready:
                due_at, was_ready = time.monotonic() + interval, is_ready
                self.beat()

    def prolong(self) -> None:
        """Prolong the lease on the job at hand, if there is one."""
        lease = self._lease
        try:
            if lease is not None:
                lease.heartbeat()
        except LeaseLost:
            if lease is self._lease:
                self._lease_lost.set()
        except SQLAlchemyError:
            log.warning("the lease could not be prolonged", exc_info=True)

    def beat(self) -> None:
        """Prolong the lease, and say that this worker lives and what it has loaded."""
        self.prolong()
        lease, child = self._lease, self._child
        model = child.model if child is not None and child.is_ready and child.is_alive() else None
        info = {
            "queues": list(self.settings.queue_names),
            "busy": lease is not None,
            "child_ready": bool(child and child.is_ready and child.is_alive()),
            "presence": presence.here(),
        }
        try:
            self.ledger.worker_seen(self.name, model, info)
        except SQLAlchemyError:
            log.warning("the sign of life could not be written down", exc_info=True)

    def _patiently(self, write: Callable[[], Result], patience_s: float = DATABASE_PATIENCE_S) -> Result:
        """Do it again while the database does not answer."""
        deadline, pause = time.monotonic() + patience_s, 0.2
        while True:
            try:
                return write()
            except SQLAlchemyError:
                if time.monotonic() + pause > deadline:
                    raise
                log.warning("the database does not answer; trying again", exc_info=True)
                time.sleep(pause)
                pause = min(2 * pause, 5.0)


STEP_FIELDS = ("stage", "step", "total", "frames_done", "frames_total", "message")


class Watch:
    """Over one attempt: when it last moved, why it must stop, and how hard it was asked to so far."""

    def __init__(self, settings: WorkerSettings, child: Child, fence: int) -> None:
        self.halt: Halt | None = None
        self.stage: str | None = None
        self._settings = settings
        self._child = child
        self._fence = fence
        self._moved_at = self._polled_at = time.monotonic()
        self._ladder: Iterator[None] = iter(())
        self._next_rung_at = 0.0

    def moved(self, message: Message) -> None:
        """The child gave a sign of progress."""
        self._moved_at = time.monotonic()
        self.stage = message["stage"]

    def is_stalled(self) -> bool:
        return time.monotonic() - self._moved_at > self._settings.no_progress_s

    def poll_is_due(self) -> bool:
        """Whether to ask the database again; saying yes counts as having asked."""
        now = time.monotonic()
        if now - self._polled_at < self._settings.cancel_poll_s:
            return False
        self._polled_at = now
        return True

    def enforce(self, reason: Halt | None) -> None:
        """Begin to stop the child if there is a reason, and take stronger means when the last one did not help."""
        if reason is not None and self.halt is None:
            log.info("stopping the child: %s", reason.value)
            self.halt = reason
            self._ladder = self._climb()
            self._next_rung_at = 0.0
        elif reason is Halt.LOST:
            self.halt = Halt.LOST
        if self.halt is not None and time.monotonic() >= self._next_rung_at:
            next(self._ladder, None)

    def _climb(self) -> Iterator[None]:
        if self.halt is not Halt.STALLED:
            self._child.send({"kind": "cancel", "fence": self._fence})
            self._next_rung_at = time.monotonic() + self._settings.cancel_grace_s
            yield
        self._child.signal_group(signal.SIGTERM)
        self._next_rung_at = time.monotonic() + self._settings.term_grace_s
        yield
        self._child.signal_group(signal.SIGKILL)
        yield
