"""The right to work on one job, for a while. Every write names its fence: once it moved on, nothing is written."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa

from worker.ledger import family, schema
from worker.ledger.errors import Cancelled, LeaseLost, StorageUnavailable
from worker.ledger.failpoints import reach
from worker.ledger.failure import Failure
from worker.ledger.options import ReconstructionOptions
from worker.ledger.order import Order
from worker.ledger.progress import overall_percent, stages_of
from worker.ledger.records import Job, PartSpec, job_of
from worker.ledger.states import State

if TYPE_CHECKING:
    from worker.ledger.ledger import Ledger

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 0.5
"""At most two progress events a second."""


class StepLike(Protocol):
    """The fields of mononphm_core.types.StepReport; said again because the ledger must not import torch."""

    @property
    def stage(self) -> Any: ...
    @property
    def step(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def frames_done(self) -> int: ...
    @property
    def frames_total(self) -> int: ...
    @property
    def message(self) -> str: ...


class Lease:
    """One attempt at one job. Methods raise LeaseLost once the fence moved on; safe from several threads."""

    def __init__(self, ledger: "Ledger", job: Job, worker: str, previous_failure: str | None) -> None:
        assert job.input is not None and job.options is not None
        self.ledger = ledger
        self.job_id = job.id
        self.fence = job.fence
        self.worker = worker
        self.job = job
        self.order = Order(
            job_id=job.id, input_path=ledger.storage.attempt_input(job.id, job.fence, job.whole_id),
            filename=job.input.filename, media_type=job.input.media_type, sha256=job.input.sha256,
            options=job.options, attempt=job.attempts, previous_failure=previous_failure, part=job.part,
        )  # fmt: skip
        self._needed: Mapping[tuple[int, int], str] = {}
        self._stages = stages_of(job.options.stages)
        self._lock = threading.Lock()
        self._pending: StepLike | None = None
        self._reported_at = 0.0
        self._reported_stage: str | None = None

    def new_workspace(self) -> Path:
        """An empty directory for this attempt."""
        workspace = self.ledger.storage.new_workspace(self.job_id, self.fence)
        with self.ledger.reading() as tx:
            self._needed = family.needed(tx, self.job)
        if self._needed:
            self.order = replace(self.order, materials=workspace / "materials")
        return workspace

    def bring_input(self, check: Callable[[], None]) -> None:
        """Have the input, and the results of parts that are worked on, where the order says they are.

        After `new_workspace`. Raises StorageUnavailable, and whatever `check` does.
        """
        storage = self.ledger.storage
        storage.bring_input(self.job_id, self.fence, self.order.sha256, check, self.job.whole_id)
        for (round_, number), part_id in self._needed.items():
            assert self.order.materials is not None
            for artifact in self.ledger.artifacts(part_id):
                check()
                storage.bring_artifact(artifact, self.order.materials / f"{round_}.{number}" / artifact.name, check)

    def heartbeat(self) -> None:
        """Prolong the lease, and write down the progress that the throttle held back."""
        table = schema.jobs
        with self.ledger.writing() as tx:
            until = self.ledger.now(tx) + timedelta(seconds=self.ledger.lease_s)
            if tx.execute(table.update().where(*self._mine()).values(lease_until=until)).rowcount != 1:
                raise LeaseLost(self.job_id, self.fence)
        with self._lock:
            pending = self._pending
        if pending is not None:
            self._write_report(pending)

    def cancel_requested(self) -> bool:
        """Whether the user asked to stop; raises LeaseLost where the job is no longer ours at all."""
        query = sa.select(schema.jobs.c.state).where(*self._mine())
        with self.ledger.reading() as tx:
            state = tx.execute(query).scalar_one_or_none()
        if state is None:
            raise LeaseLost(self.job_id, self.fence)
        return bool(state == State.CANCELLING.value)

    def report(self, step: StepLike) -> None:
        """Write down how far the work is: at once for a new stage, else at most twice a second."""
        stage = _stage_name(step)
        with self._lock:
            self._pending = step
            due = time.monotonic() - self._reported_at >= REPORT_INTERVAL_S or stage != self._reported_stage
        if due:
            self._write_report(step)

    def publish(self, manifest: dict[str, Any]) -> None:
        """Bring the artifacts to the disk, then make them the job's result with one fenced update.

        Raises LeaseLost, UnsealedArtifact, StorageUnavailable, and Cancelled when the user asked to stop meanwhile.
        """
        self._still_wanted()  # before any file is touched: a lost lease may belong to a published attempt
        reach("publish.before_seal")
        listed = list(manifest.get("artifacts", []))
        sealed = self.ledger.storage.seal(self.job_id, self.fence, listed, self._wanted_now_and_then())
        with self.ledger.writing() as tx:
            job = self._held(tx)
            if job.state is State.CANCELLING:
                raise Cancelled(self.job_id)
            rows = [
                {
                    "job_id": self.job_id, "name": item.name, "position": position, "fence": self.fence,
                    "role": item.role, "media_type": item.media_type, "bytes": item.bytes, "sha256": item.sha256,
                }
                for position, item in enumerate(sealed)
            ]  # fmt: skip
            if rows:
                tx.execute(schema.artifacts.insert(), rows)
            for item in sealed:
                data = {
                    "name": item.name,
                    "role": item.role,
                    "media_type": item.media_type,
                    "bytes": item.bytes,
                    "sha256": item.sha256,
                }
                self.ledger.append_event(tx, self.job_id, "artifact", data)
            warnings = [str(sentence) for sentence in manifest.get("warnings", [])]
            for sentence in warnings:
                self.ledger.append_event(tx, self.job_id, "warning", {"message": sentence})
            self.ledger.close_attempt(tx, job, "succeeded")
            values = {"percent": 100.0, "published_fence": self.fence, "lease_until": None, "warnings": warnings}
            self.ledger.move(tx, job, State.SUCCEEDED, **values, **_learnt(job, manifest))
            reach("publish.before_commit")
        reach("publish.after_commit")
        self._clean_up(self._drop_others)

    def divide(self, parts: Sequence[PartSpec]) -> None:
        """The next round of the work is for other jobs, the parts; this one waits for them without a lease.

        Raises LeaseLost, and Cancelled when the user asked to stop meanwhile.
        """
        with self.ledger.writing() as tx:
            job = self._held(tx)
            if job.state is State.CANCELLING:
                raise Cancelled(self.job_id)
            family.divide(self.ledger, tx, job, parts)
        self._clean_up(self._drop_mine)

    def fail(self, failure: Failure) -> State:
        """The job ends here, unless the user has asked to cancel it: then that is what it did. The new state."""
        return self._end("failed", failure, again=False)

    def try_again(self, failure: Failure) -> State:
        """The attempt gave no answer (a crash, no memory): the next one, or failed after the last. The new state."""
        return self._end("crashed", failure, again=True)

    def cancelled(self) -> None:
        """The device is free again: what was `cancelling` is now `cancelled`."""
        with self.ledger.writing() as tx:
            job = self._held(tx)
            self.ledger.close_attempt(tx, job, "cancelled")
            self.ledger.move(tx, job, State.CANCELLED, lease_until=None, worker=None)
        self._clean_up(self._drop_mine)

    def release(self) -> None:
        """Give the job back untouched (the worker shuts down); the attempt does not count."""
        with self.ledger.writing() as tx:
            job = self._held(tx)
            self.ledger.close_attempt(tx, job, "released")
            idle = {"lease_until": None, "worker": None}
            if job.state is State.CANCELLING:
                self.ledger.move(tx, job, State.CANCELLED, **idle)
            else:
                self.ledger.move(tx, job, State.QUEUED, attempts=job.attempts - 1, dispatched_at=None, **idle)
        self._clean_up(self._drop_mine)

    def abandon(self) -> None:
        """Remove what a lost attempt wrote, unless it was published after all (a commit whose answer got lost)."""
        query = sa.select(schema.jobs.c.published_fence).where(schema.jobs.c.id == self.job_id)
        with self.ledger.reading() as tx:
            published = tx.execute(query).scalar_one_or_none()
        if published != self.fence:
            self._clean_up(self._drop_mine)

    def _end(self, outcome: str, failure: Failure, again: bool) -> State:
        with self.ledger.writing() as tx:
            state = self.ledger.end_attempt(tx, self._held(tx), outcome, failure, again=again)
        self._clean_up(self._drop_mine)
        return state

    def _still_wanted(self) -> None:
        if self.cancel_requested():
            raise Cancelled(self.job_id)

    def _wanted_now_and_then(self) -> Callable[[], None]:
        """`_still_wanted`, asked of the database twice a second at most; one that does not answer is no reason."""
        asked_at = time.monotonic()

        def check() -> None:
            nonlocal asked_at
            if time.monotonic() - asked_at >= REPORT_INTERVAL_S:
                asked_at = time.monotonic()
                try:
                    self._still_wanted()
                except sa.exc.SQLAlchemyError:
                    log.warning("the database does not answer", exc_info=True)

        return check

    def _drop_mine(self) -> None:
        self.ledger.storage.discard_attempt(self.job_id, self.fence)

    def _drop_others(self) -> None:
        storage = self.ledger.storage
        storage.tidy(self.job_id, self.fence)
        for fence in storage.attempts(self.job_id):
            if fence < self.fence:
                storage.discard_attempt(self.job_id, fence)

    def _clean_up(self, removal: Callable[[], None]) -> None:
        """After the commit: a store that is away now changes nothing of what was decided; the janitor comes again."""
        try:
            removal()
        except StorageUnavailable as error:
            log.warning("left to the janitor: %s", error)

    def _mine(self) -> tuple[sa.ColumnElement[bool], ...]:
        table = schema.jobs
        active = table.c.state.in_([State.RUNNING.value, State.CANCELLING.value])
        return table.c.id == self.job_id, table.c.fence == self.fence, active

    def _held(self, tx: sa.Connection) -> Job:
        """The job, locked, if this lease still holds it."""
        row = tx.execute(sa.select(schema.jobs).where(*self._mine()).with_for_update()).one_or_none()
        if row is None:
            raise LeaseLost(self.job_id, self.fence)
        return job_of(row)

    def _write_report(self, step: StepLike) -> None:
        stage = _stage_name(step)
        with self.ledger.writing() as tx:
            job = self._held(tx)
            percent = round(max(job.percent, min(overall_percent(stage, step.step, step.total, self._stages), 99.9)), 2)
            values = {
                "stage": stage, "percent": percent, "step": step.step, "total": step.total,
                "frames_done": step.frames_done, "frames_total": step.frames_total,
            }  # fmt: skip
            tx.execute(schema.jobs.update().where(*self._mine()).values(values))
            self.ledger.append_event(tx, self.job_id, "progress", {**values, "message": step.message})
            family.report(self.ledger, tx, job)
        with self._lock:
            self._reported_at, self._reported_stage = time.monotonic(), stage
            if self._pending is step:
                self._pending = None


def _stage_name(step: StepLike) -> str:
    return str(getattr(step.stage, "value", step.stage))


def _learnt(job: Job, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the pipeline found out and the job should say: the model, the counted frames, the options it really used."""
    learnt: dict[str, Any] = {}
    if isinstance(manifest.get("model"), dict):
        learnt["model"] = {name: manifest["model"].get(name) for name in ("name", "version", "sha256", "licence")}
    if isinstance(manifest.get("input"), dict) and job.input is not None:
        learnt["input"] = job.input.completed_by(manifest["input"]).to_json()
    if isinstance(manifest.get("options"), dict):
        try:
            learnt["resolved_options"] = ReconstructionOptions.from_json(manifest["options"]).to_json()
        except ValueError:
            log.warning("the manifest of %s echoes options that are none of ours", job.id)
    return learnt
