"""Opening a job: what arrived is looked at, made durable and committed, and only then promised."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from service import animations
from service.addresses import NotPublic, target_of
from service.hints import Hints
from service.problems import Problem, field_errors, from_first_look, retry_after
from service.quotas import quotas_of, require_room
from service.settings import ServiceSettings
from service.tus import metadata_of
from service.uploads import Upload, UploadLimits, clean_filename
from worker import ledger
from worker.ledger import bundle
from worker.ledger.failpoints import reach
from worker.ledger.media import sniff
from worker.ledger.scheduling import expected_s, queue_for

log = logging.getLogger(__name__)

TYPICAL_JOB_S = 60.0
"""Service time of a job while none has been measured."""


@dataclass(frozen=True)
class Opened:
    """A promised job, and whether this request made it."""

    job: ledger.Job
    created: bool


class Jobs:
    """What the routes ask of the state of record. Every method blocks: call it in a thread."""

    def __init__(self, book: ledger.Ledger, hints: Hints, settings: ServiceSettings) -> None:
        self.book = book
        self.hints = hints
        self.settings = settings
        self.resumable = ledger.Uploads(book, settings.upload_lifetime_s)

    @property
    def upload_limits(self) -> UploadLimits:
        return UploadLimits(
            self.settings.max_upload_bytes, self.settings.free_space_reserve_bytes, self.settings.upload_idle_s
        )

    def new_staging(self) -> Path:
        """A place for an upload on its way in."""
        return self.book.storage.new_staging(ledger.new_id("up"))

    def check_room(self, owner: str | None) -> None:
        """Raise the 429 of an owner's quota and the 503 of a full queue, before anything is uploaded."""
        if owner is not None:
            require_room(quotas_of(self.book, self.settings, owner), self._seconds_per_job())
        counts = self.book.counts()
        if counts.queued >= self.settings.max_queued:
            seconds = self._seconds_per_job() / max(1, len(self.book.workers(self.settings.worker_fresh_s)))
            raise Problem(
                "queue_full",
                f"{counts.queued} jobs wait already, as many as are accepted. Come back after the Retry-After.",
                headers=retry_after(min(seconds, 3600.0)),
            )

    def open(self, upload: Upload, idempotency_key: str | None, owner: str) -> Opened:
        """Make the upload durable and commit the job. Raises Problem and LedgerError; then nothing is left behind."""
        options = parse_options(upload.options_json, self.settings.webhook_allow_private)
        facts = self._look(upload)
        storage = self.book.storage
        return self._open(
            lambda job_id: storage.accept_input(upload.path, job_id, upload.sha256),
            facts,
            options,
            idempotency_key,
            owner,
        )

    def open_resumable(self, upload_id: str, options_json: bytes, idempotency_key: str | None, owner: str) -> Opened:
        """The same for a resumable upload that is complete. Its bytes become the job's; it is spent."""
        options = parse_options(options_json, self.settings.webhook_allow_private)
        found = self.resumable.get(upload_id, owner)
        filename = clean_filename(metadata_of(found.metadata).get("filename"))
        if found.job_id is not None:
            return self._spent(found, filename, options, idempotency_key, owner)
        if not found.is_complete:
            raise Problem(
                "upload_incomplete",
                f"{found.offset} of {found.length} bytes have arrived. PATCH the rest, then send this again.",
            )
        path, storage = self.resumable.path(upload_id), self.book.storage
        with self.resumable.locked(upload_id):
            digest = ledger.sha256_of(path)
            facts = self._look(Upload(path, filename, found.length, digest, options_json))
            opened = self._open(
                lambda job_id: storage.adopt_input(path, job_id, digest), facts, options, idempotency_key, owner,
                lambda tx, job_id: self.resumable.use(tx, upload_id, job_id, digest),
            )  # fmt: skip
        if opened.created:
            path.unlink(missing_ok=True)
        return opened

    def open_animation(
        self, identity: ledger.Job, expressions: ledger.Job, options: dict[str, Any], key: str | None, owner: str
    ) -> Opened:
        """A job whose input is what is needed of two finished ones. Raises Problem and LedgerError."""
        wanted = parse_options(json.dumps(options).encode(), self.settings.webhook_allow_private)
        files = animations.files_of(self.book, identity, expressions)
        staged = self.new_staging()
        try:
            digest = animations.pack(self.book, files, staged, self.settings.free_space_reserve_bytes)
            name, size = f"{identity.id}+{expressions.id}.zip", staged.stat().st_size
            facts = ledger.InputFacts(name, bundle.MEDIA_TYPE, size, digest)
            return self._open(
                lambda job_id: self.book.storage.accept_input(staged, job_id, digest), facts, wanted, key, owner,
                kind="animation",
            )  # fmt: skip
        finally:
            staged.unlink(missing_ok=True)

    def _spent(
        self, found: ledger.Resumable, filename: str, options: ledger.ReconstructionOptions, key: str | None, owner: str
    ) -> Opened:
        """A repeated request finds its job by its Idempotency-Key. Otherwise raises UploadUsed, which names it."""
        assert found.sha256 is not None and found.job_id is not None
        facts = ledger.InputFacts(filename, "", found.length, found.sha256)
        earlier = self.book.find_idempotent(owner, key, facts, options) if key is not None else None
        if earlier is None:
            raise ledger.UploadUsed(found.id, found.job_id)
        return Opened(earlier, created=False)

    def _open(
        self,
        take: Callable[[str], object],
        facts: ledger.InputFacts,
        options: ledger.ReconstructionOptions,
        idempotency_key: str | None,
        owner: str,
        within: Callable[[sa.Connection, str], None] = lambda tx, job_id: None,
        kind: str = "reconstruction",
    ) -> Opened:
        job_id = ledger.new_job_id()
        try:
            take(job_id)
            job, created = self.book.open_job(
                job_id, facts, options, idempotency_key=idempotency_key, owner=owner,
                queue=queue_for(expected_s(options, facts), self.settings.gpu_from_s),
                kind=kind, within=lambda tx: within(tx, job_id),
            )  # fmt: skip
        except ledger.StorageUnavailable:
            raise  # what may have arrived all the same has no row: the janitor removes it
        except BaseException:
            self._take_back(job_id)
            raise
        if not created:
            self._take_back(job_id)
        if job.state is ledger.State.DELETED:
            raise ledger.JobDeleted(job.id)
        reach("accept.before_202")
        return Opened(job, created)

    def _take_back(self, job_id: str) -> None:
        """Remove an input that became no job; where the store is away, the janitor of a worker will."""
        try:
            self.book.storage.remove_job(job_id)
        except ledger.StorageUnavailable as error:
            log.warning("left to the janitor: %s", error)

    def hint(self, job: ledger.Job) -> None:
        """Tell the workers; a failure costs seconds, never the job."""
        reach("hint.before")
        if self.hints.send(job.id, job.queue):
            self.book.mark_dispatched(job.id)
        reach("hint.after")

    def ended_with(self, job: ledger.Job) -> Problem | None:
        """Why a job has no artifacts to hand out; None when it has."""
        if job.state is ledger.State.SUCCEEDED:
            return None
        advice = {
            ledger.State.FAILED: "It failed: `error` of the job says why. POST …/retry runs it again.",
            ledger.State.CANCELLED: "It was cancelled. POST …/retry runs it again.",
        }.get(job.state, "Wait until its state is succeeded; GET …/events tells.")
        return Problem("not_finished", f"The state of this job is {job.state.value}. {advice}", state=job.state.value)

    def clean_staging(self) -> int:
        """Remove staged bytes that nobody has touched for long; how many files."""
        removed = 0
        for path in self.book.storage.staging.iterdir():
            try:
                if time.time() - path.stat().st_mtime > self.settings.staging_max_age_s:
                    path.unlink()
                    removed += 1
            except FileNotFoundError:
                continue
        return removed + self.resumable.sweep()

    def _look(self, upload: Upload) -> ledger.InputFacts:
        """Refuse what can be seen to be unusable. Sizes stay open: only decoding knows them upright."""
        settings = self.settings
        try:
            media = sniff(
                upload.path, settings.max_pixels, settings.min_side_px, settings.max_aspect, settings.max_duration_s
            )
        except OSError:
            raise
        except Exception as error:
            raise from_first_look(error) from error
        kind = media.media_type
        if media.is_video and kind.startswith("image/"):
            log.info("%s moves: reconstructed as a clip", kind)
        return ledger.InputFacts(upload.filename, kind, upload.size, upload.sha256)

    def _seconds_per_job(self) -> float:
        done = self.book.list(state=ledger.State.SUCCEEDED, limit=5).jobs
        times = [
            (job.finished_at - job.started_at).total_seconds() for job in done if job.finished_at and job.started_at
        ]
        return sum(times) / len(times) if times else TYPICAL_JOB_S


def parse_options(raw: bytes, allow_private_webhooks: bool = False) -> ledger.ReconstructionOptions:
    """The options of a request. Raises the 422 that names each key that is wrong."""
    try:
        options = ledger.ReconstructionOptions.model_validate_json(raw or b"{}")
    except ValidationError as error:
        found = field_errors(error.errors(include_url=False, include_input=False, include_context=False), "options")
        said = "; ".join(f"{item['where']}: {item['message']}" for item in found[:3])
        raise Problem("invalid_options", f"{said}. Correct the options and submit again.", errors=found) from error
    if options.webhook_url is not None:
        _require_public(options.webhook_url, allow_private_webhooks)
    return options


def _require_public(url: str, allow_private: bool) -> None:
    """Raise the 422 of a webhook that could not be told anything. Its name is looked up when it is told, not here."""
    try:
        target_of(url, allow_private=allow_private)
    except NotPublic as error:
        raise Problem(
            "invalid_options",
            f"options.webhook_url: {error}. Correct it, or leave it out and follow GET …/events.",
            errors=[{"where": "options.webhook_url", "message": str(error)}],
        ) from None
