"""The replies that the client reads. Unknown fields are kept out of the way: a newer server may say more."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class Progress(_Reply):
    """How far a running job is; percent never goes back."""

    percent: float = 0.0
    step: int | None = None
    total: int | None = None
    frames_done: int | None = None
    frames_total: int | None = None


class JobError(_Reply):
    """Why a job failed."""

    code: str = "internal_error"
    title: str = ""
    detail: str = ""
    stage: str | None = None
    retryable: bool = False


class JobInput(_Reply):
    """The uploaded file as the server understood it."""

    filename: str | None = None
    media_type: str | None = None
    bytes: int | None = None
    sha256: str | None = None


class WebhookDelivery(_Reply):
    """Whether the receiver of the job's webhook has been told."""

    message_id: str = ""
    outcome: str = "waiting"
    """waiting | delivered | given_up"""
    attempts: int = 0
    next_attempt_at: datetime | None = None
    last_error: str | None = None


class Job(_Reply):
    """One reconstruction."""

    id: str
    state: str
    stage: str | None = None
    progress: Progress = Field(default_factory=Progress)
    queue_position: int | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    attempts: int = 0
    input: JobInput = Field(default_factory=JobInput)
    options: dict[str, Any] = Field(default_factory=dict)
    warnings: list[Any] = Field(default_factory=list)
    error: JobError | None = None
    webhook: WebhookDelivery | None = None

    @property
    def ended(self) -> bool:
        """True once the state can no longer change."""
        return self.state in TERMINAL

    @property
    def percent(self) -> float:
        """0..100; a queued job is at 0, an ended one at 100."""
        return 100.0 if self.state == "succeeded" else self.progress.percent

    def describe(self) -> str:
        """One line: where the job is."""
        if self.state == "queued":
            return f"queued, place {self.queue_position}" if self.queue_position else "queued"
        if self.state == "running":
            frames = self.progress.frames_total
            counted = f", frame {self.progress.frames_done or 0} of {frames}" if frames else ""
            return f"{self.stage or 'starting'}{counted}"
        return self.state


class JobPage(_Reply):
    """Some jobs, newest first, and where the next ones are."""

    items: list[Job] = Field(default_factory=list)
    next_cursor: str | None = None


class Artifact(_Reply):
    """One file of a succeeded job."""

    name: str
    role: str | None = None
    media_type: str | None = None
    bytes: int
    sha256: str
    href: str | None = None


class ArtifactList(_Reply):
    """All files of a job."""

    items: list[Artifact] = Field(default_factory=list)


class Problem(_Reply):
    """An RFC 9457 answer."""

    code: str = ""
    title: str = ""
    detail: str = ""
    status: int = 0
